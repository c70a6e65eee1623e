"""What is known by a moment about how the leads around a lead ended.

A lead has converted as of t if a policy of it was bound at or before t; later ones are not known.
What a lead did itself is kept out of everything that is said about it: its own row counts neither
in the numbers of its community or household nor in the rate that these are pulled towards. So its
value is the same whether it bought or not, and a model can't read a label out of it.

Rates are smoothed: `(c + w * p) / (m + w)`, where c of m leads converted, p is the rate of all,
and w is `PRIOR_WEIGHT`: the rate of few is mostly that of all, the rate of many is their own
(Bayes' estimate with a beta prior of mean p and weight w; Micci-Barreca 2001). p is 0 while there
is nobody to learn it from.

An agent's rate is over the leads that were ever assigned to the agent by t, each counted once: it
converted if it bought while assigned. The rate is pulled towards that of all agents together. No
lead is kept out of it: the rate belongs to the agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

PRIOR_WEIGHT = 20.0
"""As how many leads the rate of all counts."""


def smoothed(converted: np.ndarray, leads: np.ndarray, prior: np.ndarray | float) -> np.ndarray:
    """Rates of groups of leads, pulled towards a prior rate."""
    return (converted + PRIOR_WEIGHT * prior) / (leads + PRIOR_WEIGHT)


def rates_without_oneself(
    group: np.ndarray, is_lead: np.ndarray, converted: np.ndarray
) -> np.ndarray:
    """Smoothed rate of the leads in each node's group, the node itself kept out.

    Args:
        group: Group number of each node.
        is_lead: Which of them are leads; only these count.
        converted: Which leads have converted.
    """
    import numpy as np

    own, bought = is_lead.astype(np.int64), (is_lead & converted).astype(np.int64)
    leads = np.bincount(group, weights=own)[group] - own
    buyers = np.bincount(group, weights=bought)[group] - bought
    all_leads, all_buyers = own.sum() - own, bought.sum() - bought
    prior = all_buyers / np.maximum(all_leads, 1)
    return smoothed(buyers, leads, prior)


def fellows(size: int, lead: np.ndarray, household: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """How many other leads of its household count, for each of `size` nodes.

    Args:
        size: Number of nodes.
        lead: The lead of each membership.
        household: Its household.
        counted: Which nodes count, a boolean array.
    """
    import numpy as np

    pairs = np.unique(lead.astype(np.int64) * size + household)
    lead, household = pairs // max(size, 1), pairs % max(size, 1)
    own = counted[lead].astype(np.float64)
    members = np.bincount(household, weights=own, minlength=size)
    return np.bincount(lead, weights=members[household] - own, minlength=size).astype(np.int64)


def leads_of(size: int, lead: np.ndarray, agent: np.ndarray) -> np.ndarray:
    """How many different leads each node is the agent of."""
    import numpy as np

    pairs = np.unique(agent.astype(np.int64) * size + lead)
    return np.bincount(pairs // max(size, 1), minlength=size)


def agent_rates(size: int, lead: np.ndarray, agent: np.ndarray, sold: np.ndarray) -> np.ndarray:
    """Smoothed conversion rate of each node as an agent.

    Args:
        size: Number of nodes.
        lead: The lead of each assignment that has begun.
        agent: Its agent.
        sold: Whether the lead is known to have bought while it ran.
    """
    leads = leads_of(size, lead, agent)
    buyers = leads_of(size, lead[sold], agent[sold])
    return smoothed(buyers, leads, buyers.sum() / max(leads.sum(), 1))
