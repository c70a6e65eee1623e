"""How well our model tells real leads apart, beside others that learn from the same rows.

    python benchmarks/quality.py --data FOLDER
    python benchmarks/quality.py --data FOLDER --budget 120 --times 1h 24h 72h 168h \
        --flaml-python /path/to/flaml/bin/python

FOLDER holds the BPI Challenge 2012 log as two tables, cases.parquet and events.parquet. It goes
the product's way: import by `examples/bpi2012/mapping.toml` into a PostgreSQL of its own, extract,
features as of each moment by DuckDB (the built-in views and the one in `examples/bpi2012`),
training set, `train()`. Everything lies in a temporary folder, which is gone at the end.

The setting is that of the published floors: the oldest 80 % of the cases teach and the newest 20 %
examine; at each time after submission only cases count that are still open then; the target is
whether the loan is activated at any time up to the end of the log. So there is no horizon, and no
gap between training and test as long as one: labels of training cases may have come true during the
test. (The trainer still leaves out training rows whose moment lies in the test.)

Every model learns from all times at once and is examined at each. `--budget` is what our whole
training may take, in seconds: the search gets three quarters of it. FLAML then gets as long as our
training took. FLAML lives in an environment of its own (with pandas, pyarrow and `flaml[automl]`),
for it pins other versions; without it its column is left out. Intervals are 95 % of a bootstrap
over leads, differences are paired.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from leadml_pipelines.learning.spec import ModelSpec
    from leadml_pipelines.learning.training.train import TrainedModel
    from leadml_pipelines.learning.training_set import TrainingSet

EXAMPLE = Path(__file__).parents[1] / "examples" / "bpi2012"
FLOORS = {"1h": 0.727, "24h": 0.698, "72h": 0.668, "168h": 0.708}
"""ROC AUC of an untuned LightGBM in the same setting, as published with the data."""
TEST_SHARE = 0.2
SEARCH_SHARE = 0.75
"""Of the budget: the fits after the search (validation, blend, final) take about the rest."""

LABEL = """
    SELECT m.row_id, count(p.policy_id) > 0 AS label
    FROM moments m
    LEFT JOIN policies p ON p.lead_id = m.entity_id AND p.bound_at > m.as_of
    GROUP BY m.row_id
"""
"""As in the spec, without an end: activated at any time that the log shows."""


@dataclass(frozen=True)
class Answers:
    """What a model says of the test rows.

    Attributes:
        name: Name of the model.
        scores: float64[n].
        seconds: How long it took to train.
        note: What it is, in a few words.
    """

    name: str
    scores: np.ndarray
    seconds: float
    note: str = ""


def own_views() -> tuple[Any, ...]:
    """The views of the example's package, installed or not."""
    found = importlib.util.spec_from_file_location("loan_features", EXAMPLE / "loan_features.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    views: tuple[Any, ...] = module.VIEWS
    return views


def training_rows(data: Path, home: Path, spec: ModelSpec, threads: int | None) -> TrainingSet:
    """Import, extract, features as of each moment."""
    from leadml_pipelines.deployment import Deployment
    from leadml_pipelines.features.catalogue import Catalogue
    from leadml_pipelines.features.engines import DuckDBEngine
    from leadml_pipelines.features.views import BUILT_IN
    from leadml_pipelines.learning.training_set import build_training_set
    from leadml_pipelines.sources.extract import extract_sources
    from leadml_pipelines.sources.importer import import_files

    with Deployment(home) as deployment:
        deployment.start_services(only=("postgres",))
        url = os.environ["LEADML_POSTGRES_URL"]
        import_files(url, EXAMPLE / "mapping.toml", data)
        extract = extract_sources(url, home / "extracts", clock="data")
    catalogue = Catalogue((*BUILT_IN, *own_views()))
    # The log has no referrals, households or campaigns: its graph has nothing to add.
    views = tuple(view.name for view in catalogue.views("lead") if view.name != "graph")
    with DuckDBEngine(extract.tables, threads=threads, catalogue=catalogue) as engine:
        return build_training_set(replace(spec, views=views), engine, catalogue, extract)


def declared(times: list[str], budget: float) -> ModelSpec:
    """The spec of `conversion` in the setting of the floors."""
    from leadml_pipelines.learning.specs.conversion import SPEC
    from leadml_pipelines.times import parse_duration

    return replace(
        SPEC,
        label=LABEL,
        horizon=timedelta(seconds=1),
        every=None,
        ages=tuple(parse_duration(time) for time in times),
        tuner="optuna",
        tuning_trials=10_000,
        tuning_seconds=SEARCH_SHARE * budget,
        learner="stack",
    )


def newest_cases(training_set: TrainingSet, data: Path) -> float:
    """Which share of the leads that make rows are among the newest 20 % of all cases."""
    import pandas as pd

    submitted = pd.read_parquet(data / "cases.parquet", columns=["reg_date"])["reg_date"]
    start = submitted.sort_values().iloc[int(len(submitted) * (1 - TEST_SHARE))]
    leads = training_set.frame.drop_duplicates("entity_id")["created_at"]
    # In the middle between two leads, so that no rounding moves the border.
    return float(((leads >= start).sum() - 0.5) / len(leads))


def ours(spec: ModelSpec, training_set: TrainingSet, seed: int, threads: int | None) -> Any:
    from leadml_pipelines.learning.training.train import train

    return train(spec, training_set, seed=seed, threads=threads)


def said_by_ours(trained: TrainedModel) -> Answers:
    model = trained.load()
    values = model.encoder.encode(trained.test)
    blend = trained.validation.get("blend", {})
    weights = ", ".join(f"{name} {weight:g}" for name, weight in blend.get("weights", {}).items())
    note = f"{len(trained.tuning.get('combinations', []))} combinations; {weights or 'trees alone'}"
    return Answers("leadml", model.predict(values).values, trained.seconds, note)


def said_by_others(
    trained: TrainedModel, seed: int, threads: int | None, flaml_python: str | None
) -> list[Answers]:
    """The same rows and columns, encoded by our encoder, to others."""
    import xgboost

    from leadml_pipelines.learning.encoding import CATEGORY
    from leadml_pipelines.learning.training.linear import fit_linear

    encoder = trained.load().encoder
    fit, test = encoder.encode(trained.train), encoder.encode(trained.test)
    labels = trained.train["label"].to_numpy(np.float64)

    start = time.perf_counter()
    linear = fit_linear(encoder, fit, labels, objective="classification", seed=seed)
    answers = [Answers("logistic", linear.raw_scores(test), time.perf_counter() - start)]

    start = time.perf_counter()
    plain = xgboost.XGBClassifier(
        n_jobs=threads, random_state=seed, enable_categorical=True,
        feature_types=encoder.xgboost_types,
    ).fit(fit, labels)  # fmt: skip
    scores = plain.predict_proba(test)[:, 1]
    answers.append(Answers("xgboost", scores, time.perf_counter() - start, "default settings"))

    if flaml_python:
        categories = [c.name for c in encoder.columns if c.type == CATEGORY]
        with tempfile.TemporaryDirectory(prefix="leadml-flaml-") as name:
            folder = Path(name)
            _write(folder / "fit.parquet", encoder.names, fit, categories, trained.train)
            _write(folder / "test.parquet", encoder.names, test, categories, trained.test)
            answers.append(said_by_flaml(flaml_python, folder, trained.seconds, seed, threads))
    return answers


def _write(
    path: Path, names: tuple[str, ...], values: Any, categories: list[str], rows: pd.DataFrame
) -> None:
    import pandas as pd

    frame = pd.DataFrame(values, columns=list(names))
    for name in categories:
        frame[name] = frame[name].map(lambda code: None if np.isnan(code) else f"word_{code:.0f}")
    frame["label"] = rows["label"].to_numpy(np.int64)
    frame["created"] = rows["created_at"].astype("datetime64[us, UTC]").astype("int64").to_numpy()
    frame.to_parquet(path)


def said_by_flaml(
    python: str, folder: Path, seconds: float, seed: int, threads: int | None
) -> Answers:
    """FLAML in its own environment: over files in, over a file out."""
    asked = {"folder": str(folder), "seconds": seconds, "seed": seed, "threads": threads or -1}
    command = [python, __file__, "--flaml", json.dumps(asked)]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    if done.returncode:
        raise SystemExit(f"FLAML failed:\n{done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    return Answers("FLAML", np.array(told["scores"]), told["seconds"], told["note"])


def run_flaml(asked: dict[str, Any]) -> None:
    """In the other environment: search, fit, and print what it says of the test rows."""
    import pandas as pd
    from flaml import AutoML

    folder = Path(asked["folder"])
    fit = pd.read_parquet(folder / "fit.parquet").sort_values("created", kind="stable")
    test = pd.read_parquet(folder / "test.parquet")
    labels = fit.pop("label")
    for frame in (fit, test):
        for name in frame.select_dtypes(exclude="number"):
            frame[name] = frame[name].astype("category")
    columns = [name for name in fit if name != "created"]
    start = time.perf_counter()
    automl = AutoML()
    automl.fit(
        fit[columns],
        labels,
        task="classification",
        metric="roc_auc",
        time_budget=asked["seconds"],
        # As ours does: choose by newer rows.
        split_type="time",
        n_jobs=asked["threads"],
        seed=asked["seed"],
        verbose=0,
    )
    seconds = time.perf_counter() - start
    scores = automl.predict_proba(test[columns])[:, 1]
    print(
        json.dumps(
            {"scores": scores.tolist(), "seconds": seconds, "note": str(automl.best_estimator)}
        )
    )


def weighted_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """ROC AUC under many weightings of the rows: float64[draws] of weights[draws, n]."""
    values, at = np.unique(scores, return_inverse=True)
    shape = (len(weights), len(values))
    positive, negative = np.zeros(shape), np.zeros(shape)
    for side, rows in ((positive, labels > 0), (negative, labels == 0)):
        order = np.argsort(at[rows], kind="stable")
        found, first = np.unique(at[rows][order], return_index=True)
        side[:, found] = np.add.reduceat(weights[:, rows][:, order], first, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return np.asarray((positive * below).sum(axis=1) / pairs)


def drawn(leads: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each row counts in each draw, all rows of a lead alike; the first draw is as is."""
    names, at = np.unique(leads, return_inverse=True)
    chosen = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=draws
    )
    return np.vstack([np.ones(len(names)), chosen])[:, at].astype(np.float64)


def decided(test: pd.DataFrame, data: Path) -> np.ndarray:
    """Which test rows are of cases whose outcome the log knows: bool[n]."""
    import pandas as pd

    cases = pd.read_parquet(data / "cases.parquet", columns=["case_id", "outcome"])
    open_ = cases.loc[cases["outcome"] == "open_at_log_end", "case_id"]
    return np.asarray(~test["entity_id"].isin(open_), bool)


def report(test: pd.DataFrame, answers: list[Answers], draws: int, seed: int) -> None:
    labels, moments = test["label"].to_numpy(), test["moment"].to_numpy(str)
    weights = drawn(test["entity_id"].to_numpy(str), draws, seed)
    times = list(dict.fromkeys(sorted(moments, key=lambda word: int(word.rstrip("h")))))
    found: dict[str, dict[str, np.ndarray]] = {}
    for answer in answers:
        found[answer.name] = {
            word: weighted_auc(labels[here], answer.scores[here], weights[:, here])
            for word in times
            if (here := moments == word).any()
        }
        found[answer.name]["mean"] = np.mean(list(found[answer.name].values()), axis=0)

    print(f"ROC AUC on the newest 20 % of the cases; 95 % intervals of {draws:,} draws of leads")
    head = f"{'after':>6} {'rows':>6} {'pos.':>5} {'floor':>6}"
    print(head + "".join(f" {answer.name:>21}" for answer in answers))
    for word in [*times, "mean"]:
        here = moments == word
        floor = FLOORS.get(word)
        line = f"{word:>6} " + (
            f"{here.sum():6,} {int(labels[here].sum()):5,} " if here.any() else f"{'':13}"
        )
        line += f"{floor:6.3f}" if floor else f"{'':6}"
        print(line + "".join(f" {shown(found[answer.name][word])}" for answer in answers))

    print("\nleadml minus the other, paired; and in how many draws leadml is above the floor")
    print(f"{'after':>6} {'above':>6}" + "".join(f" {a.name:>23}" for a in answers[1:]))
    for word in [*times, "mean"]:
        own, floor = found[answers[0].name][word], FLOORS.get(word)
        above = f"{(own[1:] > floor).mean():6.0%}" if floor else f"{'':6}"
        cells = (shown(own - found[a.name][word], signed=True) for a in answers[1:])
        print(f"{word:>6} {above}" + "".join(f" {cell}" for cell in cells))

    print()
    for answer in answers:
        print(f"{answer.name:>9}: {answer.seconds:6.1f} s  {answer.note}")
    beaten = [word for word in times if found[answers[0].name][word][0] > FLOORS.get(word, 0)]
    print(f"above the floor at {len(beaten)} of {len(times)} times")


def shown(values: np.ndarray, *, signed: bool = False) -> str:
    """The value as is, and the interval of the draws."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    sign = "+" if signed else ""
    return f"{values[0]:{sign}7.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with cases.parquet and events.parquet")
    parser.add_argument("--budget", type=float, default=120, help="seconds of a training")
    parser.add_argument("--times", nargs="+", default=list(FLOORS), help="after submission")
    parser.add_argument("--flaml-python", help="Python of an environment that has FLAML")
    parser.add_argument("--draws", type=int, default=1_000, help="of the bootstrap")
    parser.add_argument("--threads", type=int, help="of every learner; all cores if not given")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--flaml", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.flaml:
        run_flaml(given.flaml)
        return
    if given.data is None:
        parser.error("--data is needed")
    spec = declared(given.times, given.budget)
    with tempfile.TemporaryDirectory(prefix="leadml-quality-") as name:
        home = Path(name)
        home.chmod(0o755)  # PostgreSQL, started by root, runs as another user
        rows = training_rows(given.data, home, spec, given.threads)
    print(f"{len(rows.frame):,} rows of {len(rows.features)} features", flush=True)
    spec = replace(spec, test_share=newest_cases(rows, given.data))
    trained = ours(spec, rows, given.seed, given.threads)
    print(f"trained in {trained.seconds:.0f} s; now the others", flush=True)
    others = said_by_others(trained, given.seed, given.threads, given.flaml_python)
    answers = [said_by_ours(trained), *others]
    print()
    report(trained.test, answers, given.draws, given.seed)
    print("\nThe same answers, on those cases alone whose outcome the log knows:")
    known = decided(trained.test, given.data)
    answers = [replace(answer, scores=answer.scores[known]) for answer in answers]
    report(trained.test[known], answers, given.draws, given.seed)
    if not given.flaml_python:
        print("FLAML was left out: name the Python of its environment with --flaml-python")


if __name__ == "__main__":
    sys.exit(main())
