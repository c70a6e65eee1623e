-- Invalidations know from when on values are untrue, and which Redis was told of it.

-- An event that is dated ahead makes values untrue when its time comes, not when it is posted.
ALTER TABLE leadml.invalidations ADD COLUMN due_at timestamptz;
UPDATE leadml.invalidations SET due_at = stored_at;
ALTER TABLE leadml.invalidations
    ALTER COLUMN due_at SET NOT NULL, ALTER COLUMN due_at SET DEFAULT clock_timestamp();

-- A Redis that was started again, or another one, may lack what the one before it was told.
ALTER TABLE leadml.invalidations ADD COLUMN told text;

DROP INDEX leadml.invalidations_stored;
CREATE INDEX invalidations_due ON leadml.invalidations (due_at);
