"""Views of other packages: the example of the docs works as it stands, a broken one is named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import leadml_pipelines
from leadml_pipelines_tests.packages import install, run_beside

DOCS = Path(leadml_pipelines.__file__).parents[1] / "docs" / "features.md"

COMPUTE = """
import sys
from datetime import timedelta
from pathlib import Path
from leadml_pipelines.features.catalogue import catalogue
from leadml_pipelines.features.engines import DuckDBEngine
from leadml_pipelines.features.functions import FUNCTIONS
from leadml_pipelines_tests.features.world import NOW, World, spine

world = World().lead("a", NOW - timedelta(days=40))
for days in (0.5, 2, 3, 20):
    world.event("a", NOW - timedelta(days=days), event_type="portal_login")
view = catalogue().view_of("inbound_burst_30d")
with DuckDBEngine(world.parquet(Path(sys.argv[1]))) as engine:
    row = engine.compute([view], spine(("a", NOW))).iloc[0]
print(view.owner, FUNCTIONS["burst"].__module__, *row.iloc[2:].tolist())
"""

PASTE = """
import acme_features
from leadml_pipelines.features.engineer import ad_hoc

specs = [
    {"function": "burst", "direction": "inbound", "window": "30d"},
    {"function": "ratio", "of": {"direction": "inbound"}, "per": "email_sent", "window": "30d"},
]
made = ad_hoc(specs, "lead")
scope = {}
exec(made.text, scope)
print(scope["my_view"].features == made.view.features, made.text)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_of_the_docs_adds_a_function_and_a_view(tmp_path: Path) -> None:
    (code,), (project,) = blocks("python"), blocks("toml")
    points = tomllib.loads(project)["project"]["entry-points"]["leadml.views"]
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    install(tmp_path, "acme-features", code, f"[leadml.views]\n{lines}\n")
    done = run_beside(tmp_path, COMPUTE, str(tmp_path / "world"))
    assert done.stderr == ""
    assert done.stdout.split() == ["team:portal", "acme_features", "3", "0.5", "0.25"]


def test_the_text_of_a_view_made_of_such_a_function_can_be_pasted(tmp_path: Path) -> None:
    (code,) = blocks("python")
    install(tmp_path, "acme-features", code, "")
    done = run_beside(tmp_path, PASTE)
    assert done.stderr == ""
    same, *text = done.stdout.split(maxsplit=1)
    assert same == "True"
    assert text[0].startswith("from acme_features import Burst\nfrom leadml_pipelines.features.fun")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("VIEWS = 3", "acme = acme_features:VIEWS of leadml.views is a int"),
        (
            "from leadml_pipelines.features.functions import *\n"
            "VIEWS = function_view('v', 'leed', [WeightedScore(parts=(Part(100, 'a'),))])",
            "the view v of acme_features:VIEWS is about 'leed'; there is lead, agent",
        ),
        ("import not_there", "acme = acme_features:VIEWS of leadml.views can't be imported"),
    ],
)
def test_a_broken_package_is_named(tmp_path: Path, code: str, message: str) -> None:
    install(tmp_path, "acme-features", code, "[leadml.views]\nacme = acme_features:VIEWS\n")
    done = run_beside(tmp_path, "import leadml_pipelines.features.catalogue")
    assert message in done.stderr
