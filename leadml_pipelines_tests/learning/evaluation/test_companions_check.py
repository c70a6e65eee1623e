from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from leadml_pipelines.learning.evaluation.companions_check import check_companions
from leadml_pipelines.learning.evaluation.examination import examine
from leadml_pipelines.learning.evaluation.intervals import draw
from leadml_pipelines.learning.training.train import TrainedModel
from leadml_pipelines_tests.learning.companions import (
    COLOUR,
    WHEN,
    by_lot,
    coloured,
    train_with,
)
from leadml_pipelines_tests.learning.frames import rows_frame


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    frame = rows_frame(1_500, objective="regression")
    return train_with(frame, {COLOUR: coloured(frame), WHEN: by_lot(frame)})


def checked(trained: TrainedModel) -> dict[tuple[str, str], dict[str, Any]]:
    model, test = trained.load(), trained.test
    found = check_companions(
        trained.spec,
        model,
        trained.train,
        test,
        model.encoder.encode(test),
        draw(test["entity_id"].to_numpy(), seed=1, resamples=100),
    )
    assert found is not None
    return {(one["companion"], one["what"]): one for one in found}


def seldom_soon(trained: TrainedModel) -> TrainedModel:
    """The same model, and newest rows in which what was soon in training comes late."""
    words = trained.test["companion_when"].replace("soon", "late")
    words[trained.test.index[words == "late"][:30]] = "soon"
    return replace(trained, test=trained.test.assign(companion_when=words))


def test_every_chance_that_is_answered_is_measured(trained: TrainedModel) -> None:
    assert list(checked(trained)) == [
        ("occurs", "occurs"),
        ("colour", "blue"),
        ("colour", "red"),
        ("when", "near"),
        ("when", "far"),
    ]


def test_the_figures_are_those_of_the_newest_rows(trained: TrainedModel) -> None:
    model, test = trained.load(), trained.test
    values = model.encoder.encode(test)
    far = model.chances(values)["when"][:, :2].sum(axis=1)
    came = test["companion_when"].isin(["soon", "late"]).to_numpy()
    before = trained.train["companion_when"].isin(["soon", "late"]).mean()
    found = checked(trained)["when", "far"]
    assert found["said"] == pytest.approx(far.mean())
    assert found["came"] == pytest.approx(came.mean())
    assert found["ratio"]["value"] == pytest.approx(far.mean() / came.mean())
    assert found["ratio"]["low"] < found["ratio"]["value"] < found["ratio"]["high"]
    assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(came, far))
    assert found["log_loss"] == pytest.approx(log_loss(came, far))
    shares = np.full(len(came), before)
    assert found["log_loss_of_shares"] == pytest.approx(log_loss(came, shares))


def test_sound_chances_are_not_called_off(trained: TrainedModel) -> None:
    assert not any(one["off"] for one in checked(trained).values())


def test_a_chance_that_is_off_by_more_than_a_third_beyond_noise_is(trained: TrainedModel) -> None:
    found = checked(seldom_soon(trained))
    assert found["when", "near"]["ratio"]["low"] > 4 / 3
    assert [key for key, one in found.items() if one["off"]] == [("when", "near")]


def test_what_never_came_has_no_ratio_and_no_rank(trained: TrainedModel) -> None:
    never = trained.test.assign(companion_when="at the end")
    found = checked(replace(trained, test=never))["when", "near"]
    assert (found["came"], found["ratio"], found["roc_auc"], found["off"]) == (0, None, None, False)


def test_the_card_shows_the_chances_and_by_what_they_are_told(trained: TrainedModel) -> None:
    examined = examine(trained, resamples=50)
    document = examined.evaluation["companions"]
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    card = examined.card["card.md"].decode()
    assert "| anything within 20 days |" in card
    assert "| when, near (soon) |" in card
    assert "- Colour, if anything comes true, is told by a model: on " in card
    assert "- When, if anything comes true, is told by the words' shares, the same" in card
    assert "is off by more than" not in card


def test_the_card_names_a_chance_that_is_off(trained: TrainedModel) -> None:
    card = examine(seldom_soon(trained), resamples=50).card["card.md"].decode()
    assert "**The chance of when, near (soon) is off by more than 33%**, beyond noise" in card
    assert "so more is said than comes" in card


def test_the_card_says_why_a_companion_is_absent() -> None:
    frame = rows_frame(objective="regression")
    nothing = pd.Series("", index=frame.index, dtype="str")
    examined = examine(train_with(frame, {WHEN: nothing}), resamples=20)
    assert examined.evaluation["companions"] == []
    card = examined.card["card.md"].decode()
    assert "- When is not answered: 'soon' came true in fewer than 20 training rows" in card


def test_a_model_without_companions_says_nothing_of_them() -> None:
    frame = rows_frame(objective="regression")
    examined = examine(train_with(frame, {}), resamples=20)
    assert examined.evaluation["companions"] is None
    assert "What it says besides" not in examined.card["card.md"].decode()
