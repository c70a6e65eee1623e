"""Embedded PostgreSQL, Redis and Bolt graph: real servers for a laptop and for the tests."""
