"""The built-in feature views, one module each."""

from leadml_pipelines.features.view import FeatureView
from leadml_pipelines.features.views.engagement import engagement
from leadml_pipelines.features.views.engineered import engineered
from leadml_pipelines.features.views.graph import graph
from leadml_pipelines.features.views.profile import profile

BUILT_IN: tuple[FeatureView, ...] = (profile, engagement, engineered, graph)
