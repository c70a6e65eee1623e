-- Features of one agent are computed on demand: its events are found by agent.
DO $$
BEGIN
    IF 'crm.lead_events'::regclass IN (SELECT relation FROM leadml.own_tables) THEN
        CREATE INDEX IF NOT EXISTS lead_events_agent
            ON crm.lead_events (agent_id, occurred_at) WHERE agent_id IS NOT NULL;
    END IF;
END
$$;
