-- What was predicted, for whom, by which version of a model: for experiments and monitoring.

CREATE SCHEMA IF NOT EXISTS leadml;

CREATE TABLE leadml.predictions (
    -- Given out before the prediction leaves the app: told twice, it is kept once. It begins with the
    -- time, so that new rows touch the end of the index only.
    prediction_id text PRIMARY KEY,
    model_name text NOT NULL,
    model_id text NOT NULL,
    role text NOT NULL CHECK (role IN ('champion', 'challenger')),
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    features_as_of timestamptz NOT NULL,
    predicted_at timestamptz NOT NULL,
    -- The chance, or the expected value.
    value float8 NOT NULL,
    -- 0 or 1 by the model's threshold, or what the model shows of a value.
    prediction float8,
    score float8,
    -- Where the features were found: cache, computed, snapshot.
    source text NOT NULL,
    stale boolean NOT NULL,
    degraded boolean NOT NULL,
    latency_ms float4,
    -- The challenger that the entity could have been given to, and with what chance; NULL where no
    -- experiment ran. Only rows with it were assigned by lot.
    experiment text,
    traffic_share float8
);
CREATE INDEX predictions_of_model ON leadml.predictions (model_name, predicted_at);
-- For the removal of old rows; rows come in the order of time, so it is a few pages.
CREATE INDEX predictions_by_time ON leadml.predictions USING brin (predicted_at);
