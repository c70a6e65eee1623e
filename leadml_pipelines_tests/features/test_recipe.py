"""Which features are meant, and whose they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leadml_pipelines.features.catalogue import UnknownFeatureError
from leadml_pipelines.features.frames import SpineError
from leadml_pipelines_tests.features.stores import lead, per_day
from leadml_pipelines_tests.features.world import NOW, spine


def test_27_unknown_features_are_all_named_with_what_is_near(open_store: Any) -> None:
    with pytest.raises(
        UnknownFeatureError, match=r"named inbound_count_7;.*did you mean.*named zzz"
    ):
        open_store(lead()).training_set(spine(("a", NOW)), ["inbound_count_7", "source", "zzz"])


def test_a_feature_asked_for_twice_and_one_text_for_a_list_are_refused(open_store: Any) -> None:
    opened = open_store(lead())
    with pytest.raises(UnknownFeatureError, match="asked for twice: source"):
        opened.training_set(spine(("a", NOW)), ["source", "age", "source"])
    with pytest.raises(UnknownFeatureError, match="one text; give a list"):
        opened.training_set(spine(("a", NOW)), "source")


def test_31_a_request_feature_named_like_a_feature_is_refused(open_store: Any) -> None:
    feature = replace(per_day(1), name="source")
    with pytest.raises(SpineError, match="request feature source has the name of a feature"):
        open_store(lead()).training_set(spine(("a", NOW)), [feature])
