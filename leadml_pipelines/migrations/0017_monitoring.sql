-- Drift is compared of several populations, and what was found last is known without a clock.

ALTER TABLE leadml.drift
    -- Which rows of today: all that would be scored, those served, or what was answered.
    ADD COLUMN population text NOT NULL DEFAULT 'snapshot'
        CHECK (population IN ('snapshot', 'served', 'answers')),
    -- Grows with every record: a clock that was put back does not make an older one the newest.
    ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY,
    DROP CONSTRAINT drift_pkey,
    ADD PRIMARY KEY (model_name, model_id, population, as_of);

ALTER TABLE leadml.live_performance ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;

-- With what chance a vector was drawn when it was served; NULL from before this was kept.
ALTER TABLE leadml.served_features ADD COLUMN share float8;
