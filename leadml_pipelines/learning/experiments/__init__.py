"""Experiments: two models that answer at once, each for the entities that a lot gave it."""
