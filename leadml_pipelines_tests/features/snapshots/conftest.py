"""What the tests of snapshots share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_snapshots(no_snapshots: str) -> None:
    """No test leaves a snapshot behind."""
