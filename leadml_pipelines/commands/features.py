"""`leadml features ...`: what there is, training sets, the audit."""

from __future__ import annotations

import typer

features = typer.Typer(help="Features: what there is, training sets, the audit.")
