"""`leadml models train`: train one model, or several, from the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from leadml_pipelines.commands.common import DEFAULT_HOME, Home, postgres, terminal
from leadml_pipelines.commands.models import models

if TYPE_CHECKING:
    from rich.console import Console

    from leadml_pipelines.learning.spec import ModelSpec
    from leadml_pipelines.learning.training_set import TrainingSet
    from leadml_pipelines.settings import Settings

BY = "leadml models train"
"""Who began a training, in the record of trainings."""


@models.command("train")
def train_models(
    names: Annotated[list[str], typer.Argument(help="Models to train, such as churn.")],
    home: Home = DEFAULT_HOME,
    tuner: Annotated[
        Literal["grid", "optuna"] | None, typer.Option(help="How parameters are searched.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Most combinations that optuna tries.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="When optuna stops even so.")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build the training set anew from the newest extract.")
    ] = False,
) -> None:
    """Train, examine and register; what passes its gate can then be promoted.

    Ctrl-C ends it within seconds and registers nothing; a search by optuna goes on where it was
    when the same command is given again.
    """
    from leadml_pipelines.demo.bars import bar, bars
    from leadml_pipelines.learning.registry.registry import Registry
    from leadml_pipelines.learning.spec import SpecError
    from leadml_pipelines.learning.specs import specs
    from leadml_pipelines.learning.training.train import journal_of, train
    from leadml_pipelines.monitoring.trainings import recorded_training
    from leadml_pipelines.settings import ModelOverrides, Settings

    console = terminal()
    with postgres(home) as url:
        settings = Settings()
        declared = specs(settings)
        for name in names:
            if name not in declared:
                raise SpecError(f"there is no model {name}; the models are {', '.join(declared)}")
        given = ModelOverrides(tuner=tuner, tuning_trials=trials, tuning_seconds=seconds)
        registry = Registry.of(settings, url)
        with bars(console) as progress:
            for name in names:
                spec = declared[name].with_overrides(given)
                with recorded_training(url, name, BY) as training:
                    with bar(progress, name) as tell:
                        rows = _training_set(spec, settings, rebuild, progress.console)
                        trained = train(
                            spec,
                            rows,
                            seed=settings.seed,
                            threads=settings.training_threads,
                            device=settings.device,
                            progress=tell,
                            journal=journal_of(settings.tuning, spec, rows, settings.seed),
                        )
                    record = registry.register(trained)
                    training.outcome = "succeeded" if record.passed_gate else "rejected"
                verdict = "passed its gate" if record.passed_gate else "[red]was rejected[/]"
                progress.console.print(f"{record.model_id} {verdict} ({record.seconds:.0f} s)")
                for reason in record.gate_reasons:
                    progress.console.print(f"  {escape(reason)}", highlight=False)


def _training_set(
    spec: ModelSpec, settings: Settings, rebuild: bool, console: Console
) -> TrainingSet:
    """The newest saved one of this declaration, or one that is built from the newest extract."""
    from leadml_pipelines.features.saved_sets import NoSavedSetError
    from leadml_pipelines.learning.training_set import (
        OtherDeclarationError,
        build_from_newest_extract,
        latest_training_set,
        save_training_set,
    )

    root: Path = settings.training_sets
    if not rebuild:
        try:
            return latest_training_set(root, spec)
        except OtherDeclarationError:
            console.print(
                f"the saved rows of {spec.name} are of another declaration; building them anew",
                highlight=False,
            )
        except NoSavedSetError:
            # Not an error here: the rows can be built now.
            pass
    save_training_set(build_from_newest_extract(spec, settings), root)
    return latest_training_set(root, spec)
