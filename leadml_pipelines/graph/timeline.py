"""The graph and its outcomes as integer arrays on a time axis: built once, cut at any moment."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from leadml_pipelines.graph.model import (
    AGENT,
    ASSIGNED_TO,
    CAMPAIGN,
    EDGE_KINDS,
    HOUSEHOLD,
    LEAD,
    REFERRED,
    GraphData,
)
from leadml_pipelines.times import to_micros

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ENTITY_TYPES = tuple(k.entity_type for k in (LEAD, AGENT, HOUSEHOLD, CAMPAIGN))
"""Nodes are numbered in this order, then by id: the first member of a community is a lead."""

RELATIONS = tuple(kind.relation for kind in EDGE_KINDS)

ALWAYS = -(2**63)
NEVER = 2**63 - 1


@dataclass(frozen=True)
class Timeline:
    """Nodes and edges with their lives, in microseconds since 1970, independent of row order.

    Attributes:
        node_type: Position in `ENTITY_TYPES`, ascending.
        node_id: Ids, ascending within a type.
        born: Since when a node exists; `NEVER` if neither it nor an edge tells.
        node_hash: A number for each node that depends on its type and id alone.
        src: Node at the start of each edge.
        dst: Node at its end.
        relation: Position in `RELATIONS`.
        since: First moment at which the edge and both its nodes exist.
        until: First moment at which the edge no longer holds.
        edge_hash: A number for each edge that depends on its ends and relation alone.
        converted: When a lead first bought; `NEVER` for one that has not, and for other nodes.
        sold: When the lead of an assignment first bought while it ran; `NEVER` if it did not, and
            for other edges.
    """

    node_type: np.ndarray
    node_id: np.ndarray
    born: np.ndarray
    node_hash: np.ndarray
    src: np.ndarray
    dst: np.ndarray
    relation: np.ndarray
    since: np.ndarray
    until: np.ndarray
    edge_hash: np.ndarray
    converted: np.ndarray
    sold: np.ndarray

    @classmethod
    def of(cls, data: GraphData, outcomes: pd.DataFrame | None = None) -> Timeline:
        """Number the nodes and edges of a graph.

        Edges from a node to itself, of an unknown relation, or with an end that is no node are left
        out. A node without `created_at` exists since its first edge.

        Args:
            data: The graph.
            outcomes: `lead_id` and `bound_at` (timezone-aware), a row per policy; None for a world
                in which nobody has bought. Leads that are not in the graph are left out.

        Raises:
            NaiveTimeError: a time carries no zone.
        """
        import numpy as np
        import pandas as pd

        nodes = pd.DataFrame(
            {
                "type": pd.Index(ENTITY_TYPES).get_indexer(pd.Index(data.nodes["entity_type"])),
                "id": data.nodes["entity_id"].astype("str"),
                "born": _micros(data.nodes["created_at"], NEVER),
            }
        )
        nodes = nodes[nodes["type"] >= 0].sort_values(["type", "id", "born"])
        nodes = nodes.drop_duplicates(["type", "id"], ignore_index=True)
        index = pd.MultiIndex.from_frame(nodes[["type", "id"]])

        edges = data.edges
        relation = pd.Index(RELATIONS).get_indexer(pd.Index(edges["relation"]))
        target = np.array([ENTITY_TYPES.index(k.target.entity_type) for k in EDGE_KINDS])
        src = index.get_indexer(
            pd.MultiIndex.from_arrays(
                [np.zeros(len(edges), dtype=np.int64), edges["src"].astype("str")]
            )
        )
        dst = index.get_indexer(
            pd.MultiIndex.from_arrays([target[relation], edges["dst"].astype("str")])
        )
        since, until = _micros(edges["since"], ALWAYS), _micros(edges["until"], NEVER)
        valid = (relation >= 0) & (src >= 0) & (dst >= 0) & (src != dst)
        src, dst, relation = src[valid], dst[valid], relation[valid]
        since, until = since[valid], until[valid]

        born = nodes["born"].to_numpy().copy()
        first = np.full(len(nodes), NEVER)
        told = since > ALWAYS
        # An edge can't make a node exist before the other end of the edge is known to exist.
        known = np.where(born == NEVER, ALWAYS, born)
        np.minimum.at(first, src[told], np.maximum(since, known[dst])[told])
        np.minimum.at(first, dst[told], np.maximum(since, known[src])[told])
        born = np.where(born == NEVER, first, born)
        since = np.maximum(since, np.maximum(born[src], born[dst]))
        node_hash = _hash(nodes["id"]) ^ mix(nodes["type"].to_numpy())
        buyer, bound = _bound(outcomes, index)
        converted = np.full(len(nodes), NEVER)
        np.minimum.at(converted, buyer, bound)
        return cls(
            node_type=nodes["type"].to_numpy(),
            node_id=nodes["id"].to_numpy(dtype=object),
            born=born,
            node_hash=node_hash,
            src=src,
            dst=dst,
            relation=relation,
            since=since,
            until=until,
            # Not symmetric: a referral has a direction.
            edge_hash=mix(node_hash[src] + mix(node_hash[dst]) + mix(relation + 1)),
            converted=converted,
            sold=np.where(
                relation == RELATIONS.index(ASSIGNED_TO.relation),
                _first_within(buyer, bound, src, since, until),
                NEVER,
            ),
        )

    def alive(self, as_of: datetime) -> tuple[np.ndarray, np.ndarray]:
        """Which nodes exist and which edges hold as of a moment, as two boolean arrays.

        A node counts if it was created at or before it; an edge if `since <= as_of < until`.
        """
        moment = to_micros(as_of)
        return self.born <= moment, (self.since <= moment) & (self.until > moment)

    def assigned(self, as_of: datetime) -> np.ndarray:
        """Which edges are assignments that began at or before a moment, ended or not."""
        kind = RELATIONS.index(ASSIGNED_TO.relation)
        started: np.ndarray = (self.relation == kind) & (self.since <= to_micros(as_of))
        return started

    def fingerprint(self, as_of: datetime, salt: str) -> str:
        """A text that is equal for two moments or two graphs only if they look the same then.

        It covers all that a metric as of the moment may depend on: nodes and edges that are alive,
        in which order leads were referred, which assignments have begun, and the outcomes known.

        Args:
            as_of: The moment.
            salt: What else the use of the fingerprint depends on, such as a version.
        """
        import numpy as np

        moment = to_micros(as_of)
        nodes, edges = self.alive(as_of)
        referred = edges & (self.relation == RELATIONS.index(REFERRED.relation))
        sold = self.sold <= moment
        # Sums of well-mixed numbers do not depend on the order and wrap around silently.
        parts = (
            np.count_nonzero(nodes),
            np.count_nonzero(edges),
            self.node_hash[nodes].sum(dtype=np.uint64),
            self.edge_hash[edges].sum(dtype=np.uint64),
            mix(self.edge_hash[referred] + mix(self.since[referred])).sum(dtype=np.uint64),
            self.edge_hash[self.assigned(as_of)].sum(dtype=np.uint64),
            self.node_hash[nodes & (self.converted <= moment)].sum(dtype=np.uint64),
            self.edge_hash[sold].sum(dtype=np.uint64),
        )
        text = f"{salt}:" + ":".join(str(int(part)) for part in parts)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def first_lead(self) -> int | None:
        """When the first lead was created (microseconds), or None without any."""
        leads = self.born[(self.node_type == 0) & (self.born < NEVER)]
        return int(leads.min()) if len(leads) else None


def _bound(outcomes: pd.DataFrame | None, index: pd.MultiIndex) -> tuple[np.ndarray, np.ndarray]:
    """Node and time of every known purchase, by node, then time."""
    import numpy as np
    import pandas as pd

    if outcomes is None:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    ids = outcomes["lead_id"].astype("str")
    leads = np.zeros(len(ids), dtype=np.int64)
    buyer = index.get_indexer(pd.MultiIndex.from_arrays([leads, ids]))
    bound = _micros(outcomes["bound_at"], NEVER)
    known = (buyer >= 0) & (bound < NEVER)
    buyer, bound = buyer[known], bound[known]
    order = np.lexsort((bound, buyer))
    return buyer[order], bound[order]


def _first_within(
    buyer: np.ndarray, bound: np.ndarray, lead: np.ndarray, since: np.ndarray, until: np.ndarray
) -> np.ndarray:
    """First purchase of each lead in `[since, until)`, or `NEVER`; purchases are sorted."""
    import numpy as np

    if not len(buyer):
        return np.full(len(lead), NEVER)
    # One number per (lead, time) in their order, so that one search finds the next purchase.
    times = np.unique(bound)
    step = len(times) + 1
    keys = buyer * step + np.searchsorted(times, bound)
    place = np.searchsorted(keys, lead * step + np.searchsorted(times, since))
    found = np.minimum(place, len(keys) - 1)
    within = (place < len(keys)) & (buyer[found] == lead) & (bound[found] < until)
    return np.where(within, bound[found], NEVER)


def _micros(times: pd.Series, missing: int) -> np.ndarray:
    import numpy as np
    import pandas as pd

    from leadml_pipelines.times import require_utc_column

    if not len(times) or times.isna().all():
        return np.full(len(times), missing, dtype=np.int64)
    column = require_utc_column(times, str(times.name))
    micros: np.ndarray = column.dt.as_unit("us").astype("int64").to_numpy().copy()
    micros[pd.isna(column).to_numpy()] = missing
    return micros


def _hash(ids: pd.Series) -> np.ndarray:
    import numpy as np
    import pandas as pd

    hashed: np.ndarray = pd.util.hash_array(ids.to_numpy(dtype=object), categorize=False)
    return hashed.astype(np.uint64)


def mix(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit numbers (the finaliser of SplitMix64), so that their sums do not collide."""
    import numpy as np

    x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
