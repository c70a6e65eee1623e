"""Which registered versions of a model were trained for another question than that of today.

A question is a label, how far it looks ahead, and about whom it is asked. An outcome answers the
question of today; a version that was trained for another one can't be judged by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from leadml_pipelines.features.saved_sets import list_sets
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.times import duration_text


class Trained(Protocol):
    """What a registered version says of the question that it was trained for."""

    @property
    def model_id(self) -> str:
        """Its id."""

    @property
    def horizon(self) -> timedelta:
        """How far it looks ahead."""

    @property
    def spec_hash(self) -> str:
        """Hash of its declaration."""

    @property
    def training_set_hash(self) -> str:
        """Hash of its rows, and of what they follow from."""


def other_questions(
    spec: ModelSpec, versions: Iterable[Trained], training_sets: Path
) -> dict[str, str]:
    """The versions that were trained for another question, and what is different.

    Label and population of a version are those of the definition of its training set, which is part
    of the set's hash. Where the set is not there any more, and the horizon is the same, nothing is
    known to be different.

    Args:
        spec: The model's declaration of today.
        versions: Registered versions of the model.
        training_sets: Folder of the training sets.

    Returns:
        By model id, as in `its horizon is 30d, now it is 60d`.
    """
    unlike = [version for version in versions if version.spec_hash != spec.hash]
    definitions = (
        {saved.hash: saved.definition for saved in list_sets(training_sets, spec.name)}
        if unlike
        else {}
    )
    told = {
        version.model_id: _difference(spec, version, definitions.get(version.training_set_hash, {}))
        for version in unlike
    }
    return {model_id: difference for model_id, difference in told.items() if difference}


def refused_text(refused: Mapping[str, str]) -> str:
    """Versions that are not judged in words, as in `churn_1 (its horizon is 30d) and 2 more`.

    Args:
        refused: Why, by model id; at least one.
    """
    model_id, why = next(iter(refused.items()))
    more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    return f"{model_id} ({why}){more}"


def _difference(spec: ModelSpec, version: Trained, definition: Mapping[str, Any]) -> str:
    if version.horizon != spec.horizon:
        return (
            f"its horizon is {duration_text(version.horizon)}, now it is "
            f"{duration_text(spec.horizon)}"
        )
    for name, now in {"label": spec.label, "population": spec.population}.items():
        # Where a line breaks does not matter.
        if str(definition.get(name, now)).split() != now.split():
            return f"its {name} was declared otherwise"
    return ""
