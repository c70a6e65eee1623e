"""The built-in feature views, one module each; those of agents share one."""

from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.features.views.agents import (
    agent_activity,
    agent_results,
    agent_speed,
    agent_workload,
)
from leadml_pipelines.features.views.engagement import engagement
from leadml_pipelines.features.views.engineered import engineered
from leadml_pipelines.features.views.graph import graph
from leadml_pipelines.features.views.lifecycle import lifecycle
from leadml_pipelines.features.views.profile import profile

BUILT_IN: tuple[FeatureView, ...] = (
    profile,
    lifecycle,
    engagement,
    engineered,
    graph,
    agent_workload,
    agent_results,
    agent_speed,
    agent_activity,
)
