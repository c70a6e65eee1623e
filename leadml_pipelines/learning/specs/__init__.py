"""The declared models: each file in this folder with a `SPEC`, and what other packages declare."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from leadml_pipelines.learning.plugins import installed_specs
from leadml_pipelines.learning.spec import ModelSpec, SpecError

if TYPE_CHECKING:
    from leadml_pipelines.settings import Settings


def _declared() -> dict[str, ModelSpec]:
    found: dict[str, ModelSpec] = {}
    declared_by: dict[str, str] = {}
    for module in sorted(iter_modules(__path__), key=lambda m: m.name):
        spec: ModelSpec = import_module(f"{__name__}.{module.name}").SPEC
        if spec.name in found:
            raise SpecError(f"{module.name}.py declares {spec.name}, which another file declares")
        found[spec.name] = spec
        declared_by[spec.name] = "LeadML"
    for who, spec in installed_specs():
        if spec.name in found:
            raise SpecError(
                f"{who} declares a model {spec.name}, and {declared_by[spec.name]} declares one of "
                "that name too; give it another name, or uninstall the package"
            )
        found[spec.name] = spec
        declared_by[spec.name] = who
    return found


SPECS: dict[str, ModelSpec] = _declared()
"""Every model as declared, by name; our own first."""


def specs(settings: Settings) -> dict[str, ModelSpec]:
    """Every model by name, with the changes of `[models.<name>]` in the settings.

    Raises:
        SpecError: the settings change a model that is not declared.
    """
    unknown = sorted(set(settings.models) - set(SPECS))
    if unknown:
        raise SpecError(
            f"[models.{unknown[0]}] in the settings names no model; "
            f"the models are {', '.join(SPECS)}"
        )
    return {
        name: spec.with_overrides(settings.models[name]) if name in settings.models else spec
        for name, spec in SPECS.items()
    }


def declared(settings: Settings, name: str) -> ModelSpec:
    """One model by name, with the changes of the settings.

    Raises:
        SpecError: there is no such model; the message lists those that there are.
    """
    every = specs(settings)
    if name not in every:
        raise SpecError(f"there is no model {name}; the models are {', '.join(every)}")
    return every[name]
