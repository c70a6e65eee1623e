from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from leadml_pipelines.learning.encoding import Column, Encoder, from_document, to_document
from leadml_pipelines.learning.model import LoadedModel
from leadml_pipelines.learning.spec import Cost, Group, SpecError
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines_tests.learning.frames import (
    figures,
    heuristic,
    rows_frame,
    spec_for,
    toy_set,
)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    spec = spec_for()
    return train(spec, toy_set(spec), seed=7, threads=1)


@pytest.fixture(scope="module")
def regression() -> TrainedModel:
    spec = spec_for("regression")
    return train(spec, toy_set(spec), seed=7, threads=1)


def test_the_model_learns_the_signal_and_beats_the_heuristic(trained: TrainedModel) -> None:
    metrics, baseline = figures(trained), heuristic(trained)
    assert metrics["roc_auc"] > baseline["roc_auc"] + 0.05
    assert metrics["log_loss"] < baseline["log_loss"]


def test_a_regression_learns_too(regression: TrainedModel) -> None:
    assert figures(regression)["r2"] > 0.05
    assert figures(regression)["spearman"] > heuristic(regression)["spearman"]


def test_all_that_is_reported_is_plain_json(trained: TrainedModel) -> None:
    for part in (trained.manifest, trained.tuning, trained.params, trained.validation):
        assert json.loads(json.dumps(part, allow_nan=False)) == part


def test_one_seed_gives_one_model_byte_for_byte(trained: TrainedModel) -> None:
    spec = spec_for()
    again = train(spec, toy_set(spec), seed=7, threads=2)
    assert again.files == trained.files
    assert again.manifest == trained.manifest


def test_another_seed_gives_another_model(trained: TrainedModel) -> None:
    spec = spec_for()
    assert train(spec, toy_set(spec), seed=8, threads=1).files != trained.files


def test_what_the_test_rows_say_does_not_change_the_model(trained: TrainedModel) -> None:
    spec = spec_for()
    frame = rows_frame()
    newest = frame.index.isin(trained.test.index)
    frame.loc[newest, "label"] = 1 - frame.loc[newest, "label"]
    frame.loc[newest, ["quality_score", "noise"]] = -5.0
    frame.loc[newest, "source"] = "unheard of"
    again = train(spec, toy_set(spec, frame), seed=7, threads=1)
    assert again.files == trained.files
    assert again.manifest == trained.manifest
    assert figures(again)["roc_auc"] < figures(trained)["roc_auc"]


def test_progress_counts_up_to_its_total() -> None:
    seen: list[tuple[int, int, str]] = []
    spec = spec_for()
    train(spec, toy_set(spec), seed=7, threads=1, progress=lambda *step: seen.append(step))
    done = [step[0] for step in seen]
    assert done == sorted(done)
    assert set(done) == set(range(seen[0][1] + 1))
    assert seen[-1] == (seen[0][1], seen[0][1], "done")
    assert "search, fit 3 of 4" in [step[2] for step in seen]


def test_an_exception_in_progress_ends_the_training() -> None:
    class Cancelled(Exception):  # noqa: N818 - it is no error
        pass

    def cancel(done: int, total: int, text: str) -> None:
        if done == 1:
            raise Cancelled

    spec = spec_for()
    with pytest.raises(Cancelled):
        train(spec, toy_set(spec), seed=7, threads=1, progress=cancel)


def test_without_room_for_a_fold_it_still_trains_and_says_so() -> None:
    spec = spec_for(horizon=pd.Timedelta(days=85).to_pytimedelta())
    model = train(spec, toy_set(spec), seed=7, threads=1)
    assert "too short" in model.tuning["skipped"]
    assert model.params["max_depth"] == 2


def test_an_excluded_feature_is_not_learned_from() -> None:
    spec = spec_for(exclude=("noise",))
    assert "noise" not in train(spec, toy_set(spec), seed=7, threads=1).load().features


def test_predictions_are_probabilities_with_the_decision_of_the_threshold(
    trained: TrainedModel,
) -> None:
    model = trained.load()
    answer = model.predict(model.encoder.encode(trained.test))
    assert ((answer.values > 0) & (answer.values < 1)).all()
    assert (answer.predictions == (answer.values >= model.threshold)).all()


def test_values_are_calibrated_and_never_fall_as_the_raw_score_rises(
    regression: TrainedModel,
) -> None:
    model = regression.load()
    matrix = model.encoder.encode(regression.test)
    raw = model.raw_scores(matrix)
    order = np.argsort(raw)
    assert regression.validation["calibration"]["kind"] in ("none", "line", "isotonic")
    assert (np.diff(model.predict(matrix).values[order]) >= 0).all()
    spec = replace(regression.spec, calibration="isotonic")
    stepped = train(spec, toy_set(spec), seed=7, threads=1).load().predict(matrix)
    assert (np.diff(stepped.values[order]) >= 0).all()
    assert not np.allclose(stepped.values, np.maximum(raw, 0))
    np.testing.assert_array_equal(stepped.scores, model.predict(matrix).scores)


def test_scores_rank_within_the_training_population(regression: TrainedModel) -> None:
    model = regression.load()
    spec = spec_for("regression")
    frame = toy_set(spec).frame
    answer = model.predict(model.encoder.encode(frame))
    assert answer.scores.min() >= 0
    assert answer.scores.max() <= 100
    assert np.median(answer.scores) == pytest.approx(50, abs=5)
    order = np.argsort(answer.values)
    assert (np.diff(answer.scores[order]) >= 0).all()
    assert (answer.predictions == answer.scores).all()


def test_one_row_answers_like_many(trained: TrainedModel) -> None:
    model = trained.load()
    values = model.encoder.encode(trained.test.head(20))
    many = model.predict(values).values
    one = [float(model.predict(values[at : at + 1]).values[0]) for at in range(20)]
    assert many.tolist() == one


def test_no_rows_give_no_predictions(trained: TrainedModel) -> None:
    model = trained.load()
    assert model.predict(np.empty((0, len(model.features)))).values.shape == (0,)


def test_a_matrix_of_another_width_is_refused(trained: TrainedModel) -> None:
    with pytest.raises(ValueError, match="rows of 5 features"):
        trained.load().predict(np.zeros((1, 4)))


def test_rows_of_another_schema_answer_the_same(trained: TrainedModel) -> None:
    model = trained.load()
    words = ("web", "trade fair", "event", "partner")
    names = ("extra", *reversed(model.features))
    frame = trained.test.head(50)
    other = np.column_stack(
        [
            np.full(50, 9.0),
            *(
                frame[name].map({w: float(c) for c, w in enumerate(words)})
                if name == "source"
                else frame[name].astype("Float64").fillna(np.nan).astype(float)
                for name in reversed(model.features)
            ),
        ]
    )
    aligned = model.aligner(names, {"source": words})(other)
    np.testing.assert_array_equal(aligned, model.encoder.encode(frame))


@pytest.mark.parametrize("code", [1.0, 4.0, 7.0, -1.0, np.nan])
def test_a_word_that_training_never_saw_is_missing(trained: TrainedModel, code: float) -> None:
    model = trained.load()
    align = model.aligner(model.features, {"source": ("web", "trade fair", "event", "partner")})
    row = np.zeros((1, len(model.features)))
    row[0, model.features.index("source")] = code
    assert np.isnan(align(row)[0, model.features.index("source")])


def test_a_schema_without_a_feature_is_refused_by_name(trained: TrainedModel) -> None:
    with pytest.raises(KeyError, match="noise"):
        trained.load().aligner(["quality_score", "inbound_count_30d", "is_open", "source"], {})


def test_a_schema_without_the_words_of_a_category_is_refused(trained: TrainedModel) -> None:
    model = trained.load()
    with pytest.raises(KeyError, match="source"):
        model.aligner(model.features)


def test_encoding_gives_numbers_codes_and_nan() -> None:
    frame = pd.DataFrame(
        {
            "count": pd.array([1, None], dtype="Int64"),
            "flag": pd.array([True, None], dtype="boolean"),
            "word": ["b", None],
            "ratio": [0.5, np.inf],
        }
    )
    columns = [
        Column("ratio", "double"),
        Column("count", "integer"),
        Column("flag", "boolean"),
        Column("word", "category"),
    ]
    encoder = Encoder.fit(columns, pd.DataFrame({"word": ["b", "a", None]}))
    expected = np.array([[0.5, 1.0, 1.0, 1.0], [np.nan] * 4])
    np.testing.assert_array_equal(encoder.encode(frame), expected)


@pytest.mark.parametrize("huge", [1e39, -1e300, np.inf])
def test_what_is_too_great_for_the_trees_is_missing(trained: TrainedModel, huge: float) -> None:
    spec = spec_for()
    frame = rows_frame()
    frame.loc[frame.index % 7 == 0, "noise"] = huge
    train(spec, toy_set(spec, frame), seed=7, threads=1)
    model = trained.load()
    row = model.encoder.encode(frame.iloc[1:2])
    row[0, model.features.index("noise")] = huge
    gone = np.where(np.abs(row) > 1e38, np.nan, row)
    assert model.predict(row).values == model.predict(gone).values
    assert (model.contributions(row).values == model.contributions(gone).values).all()


def test_rare_positives_do_not_end_a_training() -> None:
    spec = spec_for()
    frame = rows_frame(seed=11)
    keep = (frame["label"] == 0) | frame["entity_id"].str[-2:].isin(["17", "42", "63", "88"])
    rare = frame[keep].reset_index(drop=True)
    assert rare["label"].mean() < 0.06
    trained = train(spec, toy_set(spec, rare), seed=7, threads=1)
    assert trained.load().predict(trained.load().encoder.encode(rare)).values.max() < 1


def test_an_encoder_survives_its_document() -> None:
    encoder = Encoder.fit([Column("word", "category")], pd.DataFrame({"word": ["b", "a"]}))
    assert from_document(json.loads(json.dumps(to_document(encoder)))) == encoder


def test_a_frame_without_a_feature_is_refused_by_name() -> None:
    encoder = Encoder((Column("ratio", "double"),), {})
    with pytest.raises(KeyError, match="ratio"):
        encoder.encode(pd.DataFrame({"x": [1]}))


def test_importing_the_model_loads_no_heavy_package() -> None:
    import subprocess
    import sys

    code = (
        "import sys, leadml_pipelines.learning.model as m; assert m.LoadedModel;"
        "heavy = {'pandas', 'xgboost', 'sklearn', 'scipy', 'duckdb', 'pyarrow'};"
        "found = heavy & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_without_xgboost_loaded_yet_knows_its_features(trained: TrainedModel) -> None:
    model = LoadedModel({**trained.manifest, "model_id": "x"}, b"not parsed before it is asked")
    assert model.features == trained.load().features


def test_a_group_has_a_threshold_by_its_own_cost_and_is_answered_by_it() -> None:
    groups = (Group(word="web", cost=Cost(miss=9.0), risk_levels=(0.1, 0.2, 0.3)),)
    spec = spec_for(groups=groups, group_by="source", slices=("source",))
    made = train(spec, toy_set(spec), seed=7, threads=1)
    model = made.load()
    web, others = model.groups.measures
    assert web.word == "web"
    assert web.risk_levels == (0.1, 0.2, 0.3)
    assert web.threshold < others.threshold - 0.1
    assert made.validation["threshold"]["groups"]["web"]["value"] == web.threshold
    matrix = model.encoder.encode(made.test)
    said = model.predict(matrix)
    its = (made.test["source"] == "web").to_numpy()
    assert np.array_equal(said.predictions[its], said.values[its] >= web.threshold)
    assert np.array_equal(said.predictions[~its], said.values[~its] >= others.threshold)
    assert np.array_equal(model.thresholds(matrix), np.where(its, web.threshold, others.threshold))


def test_the_threshold_of_all_others_is_chosen_on_their_rows(trained: TrainedModel) -> None:
    spec = spec_for(groups=(Group(word="web"),), group_by="source", slices=("source",))
    seen = train(spec, toy_set(spec), seed=7, threads=1).validation
    rest = seen["rows"] - seen["threshold"]["groups"]["web"]["rows"]
    assert 0 < rest < seen["rows"]
    assert seen["threshold"]["cost_per_row"] != trained.validation["threshold"]["cost_per_row"]


def test_groups_by_what_is_no_category_are_refused() -> None:
    spec = spec_for(groups=(Group(word="web"),), group_by="noise", slices=("noise",))
    with pytest.raises(SpecError, match="groups by noise, which is no category"):
        train(spec, toy_set(spec), seed=7, threads=1)
