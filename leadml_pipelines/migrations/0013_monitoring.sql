-- What watching the models found, which alerts fire, and who was told of them.

CREATE SCHEMA IF NOT EXISTS leadml;

-- How far a snapshot is from what the champion of that day learned from.
CREATE TABLE leadml.drift (
    model_name text NOT NULL,
    model_id text NOT NULL,
    as_of timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    reference_rows bigint NOT NULL,
    current_rows bigint NOT NULL,
    -- The columns over their limit, the furthest first.
    drifted jsonb NOT NULL,
    -- Of every column: psi, ks, what is usual, shares without a value.
    columns jsonb NOT NULL,
    PRIMARY KEY (model_name, model_id, as_of)
);
CREATE INDEX drift_newest ON leadml.drift (model_name, recorded_at DESC);

-- How well served predictions came true, of those whose horizon was over.
CREATE TABLE leadml.live_performance (
    model_name text NOT NULL,
    model_id text NOT NULL,
    role text NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    predictions bigint NOT NULL,
    entities bigint NOT NULL,
    -- Of every metric: live, test, drop and noise (shares of test).
    metrics jsonb NOT NULL,
    PRIMARY KEY (model_id, role, until)
);
CREATE INDEX live_performance_newest ON leadml.live_performance (model_name, recorded_at DESC);

-- From when to when a rule fired for a subject.
CREATE TABLE leadml.alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule text NOT NULL,
    subject text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('warning', 'critical')),
    sentence text NOT NULL,
    value float8 NOT NULL,
    limit_value float8 NOT NULL,
    what_to_do text NOT NULL,
    -- What makes it another alert though the rule is the same, such as the columns that drifted.
    details jsonb NOT NULL,
    since timestamptz NOT NULL,
    judged_at timestamptz NOT NULL,
    resolved_at timestamptz,
    -- What the webhook was told last, and when.
    told text,
    told_at timestamptz
);
CREATE UNIQUE INDEX alerts_firing ON leadml.alerts (rule, subject) WHERE resolved_at IS NULL;
