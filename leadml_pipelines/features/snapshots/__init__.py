"""Snapshots: every view of every entity as of one moment, kept in PostgreSQL.

A snapshot (all views of an entity type at one moment) is written in one transaction, or view by
view where each is an asset of its own; a re-run for the same moment replaces what was there. It is
read as "the latest" only once `check_snapshot` has found it whole. The transaction that writes any
of its views takes that mark away, and who reads the latest asks for the mark and for all views in
one statement: half a snapshot is never read as whole (`docs/offline-store.md`).
"""
