-- The contract with the customer's data (schema crm) and the quarantine (schema leadml).
--
-- Each relation may already exist as a table or view of the customer: then it is left as it is,
-- without the trigger and indexes below (a trigger of ours could make the customer's own writes
-- fail). An extract judges its rows, for they did not come through the door, and records the history
-- of its leads.
--
-- There are no foreign keys: events may arrive before their lead, and a foreign key would refuse
-- the whole batch without naming the row. The door checks "unknown lead" row by row instead.

CREATE SCHEMA IF NOT EXISTS crm;
CREATE SCHEMA IF NOT EXISTS leadml;

-- The source tables that this migration made. As regclass an entry survives a dump and a rename, and
-- does not speak for another table that takes the name later.
CREATE TABLE leadml.own_tables (relation regclass PRIMARY KEY);

CREATE TEMP TABLE there_before ON COMMIT DROP AS
SELECT oid FROM pg_class WHERE relnamespace = 'crm'::regnamespace;

CREATE TABLE IF NOT EXISTS crm.leads (
    lead_id text PRIMARY KEY CHECK (lead_id <> ''),
    created_at timestamptz NOT NULL,
    source text NOT NULL,
    campaign_id text,
    product_interest text,
    state text,
    household_id text,
    attributes jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS crm.lead_versions (
    lead_id text NOT NULL,
    valid_from timestamptz NOT NULL,
    source text NOT NULL,
    campaign_id text,
    product_interest text,
    state text,
    household_id text,
    attributes jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (lead_id, valid_from)
);

CREATE TABLE IF NOT EXISTS crm.lead_events (
    event_id text PRIMARY KEY CHECK (event_id <> ''),
    lead_id text NOT NULL,
    event_type text NOT NULL,
    channel text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('inbound', 'outbound', 'internal')),
    agent_id text,
    value numeric(18, 4),
    properties jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(properties) = 'object'),
    occurred_at timestamptz NOT NULL,
    ingested_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS crm.agents (
    agent_id text PRIMARY KEY CHECK (agent_id <> ''),
    hired_at timestamptz,
    specialty text,
    capacity integer CHECK (capacity >= 0)
);

CREATE TABLE IF NOT EXISTS crm.assignments (
    lead_id text NOT NULL,
    agent_id text NOT NULL,
    assigned_at timestamptz NOT NULL,
    ended_at timestamptz CHECK (ended_at >= assigned_at),
    PRIMARY KEY (lead_id, agent_id, assigned_at)
);

CREATE TABLE IF NOT EXISTS crm.policies (
    policy_id text PRIMARY KEY CHECK (policy_id <> ''),
    lead_id text NOT NULL,
    product text NOT NULL,
    annual_premium numeric(18, 2) NOT NULL CHECK (annual_premium >= 0),
    bound_at timestamptz NOT NULL,
    cancelled_at timestamptz CHECK (cancelled_at >= bound_at)
);

CREATE TABLE IF NOT EXISTS crm.closures (
    lead_id text NOT NULL,
    closed_at timestamptz NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (lead_id, closed_at)
);

CREATE TABLE IF NOT EXISTS crm.referrals (
    from_lead_id text NOT NULL,
    to_lead_id text NOT NULL,
    referred_at timestamptz NOT NULL,
    PRIMARY KEY (from_lead_id, to_lead_id)
);

INSERT INTO leadml.own_tables (relation)
SELECT oid::regclass FROM pg_class
WHERE relnamespace = 'crm'::regnamespace AND relkind = 'r'
  AND relname IN ('leads', 'lead_versions', 'lead_events', 'agents', 'assignments', 'policies',
      'closures', 'referrals')
  AND oid NOT IN (SELECT oid FROM there_before);

CREATE TABLE IF NOT EXISTS leadml.quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    "row" jsonb NOT NULL,
    origin text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    replayed_at timestamptz,
    -- SHA-256 of the table and the raw content: the same bad row is kept once, however often it comes.
    digest text NOT NULL UNIQUE
);
CREATE INDEX IF NOT EXISTS quarantine_open
    ON leadml.quarantine (table_name, reason) WHERE replayed_at IS NULL;

-- When the first version of a lead was written, where that was after the lead's creation: an older
-- version that arrives later takes its place, and the first is moved to this time.
CREATE TABLE leadml.first_versions (
    lead_id text PRIMARY KEY,
    updated_at timestamptz NOT NULL
);

-- The history of crm.leads. Features read attributes from it, so that a later change of a lead
-- can't leak into the past. One statement, one pass over what the statement changed.
CREATE OR REPLACE FUNCTION leadml.keep_lead_versions() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO crm.lead_versions AS v (lead_id, valid_from, source, campaign_id,
            product_interest, state, household_id, attributes)
        SELECT lead_id, created_at, source, campaign_id, product_interest, state, household_id,
            attributes
        FROM new_rows
        ON CONFLICT (lead_id, valid_from) DO UPDATE SET source = excluded.source,
            campaign_id = excluded.campaign_id, product_interest = excluded.product_interest,
            state = excluded.state, household_id = excluded.household_id,
            attributes = excluded.attributes;
        INSERT INTO leadml.first_versions (lead_id, updated_at)
        SELECT lead_id, updated_at FROM new_rows WHERE updated_at > created_at
        ON CONFLICT (lead_id) DO UPDATE SET updated_at = excluded.updated_at;
    ELSIF TG_OP = 'UPDATE' THEN
        -- A change that forgot to move updated_at forward is dated now: never into the past.
        INSERT INTO crm.lead_versions AS v (lead_id, valid_from, source, campaign_id,
            product_interest, state, household_id, attributes)
        SELECT n.lead_id,
            CASE WHEN o.lead_id IS NULL THEN n.created_at
                 WHEN n.updated_at > o.updated_at THEN n.updated_at
                 ELSE now() END,
            n.source, n.campaign_id, n.product_interest, n.state, n.household_id, n.attributes
        FROM new_rows n LEFT JOIN old_rows o USING (lead_id)
        WHERE (n.source, n.campaign_id, n.product_interest, n.state, n.household_id, n.attributes)
            IS DISTINCT FROM
            (o.source, o.campaign_id, o.product_interest, o.state, o.household_id, o.attributes)
        ON CONFLICT (lead_id, valid_from) DO UPDATE SET source = excluded.source,
            campaign_id = excluded.campaign_id, product_interest = excluded.product_interest,
            state = excluded.state, household_id = excluded.household_id,
            attributes = excluded.attributes;
    ELSIF TG_OP = 'DELETE' THEN
        -- A lead that is erased takes its history along.
        DELETE FROM crm.lead_versions v USING old_rows o WHERE v.lead_id = o.lead_id;
        DELETE FROM leadml.first_versions f USING old_rows o WHERE f.lead_id = o.lead_id;
    ELSE
        DELETE FROM crm.lead_versions;
        DELETE FROM leadml.first_versions;
    END IF;
    RETURN NULL;
END
$$;

DO $$
DECLARE
    wanted record;
BEGIN
    IF (SELECT count(*) FROM leadml.own_tables
        WHERE relation IN ('crm.leads'::regclass, 'crm.lead_versions'::regclass)) = 2 THEN
        CREATE OR REPLACE TRIGGER lead_versions_insert AFTER INSERT ON crm.leads
            REFERENCING NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION leadml.keep_lead_versions();
        CREATE OR REPLACE TRIGGER lead_versions_update AFTER UPDATE ON crm.leads
            REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
            FOR EACH STATEMENT EXECUTE FUNCTION leadml.keep_lead_versions();
        CREATE OR REPLACE TRIGGER lead_versions_delete AFTER DELETE ON crm.leads
            REFERENCING OLD TABLE AS old_rows
            FOR EACH STATEMENT EXECUTE FUNCTION leadml.keep_lead_versions();
        CREATE OR REPLACE TRIGGER lead_versions_truncate AFTER TRUNCATE ON crm.leads
            FOR EACH STATEMENT EXECUTE FUNCTION leadml.keep_lead_versions();
    END IF;

    FOR wanted IN SELECT * FROM (VALUES
        ('leads', 'leads_created_at', '(created_at)'),
        ('leads', 'leads_household', '(household_id) WHERE household_id IS NOT NULL'),
        ('leads', 'leads_campaign', '(campaign_id) WHERE campaign_id IS NOT NULL'),
        ('lead_events', 'lead_events_lead', '(lead_id, occurred_at)'),
        ('assignments', 'assignments_agent', '(agent_id, assigned_at)'),
        ('policies', 'policies_lead', '(lead_id, bound_at)'),
        ('referrals', 'referrals_to', '(to_lead_id)')
    ) AS w (relation, name, definition)
    LOOP
        IF ('crm.' || wanted.relation)::regclass IN (SELECT relation FROM leadml.own_tables) THEN
            EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON crm.%I %s',
                wanted.name, wanted.relation, wanted.definition);
        END IF;
    END LOOP;

    -- "What became known lately" in arrival order: BRIN, because it costs a load next to nothing.
    IF 'crm.lead_events'::regclass IN (SELECT relation FROM leadml.own_tables) THEN
        CREATE INDEX IF NOT EXISTS lead_events_ingested
            ON crm.lead_events USING brin (ingested_at);
    END IF;
END
$$;
