-- The source of our own (docs/semantics.md section 3): usage events of applications that have no log, and of files. It lies beside the
-- application's tables, which write it. Its tokens nest: cached and cache-write tokens are part of the input, reasoning of the output.
SET LOCAL lock_timeout = '10s';

CREATE TABLE IF NOT EXISTS usage_event (
    source_name TEXT COLLATE "C" NOT NULL DEFAULT 'application',
    event_id TEXT COLLATE "C" NOT NULL DEFAULT gen_random_uuid()::TEXT,
    occurred_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    user_id TEXT COLLATE "C" NOT NULL,
    user_name TEXT,
    customer_id TEXT COLLATE "C",
    customer_name TEXT,
    request_type TEXT NOT NULL DEFAULT 'request',
    category TEXT,
    provider TEXT,
    model TEXT,
    service_tier TEXT,
    status TEXT NOT NULL DEFAULT 'success',
    input_tokens BIGINT NOT NULL DEFAULT 0,
    cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    output_tokens BIGINT NOT NULL DEFAULT 0,
    reasoning_tokens BIGINT NOT NULL DEFAULT 0,
    total_tokens BIGINT,
    cost_usd NUMERIC(18, 9),
    latency_ms BIGINT,
    tool_turns BIGINT NOT NULL DEFAULT 0,
    rating BIGINT,
    tags JSONB,
    import_id TEXT,
    ingest_xid XID8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (source_name, event_id)
);

-- Texts that jobs read, in bytes (docs/semantics.md section 3); an id is shown behind the name of its source.
ALTER TABLE usage_event
    ADD CONSTRAINT tallyroll_source_name_length CHECK (octet_length(source_name) <= 100 AND strpos(source_name, '/') = 0),
    ADD CONSTRAINT tallyroll_event_id_length CHECK (octet_length(event_id) <= 800),
    ADD CONSTRAINT tallyroll_user_id_length CHECK (octet_length(user_id) <= 1000),
    ADD CONSTRAINT tallyroll_user_name_length CHECK (octet_length(user_name) <= 1000),
    ADD CONSTRAINT tallyroll_customer_id_length CHECK (octet_length(customer_id) <= 1000),
    ADD CONSTRAINT tallyroll_customer_name_length CHECK (octet_length(customer_name) <= 1000),
    ADD CONSTRAINT tallyroll_request_type_length CHECK (octet_length(request_type) <= 1000),
    ADD CONSTRAINT tallyroll_category_length CHECK (octet_length(category) <= 1000),
    ADD CONSTRAINT tallyroll_provider_length CHECK (octet_length(provider) <= 1000),
    ADD CONSTRAINT tallyroll_model_length CHECK (octet_length(model) <= 1000),
    ADD CONSTRAINT tallyroll_service_tier_length CHECK (octet_length(service_tier) <= 1000),
    ADD CONSTRAINT tallyroll_status_length CHECK (octet_length(status) <= 1000),
    ADD CONSTRAINT tallyroll_tags_length CHECK (octet_length(tags::TEXT) <= 10000);

CREATE INDEX idx_usage_event_occurred ON usage_event (occurred_at);
CREATE INDEX idx_usage_event_user ON usage_event (user_id, occurred_at DESC);
CREATE INDEX idx_usage_event_ingest_xid ON usage_event (ingest_xid);

-- The body: sql/functions/change_tracking.sql.
CREATE FUNCTION tallyroll.tallyroll_mark_dirty_event() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN NULL;
END;
$$;

-- As of the other sources; also in a session that replicates or restores.
CREATE TRIGGER tallyroll_stamp_insert BEFORE INSERT ON usage_event FOR EACH ROW
    WHEN (NEW.ingest_xid IS DISTINCT FROM pg_catalog.pg_current_xact_id()) EXECUTE FUNCTION tallyroll.tallyroll_stamp_ingest();
CREATE TRIGGER tallyroll_stamp_update BEFORE UPDATE ON usage_event FOR EACH ROW
    WHEN (NEW.ingest_xid IS DISTINCT FROM OLD.ingest_xid) EXECUTE FUNCTION tallyroll.tallyroll_stamp_ingest();
CREATE TRIGGER tallyroll_dirty_update AFTER UPDATE ON usage_event
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll.tallyroll_mark_dirty_event();
CREATE TRIGGER tallyroll_dirty_delete AFTER DELETE ON usage_event
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll.tallyroll_mark_dirty_event();
CREATE TRIGGER tallyroll_dirty_truncate AFTER TRUNCATE ON usage_event
    FOR EACH STATEMENT EXECUTE FUNCTION tallyroll.tallyroll_mark_truncated();
ALTER TABLE usage_event
    ENABLE ALWAYS TRIGGER tallyroll_stamp_insert,
    ENABLE ALWAYS TRIGGER tallyroll_stamp_update,
    ENABLE ALWAYS TRIGGER tallyroll_dirty_update,
    ENABLE ALWAYS TRIGGER tallyroll_dirty_delete,
    ENABLE ALWAYS TRIGGER tallyroll_dirty_truncate;

-- The three measures that only this source has: for what the others logged they are 0, and no row has to be computed again.
ALTER TABLE tallyroll.usage_daily
    ADD COLUMN cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN reasoning_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tallyroll.usage_daily_user
    ADD COLUMN cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN reasoning_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tallyroll.usage_daily_customer
    ADD COLUMN cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN reasoning_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tallyroll.usage_daily_total
    ADD COLUMN cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN reasoning_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tallyroll.usage_daily_type
    ADD COLUMN cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN reasoning_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tallyroll.usage_monthly_user
    ADD COLUMN cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN reasoning_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tallyroll.usage_monthly_customer
    ADD COLUMN cached_input_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_tokens BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN reasoning_tokens BIGINT NOT NULL DEFAULT 0;

-- Digests from before this source and these measures were declared are held against what they were made from.
UPDATE tallyroll.job_window SET definition = 'v1 ' || definition WHERE definition IS NOT NULL;
UPDATE tallyroll.job_window SET input_fingerprint = 'v1 ' || input_fingerprint WHERE job = 'usage_daily' AND input_fingerprint IS NOT NULL;
