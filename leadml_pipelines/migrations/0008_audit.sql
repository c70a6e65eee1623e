-- What was served to callers, a sample of it, so that it can be computed again and compared.

CREATE SCHEMA IF NOT EXISTS leadml;

-- The schema documents of docs/redis-format.md that served vectors are of: names, types, words.
CREATE TABLE leadml.served_schemas (
    entity_type text NOT NULL,
    schema_id bigint NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (entity_type, schema_id)
);

CREATE TABLE leadml.served_features (
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    as_of timestamptz NOT NULL,
    computed_at timestamptz NOT NULL,
    schema_id bigint NOT NULL,
    -- In the schema's order; NaN is missing, a category is its code.
    vector float8[] NOT NULL,
    -- Where the reader found it: cache, snapshot, ...
    source text NOT NULL,
    served_at timestamptz NOT NULL
);
CREATE INDEX served_features_served_at ON leadml.served_features (served_at);
CREATE INDEX served_features_as_of ON leadml.served_features (entity_type, as_of);
