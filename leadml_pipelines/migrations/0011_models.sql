-- The registry, whole: how good a model is and with what it was compared, its card, the hash of its
-- signed manifest, challengers with a share of the traffic, and every change of an alias for ever.

ALTER TABLE leadml.models
    ADD COLUMN IF NOT EXISTS evaluation jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS validation jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS card text NOT NULL DEFAULT '',
    -- The champion that the gate saw; NULL when there was none. Two writers are told apart by it.
    ADD COLUMN IF NOT EXISTS compared_with text,
    -- NULL of models from before artifacts were signed, which are no longer loaded.
    ADD COLUMN IF NOT EXISTS manifest_sha256 text,
    ALTER COLUMN threshold DROP NOT NULL;

ALTER TABLE leadml.model_aliases
    ADD COLUMN IF NOT EXISTS traffic_share double precision NOT NULL DEFAULT 1
        CHECK (traffic_share > 0 AND traffic_share <= 1);

-- `model_id` is where the alias points from then on (NULL: nowhere), `replaced` where it did before.
ALTER TABLE leadml.model_alias_changes
    ADD COLUMN IF NOT EXISTS kind text NOT NULL DEFAULT 'promote'
        CHECK (kind IN ('promote', 'rollback', 'challenge', 'end')),
    ADD COLUMN IF NOT EXISTS replaced text,
    ADD COLUMN IF NOT EXISTS traffic_share double precision,
    ADD COLUMN IF NOT EXISTS forced boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS reason text;

CREATE OR REPLACE FUNCTION leadml.refuse_rewriting_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the changes of model aliases are recorded for ever';
END $$;

CREATE OR REPLACE TRIGGER model_alias_changes_stay
    BEFORE UPDATE OR DELETE ON leadml.model_alias_changes
    FOR EACH STATEMENT EXECUTE FUNCTION leadml.refuse_rewriting_history();
