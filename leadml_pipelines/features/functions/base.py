"""What a feature function is, and the register of all that are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar, dataclass_transform

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.phrase import Phrase
from leadml_pipelines.features.view import Dimension, Feature, FeatureDefinitionError, FeatureType
from leadml_pipelines.features.view import Value as FeatureValue

Column = Any
"""A column of the DataFrame API; SQLFrame brings no type hints that mypy could follow."""


class FunctionSpecError(UserError, ValueError):
    """A spec of a feature function that means nothing; the sentence names what and offers more."""


@dataclass(frozen=True, kw_only=True)
class FeatureFunction(ABC):
    """A way to compute one feature. Instances are plain data: making one costs nothing.

    Attributes:
        name: Name of the feature; made of the arguments if empty.
        description: What its value means; made of the arguments if empty.
        dimension: Dimension of the lead score that the feature belongs to.
    """

    function: ClassVar[str] = ""
    """Name in specs; the decorator sets it."""
    type: ClassVar[FeatureType] = "double"
    unit: ClassVar[str] = ""
    low: ClassVar[float | None] = None
    high: ClassVar[float | None] = None

    name: str = ""
    description: str = ""
    dimension: Dimension = "engagement"

    @property
    @abstractmethod
    def derived_name(self) -> str:
        """`<what>_<how>_<window>`, from the arguments."""

    @property
    @abstractmethod
    def derived_description(self) -> str:
        """What the value means, in one sentence, from the arguments."""

    @property
    def default(self) -> FeatureValue:
        """Value of an entity about which nothing is known; None means missing."""
        return None

    @property
    def derived_phrase(self) -> Phrase | None:
        """How predictions speak of its value, from the arguments; None: by a phrase of its name."""
        return None

    @property
    def feature(self) -> Feature:
        """The feature that it computes.

        Raises:
            FeatureDefinitionError: the name or another part can't be one of a feature.
        """
        return Feature(
            self.name or self.derived_name,
            self.type,
            self.unit,
            self.low,
            self.high,
            self.default,
            self.description or self.derived_description,
            self.dimension,
            phrase=self.derived_phrase,
        )

    @abstractmethod
    def value(self, columns: Mapping[str, Column]) -> Column:
        """The feature as an expression.

        Args:
            columns: What the kind of function reads, by name.
        """

    def arguments(self) -> dict[str, Any]:
        """The arguments that are not at their defaults."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != _default(field)
        }

    def definition(self) -> str:
        """Python text that makes this function, to paste into a view."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())
        return f"{type(self).__name__}({arguments})"

    def spec(self) -> dict[str, Any]:
        """The same as JSON, for `from_spec`."""
        given = {name: _plain(value) for name, value in self.arguments().items()}
        return {"function": self.function, **given}

    @classmethod
    def check_spec(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Turn the arguments of a spec into those of the class; lists become tuples.

        Raises:
            FunctionSpecError: an argument is unknown or of a wrong type.
        """
        known = {field.name: field for field in fields(cls)}
        for name in arguments:
            if name not in known:
                near = get_close_matches(name, known, n=2) or sorted(known)
                raise FunctionSpecError(
                    f"{cls.function} has no argument {name}; did you mean {' or '.join(near)}?"
                )
        needed = [n for n, field in known.items() if _default(field) is MISSING]
        if missing := [name for name in needed if name not in arguments]:
            raise FunctionSpecError(f"{cls.function} needs {', '.join(missing)}")
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in arguments.items()
        }


def _plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses as objects of what is not at its default."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: _plain(own) for field, own in pairs if own != _default(field)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


FUNCTIONS: dict[str, type[FeatureFunction]] = {}
"""Every function that was imported, by its name in specs."""

AnyFunction = TypeVar("AnyFunction", bound=type[FeatureFunction])


@dataclass_transform(kw_only_default=True, frozen_default=True)
def feature_function(name: str) -> Callable[[AnyFunction], AnyFunction]:
    """Register a class as a feature function; its annotated fields become keyword arguments.

    Args:
        name: Name in specs, in lower case.

    Raises:
        FeatureDefinitionError: the class has no docstring, or the name is another function's.
    """

    def register(cls: AnyFunction) -> AnyFunction:
        # `dataclass` would write a docstring of its own where there is none.
        if not (cls.__doc__ or "").strip():
            raise FeatureDefinitionError(
                f"the feature function {name} has no docstring; say what it computes"
            )
        made: AnyFunction = dataclass(frozen=True, kw_only=True)(cls)  # type: ignore[assignment]
        before = FUNCTIONS.get(name)
        if before is not None and (before.__module__, before.__qualname__) != (
            made.__module__,
            made.__qualname__,
        ):
            raise FeatureDefinitionError(
                f"there are two feature functions named {name}, in {before.__module__} and "
                f"{made.__module__}"
            )
        made.function = name
        FUNCTIONS[name] = made
        return made

    return register


def from_spec(spec: Mapping[str, Any]) -> FeatureFunction:
    """Read a function from JSON.

    Args:
        spec: As in `{"function": "count", "event_type": "email_open", "window": "14d"}`.

    Raises:
        FunctionSpecError: no such function or argument, or a value that means nothing.
    """
    name = spec.get("function")
    if not isinstance(name, str) or name not in FUNCTIONS:
        near = get_close_matches(str(name), FUNCTIONS, n=3) or sorted(FUNCTIONS)
        raise FunctionSpecError(
            f"there is no feature function {name!r}; did you mean {' or '.join(near)}?"
        )
    cls = FUNCTIONS[name]
    arguments = cls.check_spec({key: value for key, value in spec.items() if key != "function"})
    try:
        made = cls(**arguments)
        _ = made.feature
    except (TypeError, ValueError) as error:
        raise FunctionSpecError(f"{name}: {error}") from error
    return made
