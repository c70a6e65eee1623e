-- Events that were posted while the app runs, and what they make untrue in the online store.

CREATE SCHEMA IF NOT EXISTS leadml;

-- Written in the event's own transaction. A row waits until Redis has been told; delivered rows stay
-- for two days, so that a snapshot from before the event is not published over it.
CREATE TABLE leadml.invalidations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity_type text NOT NULL,
    entity_id text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at timestamptz
);
CREATE INDEX invalidations_waiting
    ON leadml.invalidations (entity_type, entity_id) WHERE delivered_at IS NULL;
CREATE INDEX invalidations_stored ON leadml.invalidations (entity_type, stored_at);

-- How far posted events have moved the present of a historical data set (LEADML_CLOCK=data).
CREATE TABLE leadml.data_clock (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    newest timestamptz NOT NULL
);
