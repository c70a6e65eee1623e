from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def embedded_only() -> Iterator[None]:
    """Hide the servers that the environment names: these tests are about the embedded ones."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("LEADML_")]:
            patch.delenv(variable)
        yield
