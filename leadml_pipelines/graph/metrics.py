"""Metrics of leads and agents as of a moment: pure functions on frames, computed by igraph.

What counts as of t: nodes created at or before t, and edges with `since <= t < until`. That holds
for ASSIGNED_TO too: an agent is tied to the leads that are theirs at that moment, so an agent's
degree is a load and does not grow for ever, and a lead's does not tell how often it changed hands
(that is a feature of its own, from the assignments table).

* `degree`: relationships of the node but CAME_FROM. Of a corrected campaign only the correction is
  kept, so as of the past such a lead has no campaign at all: counted, it would tell the past which
  leads are going to be corrected.
* `degree_referral`: leads it referred or was referred by.
* `degree_household`: other leads of its household.
* `pagerank`, `community`: over the ties between people, that is all but CAME_FROM: a campaign is
  an advertisement, and as a hub it would make acquaintances of thousands of strangers. Ties are
  undirected and simple. PageRank (damping 0.85) sums to 1 over the leads, agents and households
  that exist; multiplied by their number, `nodes`, it is comparable between moments (1: average).
* `community`: Leiden on modularity, named `lead:<id>` after its smallest lead id (or `agent:<id>`),
  so that the name stays while the core stays; a node without ties is alone in its own.
* `community_size`: leads and agents in it.
"""

from __future__ import annotations

import random
import threading
from datetime import datetime
from typing import TYPE_CHECKING

from leadml_pipelines.graph.model import (
    AGENT,
    CAME_FROM,
    CAMPAIGN,
    LEAD,
    MEMBER_OF,
    REFERRED,
    GraphData,
)
from leadml_pipelines.graph.timeline import ENTITY_TYPES, RELATIONS, Timeline
from leadml_pipelines.times import require_utc

if TYPE_CHECKING:
    import igraph
    import numpy as np
    import pandas as pd

METRICS_VERSION = 2
"""Raised when the same graph gets other metrics, so that stored ones are computed again."""

COLUMNS = (
    "entity_type",
    "entity_id",
    "as_of",
    "degree",
    "degree_referral",
    "degree_household",
    "pagerank",
    "community",
    "community_size",
    "nodes",
)

_DAMPING = 0.85
_LEIDEN_ROUNDS = 10
_RANDOM = threading.Lock()
"""igraph has one random number generator for the process."""

_LEAD, _AGENT, _CAMPAIGN = (ENTITY_TYPES.index(k.entity_type) for k in (LEAD, AGENT, CAMPAIGN))


def metrics_as_of(data: GraphData, as_of: datetime, seed: int = 7) -> pd.DataFrame:
    """The metrics of every lead and agent that exists as of a moment.

    The order of the rows in `data` changes nothing.

    Args:
        data: The graph, with the lives of its edges.
        as_of: The moment, timezone-aware.
        seed: Seed of the community search.

    Returns:
        One row per lead and agent, ordered by type and id, with `COLUMNS`: text `entity_type`,
        `entity_id`, `community`; `as_of` in UTC microseconds; float64 `pagerank`; int32 the rest.
    """
    return timeline_metrics(Timeline.of(data), as_of, seed)


def timeline_metrics(timeline: Timeline, as_of: datetime, seed: int = 7) -> pd.DataFrame:
    """`metrics_as_of` on a graph that has been put on its time axis already."""
    import numpy as np
    import pandas as pd

    as_of = require_utc(as_of, "as_of")
    nodes, edges = timeline.alive(as_of)
    src, dst, relation = timeline.src[edges], timeline.dst[edges], timeline.relation[edges]
    size = len(nodes)
    referral = relation == RELATIONS.index(REFERRED.relation)
    household = relation == RELATIONS.index(MEMBER_OF.relation)

    people = nodes & (timeline.node_type != _CAMPAIGN)
    social = relation != RELATIONS.index(CAME_FROM.relation)
    pagerank, community = _pagerank_and_community(people, src[social], dst[social], seed)
    entities = np.flatnonzero(people & (timeline.node_type <= _AGENT))
    members = np.bincount(community[entities], minlength=size + 1)
    # Entities ascend, so the first one met in a community is its smallest lead, or agent.
    named, first = np.unique(community[entities], return_index=True)
    names = np.empty(size + 1, dtype=object)
    for group, node in zip(named, entities[first], strict=True):
        names[group] = f"{ENTITY_TYPES[timeline.node_type[node]]}:{timeline.node_id[node]}"

    counts = {
        "degree": _degree(size, src[social], dst[social]),
        "degree_referral": _degree(size, src[referral], dst[referral]),
        "degree_household": _fellows(size, src[household], dst[household]),
    }
    types = np.array(ENTITY_TYPES, dtype=object)[timeline.node_type[entities]]
    moment = pd.Timestamp(as_of).as_unit("us")
    return pd.DataFrame(
        {
            "entity_type": pd.Series(types, dtype="str"),
            "entity_id": pd.Series(timeline.node_id[entities], dtype="str"),
            "as_of": pd.Series(moment, index=range(len(entities)), dtype="datetime64[us, UTC]"),
            **{name: count[entities].astype(np.int32) for name, count in counts.items()},
            "pagerank": pagerank[entities],
            "community": pd.Series(names[community[entities]], dtype="str"),
            "community_size": members[community[entities]].astype(np.int32),
            "nodes": np.full(len(entities), np.count_nonzero(people), dtype=np.int32),
        },
        columns=list(COLUMNS),
    )


def _degree(size: int, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.bincount(src, minlength=size) + np.bincount(dst, minlength=size)


def _fellows(size: int, lead: np.ndarray, household: np.ndarray) -> np.ndarray:
    """Other leads in the household of each lead."""
    import numpy as np

    pairs = np.unique(lead.astype(np.int64) * size + household)
    lead, household = pairs // max(size, 1), pairs % max(size, 1)
    others = np.bincount(household, minlength=size) - 1
    return np.bincount(lead, weights=others[household], minlength=size).astype(np.int64)


def _pagerank_and_community(
    people: np.ndarray, src: np.ndarray, dst: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """PageRank and community number of each node; other nodes than `people` get 0 and the last."""
    import igraph
    import numpy as np

    size = len(people)
    pagerank = np.zeros(size)
    community = np.full(size, size, dtype=np.int64)
    present = np.flatnonzero(people)
    if not len(present):
        return pagerank, community
    number = np.empty(size, dtype=np.int64)
    number[present] = np.arange(len(present))
    low, high = np.minimum(number[src], number[dst]), np.maximum(number[src], number[dst])
    # Unique and sorted: the same graph is the same array, whatever order its rows came in.
    pairs = np.unique(low * len(present) + high)
    ends = np.column_stack([pairs // len(present), pairs % len(present)])
    ties = igraph.Graph(n=len(present), edges=ends)
    pagerank[present] = ties.pagerank(directed=False, damping=_DAMPING)
    community[present] = _leiden(ties, seed)
    return pagerank, community


def _leiden(ties: igraph.Graph, seed: int) -> np.ndarray:
    import igraph
    import numpy as np

    if not ties.ecount():
        return np.arange(ties.vcount())
    with _RANDOM:
        igraph.set_random_number_generator(random.Random(seed))  # noqa: S311
        try:
            found = ties.community_leiden(
                objective_function="modularity", n_iterations=_LEIDEN_ROUNDS
            )
        finally:
            igraph.set_random_number_generator(None)
    return np.asarray(found.membership, dtype=np.int64)
