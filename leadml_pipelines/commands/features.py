"""`leadml features ...`: what there is, training sets, the audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leadml_pipelines.commands.common import DEFAULT_HOME, Home, postgres, terminal

features = typer.Typer(help="Features: what there is, training sets, the audit.")

SHOWN = 50
"""Mismatches printed; `--json` writes all of them."""


@features.command("audit")
def audit_served(
    home: Home = DEFAULT_HOME,
    sample: Annotated[
        int, typer.Option(min=1, help="Served vectors of each entity type to compute again.")
    ] = 1_000,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the report to this file.")
    ] = None,
) -> None:
    """Compute served vectors again from the newest extract; exit with 1 if any differs."""
    from leadml_pipelines.features.audit import audit
    from leadml_pipelines.features.audit_report import print_report, write_report
    from leadml_pipelines.features.bulk import bulk_engine
    from leadml_pipelines.features.catalogue import catalogue
    from leadml_pipelines.settings import Settings
    from leadml_pipelines.sources.extract import latest_extract

    with postgres(home) as url:
        settings = Settings()
        extract = latest_extract(settings.extracts)
        with bulk_engine(extract, settings) as engine:
            report = audit(url, engine, catalogue(), extract.as_of, sample=sample)
    print_report(report, terminal(), SHOWN)
    if json_file is not None:
        write_report(report, json_file)
    if report.mismatches:
        raise typer.Exit(1)
