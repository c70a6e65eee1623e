"""`leadml models ...`: what was trained, what answers now, who said so."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from leadml_pipelines.commands.common import DEFAULT_HOME, Home, postgres, terminal

if TYPE_CHECKING:
    from leadml_pipelines.learning.registry.registry import Registry

models = typer.Typer(help="Models: what was trained, what answers now, promote and roll back.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Model = Annotated[
    str, typer.Argument(help="Id of a model, or name and alias, as in churn@champion.")
]
Name = Annotated[str, typer.Argument(help="Name of a model, as in churn.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Overrule the gate that rejected it, or did not compare it with the present champion;"
        " needs --reason.",
    ),
]
Reason = Annotated[str | None, typer.Option(help="Why; recorded for ever.")]
By = Annotated[str | None, typer.Option(help="Who does it; the user of this shell if not given.")]


@models.command("list")
def list_models(
    home: Home = DEFAULT_HOME,
    name: Annotated[str | None, typer.Option(help="Only models of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most models listed.")] = 30,
    as_json: AsJson = False,
) -> None:
    """The registered models, the newest first, and who answers."""
    from leadml_pipelines.commands.model_tables import print_models
    from leadml_pipelines.learning.registry.model_documents import summary

    with _registry(home) as registry:
        found, held = registry.models(name, limit), registry.held(name)
    if as_json:
        _print_json([summary(record, held) for record in found])
    else:
        print_models(terminal(), found, held)


@models.command("show")
def show_model(model: Model, home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """All about one model: facts, metrics beside others, the gate's reasons, its history."""
    from leadml_pipelines.commands.model_tables import print_model
    from leadml_pipelines.learning.registry.model_documents import detail

    with _registry(home) as registry:
        record = registry.find(model)
        held = registry.held(record.name)
        changes = registry.changes(model_id=record.model_id)
    if as_json:
        _print_json(detail(record, held, changes))
    else:
        print_model(terminal(), record, held, changes)


@models.command("compare")
def compare_models(
    models: Annotated[list[str], typer.Argument(help="Two or more models; one: with champion.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Metrics of several models side by side."""
    from leadml_pipelines.commands.model_tables import print_comparison
    from leadml_pipelines.learning.registry.registry import RegistryError

    with _registry(home) as registry:
        records = [registry.find(model) for model in models]
        if len(records) == 1:
            records.append(registry.find(f"{records[0].name}@champion"))
    if len({record.model_id for record in records}) < 2:
        raise RegistryError(
            f"{records[0].model_id} would stand beside itself; give another model to compare it "
            f"with, as in {records[0].name}@previous or an id of `leadml models list`"
        )
    print_comparison(terminal(), records)


@models.command("history")
def show_history(
    name: Annotated[str | None, typer.Argument(help="Only of this name.")] = None,
    home: Home = DEFAULT_HOME,
    limit: Annotated[int, typer.Option(min=1, help="Most changes listed.")] = 30,
) -> None:
    """Who became champion or challenger when, by whom, and why; the newest change first."""
    from leadml_pipelines.commands.model_tables import print_changes

    with _registry(home) as registry:
        changes = registry.changes(name, limit=limit)
    print_changes(terminal(), changes)


@models.command("promote")
def promote_model(
    model: Model,
    home: Home = DEFAULT_HOME,
    force: Force = False,
    reason: Reason = None,
    by: By = None,
) -> None:
    """Make a model the champion; the champion so far becomes `previous`."""
    console = terminal()
    with _registry(home) as registry:
        record = registry.find(model)
        before = registry.champion(record.name)
        registry.promote(record.model_id, by or _user(), force=force, reason=reason)
        if before is not None and before.model_id == record.model_id:
            _say(console, f"{record.model_id} is the champion already")
        else:
            replaced = f" instead of {before.model_id}" if before else ""
            _say(console, f"{record.model_id} is champion{replaced}")
            if before is not None and record.compared_with != before.model_id:
                seen = record.compared_with or "no champion"
                _say(console, f"note: its gate had compared it with {seen}")
        _publish(registry, record.name, console)


@models.command("rollback")
def rollback_model(
    name: Name, home: Home = DEFAULT_HOME, reason: Reason = None, by: By = None
) -> None:
    """Make the champion before this one champion again; the two change places."""
    console = terminal()
    with _registry(home) as registry:
        before = registry.champion(name)
        record = registry.rollback(name, by or _user(), reason)
        replaced = before.model_id if before else "nothing"
        _say(console, f"{record.model_id} is champion again; {replaced} is the previous one now")
        _publish(registry, name, console)


@models.command("challenge")
def challenge_champion(
    model: Model,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the entities that it answers for.")
    ],
    home: Home = DEFAULT_HOME,
    force: Force = False,
    reason: Reason = None,
    by: By = None,
) -> None:
    """Let a model answer for a share of the entities, beside the champion."""
    console = terminal()
    with _registry(home) as registry:
        record = registry.find(model)
        registry.challenge(record.model_id, share, by or _user(), force=force, reason=reason)
        _say(console, f"{record.model_id} answers for {share:.1%} of the entities")
        _publish(registry, record.name, console)


@models.command("end-challenge")
def end_challenge(
    name: Name, home: Home = DEFAULT_HOME, reason: Reason = None, by: By = None
) -> None:
    """Let the champion answer for everybody again."""
    console = terminal()
    with _registry(home) as registry:
        record = registry.end_challenge(name, by or _user(), reason)
        _say(console, f"{record.model_id} is no challenger any more")
        _publish(registry, name, console)


@models.command("card")
def show_card(
    model: Model,
    home: Home = DEFAULT_HOME,
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Write the card and its plots into this folder."),
    ] = None,
) -> None:
    """The model card: Markdown, or with its plots into a folder."""
    with _registry(home) as registry:
        record = registry.find(model)
        files = {} if out is None else registry.files(record.model_id).files
    if out is None:
        sys.stdout.write(record.card)
        return
    out.mkdir(parents=True, exist_ok=True)
    card = {name: content for name, content in files.items() if _belongs_to_card(name)}
    for name, content in card.items():
        (out / name).write_bytes(content)
    _say(terminal(), f"wrote {', '.join(sorted(card))} to {out}")


@models.command("resign")
def resign_models(
    old_key_file: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="File that holds the key so far (0600)."),
    ],
    home: Home = DEFAULT_HOME,
    name: Annotated[str | None, typer.Option(help="Only models of this name.")] = None,
) -> None:
    """Sign the models' files with the present key, after verifying them with the one so far."""
    from leadml_pipelines.learning.registry.artifacts import IntegrityError
    from leadml_pipelines.learning.registry.signing import SigningKey
    from leadml_pipelines.learning.registry.store_contract import error_words

    console, old = terminal(), SigningKey(path=old_key_file)
    old.read()
    refused: list[str] = []
    with _registry(home) as registry:
        found = [record for record in registry.models(name) if record.pruned_at is None]
        for record in found:
            try:
                signed = registry.resign(record.model_id, old)
            except (IntegrityError, OSError) as error:
                refused.append(record.model_id)
                _say(console, f"{record.model_id}: not signed again: {error_words(error)}")
            else:
                said = "signed again" if signed else "is signed with the present key already"
                _say(console, f"{record.model_id}: {said}")
    if refused:
        _say(
            console,
            f"{len(refused)} of {len(found)} were not signed again, and are not loaded with the "
            f"present key: {', '.join(refused)}. Mend that and give the command again; those that "
            "are signed stay as they are",
        )
        raise typer.Exit(1)


@models.command("prune")
def prune_models(
    home: Home = DEFAULT_HOME,
    name: Annotated[str | None, typer.Option(help="Only models of this name.")] = None,
    days: Annotated[
        int | None,
        typer.Option(min=1, help="Keep younger models; LEADML_MODEL_RETENTION_DAYS if not given."),
    ] = None,
    newest: Annotated[
        int | None,
        typer.Option(
            min=1, help="Keep so many of each name; LEADML_MODEL_RETENTION_NEWEST if not given."
        ),
    ] = None,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Delete whole folders too that are not registered here. Not where several "
            "registries share one store.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Delete nothing; tell what would be.")
    ] = False,
) -> None:
    """Delete the files of old models that neither answer nor answered lately; records stay."""
    from leadml_pipelines.commands.model_tables import print_pruning
    from leadml_pipelines.learning.registry.retention import Retention
    from leadml_pipelines.settings import Settings

    with _registry(home) as registry:
        house = Retention.of(Settings())
        retention = Retention(days or house.days, newest or house.newest)
        found = registry.prune(retention, name, dry_run=dry_run, unknown_too=unknown)
    print_pruning(terminal(), found, retention)
    if found.failed:
        raise typer.Exit(1)


def _belongs_to_card(name: str) -> bool:
    return name.endswith((".md", ".png", ".svg"))


@contextmanager
def _registry(home: Path) -> Iterator[Registry]:
    """The registry of a home, whose PostgreSQL runs at least as long as this."""
    from leadml_pipelines.learning.registry.registry import Registry
    from leadml_pipelines.settings import Settings

    with postgres(home) as url:
        yield Registry.of(Settings(), url)


def _publish(registry: Registry, name: str, console: Console) -> None:
    """Tell serving at once; where Redis is away, say that it does not know yet."""
    import redis

    from leadml_pipelines.online.model_pointers import ModelPointers
    from leadml_pipelines.online.publish_models import publish_roles
    from leadml_pipelines.settings import Settings

    url = Settings().redis_url
    if url is None:
        _say(console, f"serving was not told: {_LATER.format(why='Redis has no address here')}")
        return
    try:
        with ModelPointers(url.get_secret_value(), timeout_seconds=2.0) as pointers:
            publish_roles(pointers, registry, [name])
    except redis.RedisError as error:
        why = f"Redis can't be reached ({type(error).__name__})"
        _say(console, f"serving was not told yet: {_LATER.format(why=why)}")
    else:
        _say(console, "serving was told")


_LATER = (
    "{why}. The change stands; Dagster's promoted_model_sensor publishes it once Redis answers. "
    "Do not repeat the command"
)


def _say(console: Console, text: str) -> None:
    """Print a sentence as it is: errors, reasons and addresses may hold square brackets."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _user() -> str:
    return getpass.getuser()


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
