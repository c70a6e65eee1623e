"""What answers say follows from the model's manifest, not from its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from leadml_pipelines.learning.model import LoadedModel, OutdatedModelError, load_model
from leadml_pipelines.serving.answers import Answers
from leadml_pipelines_tests.online.frames import lead_frame
from leadml_pipelines_tests.serving.artifacts import KEY, make_model

IDS = [f"lead_{i}" for i in range(50)]


def loaded(root: Path, name: str, **options: Any) -> tuple[LoadedModel, np.ndarray]:
    """A model, and rows for it."""
    pointer = make_model(root, name, f"{name}_1", **options)
    model = load_model(pointer["artifact_uri"], KEY.encode(), pointer["manifest_sha256"])
    return model, model.encoder.encode(lead_frame(IDS, seed=5, missing=0.2))


def explained(model: LoadedModel, rows: np.ndarray) -> Sequence[dict[str, Any]]:
    """Answers with reasons, as a client gets them."""
    answers = Answers(model).explained(rows, model.predict(rows))
    listed: list[dict[str, Any]] = orjson.loads(orjson.dumps(answers))
    return listed


def test_any_model_with_risk_levels_tells_the_risk(tmp_path: Path) -> None:
    model, rows = loaded(tmp_path, "renewal", risk_levels=(0.3, 0.5, 0.6))
    answers = explained(model, rows)
    assert {answer["risk_level"] for answer in answers} >= {"medium", "high"}
    for answer in answers:
        at_least = {"low": 0.0, "medium": 0.3, "high": 0.5, "critical": 0.6}
        assert answer["probability"] >= at_least[answer["risk_level"]]
        assert answer["factors"][0]["sentence"].endswith(" the risk.")
        assert "quality_score" not in answer
        assert "dimensions" not in answer


def test_a_group_is_answered_by_its_own_threshold_and_risk_levels(tmp_path: Path) -> None:
    model, rows = loaded(
        tmp_path,
        "renewal",
        risk_levels=(0.997, 0.998, 0.999),
        groups={"customer": (0.1, (0.01, 0.02, 0.03))},
    )
    at = model.features.index("stage")
    words = [model.encoder.vocabularies["stage"][int(c)] if c >= 0 else None for c in rows[:, at]]
    assert {"customer", "open", None} <= set(words)
    for word, answer in zip(words, explained(model, rows), strict=True):
        is_customer = word == "customer"
        assert answer.get("group") == ("customer" if is_customer else None)
        assert answer["threshold"] == (0.1 if is_customer else 0.5)
        assert answer["prediction"] == int(answer["probability"] >= answer["threshold"])
        assert answer["risk_level"] == ("critical" if is_customer else "low")


def test_any_classifier_without_them_tells_the_chance(tmp_path: Path) -> None:
    model, rows = loaded(tmp_path, "renewal")
    for answer in explained(model, rows):
        assert "risk_level" not in answer
        assert answer["factors"][0]["sentence"].endswith(" the chance.")
        assert answer["prediction"] == int(answer["probability"] >= answer["threshold"])


def test_any_regression_has_a_score_and_dimensions_that_add_up(tmp_path: Path) -> None:
    model, rows = loaded(tmp_path, "worth", objective="regression")
    for answer in explained(model, rows):
        assert answer["quality_score"] == answer["prediction"]
        total = answer["base_value"]
        for dimension in answer["dimensions"].values():
            total += dimension["contribution"]
        assert total == answer["raw_score"]
        assert answer["raw_score"] == pytest.approx(answer["value"], rel=1e-5)
        assert list(answer["dimensions"]) == [
            "fit",
            "value",
            "intent",
            "relationship",
            "urgency",
            "engagement",
        ]


def test_a_model_without_companions_makes_nothing_up(tmp_path: Path) -> None:
    model, rows = loaded(tmp_path, "worth", objective="regression")
    for answer in explained(model, rows):
        assert "urgency" not in answer
        assert "cross_sell_opportunities" not in answer


@pytest.mark.parametrize("objective", ["classification", "regression"])
def test_companions_of_any_model_are_heard(tmp_path: Path, objective: str) -> None:
    words = {"urgency": ("soon", "late", "later"), "cross_sell": ("auto", "home", "boat")}
    model, rows = loaded(tmp_path, "renewal", objective=objective, companions=words)
    chances = model.chances(rows)
    for at, answer in enumerate(explained(model, rows)):
        soon, late, _ = chances["urgency_question"][at]
        assert answer["urgency"]["ratio"] == pytest.approx(soon / (soon + late))
        offered = answer["cross_sell_opportunities"]
        assert {one["product"] for one in offered} == {"auto", "home", "boat"}
        assert [one["chance"] for one in offered] == sorted(
            chances["cross_sell_question"][at], reverse=True
        )


def test_the_level_of_urgency_is_by_the_rank_among_the_near_chances_of_training(
    tmp_path: Path,
) -> None:
    words = {"urgency": ("soon", "late", "later")}
    model, rows = loaded(tmp_path, "worth", objective="regression", companions=words)
    levels = set()
    for answer in explained(model, rows):
        # The quantiles of this model are even between 0 and 0.5.
        found = answer["urgency"]
        assert found["rank"] == pytest.approx(200 * found["near_chance"], abs=1)
        assert found["level"] == ("medium" if found["rank"] >= 60 else "low")
        levels.add(found["level"])
    assert levels


def test_no_chance_of_a_classifiers_companions_exceeds_its_probability(tmp_path: Path) -> None:
    words = {"urgency": ("soon", "late"), "cross_sell": ("auto", "home", "boat")}
    model, rows = loaded(tmp_path, "renewal", companions=words)
    for answer in explained(model, rows):
        most = answer["probability"] * (1 + 1e-9)
        assert answer["urgency"]["near_chance"] <= answer["urgency"]["far_chance"] <= most
        assert sum(one["chance"] for one in answer["cross_sell_opportunities"]) <= most


def test_companions_of_an_older_format_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model, _ = loaded(tmp_path, "worth", objective="regression", companions={"cross_sell": ("a",)})
    old = {**model.manifest, "format": 2}
    with pytest.raises(OutdatedModelError, match=r"format 2.* leadml models train worth"):
        LoadedModel(old, {})


def test_a_model_of_an_older_format_without_companions_answers_on(tmp_path: Path) -> None:
    model, rows = loaded(tmp_path, "renewal")
    old = {name: value for name, value in model.manifest.items() if name != "occurs"}
    again = LoadedModel({**old, "format": 2}, model._files)
    assert explained(again, rows) == explained(model, rows)


def test_answers_without_reasons_say_the_same_otherwise(tmp_path: Path) -> None:
    model, rows = loaded(tmp_path, "renewal", risk_levels=(0.3, 0.5, 0.6))
    predictions = model.predict(rows)
    for short, whole in zip(
        Answers(model).plain(predictions), Answers(model).explained(rows, predictions), strict=True
    ):
        assert short == {name: whole[name] for name in short}
        assert set(whole) - set(short) == {
            "base_value",
            "raw_score",
            "factors",
            "feature_importance",
        }


def test_factors_are_read_off_the_row(tmp_path: Path) -> None:
    model, rows = loaded(tmp_path, "renewal")
    found = model.contributions(rows)
    for at, answer in enumerate(explained(model, rows)):
        assert 0 < len(answer["factors"]) <= model.factors
        for factor in answer["factors"]:
            place = model.features.index(factor["feature"])
            assert factor["shap_value"] == found.values[at, place]
            assert (factor["value"] is None) == bool(np.isnan(rows[at, place]))


def test_no_rows_have_no_answers(tmp_path: Path) -> None:
    model, rows = loaded(tmp_path, "renewal")
    assert explained(model, rows[:0]) == []
