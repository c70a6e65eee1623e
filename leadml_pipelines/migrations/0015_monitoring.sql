-- When the alert rules were judged, and which alerts stay open because they could not be.

CREATE TABLE leadml.alert_runs (
    judged_at timestamptz PRIMARY KEY,
    judged integer NOT NULL,
    -- Judgements for which there was not enough to go by.
    undecided integer NOT NULL
);

-- Why an open alert could not be judged the last time; NULL when it was.
ALTER TABLE leadml.alerts ADD COLUMN not_judged text;
