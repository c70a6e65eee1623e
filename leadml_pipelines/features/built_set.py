"""A finished training set, and what it follows from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leadml_pipelines.features.frames import SpineError


@dataclass(frozen=True)
class TrainingSet:
    """A finished training set.

    Attributes:
        frame: The spine's rows, order, index and columns, then the features as they were asked for,
            then the label, if SQL answered it. An Arrow table if the spine was one.
        features: Names of the feature columns.
        label: Name of the label's column; empty if there is none.
        definition: What it follows from, but for the spine's content.
        facts: Where it came from: `origin` (the extract), `data_end`, rows.
    """

    frame: Any
    features: tuple[str, ...]
    label: str
    definition: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def x(self) -> Any:
        """The features."""
        names = list(self.features)
        # What both frames and Arrow tables understand.
        return (
            self.frame.filter(names) if hasattr(self.frame, "index") else self.frame.select(names)
        )

    @property
    def y(self) -> Any:
        """The label.

        Raises:
            SpineError: the set was built without one.
        """
        if not self.label:
            raise SpineError("this training set has no label; name one: label=...")
        return self.frame[self.label]
