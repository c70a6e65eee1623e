"""Synthetic."""

from leadml_pipelines.sources.synthetic.generator import Batch, generate

__all__ = ["Batch", "generate"]
