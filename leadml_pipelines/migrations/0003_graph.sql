-- What the graph was told (so that only differences are sent), and its metrics as of past moments.

CREATE SCHEMA IF NOT EXISTS leadml;

-- The one graph that mirrors this database. `generation` counts the synchronisations that wrote
-- something; the marker node in the graph carries the same two values.
CREATE TABLE leadml.graph_sync_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    graph_id text NOT NULL,
    generation bigint NOT NULL CHECK (generation >= 0),
    synced_at timestamptz NOT NULL DEFAULT now()
);

-- One row per node and edge. A null digest means "about to be written or deleted": whatever the
-- graph holds for the key is not known until a synchronisation has finished with it.
CREATE TABLE leadml.graph_sync (
    kind text NOT NULL,
    key text NOT NULL,
    digest text,
    PRIMARY KEY (kind, key)
);

-- As of Mondays 00:00 UTC only, and never "as of now": what is served is as old as what was learned.
CREATE TABLE leadml.graph_metrics (
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    as_of timestamptz NOT NULL,
    computed_at timestamptz NOT NULL,
    degree integer NOT NULL,
    degree_referral integer NOT NULL,
    degree_household integer NOT NULL,
    pagerank double precision NOT NULL,
    community text NOT NULL,
    community_size integer NOT NULL,
    nodes integer NOT NULL,
    PRIMARY KEY (entity_type, entity_id, as_of)
);

-- Whole moments are replaced at a time; their rows lie together on disk.
CREATE INDEX graph_metrics_as_of ON leadml.graph_metrics USING brin (as_of)
    WITH (pages_per_range = 16, autosummarize = on);

-- Which graph each moment was computed from: equal fingerprints mean equal metrics.
CREATE TABLE leadml.graph_moments (
    as_of timestamptz PRIMARY KEY,
    fingerprint text NOT NULL,
    entities integer NOT NULL,
    computed_at timestamptz NOT NULL
);
