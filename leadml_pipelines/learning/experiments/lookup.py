"""Which experiment is asked for, and its report from the log of predictions and the outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.experiments.comparison import compare
from leadml_pipelines.learning.experiments.report import Experiment
from leadml_pipelines.learning.logged_predictions import count_predictions, logged_predictions
from leadml_pipelines.learning.outcomes import with_outcomes
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.learning.spine import Engine


class ExperimentError(UserError, LookupError):
    """There is no experiment to report of."""


class Record(Protocol):
    """What has to be known of a registered model."""

    @property
    def model_id(self) -> str:
        """Its id."""


class Registry(Protocol):
    """Who knows the models."""

    def alias(self, name: str, alias: str) -> Record | None:
        """The model that an alias points to."""

    def models(self, name: str | None = None) -> Sequence[Record]:
        """All models of a name."""


def challenger_of(
    registry: Registry, specs: Mapping[str, ModelSpec], name: str, model_id: str | None = None
) -> tuple[ModelSpec, str]:
    """The declaration of a model, and the challenger whose experiment is asked for.

    Args:
        registry: Knows who challenges.
        specs: The models by name.
        name: Name of the model.
        model_id: An earlier challenger; None for that of now.

    Raises:
        ExperimentError: there is no such model, or it has no challenger.
    """
    if name not in specs:
        raise ExperimentError(f"there is no model {name}; the models are {', '.join(specs)}")
    if model_id is not None:
        if all(record.model_id != model_id for record in registry.models(name)):
            raise ExperimentError(f"{model_id} is no registered version of {name}")
        return specs[name], model_id
    challenger = registry.alias(name, "challenger")
    if challenger is None:
        raise ExperimentError(
            f"{name} has no challenger; `leadml models challenge MODEL_ID --share 0.1` begins an "
            "experiment, and --challenger MODEL_ID asks for an earlier one"
        )
    return specs[name], challenger.model_id


def examine_experiment(
    url: str,
    spec: ModelSpec,
    experiment: str,
    engine: Engine,
    data_end: datetime,
    not_comparable: Mapping[str, str],
    *,
    seed: int = 7,
) -> Experiment:
    """Report of an experiment from the log of predictions and what came true since.

    Args:
        url: PostgreSQL, migrated.
        spec: Declares the model.
        experiment: The challenger's model id.
        engine: Has the tables that the label reads.
        data_end: Up to when these tables tell what happened.
        not_comparable: Of model ids, why they are not to be judged by today's label (see
            `questions.other_questions`).
        seed: Of the draws.

    Raises:
        SpecError: the label's SQL does not answer with one value for each row.
    """
    rows = logged_predictions(url, spec.name, experiment=experiment, first_of_day=True)
    told = with_outcomes(rows, spec, engine, data_end)
    counts = count_predictions(url, spec.name, experiment)
    return compare(spec, told, counts, data_end, not_comparable, seed=seed)
