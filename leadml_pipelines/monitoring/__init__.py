"""Watching the models: drift, live performance, the alert rules, and who is told."""
