from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from leadml_pipelines.learning.evaluation.card import (
    CARD_FILE,
    CURVES_FILE,
    SHAP_FILE,
    self_contained,
)
from leadml_pipelines.learning.evaluation.examination import Examination, examine
from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES
from leadml_pipelines.learning.spec import Cost
from leadml_pipelines.learning.training.train import TrainedModel, train
from leadml_pipelines_tests.learning.frames import (
    figures,
    heuristic,
    rows_frame,
    spec_for,
    toy_set,
)

SHORT = {"max_depth": 3}


def _trained(objective: str = "classification", **changes: object) -> TrainedModel:
    spec = spec_for(objective, grid=(SHORT,), rounds=40, **changes)
    rows = rows_frame(1_500, objective=objective)
    rng = np.random.default_rng(1)
    agents = rng.choice(["ann", "bob"], len(rows))
    return train(spec, toy_set(spec, rows.assign(agent=agents)), seed=7, threads=1)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return _trained()


@pytest.fixture(scope="module")
def champion() -> TrainedModel:
    return _trained(exclude=("source",))


@pytest.fixture(scope="module")
def examined(trained: TrainedModel, champion: TrainedModel) -> Examination:
    return examine(trained, champion.load("toy_1"), compared_with="toy_1", resamples=60)


@pytest.fixture(scope="module")
def valued() -> Examination:
    return examine(_trained("regression"), resamples=60)


def test_the_document_is_plain_json(examined: Examination, valued: Examination) -> None:
    for one in (examined, valued):
        assert json.loads(json.dumps(one.evaluation, allow_nan=False)) == one.evaluation


def test_plain_figures_are_those_of_the_test_rows_at_the_models_threshold(
    trained: TrainedModel, examined: Examination
) -> None:
    wanted = figures(trained)
    assert examined.metrics["roc_auc"] == wanted["roc_auc"]
    assert examined.baseline == heuristic(trained)
    test = trained.test
    model = trained.load()
    said = model.predict(model.encoder.encode(test)).predictions
    assert examined.metrics["accuracy"] == pytest.approx((said == test["label"]).mean())


def test_every_figure_has_an_interval_around_it(examined: Examination) -> None:
    for who in ("model", "heuristic", "logistic", "champion"):
        for name, figure in examined.evaluation[who].items():
            assert name in METRIC_NAMES
            assert figure["low"] <= figure["value"] <= figure["high"], (who, name)


def test_the_champion_is_measured_on_the_same_rows(
    trained: TrainedModel, champion: TrainedModel, examined: Examination
) -> None:
    same = replace(champion, test=trained.test)
    assert examined.evaluation["champion"]["roc_auc"]["value"] == figures(same)["roc_auc"]
    gap = examined.evaluation["differences"]["champion"]["roc_auc"]
    assert gap["value"] == pytest.approx(
        examined.metrics["roc_auc"] - examined.evaluation["champion"]["roc_auc"]["value"]
    )
    assert any("the champion toy_1" in reason for reason in examined.decision.reasons)


def test_a_candidate_that_knows_less_than_the_champion_is_rejected(
    trained: TrainedModel, champion: TrainedModel
) -> None:
    judged = examine(champion, trained.load("toy_2"), compared_with="toy_2", resamples=60)
    assert not judged.decision.passed
    assert "beyond noise, the champion toy_2" in judged.decision.reasons[0]


def test_a_champion_that_needs_what_the_rows_lack_is_left_out_and_said(
    trained: TrainedModel, champion: TrainedModel
) -> None:
    without = replace(champion, test=champion.test.drop(columns="source"))
    spec = replace(champion.spec, slices=())
    judged = examine(
        replace(without, spec=spec), trained.load("toy_2"), compared_with="toy_2", resamples=20
    )
    assert judged.evaluation["champion"] is None
    assert judged.evaluation["compared_with"] is None
    assert "not compared with the champion toy_2" in judged.decision.reasons[-1]


def test_of_a_rare_event_chances_may_be_off_by_less(trained: TrainedModel) -> None:
    test = trained.test.copy()
    happened = np.flatnonzero(test["label"] == 1)
    test.iloc[happened[8:], test.columns.get_loc("label")] = 0.0
    rare = examine(replace(trained, test=test))
    rate = test["label"].mean()
    assert rate < 0.1
    assert rare.evaluation["calibration"]["allowed"] == pytest.approx(0.25 * rate)
    assert not rare.decision.passed


def test_a_model_no_better_than_a_coin_is_rejected_though_luck_puts_it_over_its_floor(
    trained: TrainedModel,
) -> None:
    spec = replace(trained.spec, heuristic="base_rate", floor=0.5)
    rng = np.random.default_rng(1)
    labels = trained.test["label"].to_numpy()
    tries = (
        replace(trained, spec=spec, test=trained.test.assign(label=rng.permutation(labels)))
        for _ in range(50)
    )
    lucky = next(one for one in tries if figures(one)["roc_auc"] > 0.5)
    decision = examine(lucky, resamples=100).decision
    assert not decision.passed
    assert any(
        "equals, within noise, the heuristic base_rate" in reason for reason in decision.reasons
    )


def test_of_calendar_rows_the_total_is_told_apart(
    trained: TrainedModel, examined: Examination
) -> None:
    test = trained.test
    model = trained.load()
    values = model.predict(model.encoder.encode(test)).values
    calendar = (test["moment"] == "calendar").to_numpy()
    found = examined.evaluation["calibration"]["calendar"]
    assert calendar.sum() < len(test)
    assert found["positive"] == (test["label"][calendar].mean() <= 0.5)
    labels = test["label"].to_numpy()[calendar]
    said, came = values[calendar], labels
    if not found["positive"]:
        said, came = 1 - said, 1 - came
    assert found["value"] == pytest.approx(said.sum() / came.sum())
    text = examined.card[CARD_FILE].decode()
    assert f"and {came.sum():,.0f} came: {found['value']:.2f} of them" in text
    assert "On those at calendar moments alone" in text


def test_the_heuristic_is_judged_by_the_threshold_that_it_was_used_with() -> None:
    trained = _trained(cost=Cost(miss=10.0, false_alarm=1.0))
    judged = examine(trained, resamples=20)
    quality = trained.test["quality_score"].fillna(0)
    said = (quality > 75) == (trained.test["label"] > 0)
    assert judged.baseline["accuracy"] == pytest.approx(said.mean())
    assert judged.evaluation["heuristic"]["accuracy"]["value"] == pytest.approx(said.mean())


def test_the_card_says_what_always_the_same_answer_is_worth(
    trained: TrainedModel, examined: Examination
) -> None:
    rate = trained.test["label"].mean()
    text = examined.card[CARD_FILE].decode()
    assert f"{rate:.1%} of these rows are positive" in text
    assert f"is right in {max(rate, 1 - rate):.1%} of them" in text
    header = next(line for line in text.splitlines() if "this model" in line)
    assert "base rate for all" in header


def test_the_card_names_the_columns_that_have_no_slice_large_enough(
    trained: TrainedModel,
) -> None:
    spec = replace(trained.spec, slices=("source", "agent", "noise", "product_interest"))
    text = examine(replace(trained, spec=spec), resamples=20).card[CARD_FILE].decode()
    assert "Asked for, and without any slice that is large enough: noise, product interest." in text


def test_slices_by_agent_and_source_are_there_and_the_worst_is_one_of_them(
    examined: Examination,
) -> None:
    slices, worst = examined.evaluation["slices"], examined.evaluation["worst_slice"]
    assert set(slices) == {"source", "agent", "lead_age"}
    assert set(slices["agent"]) == {"ann", "bob"}
    assert slices[worst["column"]][worst["word"]]["value"] == worst["value"]


def test_the_card_shows_the_ages_of_the_leads_and_what_the_model_adds_to_the_rule(
    examined: Examination,
) -> None:
    ages = examined.evaluation["slices"]["lead_age"]
    assert set(ages) == {"up to 6 hours", "6 hours to 2 days", "2 to 7 days"}
    text = examined.card[CARD_FILE].decode()
    lines = [line for line in text.splitlines() if line.startswith("| up to 6 hours")]
    (line,) = lines
    for figure in (ages["up to 6 hours"], ages["up to 6 hours"]["ahead"]):
        assert f"{figure['value']:.3f}" in line
    order = [text.index(f"| {band} |") for band in ("up to 6 hours", "6 hours to 2 days")]
    assert order == sorted(order)


def test_one_seed_gives_one_examination(trained: TrainedModel) -> None:
    first, again = (examine(trained, resamples=20) for _ in range(2))
    assert first.evaluation == again.evaluation
    assert first.card == again.card


def test_the_features_that_matter_come_first(examined: Examination) -> None:
    names = [one["feature"] for one in examined.evaluation["importance"]]
    assert set(names[:3]) == {"quality_score", "inbound_count_30d", "source"}


def test_the_threshold_costs_what_a_count_finds(
    trained: TrainedModel, examined: Examination
) -> None:
    found = examined.evaluation["threshold"]
    assert found["value"] == trained.load().threshold
    # Misses and false alarms cost the same here: the cost is the share of wrong answers.
    assert found["cost"] == pytest.approx(1 - examined.metrics["accuracy"])
    assert found["cost_of_never"] == pytest.approx(examined.metrics["base_rate"])
    assert found["cost_of_always"] == pytest.approx(1 - examined.metrics["base_rate"])
    over = found["over_cheaper"]
    cheaper = min(found["cost_of_always"], found["cost_of_never"])
    assert over["value"] == pytest.approx(found["cost"] - cheaper)
    assert over["low"] < over["value"] < over["high"]


def test_a_model_of_values_has_no_classes_to_show(valued: Examination) -> None:
    assert set(valued.evaluation["curves"]) == {"captured"}
    assert valued.evaluation["threshold"] is None
    assert valued.evaluation["calibration"] is None
    assert any("sum to" in reason for reason in valued.decision.reasons)


def test_the_card_says_what_was_found_and_shows_its_pictures(
    trained: TrainedModel, examined: Examination
) -> None:
    text = examined.card[CARD_FILE].decode()
    for part in (
        trained.spec.description,
        f"{examined.metrics['roc_auc']:.3f}",
        "champion `toy_1`",
        "logistic regression",
        f"{trained.counts['test_rows']:,}",
        trained.training_set_hash[:16],
        f"seed {trained.seed}",
        "SHAP values say what moves the model",
    ):
        assert part in text
    for reason in examined.decision.reasons:
        assert reason[1:] in text
    for file in re.findall(r"\]\(([\w.]+)\)", text):
        picture = Image.open(io.BytesIO(examined.card[file]))
        picture.load()
        assert picture.width > 900
    assert set(examined.card) == {CARD_FILE, CURVES_FILE, SHAP_FILE}


def test_the_tables_of_a_card_have_as_many_cells_in_each_line(
    examined: Examination, valued: Examination
) -> None:
    for one in (examined, valued):
        blocks = one.card[CARD_FILE].decode().split("\n\n")
        for block in (b for b in blocks if b.startswith("|")):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1


def test_a_self_contained_card_carries_its_pictures(examined: Examination) -> None:
    text = self_contained(examined.card)
    assert text.count("](data:image/png;base64,") == 2
    assert CURVES_FILE not in text


def test_a_rejected_card_says_so(champion: TrainedModel) -> None:
    hopeless = replace(champion, spec=replace(champion.spec, floor=0.99))
    text = examine(hopeless, resamples=20).card[CARD_FILE].decode()
    assert "rejected by its gate" in text
    assert "is worse than the floor, 0.990" in text
