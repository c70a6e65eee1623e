"""Connections as Dagster resources."""
