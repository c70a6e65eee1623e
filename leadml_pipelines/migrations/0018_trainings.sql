-- Every training and how it ended; and the order in which models were registered.

CREATE TABLE leadml.trainings (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_name text NOT NULL,
    started_by text NOT NULL,
    -- Dagster's run; NULL for a training by command.
    run_id text,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    -- NULL while it is under way, and for ever if its process died: see monitoring/trainings.py.
    outcome text CHECK (outcome IN ('succeeded', 'rejected', 'failed', 'cancelled'))
);
CREATE INDEX trainings_started_at ON leadml.trainings (started_at);

-- A clock that was put back must not make an older model the newest: the order is a number.
ALTER TABLE leadml.models ADD COLUMN registration bigint;
UPDATE leadml.models m SET registration = o.place FROM (
    SELECT model_id, row_number() OVER (ORDER BY trained_at, model_id) AS place FROM leadml.models
) o WHERE o.model_id = m.model_id;
ALTER TABLE leadml.models
    ALTER COLUMN registration SET NOT NULL,
    ALTER COLUMN registration ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('leadml.models', 'registration'), coalesce(max(registration), 1),
    max(registration) IS NOT NULL) FROM leadml.models;
DROP INDEX leadml.models_newest;
CREATE INDEX models_newest ON leadml.models (name, registration DESC);
