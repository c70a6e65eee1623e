"""For each declared model: its training set, its newest candidate, and its champion."""

from typing import TYPE_CHECKING

import dagster as dg

from leadml_pipelines.assets.metadata import plain, rows
from leadml_pipelines.assets.progress import live_progress
from leadml_pipelines.learning.specs import SPECS
from leadml_pipelines.resources.connections import (
    PostgresResource,
    RedisResource,
    SettingsResource,
    registry,
)
from leadml_pipelines.sources.contract import TABLES

if TYPE_CHECKING:
    from leadml_pipelines.learning.registry.registry import Registry

TUNER_TAG = "leadml/tuner"
"""Tag of a job or run: how its models are searched where no setting says so."""


class TrainingConfig(dg.Config):
    """What one run changes in a model's search, over everything else that says so.

    Attributes:
        hyperparameter_tuning: Whether parameters are searched.
        tuner: `grid` or `optuna`.
        tuning_trials: Most combinations that optuna tries.
        tuning_seconds: When optuna stops even so.
    """

    hyperparameter_tuning: bool | None = None
    tuner: str | None = None
    tuning_trials: int | None = None
    tuning_seconds: float | None = None


def training_set_asset(name: str) -> dg.AssetsDefinition:
    """The asset that builds a model's training set from the newest extract."""

    @dg.asset(
        name=f"{name}_training_set",
        description=f"Point-in-time features and known labels for {name}.",
        group_name="training",
        kinds={"duckdb", "parquet"},
        deps=[*TABLES, "graph_metrics"],
        pool="duckdb",
    )
    def asset(
        context: dg.AssetExecutionContext, postgres: PostgresResource, settings: SettingsResource
    ) -> dg.MaterializeResult:
        from leadml_pipelines.learning.specs import specs
        from leadml_pipelines.learning.training_set import (
            build_from_newest_extract,
            save_training_set,
        )
        from leadml_pipelines.monitoring.trainings import recorded_training

        config = settings.load()
        with recorded_training(postgres.url, name, "dagster", context.run.run_id) as training:
            built = build_from_newest_extract(specs(config)[name], config)
            saved = save_training_set(built, config.training_sets)
            # Rows are no training yet; without them there is none, and that is a failed one.
            training.outcome = None
        context.log.info("%d rows, %d labels not known yet", saved.rows, saved.unknown_labels)
        return dg.MaterializeResult(
            metadata=rows(
                saved.rows,
                hash=saved.hash,
                extract=built.origin,
                unknown_labels=saved.unknown_labels,
                positives=saved.positives,
            )
        )

    return asset


def model_asset(name: str) -> dg.AssetsDefinition:
    """The asset that trains a candidate, tests it on the newest data and registers it."""

    @dg.asset(
        name=f"{name}_model",
        description=SPECS[name].description,
        group_name="models",
        kinds={"xgboost", "postgres"},
        deps=[f"{name}_training_set"],
        pool="training",
        check_specs=[
            dg.AssetCheckSpec(
                "passes_gate",
                asset=f"{name}_model",
                description="better than its floor and the heuristic, not worse than the champion, "
                "calibrated, without a slice below its floor",
            )
        ],
    )
    def asset(
        context: dg.AssetExecutionContext,
        config: TrainingConfig,
        postgres: PostgresResource,
        settings: SettingsResource,
    ) -> dg.MaterializeResult:
        from leadml_pipelines.learning.evaluation.card import self_contained
        from leadml_pipelines.learning.specs import specs
        from leadml_pipelines.learning.training.train import journal_of, train
        from leadml_pipelines.learning.training_set import latest_training_set
        from leadml_pipelines.monitoring.trainings import recorded_training
        from leadml_pipelines.settings import ModelOverrides

        house = settings.load()
        spec = specs(house)[name]
        wanted = context.run.tags.get(TUNER_TAG)
        if wanted and (name not in house.models or house.models[name].tuner is None):
            spec = spec.with_overrides(ModelOverrides.model_validate({"tuner": wanted}))
        spec = spec.with_overrides(ModelOverrides.model_validate(config.model_dump()))
        with recorded_training(postgres.url, name, "dagster", context.run.run_id) as training:
            training_set = latest_training_set(house.training_sets, spec)
            trained = train(
                spec,
                training_set,
                seed=house.seed,
                threads=house.training_threads,
                device=house.device,
                journal=journal_of(house.tuning, spec, training_set, house.seed),
                progress=live_progress(context),
            )
            context.log.info("examining on %d newer rows", len(trained.test))
            models = registry(postgres, settings)
            examined, compared_with = models.examine(trained)
            record = models.store(trained, examined, compared_with)
            training.outcome = "succeeded" if record.passed_gate else "rejected"
        figures = {m: v for m, v in record.metrics.items() if isinstance(v, int | float)}
        return dg.MaterializeResult(
            metadata={
                "card": dg.MetadataValue.md(self_contained(examined.card)),
                **plain(
                    {
                        "model_id": record.model_id,
                        "seconds": record.seconds,
                        "gate": list(record.gate_reasons),
                        # Numbers of their own, so that Dagster draws them over time.
                        **figures,
                    }
                ),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="passes_gate",
                    passed=record.passed_gate,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata=plain({"reasons": list(record.gate_reasons)}),
                )
            ],
        )

    return asset


def champion_asset(name: str) -> dg.AssetsDefinition:
    """The asset that promotes the newest candidate if it passed its gate."""

    @dg.asset(
        name=f"{name}_champion",
        description=f"The {name} model in production.",
        group_name="models",
        kinds={"postgres"},
        deps=[f"{name}_model"],
    )
    def asset(
        context: dg.AssetExecutionContext,
        postgres: PostgresResource,
        redis: RedisResource,
        settings: SettingsResource,
    ) -> dg.MaterializeResult:
        from leadml_pipelines.learning.registry.promotion_rules import (
            PROGRAM,
            PromotionRefusedError,
        )

        models = registry(postgres, settings)
        candidate = models.newest(name)
        remarks = list(candidate.gate_reasons)
        if candidate.passed_gate and not settings.load().auto_promote:
            remarks.append("not promoted: LEADML_AUTO_PROMOTE is off; a person does it")
        elif candidate.passed_gate:
            try:
                models.promote(candidate.model_id, by=PROGRAM, automatic=True)
            except PromotionRefusedError as error:
                context.log.warning("not promoted: %s", error)
                remarks.append(f"not promoted: {error}")
        champion = models.champion(name)
        if champion is None:
            raise dg.Failure(
                f"{candidate.model_id} did not become champion ({'; '.join(remarks)}) "
                f"and there is no earlier {name} model to keep"
            )
        return dg.MaterializeResult(
            metadata=plain(
                {
                    "model_id": champion.model_id,
                    "promoted": champion.model_id == candidate.model_id,
                    "reasons": remarks,
                    "online": publish_if_there(context, models, redis, name),
                }
            )
        )

    return asset


def publish_if_there(
    context: dg.AssetExecutionContext, models: "Registry", redis: RedisResource, name: str
) -> bool:
    """Point Redis to the models of a name at once; where Redis is away, the sensor does it later.

    Returns:
        Whether serving was told.
    """
    from redis import RedisError

    from leadml_pipelines.online.publish_models import publish_roles

    try:
        with redis.model_pointers() as pointers:
            publish_roles(pointers, models, [name])
    except RedisError as error:
        context.log.warning(
            "Redis can't be reached (%s); promoted_model_sensor publishes %s when it is back",
            type(error).__name__,
            name,
        )
        return False
    return True


training_set_assets = [training_set_asset(name) for name in SPECS]
model_assets = [model_asset(name) for name in SPECS]
champion_assets = [champion_asset(name) for name in SPECS]
