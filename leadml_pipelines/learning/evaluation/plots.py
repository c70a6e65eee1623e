"""The pictures of a model card: one of the curves, one of the reasons.

Drawn without pyplot, which keeps its figures in one global list: cards are drawn in threads.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from leadml_pipelines.learning.evaluation.shap_summary import ShapSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#222222", "#6b6b6b", "#e6e6e6"
_STYLES: Mapping[str, dict[str, Any]] = {
    "heuristic": {"color": "#9a9a9a", "linewidth": 1.4, "linestyle": (0, (2, 2))},
    "logistic": {"color": "#c98a2b", "linewidth": 1.4},
    "champion": {"color": "#4f8f63", "linewidth": 1.4, "linestyle": (0, (5, 2))},
    "model": {"color": "#1f4e79", "linewidth": 2.2},
}
"""How each line looks, the most important drawn last. They differ in dashes too, not in colour
alone."""
_LOW, _MIDDLE, _HIGH, _UNORDERED = "#2b6cb0", "#cfcfcf", "#c0392b", "#8a8a8a"
_DPI = 110
_COLOURS = 256
"""Colours kept in a file: enough for smooth edges, and a fraction of the bytes."""
_BEST = (0.1, 0.2)
"""Shares of the rows at which the lift is written down."""
_WINDOW = re.compile(r"_(\d+)(h|d|w|m)$")
_UNITS = {"h": "hours", "d": "days", "w": "weeks", "m": "months"}


def draw_curves(evaluation: Mapping[str, Any], names: Mapping[str, str], event: str) -> bytes:
    """ROC, precision against recall, calibration and lift, in one picture.

    Args:
        evaluation: The document of `examination.examine`.
        names: What to call the `model`, `heuristic`, `logistic` and `champion`.
        event: What a positive is, as in `positives`, or what is summed, as in `value`.

    Returns:
        A PNG; without the first two for a model of values.
    """
    from matplotlib.figure import Figure

    found = evaluation["curves"]
    classes = "roc" in found
    figure = Figure(figsize=(10, 8.2 if classes else 4.3), dpi=_DPI, facecolor="white")
    axes = list(np.ravel(figure.subplots(2 if classes else 1, 2)))
    if classes:
        _roc(axes.pop(0), found["roc"], names, evaluation)
        _precision_recall(axes.pop(0), found["precision_recall"], names, evaluation)
    _calibration(axes.pop(0), evaluation, classes)
    _lift(axes.pop(0), found.get("captured", {}), names, event)
    figure.tight_layout(h_pad=2.2, w_pad=2.5)
    return _png(figure)


def draw_shap(summary: ShapSummary) -> bytes:
    """A dot for each explained row and feature: how far it moved the answer.

    Args:
        summary: The SHAP values.

    Returns:
        A PNG.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    rows = len(summary.features)
    figure = Figure(figsize=(10, 1.5 + 0.36 * max(rows, 3)), dpi=_DPI, facecolor="white")
    ax = figure.subplots()
    colours = LinearSegmentedColormap.from_list("value", [_LOW, _MIDDLE, _HIGH])
    for at in range(rows):
        shap, values = summary.shap[:, at], summary.values[:, at]
        heights = rows - 1 - at + _swarm(shap)
        ordered = np.isfinite(values) & (not summary.categories[at])
        ax.scatter(shap[~ordered], heights[~ordered], s=5, color=_UNORDERED, linewidths=0)
        if ordered.any():
            ax.scatter(
                shap[ordered],
                heights[ordered],
                s=5,
                c=_ranks(values[ordered]),
                cmap=colours,
                vmin=0,
                vmax=1,
                linewidths=0,
            )
    ax.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
    ax.set_yticks(range(rows), [words(name) for name in reversed(summary.features)])
    ax.set_ylim(-0.7, rows - 0.3)
    _dress(
        ax,
        "What moves the answer",
        f"moves it down  ←  SHAP value, {summary.unit}  →  moves it up",
        "",
    )
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", labelsize=9.5, labelcolor=INK, length=0)
    if not rows:
        return _png(figure)
    bar = figure.colorbar(
        ax.scatter([], [], c=[], cmap=colours, vmin=0, vmax=1), ax=ax, aspect=40, pad=0.015
    )
    bar.set_ticks([0, 1], labels=["low", "high"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=9, labelcolor=MUTED)
    bar.set_label("the feature's value (grey: missing, or a word)", fontsize=9, color=MUTED)
    figure.tight_layout()
    return _png(figure)


def words(name: str) -> str:
    """A feature's name for people, as in `email open count, 30 days`."""
    window = _WINDOW.search(name)
    if window is None:
        return name.replace("_", " ")
    unit = _UNITS[window[2]]
    length = f"{window[1]} {unit[:-1] if window[1] == '1' else unit}"
    return f"{name[: window.start()].replace('_', ' ')}, {length}"


def _roc(
    ax: Axes, found: Mapping[str, Any], names: Mapping[str, str], evaluation: Mapping[str, Any]
) -> None:
    ax.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, zorder=1)
    _lines(ax, found, names, evaluation, "roc_auc")
    _dress(
        ax,
        "ROC: hits against false alarms",
        "false alarms: share of the negatives",
        "hits: share of the positives",
    )
    _unit(ax, "lower right", "ROC AUC")


def _precision_recall(
    ax: Axes, found: Mapping[str, Any], names: Mapping[str, str], evaluation: Mapping[str, Any]
) -> None:
    _lines(ax, found, names, evaluation, "average_precision")
    _dress(
        ax,
        "Precision and recall",
        "recall: share of the positives that is found",
        "precision: share of positives among those found",
    )
    _unit(ax, "best", "average precision")


def _calibration(ax: Axes, evaluation: Mapping[str, Any], classes: bool) -> None:
    bins = evaluation["reliability"]
    predicted = [one["predicted"] for one in bins]
    actual = [one["actual"] for one in bins]
    below = [one["actual"] - one["low"] for one in bins]
    above = [one["high"] - one["actual"] for one in bins]
    end = 1.06 * max([*predicted, *(one["high"] for one in bins), 1e-9])
    end = min(end, 1.0) if classes else end
    ax.plot([0, end], [0, end], color="#bdbdbd", linewidth=1.2, zorder=1)
    ax.errorbar(
        predicted,
        actual,
        yerr=[below, above],
        fmt="o",
        markersize=5.5,
        color=_STYLES["model"]["color"],
        ecolor="#8fa9c4",
        elinewidth=1.5,
        capsize=0,
    )
    start = min([0.0, *predicted, *(one["low"] for one in bins)])
    ax.set_xlim(min(0.0, *predicted) if predicted else 0, end)
    ax.set_ylim(max(start, -0.05 * end), end)
    _dress(
        ax,
        "Calibration: said against came true",
        "mean predicted " + ("chance" if classes else "value"),
        "share that came true" if classes else "mean value that came",
    )
    ax.text(
        0.03,
        0.97,
        "each dot: a tenth of the rows,\nwith its 95 % interval",
        transform=ax.transAxes,
        va="top",
        fontsize=9,
        color=MUTED,
    )


def _lift(ax: Axes, found: Mapping[str, Any], names: Mapping[str, str], event: str) -> None:
    ax.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, zorder=1)
    heights = {
        who: [float(np.interp(share, line["x"], line["y"])) for share in _BEST]
        for who, line in found.items()
    }
    labels = {
        who: f"{names[who]}  {'   '.join(_height(*pair) for pair in zip(_BEST, of, strict=True))}"
        for who, of in heights.items()
    }
    _lines(ax, found, labels, None, "")
    for share, height in zip(_BEST, heights.get("model", ()), strict=False):
        ax.plot([share, share], [0, height], color=MUTED, linewidth=0.9, linestyle=":")
        ax.plot([share], [height], "o", color=_STYLES["model"]["color"], markersize=5, zorder=9)
    _dress(
        ax,
        "Lift: what the best-ranked rows hold",
        "best-ranked share of the rows",
        f"share of the {event} in them",
    )
    shares = " and ".join(f"{share:.0%}" for share in _BEST)
    _unit(ax, "lower right", f"in the best {shares} (lift)")


def _height(share: float, height: float) -> str:
    return f"{height:.0%} ({height / share:.1f})"


def _lines(
    ax: Axes,
    found: Mapping[str, Any],
    names: Mapping[str, str],
    evaluation: Mapping[str, Any] | None,
    metric: str,
) -> None:
    for order, (who, style) in enumerate(_STYLES.items()):
        if who not in found:
            continue
        figure = ((evaluation or {}).get(who) or {}).get(metric)
        label = names[who] + (f"  {figure['value']:.3f}" if figure else "")
        ax.plot(found[who]["x"], found[who]["y"], label=label, zorder=2 + order, **style)


def _unit(ax: Axes, place: Literal["lower right", "best"], title: str) -> None:
    """Both axes from 0 to 1, and the legend, this model first."""
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.01)
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        legend = ax.legend(
            handles[::-1],
            labels[::-1],
            loc=place,
            facecolor="white",
            edgecolor="none",
            framealpha=0.85,
            fontsize=9,
            title=title,
            title_fontsize=9,
            alignment="left",
            labelcolor=INK,
        )
        legend.get_title().set_color(MUTED)


def _dress(ax: Axes, title: str, across: str, up: str) -> None:
    ax.set_title(title, loc="left", fontsize=11.5, color=INK, fontweight="bold", pad=9)
    ax.set_xlabel(across, fontsize=9.5, color=MUTED)
    ax.set_ylabel(up, fontsize=9.5, color=MUTED)
    ax.tick_params(labelsize=9, labelcolor=MUTED, color=GRID)
    ax.grid(color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bdbdbd")


def _swarm(values: Any) -> Any:
    """How far each dot stands from its line, so that dots do not hide each other."""
    if not len(values) or np.ptp(values) == 0:
        return np.linspace(-0.35, 0.35, len(values)) if len(values) else np.empty(0)
    cells = np.floor((values - values.min()) / np.ptp(values) * 99).astype(int)
    counts = np.bincount(cells)
    order = np.argsort(cells, kind="stable")
    place = np.arange(len(values)) - np.searchsorted(cells[order], cells[order])
    offset = np.empty(len(values))
    # 0, 1, -1, 2, -2, ...: from the line outwards.
    offset[order] = np.where(place % 2, (place + 1) // 2, -(place // 2))
    return offset / max(counts.max() / 2, 1) * 0.38


def _ranks(values: Any) -> Any:
    """0 to 1 by rank: a few huge values do not make all the others one colour."""
    ordered = np.sort(values)
    middle = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return (middle - 1) / 2 / max(len(values) - 1, 1)


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    small = picture.quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(out, "PNG", optimize=True)
    return out.getvalue()
