from __future__ import annotations

import ast
from pathlib import Path

import pytest

import leadml_pipelines

PACKAGE = Path(leadml_pipelines.__file__).parent
GROUND = {"closing", "times", "settings", "errors", "postgres", "signals"}
MAY_IMPORT = {
    "services": GROUND,
    "sources": GROUND,
    "graph": GROUND | {"sources"},
    "features": GROUND | {"sources"},
    "learning": GROUND | {"sources", "features"},
    "online": GROUND | {"features"},
    "monitoring": GROUND | {"sources", "features", "learning", "online"},
    "serving": GROUND | {"sources", "graph", "features", "learning", "online", "monitoring"},
}


def imports_of(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_itself_and_the_floors_below(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        for module in imports_of(path):
            if module.startswith("leadml_pipelines."):
                other = module.split(".")[1]
                assert other in MAY_IMPORT[room] | {room}, f"{path} imports {module}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_below_the_assets_does_not_know_dagster(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        assert not {m for m in imports_of(path) if m.split(".")[0] == "dagster"}, path
