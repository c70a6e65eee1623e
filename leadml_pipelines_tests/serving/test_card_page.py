from __future__ import annotations

import re

import pytest

from leadml_pipelines.serving.card_page import HEADERS, card_page

CARD = """# churn

| metric | value |
|---|---|
| roc_auc | 0.8 |

![curves](curves.png)
"""


def test_tables_and_plots_are_in_the_page() -> None:
    page = card_page("churn_1", CARD, {"curves.png": b"\x89PNG"})
    assert "<td>0.8</td>" in page
    assert 'src="data:image/png;base64,iVBORw=="' in page


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "a <b onclick='x'>b</b>",
        "[x](javascript:alert(1))",
        "![x](https://elsewhere.example/x.png)",
        "![x](../manifest.json)",
    ],
)
def test_nothing_in_a_card_becomes_active_or_comes_from_elsewhere(text: str) -> None:
    page = card_page("churn_1", text, {"manifest.json": b"{}"})
    body = page.partition("<body>")[2]
    assert not re.search(r"<(script|b)\b|<[^>]*\son\w+=|(href|src)=\"[^\"]", body)


def test_a_title_is_text() -> None:
    assert "<title>&lt;script&gt;</title>" in card_page("<script>", "", {})


def test_the_policy_allows_the_pages_own_style_and_pictures_alone() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "script-src" not in policy
