-- What was computed, as of when, and which moments were checked as a whole.
--
-- The values themselves lie in one table per view, leadml.feature_<view>, partitioned by day; these
-- tables follow the catalogue (features/snapshots/tables.py), not a migration.

CREATE SCHEMA IF NOT EXISTS leadml;

CREATE TABLE leadml.feature_view_snapshots (
    view text NOT NULL,
    as_of timestamptz NOT NULL,
    entity text NOT NULL,
    rows bigint NOT NULL CHECK (rows >= 0),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (view, as_of)
);

CREATE TABLE leadml.feature_snapshots (
    snapshot_id text PRIMARY KEY,
    entity text NOT NULL,
    as_of timestamptz NOT NULL,
    rows bigint NOT NULL CHECK (rows >= 0),
    problems jsonb NOT NULL DEFAULT '[]',
    -- Null: not checked yet, found wrong, or rewritten since.
    checked_at timestamptz,
    UNIQUE (entity, as_of)
);
CREATE INDEX feature_snapshots_checked
    ON leadml.feature_snapshots (entity, as_of DESC) WHERE checked_at IS NOT NULL;
