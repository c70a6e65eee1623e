"""Models of other packages: that of the docs works as it stands, a broken one is named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import leadml_pipelines
from leadml_pipelines_tests.packages import install, run_beside

ROOT = Path(leadml_pipelines.__file__).parents[1]
RENEWAL = ROOT / "examples" / "renewal"
DOCS = ROOT / "docs" / "models.md"
ENTRY = "[leadml.models]\nrenewal = acme_renewal:SPEC\n"

ASSETS = """
from leadml_pipelines.assets.models import champion_assets, model_assets, training_set_assets
from leadml_pipelines.assets.online import online_models
from leadml_pipelines.learning.specs import SPECS

print(*SPECS)
for group in (training_set_assets, model_assets, champion_assets):
    print(group[-1].key.to_user_string())
print("renewal_champion" in {key.to_user_string() for key in online_models.dependency_keys})
"""

SPECS = "from leadml_pipelines.learning.specs import SPECS"

SPEC = """
from datetime import timedelta
from leadml_pipelines.learning.spec import ModelSpec
SPEC = ModelSpec(name={name!r}, description="", candidates="open", population="is_open",
    label="", horizon=timedelta(days={days}), objective="classification")
"""


def chapter() -> str:
    return DOCS.read_text(encoding="utf-8").partition("\n## A fourth model\n")[2].split("\n## ")[0]


@pytest.mark.parametrize(
    ("language", "file"), [("python", "acme_renewal.py"), ("toml", "pyproject.toml")]
)
def test_the_docs_show_the_example_as_it_is(language: str, file: str) -> None:
    (shown,) = re.findall(rf"```{language}\n(.*?)```", chapter(), re.DOTALL)
    assert shown == (RENEWAL / file).read_text(encoding="utf-8")


def test_an_installed_model_appears_as_assets_after_our_own(tmp_path: Path) -> None:
    project = tomllib.loads((RENEWAL / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"]["leadml.models"]
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    code = (RENEWAL / "acme_renewal.py").read_text(encoding="utf-8")
    install(tmp_path, project["name"], code, f"[leadml.models]\n{lines}\n")
    done = run_beside(tmp_path, ASSETS)
    assert done.stdout.splitlines() == [
        "churn conversion lead_score renewal",
        "renewal_training_set",
        "renewal_model",
        "renewal_champion",
        "True",
    ], done.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import not_there",
            "the model acme_renewal:SPEC of the package acme-renewal (entry renewal of "
            "leadml.models) can't be loaded (ModuleNotFoundError: No module named 'not_there'); "
            "mend the package or uninstall it",
        ),
        ("OTHER = 1", "can't be loaded (AttributeError: "),
        ("SPEC = not_defined", "can't be loaded (NameError: name 'not_defined' is not defined)"),
        (
            SPEC.format(name="renewal", days=-1),
            "can't be loaded (SpecError: renewal: horizon is -1 day",
        ),
        (
            "SPEC = {'name': 'renewal'}",
            "of the package acme-renewal (entry renewal of leadml.models) is a dict; it must be a "
            "ModelSpec of leadml_pipelines.learning.spec. Mend the package or uninstall it",
        ),
        (
            SPEC.format(name="churn", days=1),
            "the package acme-renewal declares a model churn, and LeadML declares one of that name "
            "too; give it another name, or uninstall the package",
        ),
    ],
)
def test_a_broken_package_is_named(tmp_path: Path, code: str, message: str) -> None:
    install(tmp_path, "acme-renewal", code, ENTRY)
    done = run_beside(tmp_path, SPECS)
    assert message in done.stderr


def test_two_packages_with_one_name_of_a_model_are_both_named(tmp_path: Path) -> None:
    code = SPEC.format(name="renewal", days=1)
    install(tmp_path, "acme-renewal", code, ENTRY)
    install(tmp_path, "other-models", code, "[leadml.models]\nzz = other_models:SPEC\n")
    done = run_beside(tmp_path, SPECS)
    assert (
        "the package other-models declares a model renewal, and the package acme-renewal declares "
        "one of that name too"
    ) in done.stderr
