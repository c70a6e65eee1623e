"""Models that other packages declare, found by their entry points."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from leadml_pipelines.learning.spec import ModelSpec, SpecError

GROUP = "leadml.models"
"""The entry point group: each entry names one `ModelSpec`."""


def installed_specs() -> Iterator[tuple[str, ModelSpec]]:
    """The models of all installed packages that declare some, ordered by the names of the entries.

    Yields:
        Who declares it, as a message names him, and the declaration.

    Raises:
        SpecError: an entry can't be loaded or is no `ModelSpec`; the sentence names the package.
    """
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    for point in points:
        yield _package(point), _spec_of(point)


def _spec_of(point: EntryPoint) -> ModelSpec:
    declared = f"the model {point.value} of {_package(point)} (entry {point.name} of {GROUP})"
    try:
        loaded = point.load()
    # Whatever a stranger's module raises when it is imported: it is named, and raised again.
    except Exception as error:
        raise SpecError(
            f"{declared} can't be loaded ({type(error).__name__}: {error}); "
            "mend the package or uninstall it"
        ) from error
    if not isinstance(loaded, ModelSpec):
        raise SpecError(
            f"{declared} is a {type(loaded).__name__}; it must be a ModelSpec of "
            "leadml_pipelines.learning.spec. Mend the package or uninstall it"
        )
    return loaded


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist else f"the module {point.module}"
