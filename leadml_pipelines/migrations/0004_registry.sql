-- The model registry: what was trained, how good it is, which one answers, and who said so.

CREATE SCHEMA IF NOT EXISTS leadml;

CREATE TABLE IF NOT EXISTS leadml.models (
    model_id text PRIMARY KEY,
    name text NOT NULL,
    status text NOT NULL CHECK (status IN
        ('candidate', 'rejected', 'champion', 'challenger', 'previous', 'retired')),
    description text NOT NULL,
    objective text NOT NULL,
    threshold double precision NOT NULL,
    horizon interval NOT NULL,
    signature jsonb NOT NULL,
    spec_hash text NOT NULL,
    training_set_hash text NOT NULL,
    code_version text NOT NULL,
    package_versions jsonb NOT NULL,
    params jsonb NOT NULL,
    tuning jsonb NOT NULL,
    counts jsonb NOT NULL,
    metrics jsonb NOT NULL,
    baseline jsonb NOT NULL,
    gate_passed boolean NOT NULL,
    gate_reasons jsonb NOT NULL,
    artifact_uri text NOT NULL,
    sha256 jsonb NOT NULL,
    trained_at timestamptz NOT NULL,
    seconds double precision NOT NULL,
    promoted_at timestamptz,
    promoted_by text
);
CREATE INDEX IF NOT EXISTS models_newest ON leadml.models (name, trained_at DESC);

CREATE TABLE IF NOT EXISTS leadml.model_aliases (
    name text NOT NULL,
    alias text NOT NULL CHECK (alias IN ('champion', 'challenger', 'previous')),
    model_id text NOT NULL REFERENCES leadml.models,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    PRIMARY KEY (name, alias)
);

-- Every change of an alias, for ever: the answer to "what was in production on that day".
CREATE TABLE IF NOT EXISTS leadml.model_alias_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    alias text NOT NULL,
    model_id text,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL
);
CREATE INDEX IF NOT EXISTS model_alias_changes_name ON leadml.model_alias_changes (name, id);
