"""Counting reads: where entities were found, how many were stale, why some are computed."""

from __future__ import annotations

from prometheus_client import Counter

from leadml_pipelines.serving.found import SOURCES, Found, Source
from leadml_pipelines.serving.metrics import Metrics
from leadml_pipelines.serving.seen import Seen
from leadml_pipelines.serving.staleness import StaleShare


class ReadCounts:
    """Counts reads. Safe to share between threads.

    Args:
        metrics: Where to count.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._share = StaleShare()
        metrics.stale_share.set_function(self._share.share)
        self._from: dict[Source | None, Counter] = {
            source: metrics.entities.labels(source or "nowhere") for source in SOURCES
        }

    def answered(self, found: Found, *, filled: bool) -> None:
        """Count what was found.

        Args:
            found: The entities.
            filled: Whether some of them were looked for beyond the cache.
        """
        known = 0
        for source in SOURCES if filled else SOURCES[:1]:
            count = found.sources.count(source) if filled else len(found.sources)
            if count:
                self._from[source].inc(count)
                known += count if source is not None else 0
        stale = int(found.stale.sum())
        if stale:
            self._metrics.stale.inc(stale)
        self._share.note(known, stale)

    def computed(self, names: list[str], missing: set[str], seen: Seen) -> None:
        """Count why entities are computed.

        Args:
            names: Which ones.
            missing: Those among them that the cache lacks; the others are stale.
            seen: What the read noticed.
        """
        for name in names:
            if not seen.redis_answered:
                reason = "redis_down"
            elif name not in missing:
                reason = "doubtful" if seen.doubtful else "stale"
            elif name in seen.invalidated:
                reason = "invalidated"
            else:
                reason = "broken" if name in seen.broken else "missing"
            self._metrics.computed.labels(reason).inc()
