"""The model card: one page that says what a model is worth, for whom, and where it ends.

After Mitchell et al., Model Cards for Model Reporting (2019), kept to what is measured.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata
from typing import Any

from leadml_pipelines.learning.evaluation.ages import BAND_NAMES, LEAD_AGE
from leadml_pipelines.learning.evaluation.baselines import RULE_THRESHOLD
from leadml_pipelines.learning.evaluation.companions_words import companion_rows, companion_words
from leadml_pipelines.learning.evaluation.gate import Decision
from leadml_pipelines.learning.evaluation.groups import groups_text
from leadml_pipelines.learning.evaluation.metric_names import METRIC_NAMES, metric_text, range_text
from leadml_pipelines.learning.evaluation.plots import draw_curves, draw_shap, words
from leadml_pipelines.learning.evaluation.shap_summary import ShapSummary
from leadml_pipelines.learning.evaluation.slices import LEAST_LEADS
from leadml_pipelines.learning.spec import ModelSpec
from leadml_pipelines.times import duration_text

CARD_FILE = "card.md"
CURVES_FILE = "curves.png"
SHAP_FILE = "shap.png"

PACKAGES = ("leadml", "xgboost", "scikit-learn", "numpy", "pandas", "duckdb")
"""Packages whose versions a card names."""
WORST = 3
"""Slices that a card shows."""

_PICTURE = re.compile(r"!\[([^\]]*)\]\(([\w.-]+\.png)\)")


@dataclass(frozen=True)
class CardFacts:
    """What a card needs to know of a training.

    Attributes:
        spec: The declaration.
        trained_at: When training ended.
        seed: Its seed.
        counts: Rows on every side, and what was left out.
        params: Parameters of the learner.
        validation: What was chosen on the validation part.
        training_set_hash: Hash of the rows.
        train: First and last moment of the training rows.
        test: First and last moment of the test rows.
        train_leads: Leads among the training rows.
        test_leads: Leads among the test rows.
        features: Number of features.
        by_age: The spec's metric by age of the lead; empty for none.
    """

    spec: ModelSpec
    trained_at: datetime
    seed: int
    counts: Mapping[str, int]
    params: Mapping[str, Any]
    validation: Mapping[str, Any]
    training_set_hash: str
    train: tuple[datetime, datetime]
    test: tuple[datetime, datetime]
    train_leads: int
    test_leads: int
    features: int
    by_age: Mapping[str, float]


def make_card(
    facts: CardFacts, evaluation: Mapping[str, Any], decision: Decision, summary: ShapSummary
) -> dict[str, bytes]:
    """Write the card and draw its pictures.

    Args:
        facts: About the training.
        evaluation: The document of `examination.examine`.
        decision: What the gate said.
        summary: SHAP values.

    Returns:
        `card.md` and the pictures that it shows, by file name.
    """
    spec = facts.spec
    classes = spec.objective == "classification"
    names = {
        "model": "this model",
        "heuristic": f"heuristic ({words(spec.heuristic)})",
        "base_rate": "base rate for all",
        "logistic": "logistic regression" if classes else "Poisson regression",
        "champion": "champion",
    }
    text = "\n\n".join(
        part for part in _sections(facts, evaluation, decision, names, classes) if part
    )
    return {
        CARD_FILE: (text + "\n").encode(),
        CURVES_FILE: draw_curves(evaluation, names, "positives" if classes else "value"),
        SHAP_FILE: draw_shap(summary),
    }


def self_contained(card: Mapping[str, bytes]) -> str:
    """The card as one Markdown text, its pictures inside it as data URIs.

    For Dagster's metadata, where there is no folder beside the text.
    """

    def inside(found: re.Match[str]) -> str:
        content = card.get(found[2])
        if content is None:
            return found[0]
        return f"![{found[1]}](data:image/png;base64,{base64.b64encode(content).decode()})"

    return _PICTURE.sub(inside, card[CARD_FILE].decode())


def _sections(
    facts: CardFacts,
    evaluation: Mapping[str, Any],
    decision: Decision,
    names: Mapping[str, str],
    classes: bool,
) -> Iterable[str]:
    spec = facts.spec
    verdict = "passed its gate" if decision.passed else "**rejected by its gate**"
    yield f"# Model card: {words(spec.name)}"
    whom = spec.population_text or f"each {spec.entity} with `{spec.population}`"
    yield (
        f"{spec.description} Trained {facts.trained_at:%Y-%m-%d %H:%M} UTC; {verdict}."
        f"\n\nFor {whom}; it looks {_span(spec.horizon)} ahead. Anybody else is outside of what it "
        "was examined on."
    )
    yield "## Gate\n\n" + "\n".join(f"- {_sentence(reason)}" for reason in decision.reasons)
    yield "## Data\n\n" + _data(facts)
    yield "## Figures on the newest rows\n\n" + _figures(facts, evaluation, names)
    yield f"![Curves on the newest rows]({CURVES_FILE})"
    if spec.groups:
        by = words(spec.group_by)
        yield f"## By {by}\n\n{groups_text(spec, evaluation)}"
    if classes:
        yield "## Calibration and threshold\n\n" + _threshold(facts, evaluation)
    if spec.companions:
        yield "## What it says besides\n\n" + _companions(facts, evaluation)
    yield "## Where it is weakest\n\n" + _weakest(facts, evaluation)
    yield f"## What moves it\n\n![SHAP values of the newest rows]({SHAP_FILE})"
    yield "## Limits\n\n" + _limits(facts)
    yield "## How to reproduce it\n\n" + _reproduce(facts)


def _data(facts: CardFacts) -> str:
    counts, spec = facts.counts, facts.spec
    table = _table(
        ("", "from (UTC)", "to", "rows", f"{spec.entity}s"),
        [
            _period("learned from", facts.train, counts.get("train_rows"), facts.train_leads),
            _period("examined on", facts.test, counts.get("test_rows"), facts.test_leads),
        ],
    )
    return (
        f"{table}\n\nLeft out: {counts.get('gap_rows', 0):,} rows between the two, whose label "
        f"looks into the test period; {counts.get('unknown_labels', 0):,} whose label is not known "
        f"yet; {counts.get('sampled_out', 0):,} by the limit of {spec.max_rows:,} rows; "
        f"{counts.get('outside_population', 0):,} outside of the population. "
        f"{facts.features} features."
    )


def _period(name: str, ends: tuple[datetime, datetime], rows: int | None, leads: int) -> list[str]:
    shown = "" if rows is None else f"{rows:,}"
    return [name, f"{ends[0]:%Y-%m-%d}", f"{ends[1]:%Y-%m-%d}", shown, f"{leads:,}"]


def _figures(facts: CardFacts, evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    shown = [who for who in names if evaluation.get(who)]
    if facts.spec.heuristic == "base_rate":
        shown = [who for who in shown if who != "base_rate"]
    heading = [
        f"champion `{evaluation['compared_with']}`"
        if who == "champion" and evaluation["compared_with"]
        else names[who]
        for who in shown
    ]
    body = []
    for metric, name in METRIC_NAMES.items():
        if metric in evaluation["model"]:
            bold = "**" if metric == facts.spec.metric else ""
            cells = [_cell(metric, evaluation[who].get(metric)) for who in shown]
            body.append([f"{bold}{name}{bold}", *cells])
    parts = [
        _table(["", *heading], body),
        f"In brackets: 95 % bootstrap intervals, {evaluation['resamples']} resamples of the "
        f"{evaluation['leads']:,} {facts.spec.entity}s.",
    ]
    if "base_rate" in evaluation:
        parts.append(_base_rate(evaluation))
    if facts.by_age:
        name = METRIC_NAMES[facts.spec.metric]
        ages = ", ".join(
            f"{metric_text(facts.spec.metric, value)} at {age}"
            for age, value in facts.by_age.items()
        )
        parts.append(f"{name} by age of the {facts.spec.entity}: {ages}.")
    for who in ("logistic", "champion"):
        found = evaluation["differences"].get(who, {}).get(facts.spec.metric)
        if found:
            parts.append(_difference(facts.spec, names[who], found))
    return "\n\n".join(parts)


def _base_rate(evaluation: Mapping[str, Any]) -> str:
    """What an accuracy is worth: that of who always gives one answer."""
    rate = evaluation["rate"]
    answer = "no" if rate <= 0.5 else "yes"
    return (
        f"{rate:.1%} of these rows are positive: who always says {answer} is right in "
        f"{max(rate, 1 - rate):.1%} of them. The heuristic says yes from a chance of "
        f"{RULE_THRESHOLD:g}, as it was used."
    )


def _difference(spec: ModelSpec, name: str, found: Mapping[str, float]) -> str:
    clear = found["low"] > 0 or found["high"] < 0
    return (
        f"{METRIC_NAMES[spec.metric]} against the {name} on the same rows: "
        f"{_signed(spec.metric, found['value'])} "
        f"({range_text(spec.metric, found['low'], found['high'])}), "
        f"{'beyond' if clear else 'within'} noise."
    )


def _cell(metric: str, found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    ends = range_text(metric, found["low"], found["high"])
    return f"{metric_text(metric, found['value'])} ({ends})"


def _signed(metric: str, value: float) -> str:
    return ("+" if value > 0 else "") + metric_text(metric, value)


def _threshold(facts: CardFacts, evaluation: Mapping[str, Any]) -> str:
    spec, found, off = facts.spec, evaluation["threshold"], evaluation["calibration"]
    method = facts.validation.get("calibration", {}).get("kind")
    how = f" Raw scores become chances by a calibration of the kind {method}." if method else ""
    return (
        f"A chance is off by {off['error']:.3f} on average; sound chances on as many leads would "
        f"stay under {off['by_chance']:.3f} in 95 of 100 cases.{how}\n\n"
        f"{_totals(facts, off)}"
        f"The prediction is yes from a chance of {found['value']:.3f}{_thresholds(facts)}, chosen "
        f"on the validation part: a missed positive costs {spec.cost.miss:g}, a false alarm "
        f"{spec.cost.false_alarm:g}{_costs(spec)}. On these rows {found['share_of_yes']:.1%} "
        f"get a yes, at a cost of {found['cost']:.4f} per row; a threshold of 0.5 would cost "
        f"{found['cost_at_half']:.4f}, always yes {found['cost_of_always']:.4f}, always no "
        f"{found['cost_of_never']:.4f}."
    )


def _totals(facts: CardFacts, off: Mapping[str, Any]) -> str:
    """As many as were said? Of all rows, and of those that are like the ones scored at night."""
    lines = []
    for part, where in (
        ("total", "On all of these rows"),
        ("calendar", f"On those at calendar moments alone, of {facts.spec.entity}s of any age"),
    ):
        found = off[part]
        if found is None:
            continue
        which = "chances" if found["positive"] else "chances of a no"
        lines.append(
            f"{where} the {which} sum to {found['said']:,.1f}, and {found['came']:,.0f} came: "
            f"{found['value']:.2f} of them ({found['low']:.2f} to {found['high']:.2f})."
        )
    return " ".join(lines) + "\n\n" if lines else ""


def _thresholds(facts: CardFacts) -> str:
    """The thresholds of groups, behind that of all others."""
    seen = facts.validation.get("threshold", {}).get("groups", {})
    by = words(facts.spec.group_by)
    return "".join(f" ({found['value']:.3f} where {by} is {word})" for word, found in seen.items())


def _costs(spec: ModelSpec) -> str:
    by = words(spec.group_by)
    return "".join(
        f" ({group.cost.miss:g} and {group.cost.false_alarm:g} where {by} is {group.word})"
        for group in spec.groups
        if group.cost is not None
    )


def _companions(facts: CardFacts, evaluation: Mapping[str, Any]) -> str:
    sentences = companion_words(evaluation["companions"], facts.validation)
    rows = companion_rows(evaluation["companions"], _span(facts.spec.horizon))
    parts = [_table(rows[0], rows[1:])] if evaluation["companions"] else []
    return "\n\n".join((*parts, "\n".join(f"- {_sentence(text)}" for text in sentences)))


def _weakest(facts: CardFacts, evaluation: Mapping[str, Any]) -> str:
    spec = facts.spec
    slices = [
        (column, word, found)
        for column, by_word in evaluation["slices"].items()
        for word, found in by_word.items()
    ]
    absent = _without_slice(spec, evaluation)
    if not slices:
        return (
            f"No slice has {LEAST_LEADS} {spec.entity}s of each class, so none was measured."
            f"{absent}"
        )
    end, sign = ("high", 1) if spec.higher_is_better else ("low", -1)
    slices.sort(key=lambda one: sign * one[2][end])
    table = _table(
        ("slice", METRIC_NAMES[spec.metric], "rows", "positives"),
        [
            [
                f"{words(column)}: {word}",
                _cell(spec.metric, found),
                f"{found['rows']:,}",
                f"{found['positives']:,}",
            ]
            for column, word, found in slices[:WORST]
        ],
    )
    columns = ", ".join(words(column) for column in evaluation["slices"])
    return _by_age(spec, evaluation["slices"].get(LEAD_AGE, {})) + (
        f"{table}\n\nThe worst of {len(slices)} slices by {columns}: those whose interval ends "
        f"worst, so that a small slice is not called weak because of its noise. A slice with fewer "
        f"than {LEAST_LEADS} {spec.entity}s of each class is not measured.{absent}"
    )


def _without_slice(spec: ModelSpec, evaluation: Mapping[str, Any]) -> str:
    """The columns that were asked for and say nothing here."""
    columns = [words(column) for column in spec.slices if column not in evaluation["slices"]]
    if not columns:
        return ""
    return f" Asked for, and without any slice that is large enough: {', '.join(columns)}."


def _by_age(spec: ModelSpec, bands: Mapping[str, Any]) -> str:
    """The bands of age, the youngest first, each with what the model adds to the rule there."""
    if not bands:
        return ""
    table = _table(
        (f"age of the {spec.entity}", METRIC_NAMES[spec.metric], "minus heuristic", "rows"),
        [
            [
                band,
                _cell(spec.metric, bands[band]),
                _cell(spec.metric, bands[band].get("ahead")),
                f"{bands[band]['rows']:,}",
            ]
            for band in BAND_NAMES
            if band in bands
        ],
    )
    return f"{table}\n\n"


def _limits(facts: CardFacts) -> str:
    spec = facts.spec
    return "\n".join(
        (
            f"- Examined once, on rows up to {facts.test[1]:%Y-%m-%d}; what changes after that "
            "(prices, campaigns, sources) it does not know. `leadml models backtest "
            f"{spec.name}` shows how its figures moved before.",
            f"- A label looks {_span(spec.horizon)} ahead, so the newest rows it learned "
            f"from are that much older than the first it was examined on.",
            "- SHAP values say what moves the model's answer, not what would move the customer.",
            f"- Words seen in fewer than {LEAST_LEADS} {spec.entity}s, and words it never saw, "
            "are not examined apart.",
        )
    )


def _reproduce(facts: CardFacts) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    params = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in facts.params.items()
        if isinstance(value, int | float | str)
    )
    return (
        f"Scored is each {facts.spec.entity} with `{facts.spec.population or 'True'}`. "
        f"Training set `{facts.training_set_hash[:16]}`, declaration `{facts.spec.hash[:16]}`, "
        f"seed {facts.seed}: the same model, bit for bit. "
        f"Learner `{facts.spec.learner}` with {params}. {versions}."
    )


def _span(length: timedelta) -> str:
    days, rest = divmod(length, timedelta(days=1))
    return duration_text(length) if rest else f"{days} day{'' if days == 1 else 's'}"


def _table(header: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
