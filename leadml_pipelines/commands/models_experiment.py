"""`leadml models experiment`: which of two models does better on those it answered for."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from leadml_pipelines.commands.common import DEFAULT_HOME, Home, postgres, terminal
from leadml_pipelines.commands.models import AsJson, Name, models

if TYPE_CHECKING:
    from rich.console import Console

    from leadml_pipelines.learning.experiments.report import Experiment


@models.command("experiment")
def show_experiment(
    name: Name,
    home: Home = DEFAULT_HOME,
    challenger: Annotated[
        str | None, typer.Option(help="Id of an earlier challenger; that of now if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare champion and challenger by the outcomes that have come in since."""
    from leadml_pipelines.features.bulk import bulk_engine
    from leadml_pipelines.learning.experiments.lookup import (
        challenger_of,
        examine_experiment,
    )
    from leadml_pipelines.learning.questions import other_questions
    from leadml_pipelines.learning.registry.registry import Registry
    from leadml_pipelines.learning.specs import specs
    from leadml_pipelines.settings import Settings
    from leadml_pipelines.sources.extract import latest_extract

    with postgres(home) as url:
        settings = Settings()
        registry = Registry.of(settings, url)
        spec, model_id = challenger_of(registry, specs(settings), name, challenger)
        extract = latest_extract(settings.extracts)
        with bulk_engine(extract, settings) as engine:
            report = examine_experiment(
                url,
                spec,
                model_id,
                engine,
                extract.data_end,
                other_questions(spec, registry.models(name), settings.training_sets),
                seed=settings.seed,
            )
    if as_json:
        sys.stdout.write(json.dumps(report.document(), indent=2, ensure_ascii=False) + "\n")
    else:
        print_experiment(report, terminal())


def print_experiment(report: Experiment, console: Console) -> None:
    """Show an experiment: what each model did, its figures, and what to make of it."""
    from rich.table import Table

    from leadml_pipelines.learning.evaluation.metric_names import (
        METRIC_NAMES,
        metric_text,
        range_text,
    )
    from leadml_pipelines.learning.experiments.posterior import OUTCOME
    from leadml_pipelines.learning.served_versions import versions_text

    arms = [arm for arm in (report.champion, report.challenger) if arm is not None]
    table = Table("", *(f"{arm.role}\n{versions_text(arm.versions)}" for arm in arms))
    table.add_row("predictions", *(f"{arm.predictions:,}" for arm in arms))
    table.add_row("entities", *(f"{arm.entities:,}" for arm in arms))
    table.add_row("entities with known outcome", *(f"{arm.known_entities:,}" for arm in arms))
    names = {**METRIC_NAMES, OUTCOME: "mean outcome"}
    for metric, title in names.items():
        figures = [arm.figures.get(metric) for arm in arms]
        if any(figures):
            cells = [
                f"{metric_text(metric, f['value'])} ({range_text(metric, f['low'], f['high'])})"
                if f
                else "undefined"
                for f in figures
            ]
            table.add_row(title + (" *" if metric == report.metric else ""), *cells)
    console.print(table)
    console.print("in brackets: 95 % intervals; *: the two are compared by it", soft_wrap=True)
    console.print(f"outcomes are known up to {report.data_end:%Y-%m-%d %H:%M} UTC", soft_wrap=True)
    console.print(report.verdict, soft_wrap=True, highlight=False)
