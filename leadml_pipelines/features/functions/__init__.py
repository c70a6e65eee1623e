"""The feature functions: features in one line each, the same on every engine.

| function | what it computes |
|---|---|
| `count` | events in a window |
| `total` | sum of their value |
| `ratio` | events of one kind per event of another, smoothed |
| `recency` | days since the last event |
| `delay` | hours until something happened for the first time |
| `response_time` | hours from a touch of ours to the lead's next answer |
| `trend` | slope of activity over growing windows |
| `diversity` | how evenly events spread over channels or types, an entropy |
| `last_kind` | which kind of event came last, a category |
| `weighted_score` | a bounded composite of other features, 0 to 100 |

`function_view` makes a view of a list of them; `from_spec` reads one from JSON. Another function is
a class with the decorator `feature_function`, in any package (`docs/features.md` shows one).
"""

from leadml_pipelines.features.functions.base import (
    FUNCTIONS,
    FeatureFunction,
    FunctionSpecError,
    feature_function,
    from_spec,
)
from leadml_pipelines.features.functions.counting import Count, Delay, Ratio, Recency, Total
from leadml_pipelines.features.functions.events import EventFunction, Events
from leadml_pipelines.features.functions.patterns import Diversity, LastKind, ResponseTime, Trend
from leadml_pipelines.features.functions.views import function_view, with_functions
from leadml_pipelines.features.functions.weighted_score import Part, WeightedScore

__all__ = [
    "FUNCTIONS",
    "Count",
    "Delay",
    "Diversity",
    "EventFunction",
    "Events",
    "FeatureFunction",
    "FunctionSpecError",
    "LastKind",
    "Part",
    "Ratio",
    "Recency",
    "ResponseTime",
    "Total",
    "Trend",
    "WeightedScore",
    "feature_function",
    "from_spec",
    "function_view",
    "with_functions",
]
