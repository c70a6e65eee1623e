"""`leadml models backtest`: the figures a model would have had at past dates."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from leadml_pipelines.commands.common import DEFAULT_HOME, Home
from leadml_pipelines.commands.models import models

if TYPE_CHECKING:
    from rich.table import Table

    from leadml_pipelines.learning.evaluation.backtest import Cut
    from leadml_pipelines.learning.spec import ModelSpec
    from leadml_pipelines.learning.training_set import TrainingSet
    from leadml_pipelines.settings import Settings


@models.command("backtest")
def backtest_model(
    name: Annotated[str, typer.Argument(help="Name of a model, as in conversion.")],
    home: Home = DEFAULT_HOME,
    cuts: Annotated[int, typer.Option(min=1, max=100, help="How many past dates.")] = 4,
    every: Annotated[str, typer.Option(help="How far apart they are, as in 30d or 2w.")] = "30d",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build the rows from the newest extract first.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table; progress is not shown.")
    ] = False,
) -> None:
    """Train at past dates with what was known then, and measure on the time after each."""
    from rich.console import Console

    from leadml_pipelines.demo.bars import bar, bars
    from leadml_pipelines.learning.evaluation.backtest import backtest, backtest_document
    from leadml_pipelines.learning.specs import declared
    from leadml_pipelines.learning.training_set import build_from_newest_extract
    from leadml_pipelines.settings import Settings
    from leadml_pipelines.times import parse_duration

    try:
        period = parse_duration(every)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from error
    settings = Settings(home=home)
    spec = declared(settings, name)
    console = Console(quiet=as_json)
    with bars(console) as progress, bar(progress, f"backtest of {name}") as report:
        rows = (
            build_from_newest_extract(spec, settings, report) if rebuild else _saved(spec, settings)
        )
        found = backtest(
            spec,
            rows,
            cuts=cuts,
            every=period,
            seed=settings.seed,
            threads=settings.training_threads,
            device=settings.device,
            progress=report,
        )
    if as_json:
        sys.stdout.write(json.dumps(backtest_document(spec, found), indent=2) + "\n")
        return
    console.print(_table(spec, found))
    console.print("below each figure: its 95 % interval", highlight=False)
    for cut in found:
        if cut.skipped:
            console.print(f"{cut.at:%Y-%m-%d}: {cut.skipped}", soft_wrap=True, highlight=False)


def _saved(spec: ModelSpec, settings: Settings) -> TrainingSet:
    """The rows that were saved last, if they are those of the declaration."""
    from leadml_pipelines.errors import UserError
    from leadml_pipelines.features.saved_sets import NoSavedSetError
    from leadml_pipelines.learning.training_set import latest_training_set

    try:
        return latest_training_set(settings.training_sets, spec)
    except NoSavedSetError as error:
        raise UserError(f"{error}, or build the rows now with --rebuild") from error


def _table(spec: ModelSpec, found: list[Cut]) -> Table:
    """A line per cut, narrow enough for a terminal of 80 columns."""
    from rich import box
    from rich.table import Table

    from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text

    def cell(figures: Mapping[str, Mapping[str, float]] | None, metric: str) -> str:
        one = (figures or {}).get(metric)
        if one is None:
            return ""
        value, low, high = (metric_text(metric, one[key]) for key in ("value", "low", "high"))
        return f"{value}\n{low}–{high}"

    classes = spec.objective == "classification"
    beside, heading = (
        ("ece", "calibration error") if classes else ("total_ratio", "predicted / actual sum")
    )
    table = Table(
        title=f"{spec.name}, trained on what was known at each date (UTC)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    names = (METRIC_NAMES[spec.metric], "linear model", "heuristic", heading)
    for name in ("known until", "asked until", *names):
        table.add_column(name, min_width=11)
    for cut in found:
        table.add_row(
            f"{cut.at:%Y-%m-%d}\n{cut.train_rows:,} rows",
            f"{cut.until:%Y-%m-%d}\n{cut.rows:,} rows",
            *(cell(side, spec.metric) for side in (cut.model, cut.logistic, cut.heuristic)),
            cell(cut.model, beside),
        )
    return table
