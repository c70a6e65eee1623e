-- More metrics of the graph. The old rows lack them: all moments are computed again.

DROP TABLE leadml.graph_metrics;
TRUNCATE leadml.graph_moments;

-- As of Mondays 00:00 UTC only, and never "as of now": what is served is as old as what was learned.
CREATE TABLE leadml.graph_metrics (
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    as_of timestamptz NOT NULL,
    computed_at timestamptz NOT NULL,
    degree integer NOT NULL,
    degree_referral integer NOT NULL,
    degree_referral_made integer NOT NULL,
    degree_referral_received integer NOT NULL,
    degree_household integer NOT NULL,
    degree_assignment integer NOT NULL,
    pagerank double precision NOT NULL,
    betweenness double precision NOT NULL,
    closeness double precision NOT NULL,
    clustering double precision NOT NULL,
    core integer NOT NULL,
    community text NOT NULL,
    community_size integer NOT NULL,
    community_share double precision NOT NULL,
    community_conversion_rate double precision NOT NULL,
    referral_depth integer NOT NULL,
    referral_descendants integer NOT NULL,
    household_size integer NOT NULL,
    household_conversions integer NOT NULL,
    agent_load integer NOT NULL,
    -- Of agents only.
    agent_conversion_rate double precision,
    nodes integer NOT NULL,
    PRIMARY KEY (entity_type, entity_id, as_of)
);

-- Whole moments are replaced at a time; their rows lie together on disk.
CREATE INDEX graph_metrics_as_of ON leadml.graph_metrics USING brin (as_of)
    WITH (pages_per_range = 16, autosummarize = on);
