"""How far an extract tells: no row of a spine may lie after that."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from leadml_pipelines.features.frames import SpineError
from leadml_pipelines.times import to_micros

if TYPE_CHECKING:
    import numpy as np


class ExtractLike(Protocol):
    """What the store needs to know of the extract that its engine reads."""

    @property
    def extract_id(self) -> str:
        """Name of the extract."""
        ...

    @property
    def as_of(self) -> datetime:
        """The moment up to which it tells everything."""
        ...

    @property
    def data_end(self) -> datetime:
        """Up to when it tells what happened."""
        ...


def require_told(extract: ExtractLike, moments: np.ndarray) -> None:
    """Refuse rows after the extract: what was known then is not in it.

    Args:
        extract: What the engine reads.
        moments: The rows' times in microseconds, int64[n].

    Raises:
        SpineError: some are later than the extract.
    """
    late = int((moments > to_micros(extract.as_of)).sum())
    if late:
        raise SpineError(
            f"{late} of {len(moments)} rows of the spine lie after "
            f"{extract.as_of.isoformat()}, up to when the extract "
            f"{extract.extract_id} tells what was known; leave them out, or materialize "
            "the sources again"
        )
