"""Which of two versions of a model answers for an entity: by lot, and always the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from leadml_pipelines.online.format import Rows
from leadml_pipelines.serving.served_model import ServedModel

Role = Literal["champion", "challenger"]

CHAMPION: Role = "champion"
CHALLENGER: Role = "challenger"

_BITS = 53
"""As many as a float64 holds exactly: no place rounds up to 1."""


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
        role: What it is.
        rows: The rows.
        lot: By which it got them; None where it had to be the champion.
    """

    model: ServedModel
    role: Role
    rows: Rows
    lot: Lot | None


def place(name: str, experiment: str, entity_id: str) -> float:
    """An entity's place in [0, 1), the same in every process and on every machine.

    Each experiment draws anew, so that nobody is the one who tries everything out.

    Args:
        name: Name of the model.
        experiment: What tells the experiment from others: the challenger's model id.
        entity_id: The entity.
    """
    key = f"{name}\0{experiment}\0{entity_id}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> (64 - _BITS)) / 2**_BITS


def challenged(name: str, experiment: str, ids: Sequence[str], share: float) -> list[bool]:
    """Whether the challenger answers for each entity.

    A greater share keeps everyone that a smaller one gave to the challenger.

    Args:
        name: Name of the model.
        experiment: The challenger's model id.
        ids: The entities.
        share: The challenger's share of them, 0 to 1.
    """
    return [place(name, experiment, entity_id) < share for entity_id in ids]


def assign(
    champion: ServedModel,
    challenger: ServedModel | None,
    share: float,
    rows: Rows,
    ids: Sequence[str],
) -> list[Part]:
    """Who answers for which rows.

    Args:
        champion: Of the model that was asked for.
        challenger: Who answers beside it, if anybody; where it can't, the champion answers for all.
        share: The challenger's share of the entities.
        rows: Some entities.
        ids: The ids that the rows' positions are places in.
    """
    if (
        challenger is None
        or challenger.model.model_id == champion.model.model_id
        or challenger.entity_type != champion.entity_type
        or not challenger.fits(rows)
    ):
        return [Part(champion, CHAMPION, rows, None)]
    lot = Lot(challenger.model.model_id, share)
    named = [ids[at] for at in rows.positions.tolist()]
    drawn = np.array(challenged(champion.name, lot.experiment, named, lot.share), bool)
    sides = ((champion, CHAMPION, ~drawn), (challenger, CHALLENGER, drawn))
    return [Part(model, role, rows.where(its), lot) for model, role, its in sides if its.any()]
