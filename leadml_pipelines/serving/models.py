"""The models that answer now, kept in step with the pointers in Redis while requests run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psycopg
import redis
import structlog

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.online.format import Rows
from leadml_pipelines.online.model_pointers import ModelPointers
from leadml_pipelines.serving.assignment import CHALLENGER, CHAMPION, Part, Role, assign
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.served_model import ServedModel, load, require_ours
from leadml_pipelines.times import utc_now

POLL_SECONDS = 3.0
"""Seconds between two looks at the pointers, in case a message was lost."""
LONGEST_PAUSE = 60.0
"""Most seconds until what could not be loaded is tried again; the pauses double up to it."""

_STOP_NOTICED = 0.2
"""Seconds until the thread notices that it shall end."""
_STOP_SECONDS = 3.0
"""Seconds that are waited for a model that is being loaded; the thread dies with the process."""
_SETTLE_SECONDS = 1.0
"""Seconds that are waited for what runs after the first look, likewise."""

Pointers = Mapping[str, Mapping[str, Any]]
"""Model name to pointer."""

Alias = Role | Literal["previous"]
"""What a pointer is of."""
PREVIOUS: Literal["previous"] = "previous"
"""The alias of what was champion before."""

Instead = Literal["last_good", "previous"]
"""Why another version answers than the one that should: it answered before, or it is the alias
`previous` and no good one was in memory."""

_SHARE = "traffic_share"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is known of a model, whether or not it could be loaded.

    Attributes:
        wanted: The pointer that should be served.
        served: What answers; None if nothing could be loaded yet.
        error: Why the wanted version does not answer; None if it does.
        instead: What `served` is where it is not the wanted version; None elsewhere.
    """

    wanted: Mapping[str, Any]
    served: ServedModel | None
    error: str | None
    instead: Instead | None = None


@dataclass(frozen=True, slots=True)
class _Retry:
    """When what could not be loaded is tried again.

    Attributes:
        at: Not before that, by the monotonic clock.
        pause: Seconds that it was put off for.
    """

    at: float
    pause: float


class ModelShelf:
    """Loads what the pointers name, in a thread of its own, and swaps whole models.

    A new version that can't be loaded changes nothing: the last good one keeps answering, and the
    state says why; it is tried again after pauses that grow, or as soon as the pointer changes.
    Where no good one is in memory, as after a restart, what the alias `previous` points to answers
    until the champion can be loaded. A challenger that can't be loaded, or is no longer pointed to,
    leaves all requests to the champion. The version that was replaced last stays in memory, so that
    going back to it needs no store.

    Args:
        pointers: Those in Redis.
        fallback: The pointers by alias as the registry knows them, asked only when Redis can't be
            reached or has none, and something that should answer does not.
        key: Verifies the models' files.
        artifacts: Address of the folder of all artifacts.
        metrics: Where to count.
        on_first_look: Called once, after the models were loaded for the first time.
        poll_seconds: Seconds between two looks at the pointers.
    """

    def __init__(
        self,
        pointers: ModelPointers,
        fallback: Callable[[], Mapping[Alias, Pointers]],
        key: SigningKey,
        artifacts: str | Path,
        metrics: Metrics,
        on_first_look: Callable[[], None] = lambda: None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._pointers = pointers
        self._fallback = fallback
        self._key = key
        self._artifacts = artifacts
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._states: Mapping[str, ModelState] = {}
        self._challengers: Mapping[str, ModelState] = {}
        self._previous: Mapping[str, ModelState] = {}
        self._replaced: dict[str, ServedModel] = {}
        self._retries: dict[tuple[str, Alias], _Retry] = {}
        self._loaded: frozenset[tuple[str, str]] = frozenset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._after_first_look = threading.Thread(
            target=_going_on, args=(on_first_look,), name="after-first-look", daemon=True
        )
        self.looked = threading.Event()
        """Set once the pointers were looked at for the first time, whatever came of it."""

    @property
    def states(self) -> Mapping[str, ModelState]:
        """Every model that a pointer names or named: its champion."""
        return self._states

    @property
    def challengers(self) -> Mapping[str, ModelState]:
        """Every challenger that a pointer names, by the model's name."""
        return self._challengers

    def trouble(self, name: str) -> str | None:
        """Why the champion of a model does not answer, and who does instead; None if it does."""
        state = self._states.get(name)
        if state is None or state.error is None:
            return None
        if state.served is not None:
            which = "its previous version" if state.instead == "previous" else "the last good one"
            return f"{state.error}; {state.served.model.model_id}, {which}, answers instead"
        previous = self._previous.get(name)
        if previous is None:
            return state.error
        return (
            f"{state.error}; nor can its previous version, {previous.wanted.get('model_id')}, "
            f"be loaded: {previous.error}"
        )

    def assign(self, champion: ServedModel, rows: Rows, ids: Sequence[str]) -> list[Part]:
        """Who answers for which rows, by the experiment that runs now.

        Args:
            champion: Of the model that was asked for.
            rows: Some entities.
            ids: The ids that the rows' positions are places in.
        """
        state = self._challengers.get(champion.name)
        if state is None or state.served is None or state.error is not None:
            return assign(champion, None, 0.0, rows, ids)
        return assign(champion, state.served, float(state.wanted[_SHARE]), rows, ids)

    def start(self) -> None:
        """Begin to look, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; waits for the threads, but not longer than a few seconds."""
        self._stop.set()
        waits = ((self._thread, _STOP_SECONDS), (self._after_first_look, _SETTLE_SECONDS))
        for thread, seconds in waits:
            if thread.is_alive():
                thread.join(seconds)
                if thread.is_alive():
                    log.info("not_waited_for", thread=thread.name)

    def refresh(self) -> None:
        """Look at the pointers once and load what changed.

        Raises:
            redis.RedisError: Redis can't be reached.
        """
        pointers = self._pointers.of_role(CHAMPION)
        if not pointers:
            # It says nothing of challengers either.
            self._look_in_registry()
            return
        challengers = self._pointers.of_role(CHALLENGER)
        for name in self._challengers.keys() - challengers.keys():
            self._end(name)
        for name, pointer in pointers.items():
            self._take(name, pointer, CHAMPION)
        if any(state.served is None for state in self._states.values()):
            self._fall_back(self._pointers.of_role(PREVIOUS))
        for name, pointer in challengers.items():
            self._take(name, pointer, CHALLENGER)

    def _run(self) -> None:
        while not self._stop.is_set():
            _going_on(self._follow_or_fall_back)
            if not self._stop.is_set():
                _going_on(self._note_look)
                self._stop.wait(self._poll_seconds)

    def _follow_or_fall_back(self) -> None:
        try:
            self._follow()
        except redis.RedisError as error:
            self._metrics.failures.labels("redis").inc()
            log.warning("model_channel_lost", error=type(error).__name__)
            self._look_in_registry()

    def _follow(self) -> None:
        """Look at every message and every few seconds; subscribed before the first look."""
        next_look = 0.0
        for changed in self._pointers.changes(min(self._poll_seconds, _STOP_NOTICED)):
            if self._stop.is_set():
                return
            if changed or time.monotonic() >= next_look:
                self.refresh()
                self._note_look()
                next_look = time.monotonic() + self._poll_seconds

    def _note_look(self) -> None:
        if not self.looked.is_set():
            self.looked.set()
            # It takes seconds, in which a new version may come.
            self._after_first_look.start()

    def _look_in_registry(self) -> None:
        if self._states and not any(state.error for state in self._states.values()):
            return
        try:
            found = self._fallback()
        except psycopg.Error as error:
            self._metrics.failures.labels("postgres").inc()
            log.warning("model_registry_unreachable", error=type(error).__name__)
            return
        for name, pointer in found.get(CHAMPION, {}).items():
            self._take(name, pointer, CHAMPION)
        self._fall_back(found.get(PREVIOUS, {}))
        for name, pointer in found.get(CHALLENGER, {}).items():
            self._take(name, pointer, CHALLENGER)

    def _fall_back(self, previous: Pointers) -> None:
        """Let the version before answer where no good one is in memory."""
        for name, state in self._states.items():
            if state.served is not None or name not in previous:
                self._drop_previous(name)
                continue
            self._take(name, previous[name], PREVIOUS)
            served = self._previous[name].served
            if served is None:
                continue
            self._put(name, CHAMPION, replace(state, served=served, instead="previous"))
            self._drop_previous(name)
            log.error(
                "previous_model_answers",
                model=name,
                model_id=served.model.model_id,
                wanted=state.wanted.get("model_id"),
                reason=state.error,
            )

    def _drop_previous(self, name: str) -> None:
        self._previous = {other: its for other, its in self._previous.items() if other != name}
        self._retries.pop((name, PREVIOUS), None)

    def _take(self, name: str, pointer: Mapping[str, Any], role: Alias) -> None:
        """Serve what a pointer names, if it is not served already."""
        state = self._of(role).get(name)
        if state is not None and state.wanted == pointer:
            if state.error is None or time.monotonic() < self._retries[name, role].at:
                return
        else:
            self._retries.pop((name, role), None)
        try:
            if role == CHALLENGER:
                _require_share(pointer)
            model = self._in_memory(name, pointer) or load(
                name, pointer, self._key, self._artifacts
            )
        except Exception as error:
            # Whatever it is, the other models must come into memory, and somebody must hear of it.
            self._refuse(name, role, pointer, error, state)
            return
        self._retries.pop((name, role), None)
        before = None if state is None else state.served
        if before is not None and before.model is model.model:
            self._put(name, role, ModelState(pointer, model, None))
            return
        self._put(name, role, ModelState(pointer, replace(model, loaded_at=utc_now()), None))
        if before is not None:
            self._replaced[name] = before
        if role == CHAMPION:
            self._drop_previous(name)
        log.info("model_loaded", model=name, role=role, model_id=model.model.model_id)

    def _in_memory(self, name: str, pointer: Mapping[str, Any]) -> ServedModel | None:
        """The model of a pointer, if its very files were verified and loaded before.

        Raises:
            ForeignArtifactError: the pointer names files of somebody else.
            KeyError: it names none.
        """
        states = (self._states.get(name), self._challengers.get(name))
        known = [state.served for state in states if state is not None]
        for model in (*known, self._replaced.get(name)):
            if model is not None and _same_files(model.pointer, pointer):
                require_ours(pointer, self._artifacts)
                return replace(model, pointer=pointer)
        return None

    def _refuse(
        self,
        name: str,
        role: Alias,
        pointer: Mapping[str, Any],
        error: Exception,
        state: ModelState | None,
    ) -> None:
        before = self._retries.get((name, role))
        pause = self._poll_seconds if before is None else min(2 * before.pause, LONGEST_PAUSE)
        self._retries[name, role] = _Retry(time.monotonic() + pause, pause)
        reason = _in_words(error)
        if state is not None and state.error == reason and state.wanted == pointer:
            return
        # A champion answers on, whatever is wanted; a challenger that is not wanted does not.
        served = None if state is None or role != CHAMPION else state.served
        instead: Instead | None = None if served is None else "last_good"
        if state is not None and served is not None and state.wanted == pointer:
            instead = state.instead or instead
        self._put(name, role, ModelState(pointer, served, reason, instead))
        self._metrics.model_failures.labels(name).inc()
        log.error(
            "model_not_loaded",
            model=name,
            role=role,
            model_id=pointer.get("model_id"),
            still_serving=served.model.model_id if served else None,
            reason=reason,
            # What is meant for a user says all; of the rest, one must see where it came from.
            exc_info=None if isinstance(error, UserError) else error,
        )

    def _end(self, name: str) -> None:
        left = {other: state for other, state in self._challengers.items() if other != name}
        log.info(
            "experiment_ended", model=name, model_id=self._challengers[name].wanted.get("model_id")
        )
        self._challengers = left
        self._retries.pop((name, CHALLENGER), None)
        self._count_loaded()

    def _of(self, role: Alias) -> Mapping[str, ModelState]:
        if role == PREVIOUS:
            return self._previous
        return self._challengers if role == CHALLENGER else self._states

    def _put(self, name: str, role: Alias, state: ModelState) -> None:
        # A new mapping, put in place at once: a request sees all of the old or all of the new.
        if role == PREVIOUS:
            self._previous = {**self._previous, name: state}
        elif role == CHALLENGER:
            self._challengers = {**self._challengers, name: state}
        else:
            self._states = {**self._states, name: state}
            # One gauge for each name: an alert on it must see it fall back to 0.
            self._metrics.model_instead.labels(name).set(state.instead is not None)
        self._count_loaded()

    def _count_loaded(self) -> None:
        loaded = frozenset(
            (name, state.served.model.model_id)
            for states in (self._states, self._challengers)
            for name, state in states.items()
            if state.served is not None
        )
        for gone in self._loaded - loaded:
            self._metrics.model_loaded.remove(*gone)
        for labels in loaded:
            self._metrics.model_loaded.labels(*labels).set(1)
        self._loaded = loaded


def _going_on(step: Callable[[], None]) -> None:
    """Do something whose failure must not end the thread, such as a pointer that nobody foresaw.

    No model would ever be exchanged again, and nobody would notice.
    """
    try:
        step()
    except Exception:
        log.exception("models_not_looked_after")


def _require_share(pointer: Mapping[str, Any]) -> None:
    share = pointer[_SHARE]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"the challenger's {_SHARE} is {share!r}; it must lie between 0 and 1")


def _same_files(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two pointers name one version: the manifest's hash holds all its files."""
    return all(one[name] == other[name] for name in ("model_id", "manifest_sha256"))


def _in_words(error: Exception) -> str:
    """What went wrong, for somebody who reads it in the app's health."""
    kind = type(error).__name__
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyError):
        return f"the pointer or the model's manifest lacks {error.args[0] if error.args else '?'}"
    if isinstance(error, OSError) and error.strerror:
        named = f": {error.filename}" if error.filename else ""
        return f"the model's files can't be read: {error.strerror}{named} ({kind})"
    if isinstance(error, ValueError) and str(error):
        return str(error)
    return f"the model could not be loaded: {kind}: {error}" if str(error) else kind
