from __future__ import annotations

from pathlib import Path

import pytest

from leadml_pipelines.learning.training.optuna_search import read_journal
from leadml_pipelines.learning.training.train import TrainedModel, journal_of, train
from leadml_pipelines_tests.learning.frames import spec_for, toy_set

OPTUNA = spec_for(tuner="optuna", tuning_trials=5)


def fit(journal: Path | None = None, **changes: object) -> TrainedModel:
    spec = spec_for(tuner="optuna", tuning_trials=5, **changes)
    return train(spec, toy_set(spec), seed=7, threads=1, journal=journal)


def test_the_grid_is_searched_whole_and_the_best_of_it_taken() -> None:
    spec = spec_for()
    trained = train(spec, toy_set(spec), seed=7, threads=1)
    seen = trained.tuning["combinations"]
    assert [c["params"] for c in seen] == [dict(c) for c in spec.grid]
    best = max(seen, key=lambda c: sum(c["scores"]))
    assert trained.params["max_depth"] == best["params"]["max_depth"]
    assert trained.params["rounds"] == pytest.approx(sum(best["rounds"]) / 2, abs=0.51)


def test_without_hyperparameter_tuning_the_first_of_the_grid_is_taken() -> None:
    spec = spec_for(hyperparameter_tuning=False)
    trained = train(spec, toy_set(spec), seed=7, threads=1)
    assert [c["params"] for c in trained.tuning["combinations"]] == [{"max_depth": 2}]


def test_a_metric_of_which_less_is_better_is_minimised() -> None:
    spec = spec_for(metric="log_loss", floor=1.0)
    trained = train(spec, toy_set(spec), seed=7, threads=1)
    seen = trained.tuning["combinations"]
    best = min(seen, key=lambda c: sum(c["scores"]))
    assert trained.params["max_depth"] == best["params"]["max_depth"]
    assert all(0 < value < 1 for c in seen for value in c["scores"])


def test_optuna_begins_with_the_grid_and_goes_on_from_there() -> None:
    trained = fit()
    tried = [c["params"] for c in trained.tuning["combinations"]]
    assert [params["max_depth"] for params in tried[:2]] == [2, 4]
    assert len(tried) + trained.tuning["pruned"] == 5
    assert set(tried[0]) == set(OPTUNA.tuning_space)


def test_optuna_gives_one_model_for_one_seed() -> None:
    assert fit().files == fit().files


def test_an_interrupted_search_is_taken_up_where_it_was(tmp_path: Path) -> None:
    class Interrupted(Exception):  # noqa: N818 - it is no error
        pass

    def stop_in_the_third_trial(done: int, total: int, text: str) -> None:
        if "trial 3 of" in text:
            raise Interrupted

    journal = tmp_path / "toy" / "trials.log"
    spec = spec_for(tuner="optuna", tuning_trials=5)
    with pytest.raises(Interrupted):
        train(
            spec, toy_set(spec), seed=7, threads=1, journal=journal,
            progress=stop_in_the_third_trial,
        )  # fmt: skip
    trained = fit(journal)
    assert trained.tuning["taken_up"] == 2
    finished = fit(journal)
    assert finished.tuning["taken_up"] >= 5
    assert finished.params == trained.params


def test_a_trial_whose_line_was_cut_off_is_tried_again(tmp_path: Path) -> None:
    journal = tmp_path / "trials.log"
    whole = fit(journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    assert len(read_journal(journal)) == 3
    again = fit(journal)
    assert again.tuning["taken_up"] == 3
    assert len(read_journal(journal)) == 5
    assert again.tuning["combinations"][:2] == whole.tuning["combinations"][:2]


def test_a_search_ends_by_the_clock_and_still_has_a_winner() -> None:
    trained = fit(tuning_seconds=0.01)
    assert 1 <= len(trained.tuning["combinations"]) < 5


def test_pruned_trials_are_kept_and_counted_too(tmp_path: Path) -> None:
    journal = tmp_path / "trials.log"
    spec = spec_for(tuner="optuna", tuning_trials=14)
    trained = train(spec, toy_set(spec), seed=7, threads=1, journal=journal)
    assert trained.tuning["pruned"] > 0
    kept = read_journal(journal)
    assert len(kept) == 14
    assert sum(trial.pruned for trial in kept) == trained.tuning["pruned"]


def test_a_search_that_is_taken_up_tries_nothing_twice(tmp_path: Path) -> None:
    journal = tmp_path / "trials.log"
    for trials in (8, 14):
        spec = spec_for(tuner="optuna", tuning_trials=trials)
        train(spec, toy_set(spec), seed=7, threads=1, journal=journal)
    tried = [tuple(sorted(trial.params.items())) for trial in read_journal(journal)]
    assert len(set(tried)) == 14


def test_class_weights_are_not_searched_where_there_are_no_classes() -> None:
    spec = spec_for("regression", tuner="optuna", tuning_trials=2)
    trained = train(spec, toy_set(spec), seed=7, threads=1)
    assert all("class_weights" not in c["params"] for c in trained.tuning["combinations"])


def test_a_metric_that_a_fold_can_not_tell_loses_and_does_not_end_the_search() -> None:
    # Nobody is called by so shallow trees at so strict a threshold: precision is undefined.
    spec = spec_for(metric="precision", rounds=1, params={"learning_rate": 0.001})
    trained = train(spec, toy_set(spec), seed=7, threads=1)
    assert [c["scores"] for c in trained.tuning["combinations"]] == [[None, None]] * 2


def test_another_declaration_or_other_rows_are_another_search(tmp_path: Path) -> None:
    spec = spec_for()
    rows = toy_set(spec)
    mine = journal_of(tmp_path, spec, rows, 7)
    assert mine != journal_of(tmp_path, OPTUNA, rows, 7)
    assert mine != journal_of(tmp_path, spec, rows, 8)
