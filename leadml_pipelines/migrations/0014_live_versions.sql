-- Live performance is judged by role: which versions answered, and which were left out and why.

ALTER TABLE leadml.live_performance
    -- Of each version: model_id, first_at, last_at, predictions. `model_id` is the newest of them.
    ADD COLUMN IF NOT EXISTS versions jsonb NOT NULL DEFAULT '[]',
    -- By model id, why a version's predictions do not count.
    ADD COLUMN IF NOT EXISTS not_comparable jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS left_out bigint NOT NULL DEFAULT 0;
