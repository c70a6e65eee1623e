"""What is known of an experiment: both sides, how they differ, what to make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from leadml_pipelines.learning.experiments.posterior import Figure
from leadml_pipelines.learning.registry.model_records import json_ready
from leadml_pipelines.learning.served_versions import ServedVersion


@dataclass(frozen=True)
class Arm:
    """What one of the two sides did.

    Attributes:
        model_id: The model; of several champions the newest.
        versions: All that were in this role, by their first prediction.
        role: What it was in the experiment: champion or challenger.
        predictions: Predictions that a lot gave it.
        entities: Entities that these were about.
        rows: The first prediction of each entity and day whose outcome is known; the figures are
            of these.
        known_entities: Entities among them.
        positives: Rows among them whose label is over 0.
        figures: Each metric, and `outcome`, with its interval; undefined ones are absent.
    """

    model_id: str
    versions: tuple[ServedVersion, ...]
    role: str
    predictions: int
    entities: int
    rows: int
    known_entities: int
    positives: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Experiment:
    """What is known by now.

    Attributes:
        name: Name of the model.
        metric: The metric by which the two are compared: that of its declaration, but for `ece`.
        champion: One side; None while it has no prediction.
        challenger: The other side, likewise.
        first_at: The first prediction of the experiment; None if there is none.
        last_at: The last one.
        data_end: Up to when outcomes are known.
        differences: Challenger minus champion, by metric.
        chance_better: Probability that the challenger's metric is the better one; None while a side
            has no figure.
        needed: Entities with a known outcome that each side needs, about.
        not_comparable: By model id, why a version is not compared: it was trained for another
            question than today's.
        left_out: Rows that do not count because at their time one side was such a version.
        verdict: What to make of it, in plain words.
    """

    name: str
    metric: str
    champion: Arm | None
    challenger: Arm | None
    first_at: datetime | None
    last_at: datetime | None
    data_end: datetime
    differences: Mapping[str, Figure]
    chance_better: float | None
    needed: int
    not_comparable: Mapping[str, str]
    left_out: int
    verdict: str

    def document(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        document: dict[str, Any] = json_ready(asdict(self))
        return document
