"""Features computed from what comes with a request, not from what is stored.

In a training set a request's data are columns of the spine, so that the same function serves both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from leadml_pipelines.errors import UserError
from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.features.view import FeatureDefinitionError, FeatureType

if TYPE_CHECKING:
    import pandas as pd

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TYPES: dict[str, Any] = {
    "double": "float64",
    "integer": "Int64",
    "boolean": "boolean",
    "category": "object",
}


class RequestDataError(UserError, ValueError):
    """What a request feature needs is missing, or what it gives can't be used."""


@dataclass(frozen=True)
class RequestFeature:
    """A feature that is a function of a request's data.

    Attributes:
        name: As of any feature: lower-case words joined by `_`.
        type: `double`, `integer`, `boolean` or `category`.
        inputs: The columns it needs; in a training set, of the spine. No value may be missing.
        function: From one series per input, by name, to the values.
        description: What the value means, in one sentence.
    """

    name: str
    type: FeatureType
    inputs: tuple[str, ...]
    function: Callable[..., Any]
    description: str

    def __post_init__(self) -> None:
        """Refuse a declaration without name, type, inputs or meaning."""
        if not _NAME.fullmatch(self.name) or len(self.name) > 63:
            raise FeatureDefinitionError(
                f"feature name {self.name!r} must be lower-case words joined by _, at most 63 "
                "characters"
            )
        if self.type not in get_args(FeatureType):
            raise FeatureDefinitionError(
                f"feature {self.name} has type {self.type!r}; use one of "
                f"{', '.join(get_args(FeatureType))}"
            )
        if not self.inputs or not self.description.strip():
            raise FeatureDefinitionError(
                f"request feature {self.name} needs inputs and a description"
            )


def request_values(feature: RequestFeature, data: pd.DataFrame) -> pd.Series:
    """A request feature's values for rows of data, with their index and the declared type.

    Raises:
        SpineError: an input is no column of the data.
        RequestDataError: an input is missing in some rows, or the function did not give one value
            of the declared type for each row.
    """
    import pandas as pd

    for name in feature.inputs:
        if list(data.columns).count(name) != 1:
            raise SpineError(
                f"feature {feature.name} is computed from {name}, which is no column of the spine"
            )
        missing = int(data[name].isna().sum())
        if missing:
            raise RequestDataError(
                f"feature {feature.name} is computed from {name}, which is missing in {missing} of "
                f"{len(data)} rows; give every row a value"
            )
    values = feature.function(**{name: data[name] for name in feature.inputs})
    if not pd.api.types.is_scalar(values) and len(values) != len(data):
        raise RequestDataError(
            f"feature {feature.name} gave {len(values)} values for {len(data)} rows"
        )
    try:
        series = pd.Series(values, index=data.index)
        if feature.type == "category":
            texts = [None if pd.isna(value) else str(value) for value in series]
            series = pd.Series(texts, index=data.index, dtype=object)
        return series.astype(_TYPES[feature.type]).rename(feature.name)
    except (TypeError, ValueError) as error:
        raise RequestDataError(
            f"feature {feature.name} is declared {feature.type}, but its function gave values that "
            f"can't become that: {error}"
        ) from error
