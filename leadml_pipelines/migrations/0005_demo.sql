-- Which demonstration data this database holds, so that the demo never mixes two data sets and
-- never writes made-up leads between real ones.
CREATE TABLE leadml.demo_dataset (
    only_one   boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    dataset    jsonb NOT NULL,
    loaded_at  timestamptz NOT NULL DEFAULT now()
);
