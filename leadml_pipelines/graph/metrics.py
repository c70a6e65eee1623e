"""Metrics of leads and agents as of a moment: pure functions on frames, put together here.

What counts as of t: nodes created at or before t, and edges with `since <= t < until`. That holds
for ASSIGNED_TO too: an agent is tied to the leads that are theirs at that moment, so an agent's
degree is a load and does not grow for ever, and a lead's does not tell how often it changed hands
(that is a feature of its own, from the assignments table). Outcomes count if they were known:
policies with `bound_at <= t`.

* `degree`: relationships of the node but CAME_FROM. Of a corrected campaign only the correction is
  kept, so as of the past such a lead has no campaign at all: counted, it would tell the past which
  leads are going to be corrected.
* `degree_referral_made`, `degree_referral_received`, and `degree_referral`, their sum: leads it
  referred, leads that referred it.
* `degree_household`: other leads of its household.
* `degree_assignment`: assignments that run.
* `pagerank`, `betweenness`, `closeness` (harmonic), `clustering`, `core`: over the ties between
  people, see `graph/ties.py` and `graph/centrality.py`. PageRank multiplied by `nodes`, the number
  of leads, agents and households, is comparable between moments (1: average).
* `community`: named `lead:<id>` after its smallest lead id (or `agent:<id>`), so that the name
  stays while the core stays; see `graph/communities.py`.
* `community_size`: leads and agents in it; `community_share`: their share of all that exist.
* `community_conversion_rate`: of the other leads in it; `household_conversions`: other leads of the
  household that have bought; see `graph/outcomes.py`.
* `household_size`: leads of its household with itself; 0 without one.
* `referral_depth`, `referral_descendants`: the chain of referrers above a lead and the leads that
  came through it, see `graph/referrals.py`.
* `agent_load`: leads assigned to the agent now, each once; 0 for a lead.
* `agent_conversion_rate`: of the leads ever assigned to the agent, see `graph/outcomes.py`;
  missing for a lead.
* `nodes`: leads, agents and households that exist.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from leadml_pipelines.graph.centrality import (
    betweenness_and_closeness,
    clustering,
    core_numbers,
    pagerank,
)
from leadml_pipelines.graph.communities import communities
from leadml_pipelines.graph.model import (
    AGENT,
    ASSIGNED_TO,
    CAME_FROM,
    CAMPAIGN,
    MEMBER_OF,
    REFERRED,
    GraphData,
)
from leadml_pipelines.graph.outcomes import agent_rates, fellows, leads_of, rates_without_oneself
from leadml_pipelines.graph.referrals import depth_and_descendants
from leadml_pipelines.graph.ties import Ties
from leadml_pipelines.graph.timeline import ENTITY_TYPES, RELATIONS, Timeline
from leadml_pipelines.times import require_utc, to_micros

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

METRICS_VERSION = 3
"""Raised when the same graph gets other metrics, so that stored ones are computed again."""

COLUMNS = (
    "entity_type",
    "entity_id",
    "as_of",
    "degree",
    "degree_referral",
    "degree_referral_made",
    "degree_referral_received",
    "degree_household",
    "degree_assignment",
    "pagerank",
    "betweenness",
    "closeness",
    "clustering",
    "core",
    "community",
    "community_size",
    "community_share",
    "community_conversion_rate",
    "referral_depth",
    "referral_descendants",
    "household_size",
    "household_conversions",
    "agent_load",
    "agent_conversion_rate",
    "nodes",
)
"""Of the frame: text `entity_type`, `entity_id`, `community`; `as_of` in UTC microseconds; float64
`pagerank`, `betweenness`, `closeness`, `clustering`, `community_share` and the rates; int32 the
rest. Only `agent_conversion_rate` can be missing."""

_AGENT, _CAMPAIGN = (ENTITY_TYPES.index(k.entity_type) for k in (AGENT, CAMPAIGN))


def metrics_as_of(
    data: GraphData,
    as_of: datetime,
    *,
    outcomes: pd.DataFrame | None = None,
    seed: int = 7,
) -> pd.DataFrame:
    """The metrics of every lead and agent that exists as of a moment.

    The order of the rows in `data` and `outcomes` changes nothing, nor does any of them that lies
    after the moment.

    Args:
        data: The graph, with the lives of its edges.
        as_of: The moment, timezone-aware.
        outcomes: `lead_id` and `bound_at` (timezone-aware), a row per policy; None: nobody bought.
        seed: Seed of the community search and of the sample in large graphs.

    Returns:
        One row per lead and agent, ordered by type (leads first) and id, with `COLUMNS`.

    Raises:
        NaiveTimeError: `as_of` or a column of times carries no zone.
    """
    return timeline_metrics(Timeline.of(data, outcomes), as_of, seed)


def timeline_metrics(timeline: Timeline, as_of: datetime, seed: int = 7) -> pd.DataFrame:
    """`metrics_as_of` on a graph that has been put on its time axis already."""
    import numpy as np
    import pandas as pd

    as_of = require_utc(as_of, "as_of")
    nodes, edges = timeline.alive(as_of)
    people = nodes & (timeline.node_type != _CAMPAIGN)
    present = np.flatnonzero(people)
    kinds = timeline.node_type[present]
    is_entity = kinds <= _AGENT
    entities = present[is_entity]
    social = edges & (timeline.relation != RELATIONS.index(CAME_FROM.relation))
    ties = Ties.among(people, timeline.src[social], timeline.dst[social])
    betweenness, closeness = betweenness_and_closeness(ties, timeline.node_hash[present], seed)
    group = communities(ties, seed)
    members = np.bincount(group[is_entity], minlength=ties.count)[group[is_entity]]
    bought = timeline.converted[present] <= to_micros(as_of)
    rates = rates_without_oneself(group, kinds == 0, bought)

    moment = pd.Timestamp(as_of).as_unit("us")
    types = np.array(ENTITY_TYPES, dtype=object)[kinds[is_entity]]
    of_nodes = _counts(timeline, as_of, edges)
    values = {
        "entity_type": pd.Series(types, dtype="str"),
        "entity_id": pd.Series(timeline.node_id[entities], dtype="str"),
        "as_of": pd.Series(moment, index=range(len(entities)), dtype="datetime64[us, UTC]"),
        **{name: count[entities].astype(np.int32) for name, count in of_nodes.items()},
        "pagerank": pagerank(ties)[is_entity],
        "betweenness": betweenness[is_entity],
        "closeness": closeness[is_entity],
        "clustering": clustering(ties)[is_entity],
        "core": core_numbers(ties)[is_entity].astype(np.int32),
        "community": _names(timeline, entities, group[is_entity]),
        "community_size": members.astype(np.int32),
        "community_share": members / max(len(entities), 1),
        "community_conversion_rate": rates[is_entity],
        "agent_conversion_rate": _agent_rates(timeline, as_of)[entities],
        "nodes": np.full(len(entities), len(present), dtype=np.int32),
    }
    return pd.DataFrame(values, columns=list(COLUMNS))


def _counts(timeline: Timeline, as_of: datetime, edges: np.ndarray) -> dict[str, np.ndarray]:
    """Whole numbers for each node that need no graph algorithm."""
    import numpy as np

    size = len(timeline.node_id)

    def alive(relation: str) -> tuple[np.ndarray, np.ndarray]:
        some = edges & (timeline.relation == RELATIONS.index(relation))
        return timeline.src[some], timeline.dst[some]

    def count(ends: np.ndarray) -> np.ndarray:
        return np.bincount(ends, minlength=size)

    referrer, referred = alive(REFERRED.relation)
    lead, agent = alive(ASSIGNED_TO.relation)
    member, household = alive(MEMBER_OF.relation)
    some = edges & (timeline.relation == RELATIONS.index(REFERRED.relation))
    depth, descendants = depth_and_descendants(size, referrer, referred, timeline.since[some])
    made, received = count(referrer), count(referred)
    assigned = count(lead) + count(agent)
    everyone = np.ones(size, dtype=bool)
    others = fellows(size, member, household, everyone)
    bought = timeline.converted <= to_micros(as_of)
    return {
        "degree": made + received + assigned + count(member) + count(household),
        "degree_referral": made + received,
        "degree_referral_made": made,
        "degree_referral_received": received,
        "degree_household": others,
        "degree_assignment": assigned,
        "referral_depth": depth,
        "referral_descendants": descendants,
        "household_size": np.where(count(member) > 0, others + 1, 0),
        "household_conversions": fellows(size, member, household, bought),
        "agent_load": leads_of(size, lead, agent),
    }


def _agent_rates(timeline: Timeline, as_of: datetime) -> np.ndarray:
    """Conversion rate of each agent, missing for other nodes."""
    import numpy as np

    begun = timeline.assigned(as_of)
    sold = timeline.sold[begun] <= to_micros(as_of)
    size = len(timeline.node_id)
    rates = agent_rates(size, timeline.src[begun], timeline.dst[begun], sold)
    return np.where(timeline.node_type == _AGENT, rates, np.nan)


def _names(timeline: Timeline, entities: np.ndarray, group: np.ndarray) -> pd.Series:
    """The name of each entity's community."""
    import numpy as np
    import pandas as pd

    # Entities ascend, so the first one met in a community is its smallest lead, or agent.
    _, first, place = np.unique(group, return_index=True, return_inverse=True)
    named = entities[first]
    kinds = np.array(ENTITY_TYPES, dtype=object)[timeline.node_type[named]]
    names = pd.Series(kinds + ":" + timeline.node_id[named], dtype="str")
    return names.take(place).reset_index(drop=True)
