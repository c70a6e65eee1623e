"""Makes the drift page in a process of its own: `python -m leadml_pipelines.monitoring.drift_page`.

Evidently takes seconds and some hundred megabytes to import, asks pandas for a name that pandas 3
no longer has, and can send statistics about its use. All of that stays in this process: it lives as
long as one page, and no part of it can open a connection or start another process.
"""

from __future__ import annotations

import html
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

REQUEST, BEFORE, NOW, PAGE = "request.json", "reference.parquet", "current.parquet", "drift.html"
"""What the folder holds: the question, the two sides, and in the end the page."""

_OUTWARDS = (
    "socket.connect", "socket.sendto", "socket.getaddrinfo",
    "subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system",
)  # fmt: skip
"""Python's audit events of reaching another machine or starting another process."""
_PSI = "leadml_psi"
_STYLE = (
    "<style>.leadml{font:14px Roboto,system-ui,sans-serif;margin:24px auto;max-width:1100px}"
    ".leadml table{border-collapse:collapse;width:100%}.leadml td,.leadml th{padding:4px 10px;"
    "border-bottom:1px solid #ddd;text-align:right}.leadml td:first-child,.leadml th:first-child"
    "{text-align:left}.leadml .moved{background:#fdecea;font-weight:600}</style>"
)


class ConnectionRefusedHereError(RuntimeError):
    """Something in this process wanted to reach the outside."""


def stay_inside() -> None:
    """Refuse every connection and every child process of this process, for as long as it lives."""

    def refuse(event: str, _arguments: Any) -> None:
        if event in _OUTWARDS:
            raise ConnectionRefusedHereError(f"{event} is not allowed while a report is made")

    sys.addaudithook(refuse)


def make_page(folder: Path) -> None:
    """Read the question and the two sides from a folder, and write the page there."""
    import pandas as pd

    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    before, now = pd.read_parquet(folder / BEFORE), pd.read_parquet(folder / NOW)
    page = _evidently(request, before, now)
    head, body, rest = page.partition("<body>")
    if not body:
        raise RuntimeError("Evidently's page has no <body>; its format changed")
    own = _table(request["title"], request["sentence"], request["columns"])
    (folder / PAGE).write_text(f"{head}{body}{_STYLE}{own}{rest}", encoding="utf-8")


def _evidently(request: Mapping[str, Any], before: pd.DataFrame, now: pd.DataFrame) -> str:
    """Evidently's report on the columns of the frames, with the figures that were computed."""
    _give_pandas_the_name_that_evidently_asks_for()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import DataDefinition, Dataset, Report
        from evidently.legacy.calculations.stattests import StatTest, register_stattest
        from evidently.legacy.core import ColumnType
        from evidently.presets import DataDriftPreset

        figures = {one["name"]: one for one in request["columns"]}

        def psi(_before: pd.Series, column: pd.Series, _type: Any, limit: float) -> Any:
            found = figures[str(column.name)]
            return found["psi"], found["drifted"]

        kinds = [ColumnType.Numerical, ColumnType.Categorical]
        register_stattest(StatTest(_PSI, "PSI", kinds, request["limit"]), psi)
        words = [name for name in before if before[name].dtype == object or _is_text(before[name])]
        numbers = [name for name in before if name not in words]
        definition = DataDefinition(numerical_columns=numbers, categorical_columns=words)
        preset = DataDriftPreset(
            method=_PSI,
            # One column is drift here; half of them, Evidently's own limit, would deny it.
            drift_share=0.01,
            per_column_threshold={
                name: max(request["limit"], figures[name]["psi_usual"]) for name in before
            },
        )
        report = Report([preset])
        made = report.run(
            Dataset.from_pandas(now, definition), Dataset.from_pandas(before, definition)
        )
        return str(made.get_html_str(as_iframe=False))


def _give_pandas_the_name_that_evidently_asks_for() -> None:
    """Evidently 0.7 imports a private function for a test that no report here makes."""
    from pandas.core.dtypes import common

    if not hasattr(common, "infer_dtype_from_object"):
        common.infer_dtype_from_object = lambda kind: kind  # type: ignore[attr-defined]


def _is_text(column: pd.Series) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_string_dtype(column.dtype))


def _table(title: str, sentence: str, columns: Sequence[Mapping[str, Any]]) -> str:
    """The columns that moved with their figures, and folded away the others."""
    moved = [one for one in columns if one["drifted"]]
    others = [one for one in columns if not one["drifted"]]
    return (
        f'<div class="leadml"><h1>{html.escape(title)}</h1><p>{html.escape(sentence)}</p>'
        f"{_rows(moved) if moved else ''}<details><summary>{len(others)} columns have not moved"
        f"</summary>{_rows(others)}</details></div>"
    )


def _rows(columns: Sequence[Mapping[str, Any]]) -> str:
    names = ("column", "type", "PSI", "usual", "KS", "usual", "missing before", "missing now")
    rows = ["<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"]
    for one in columns:
        kind = f"{one['type']}, over the mean of its moment" if one["relative"] else one["type"]
        cells = [html.escape(one["name"]), html.escape(kind)]
        cells += [_number(one[key]) for key in ("psi", "psi_usual", "ks", "ks_usual")]
        cells += [f"{one[key]:.1%}" for key in ("missing_before", "missing_now")]
        mark = ' class="moved"' if one["drifted"] else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "<table>" + "".join(rows) + "</table>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    stay_inside()
    make_page(Path(sys.argv[1]))
