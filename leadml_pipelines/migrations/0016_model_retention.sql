-- Models whose files were deleted: the record stays, and says so.

ALTER TABLE leadml.models
    -- When it was decided that its files may go; from then on it can't be given an alias.
    ADD COLUMN pruned_at timestamptz,
    -- Bytes that this freed; NULL until the store has deleted them.
    ADD COLUMN freed_bytes bigint CHECK (freed_bytes IS NULL OR pruned_at IS NOT NULL),
    DROP CONSTRAINT models_status_check,
    ADD CONSTRAINT models_status_check CHECK (status IN
        ('candidate', 'rejected', 'champion', 'challenger', 'previous', 'retired', 'pruned'));
