"""The models that answer now, kept in step with the pointers in Redis while requests run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
import redis
import structlog

from leadml_pipelines.errors import UserError
from leadml_pipelines.learning.model import Aligner, LoadedModel, load_model
from leadml_pipelines.learning.population import Population
from leadml_pipelines.learning.registry.signing import SigningKey
from leadml_pipelines.online.format import Rows, Schema
from leadml_pipelines.online.store import OnlineStore
from leadml_pipelines.serving.answers import Answers
from leadml_pipelines.serving.assignment import challenged
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.times import utc_now

ROLE = "champion"
CHALLENGER = "challenger"
POLL_SECONDS = 3.0
"""Seconds between two looks at the pointers, in case a message was lost."""

_STOP_NOTICED = 0.2
"""Seconds until the thread notices that it shall end."""

Pointers = Mapping[str, Mapping[str, Any]]
"""Model name to pointer."""

_SHARE = "traffic_share"

# What a pointer or an artifact that is missing, changed, damaged or not understood raises
# (XGBoost's and JSON's errors are ValueErrors).
_LOAD_ERRORS = (UserError, OSError, ValueError, LookupError, TypeError, RuntimeError)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model that answers.

    Attributes:
        name: Such as `churn`.
        pointer: What it was loaded by.
        model: The model in memory.
        population: Who it scores.
        answers: What its answers say.
        loaded_at: Since when it answers.
    """

    name: str
    pointer: Mapping[str, Any]
    model: LoadedModel
    population: Population
    answers: Answers
    loaded_at: datetime
    _aligners: dict[int, Aligner] = field(default_factory=dict, repr=False)

    @property
    def entity_type(self) -> str:
        """What the model scores."""
        return str(self.model.manifest.get("entity", "lead"))

    def inputs(self, rows: Rows) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Rows of a packed batch as rows of this model.

        Raises:
            KeyError: the rows' schema lacks a feature of the model.
        """
        aligner = self._aligners.get(rows.schema.schema_id)
        if aligner is None:
            aligner = self.model.aligner(rows.schema.names, _vocabularies(rows.schema))
            self._aligners[rows.schema.schema_id] = aligner
        return aligner(rows.values)

    def fits(self, rows: Rows) -> bool:
        """Whether the rows' schema has all that this model needs."""
        try:
            self.inputs(rows.where(np.zeros(len(rows.positions), bool)))
        except KeyError:
            return False
        return all(name in rows.schema.positions for name in self.population.features)


@dataclass(frozen=True, slots=True)
class ModelState:
    """What is known of a model, whether or not it could be loaded.

    Attributes:
        wanted: The pointer that should be served.
        served: What answers; None if nothing could be loaded yet.
        error: Why the wanted version does not answer; None if it does.
    """

    wanted: Mapping[str, Any]
    served: ServedModel | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Lot:
    """By which entities were given to one of two models.

    Attributes:
        experiment: The challenger's model id.
        share: Its share of the entities.
    """

    experiment: str
    share: float


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that one model answers for.

    Attributes:
        model: The model.
        role: What it is: `champion` or `challenger`.
        rows: The rows.
        lot: By which it got them; None where it had to be the champion.
    """

    model: ServedModel
    role: str
    rows: Rows
    lot: Lot | None


class ModelShelf:
    """Loads what the pointers name, in a thread of its own, and swaps whole models.

    A new version that can't be loaded changes nothing: the last good one keeps answering, and the
    state says why. A challenger that can't be loaded, or is no longer pointed to, leaves all
    requests to the champion.

    Args:
        store: Where the pointers are.
        fallback: The champions by the registry, asked only when Redis can't be reached or has no
            pointer, and nothing is loaded yet.
        key: Verifies the models' files.
        metrics: Where to count.
        on_first_look: Called once, after the models were loaded for the first time.
        poll_seconds: Seconds between two looks at the pointers.
    """

    def __init__(
        self,
        store: OnlineStore,
        fallback: Callable[[], Pointers],
        key: SigningKey,
        metrics: Metrics,
        on_first_look: Callable[[], None] = lambda: None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._store = store
        self._fallback = fallback
        self._key = key
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._states: Mapping[str, ModelState] = {}
        self._challengers: Mapping[str, ModelState] = {}
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

    def assign(self, champion: ServedModel, rows: Rows, ids: Sequence[str]) -> list[Part]:
        """Who answers for which rows, by the experiment that runs now.

        Args:
            champion: Of the model that was asked for.
            rows: Some entities.
            ids: The ids that the rows' positions are places in.
        """
        state = self._challengers.get(champion.name)
        challenger = None if state is None else state.served
        if (
            state is None
            or challenger is None
            or challenger.model.model_id != state.wanted.get("model_id")
            or challenger.model.model_id == champion.model.model_id
            or challenger.entity_type != champion.entity_type
            or not challenger.fits(rows)
        ):
            return [Part(champion, ROLE, rows, None)]
        lot = Lot(challenger.model.model_id, float(state.wanted[_SHARE]))
        named = [ids[at] for at in rows.positions.tolist()]
        drawn = np.array(challenged(champion.name, lot.experiment, named, lot.share), bool)
        sides = ((champion, ROLE, ~drawn), (challenger, CHALLENGER, drawn))
        return [Part(model, role, rows.where(its), lot) for model, role, its in sides if its.any()]

    def start(self) -> None:
        """Begin to look, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; returns once the threads have ended."""
        self._stop.set()
        for thread in (self._thread, self._after_first_look):
            if thread.is_alive():
                thread.join()

    def refresh(self) -> None:
        """Look at the pointers once and load what changed.

        Raises:
            redis.RedisError: Redis can't be reached.
        """
        pointers = self._store.model_pointers(ROLE)
        if not pointers:
            self._look_in_registry()
        challengers = self._store.model_pointers(CHALLENGER)
        for name in self._challengers.keys() - challengers.keys():
            self._end(name)
        for name, pointer in pointers.items():
            self._take(name, pointer)
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
        for changed in self._store.model_changes(min(self._poll_seconds, _STOP_NOTICED)):
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
        if any(state.served for state in self._states.values()):
            return
        try:
            for name, pointer in self._fallback().items():
                self._take(name, pointer)
        except psycopg.Error as error:
            self._metrics.failures.labels("postgres").inc()
            log.warning("model_registry_unreachable", error=type(error).__name__)

    def _take(self, name: str, pointer: Mapping[str, Any], role: str = ROLE) -> None:
        """Serve what a pointer names, if it is not served already."""
        state = self._of(role).get(name)
        if state is not None and state.error is None and state.wanted == pointer:
            return
        served = None if state is None else state.served
        try:
            if role == CHALLENGER:
                _require_share(pointer)
            if served is not None and _same_files(served.pointer, pointer):
                self._put(name, role, ModelState(pointer, replace(served, pointer=pointer), None))
                return
            fresh = load(name, pointer, self._key)
        except _LOAD_ERRORS as error:
            self._refuse(name, role, pointer, error, state)
            return
        self._put(name, role, ModelState(pointer, fresh, None))
        log.info("model_loaded", model=name, role=role, model_id=fresh.model.model_id)

    def _refuse(
        self,
        name: str,
        role: str,
        pointer: Mapping[str, Any],
        error: Exception,
        state: ModelState | None,
    ) -> None:
        reason = str(error.args[0]) if error.args else type(error).__name__
        if state is not None and state.error == reason and state.wanted == pointer:
            return
        # A champion answers on, whatever is wanted; a challenger that is not wanted does not.
        served = None if state is None or role == CHALLENGER else state.served
        self._put(name, role, ModelState(pointer, served, reason))
        self._metrics.model_failures.labels(name).inc()
        log.error(
            "model_not_loaded",
            model=name,
            role=role,
            model_id=pointer.get("model_id"),
            still_serving=served.model.model_id if served else None,
            reason=reason,
        )

    def _end(self, name: str) -> None:
        left = {other: state for other, state in self._challengers.items() if other != name}
        log.info(
            "experiment_ended", model=name, model_id=self._challengers[name].wanted.get("model_id")
        )
        self._challengers = left
        self._count_loaded()

    def _of(self, role: str) -> Mapping[str, ModelState]:
        return self._challengers if role == CHALLENGER else self._states

    def _put(self, name: str, role: str, state: ModelState) -> None:
        # A new mapping, put in place at once: a request sees all of the old or all of the new.
        if role == CHALLENGER:
            self._challengers = {**self._challengers, name: state}
        else:
            self._states = {**self._states, name: state}
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


def load(name: str, pointer: Mapping[str, Any], key: SigningKey) -> ServedModel:
    """Load and try out the model that a pointer names. No byte is parsed before it is verified.

    Raises:
        SigningKeyError: there is no key to verify it with.
        IntegrityError: a file is missing or is not what the pointer says.
        ValueError: the files are not this model.
        LookupError: pointer or manifest lack something.
    """
    model = load_model(str(pointer["artifact_uri"]), key.read(), str(pointer["manifest_sha256"]))
    if model.name != name or model.model_id != pointer["model_id"]:
        raise ValueError(
            f"the artifact is {model.model_id} of {model.name}, "
            f"but the pointer says {pointer['model_id']} of {name}"
        )
    population = Population(str(model.manifest.get("population", "")))
    # The first answer imports XGBoost and parses the trees: here, not in somebody's request.
    answers = Answers(model)
    answers.try_out()
    return ServedModel(name, pointer, model, population, answers, utc_now())


def _require_share(pointer: Mapping[str, Any]) -> None:
    share = pointer[_SHARE]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"the challenger's {_SHARE} is {share!r}; it must lie between 0 and 1")


def _same_files(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two pointers differ in the share of the traffic at the most."""
    return {**one, _SHARE: None} == {**other, _SHARE: None}


def _vocabularies(schema: Schema) -> dict[str, tuple[str, ...]]:
    return {f.name: f.vocabulary for f in schema.fields if f.type == "category"}
