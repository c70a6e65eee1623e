"""Features of a loan application: how far it has come, how fast, and what it cost to get there.

The built-in views know the words that every funnel has. These know the words that the mapping gives
to the steps of this one. Install the package beside LeadML, and they are computed like all others:

    pip install examples/bpi2012
"""

from __future__ import annotations

from leadml_pipelines.features.functions import Count, Delay, LastKind, Recency, function_view
from leadml_pipelines.features.functions.base import FeatureFunction

STEPS = (
    "application_preaccepted",
    "lead_work_planned",
    "lead_work_started",
    "lead_work_done",
    "application_work_planned",
    "application_work_started",
    "application_work_done",
    "application_accepted",
    "quote_created",
    "quote_sent",
    "application_finalized",
    "quote_call_planned",
    "quote_call_started",
    "call_attempt",
    "quote_cancelled",
    "document_received",
    "validation_planned",
    "validation_started",
    "validation_done",
    "document_call_planned",
    "document_call_started",
    "fraud_check",
)
"""States and work in the order in which most applications come to them."""

REPEATED = (
    "lead_work_done",
    "application_work_done",
    "quote_sent",
    "quote_cancelled",
    "call_attempt",
    "validation_done",
)
"""Steps that tell by how often they were needed."""

LAST = (
    "document_received",
    "validation_done",
    "call_attempt",
    "quote_call_started",
    "quote_sent",
    "application_accepted",
    "application_work_done",
    "application_work_started",
    "lead_work_done",
    "lead_work_started",
    "application_preaccepted",
    "fraud_check",
    "lead_work_planned",
    "form_submit",
)

_FUNCTIONS: tuple[FeatureFunction, ...] = (
    *(Delay(event_type=step) for step in STEPS),
    *(Count(event_type=step, dimension="relationship") for step in REPEATED),
    *(
        Recency(event_type=step)
        for step in ("application_work_done", "quote_sent", "call_attempt", "document_received")
    ),
    LastKind(name="last_step", kinds=LAST),
)

VIEWS = (
    function_view(
        "loan_steps",
        "lead",
        _FUNCTIONS,
        description="Which steps of the loan funnel an application came to, when and how often.",
        owner="team:loans",
    ),
)
