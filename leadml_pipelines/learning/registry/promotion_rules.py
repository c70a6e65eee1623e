"""Who may become champion or challenger, besides what the gate says of the model itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.registry.aliases import held_aliases
from leadml_pipelines.learning.registry.model_records import ModelRecord

if TYPE_CHECKING:
    import psycopg

PROGRAM = "dagster"
"""Who promotes when no person does, as the record of changes names it."""

_SHORTEST_REASON = 10
"""Fewest characters of a reason for overruling the gate."""


class RegistryError(UserError, LookupError):
    """A model or an alias that is not there, or may not become what was asked."""


class PromotionRefusedError(RegistryError):
    """A model that may not become champion, or not without a person who says so."""


class PrunedError(RegistryError):
    """A model whose files were deleted, so that it can answer no more."""


def require_files(record: ModelRecord) -> None:
    """Make sure that a model's files were not deleted.

    Raises:
        PrunedError: they were.
    """
    if record.pruned_at is not None:
        raise PrunedError(
            f"the files of {record.model_id} were deleted at {record.pruned_at:%Y-%m-%d %H:%M} UTC "
            "by `leadml models prune`, so it can answer no more; `leadml models list` tells which "
            "models have theirs, and a training makes a new one"
        )


def overrules(record: ModelRecord, force: bool, reason: str | None) -> bool:
    """Whether the gate is overruled.

    Raises:
        PromotionRefusedError: the gate rejected the model, and nobody forces it, or without saying
            why.
    """
    if record.passed_gate:
        return False
    if not force:
        raise PromotionRefusedError(
            f"{record.model_id} was rejected and can't be promoted: "
            f"{'; '.join(record.gate_reasons)}"
        )
    _require_reason(f"{record.model_id} was rejected by its gate; who overrules it", reason)
    return True


def overrules_comparison(
    connection: psycopg.Connection[Any], record: ModelRecord, force: bool, reason: str | None
) -> bool:
    """Whether a person promotes a model that was not compared with the present champion.

    Raises:
        PromotionRefusedError: it was not, and nobody forces it, or without saying why.
    """
    held = {one.alias: one.model_id for one in held_aliases(connection, record.name)}
    champion = held.get("champion")
    if champion in (None, record.model_id, record.compared_with):
        return False
    seen = f"with {record.compared_with}" if record.compared_with else "with no champion"
    problem = f"{record.model_id} was compared {seen}, and the champion is {champion}"
    if not force:
        raise PromotionRefusedError(
            f"{problem}, so nobody knows which is better. Train again: the new model is compared "
            f"with {champion} on the newest rows; or promote it with --force --reason TEXT"
        )
    _require_reason(f"{problem}; who promotes it all the same", reason)
    return True


def _require_reason(who: str, reason: str | None) -> None:
    if len((reason or "").strip()) < _SHORTEST_REASON:
        raise PromotionRefusedError(
            f"{who} says why, in {_SHORTEST_REASON} characters or more: the reason is recorded for "
            "ever"
        )


def require_present_comparison(connection: psycopg.Connection[Any], record: ModelRecord) -> None:
    """Make sure that a program may promote a model now.

    Raises:
        PromotionRefusedError: only a person may.
    """
    held = {one.alias: one.model_id for one in held_aliases(connection, record.name)}
    champion = held.get("champion")
    if champion == record.model_id:
        return
    _require_nobody_intervened(connection, record)
    if record.promoted_at is not None:
        raise PromotionRefusedError(
            f"{record.model_id} was champion before and was replaced by {champion}; only a person "
            f"makes it champion again: leadml models promote {record.model_id} --force "
            "--reason TEXT"
        )
    if champion is not None and record.compared_with is None:
        raise PromotionRefusedError(
            f"{record.model_id} was not compared with the champion {champion}: that could not be "
            f"measured, or was not champion yet; `leadml models show {record.model_id}` tells "
            "which. A person decides: train again, or promote it with --force --reason TEXT"
        )
    if champion != record.compared_with:
        raise PromotionRefusedError(
            f"the gate compared {record.model_id} with {record.compared_with}, but the champion is "
            f"{champion or 'nobody'} now; train again, or look at `leadml models compare` and "
            "promote it with --force --reason TEXT"
        )


def _require_nobody_intervened(connection: psycopg.Connection[Any], record: ModelRecord) -> None:
    """After a rollback or a forced promotion the next training must not undo what a person did."""
    last = connection.execute(
        "SELECT kind, forced, changed_at, changed_by FROM leadml.model_alias_changes"
        " WHERE name = %s AND alias = 'champion' ORDER BY id DESC LIMIT 1",
        (record.name,),
    ).fetchone()
    if last is None:
        return
    kind, forced, changed_at, changed_by = last
    if kind == "rollback" or forced:
        what = "rolled back" if kind == "rollback" else "promoted by force a model of"
        raise PromotionRefusedError(
            f"{changed_by} {what} {record.name} at {changed_at:%Y-%m-%d %H:%M} UTC, so no program "
            f"promotes until a person does: leadml models promote {record.model_id}"
        )
