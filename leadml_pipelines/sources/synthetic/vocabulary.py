"""The words of the synthetic funnel: sources, products, states, event types and their JSON texts.

Everything here is a constant. Arrays elsewhere hold positions in these tuples.
"""

from __future__ import annotations

from typing import NamedTuple

from leadml_pipelines.sources import contract

SOURCES = ("web", "aggregator", "referral", "social", "email", "phone")
SOURCE_SHARE = (0.30, 0.26, 0.10, 0.14, 0.10, 0.10)
SOURCE_WORTH = (0.15, -0.45, 0.75, -0.60, 0.05, 0.50)
"""Mean worth of a source on the scale of quality (standard deviation of quality is about 0.9)."""

PRODUCTS = ("auto", "home", "life", "health")
PRODUCT_SHARE = (0.42, 0.24, 0.16, 0.18)
PRODUCT_PREMIUM = (1450.0, 1900.0, 950.0, 4200.0)
"""Annual premium in US dollars of a middling customer."""
PRODUCT_PATIENCE = (5.0, 7.0, 9.0, 5.5)
"""Days in which the intent of a lead that has asked for nothing falls to 1/e."""

INCOME_BANDS = ("low", "middle", "high")
CREDIT_BANDS = ("poor", "fair", "good", "excellent")

ZONES = ((-5, True), (-6, True), (-7, True), (-7, False), (-8, True))
"""Standard offset from UTC in hours, and whether daylight saving time is kept."""


class State(NamedTuple):
    """A US state: its share of the leads, its zone in `ZONES`, its price level."""

    code: str
    share: float
    zone: int
    price: float


STATES = (
    State("CA", 0.14, 4, 1.22),
    State("TX", 0.12, 1, 1.08),
    State("FL", 0.10, 0, 1.30),
    State("NY", 0.09, 0, 1.25),
    State("PA", 0.06, 0, 0.98),
    State("IL", 0.06, 1, 0.99),
    State("OH", 0.06, 0, 0.85),
    State("GA", 0.05, 0, 1.04),
    State("NC", 0.05, 0, 0.88),
    State("MI", 0.05, 0, 1.20),
    State("NJ", 0.04, 0, 1.18),
    State("WA", 0.04, 4, 0.95),
    State("AZ", 0.04, 3, 0.98),
    State("CO", 0.03, 2, 1.06),
    State("MN", 0.03, 1, 0.90),
    State("UT", 0.02, 2, 0.90),
    State("OR", 0.02, 4, 0.93),
)


class EventType(NamedTuple):
    """An event type with the channel and direction it always has here."""

    name: str
    channel: str
    direction: str


EVENT_TYPES = (
    *(EventType(name, *contract.EVENT_TYPES[name]) for name in contract.EVENT_TYPES),
    EventType("renewal_notice", "email", "outbound"),
)
_CODES = {kind.name: code for code, kind in enumerate(EVENT_TYPES)}
EMAIL_SENT = _CODES["email_sent"]
EMAIL_OPEN = _CODES["email_open"]
EMAIL_CLICK = _CODES["email_click"]
EMAIL_REPLY = _CODES["email_reply"]
CALL_ATTEMPT = _CODES["call_attempt"]
CALL_CONNECTED = _CODES["call_connected"]
CALL_INBOUND = _CODES["call_inbound"]
PAGE_VIEW = _CODES["page_view"]
QUOTE_REQUEST = _CODES["quote_request"]
FORM_SUBMIT = _CODES["form_submit"]
QUOTE_SENT = _CODES["quote_sent"]
DOCUMENT_RECEIVED = _CODES["document_received"]
MEETING = _CODES["meeting"]
NOTE = _CODES["note"]
RENEWAL_NOTICE = _CODES["renewal_notice"]

PROPERTIES = (
    "{}",
    *(f'{{"page": "/{product}"}}' for product in PRODUCTS),
    *(f'{{"page": "/{product}/prices"}}' for product in PRODUCTS),
    *(f'{{"product": "{product}"}}' for product in PRODUCTS),
    '{"page": "/account"}',
    '{"page": "/account/cancel"}',
    '{"topic": "question"}',
    '{"topic": "complaint"}',
    '{"template": "nurture"}',
    '{"template": "customer"}',
    '{"outcome": "no_answer"}',
    '{"outcome": "spoke"}',
    '{"sent_at_creation": true}',
)
"""JSON texts of `lead_events.properties`; the names below are their positions."""
NO_PROPERTIES = 0
PAGE_OF_PRODUCT = 1
PRICES_OF_PRODUCT = 5
PRODUCT_NAMED = 9
(
    PAGE_ACCOUNT,
    PAGE_CANCEL,
    TOPIC_QUESTION,
    TOPIC_COMPLAINT,
    TEMPLATE_NURTURE,
    TEMPLATE_CUSTOMER,
    NO_ANSWER,
    SPOKE,
    AT_CREATION,
) = range(13, len(PROPERTIES))

BIRTH_EVENT = (FORM_SUBMIT, FORM_SUBMIT, PAGE_VIEW, PAGE_VIEW, EMAIL_CLICK, CALL_INBOUND)
"""By source: what a lead does at the moment it comes into being."""

CLOSURE_REASONS = ("lost", "declined", "duplicate", "cancelled")
LOST, DECLINED, DUPLICATE, CANCELLED = range(4)
