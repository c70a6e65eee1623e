"""Trees as XGBoost writes them in JSON: what is read of them beside XGBoost itself.

Serving imports this: nothing but the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Tree = Mapping[str, Any]
"""A tree as lists, one entry a node; `left_children` is -1 at a leaf."""


def document_of(booster: Any) -> dict[str, Any]:
    """All of a booster (`gbtree`), as its `load_model` takes it back in JSON."""
    document: dict[str, Any] = json.loads(booster.save_raw("json"))
    return document


def trees_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trees in a booster's document, in the order in which they are summed."""
    found: list[dict[str, Any]] = document["learner"]["gradient_booster"]["model"]["trees"]
    return found


def words_right(tree: Tree) -> dict[int, int]:
    """By node that asks about a category: a bit for each code that goes right."""
    found = {}
    for node, start, size in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        found[node] = sum(1 << code for code in tree["categories"][start : start + size])
    return found


def code_count(trees: list[dict[str, Any]]) -> int:
    """Codes of categories from this one on are in no tree."""
    return 1 + max((max(tree["categories"], default=-1) for tree in trees), default=-1)
