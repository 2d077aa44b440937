-- Change tracking (docs/semantics.md section 5): an update or delete of a raw row marks the quarter of an hour that the row
-- was or is in. A quarter of an hour lies in one day of every time zone of today, whatever reporting.timezone is.
SET LOCAL lock_timeout = '10s';

CREATE TABLE usage_dirty_day (
    source TEXT NOT NULL,
    slot_start TIMESTAMPTZ NOT NULL,
    marked_xid XID8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX idx_usage_dirty_day ON usage_dirty_day (source);

CREATE TABLE usage_watermark (
    source TEXT PRIMARY KEY,
    position TEXT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

-- The writer needs no right on usage_dirty_day: the marks are set as the owner. Extracting the epoch makes the slot
-- independent of the writer's session time zone, also where created_at is a timestamp without zone.
CREATE FUNCTION tallyroll_mark_dirty() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO usage_dirty_day (source, slot_start)
        SELECT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM created_at) / 900) * 900) FROM old_rows
        UNION
        SELECT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM created_at) / 900) * 900) FROM new_rows;
    ELSE
        INSERT INTO usage_dirty_day (source, slot_start)
        SELECT DISTINCT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM created_at) / 900) * 900) FROM old_rows;
    END IF;
    RETURN NULL;
END;
$$;

-- An analytics row changes the usage event of its chat request.
CREATE FUNCTION tallyroll_mark_dirty_analytics() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO usage_dirty_day (source, slot_start)
        SELECT DISTINCT 'chat_requests', to_timestamp(floor(extract(EPOCH FROM request.created_at) / 900) * 900)
        FROM old_rows AS changed JOIN chat_requests AS request ON request.id = changed.request_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO usage_dirty_day (source, slot_start)
        SELECT DISTINCT 'chat_requests', to_timestamp(floor(extract(EPOCH FROM request.created_at) / 900) * 900)
        FROM new_rows AS changed JOIN chat_requests AS request ON request.id = changed.request_id;
    END IF;
    RETURN NULL;
END;
$$;

CREATE TRIGGER tallyroll_dirty_update AFTER UPDATE ON ai_usage_log
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll_mark_dirty();
CREATE TRIGGER tallyroll_dirty_delete AFTER DELETE ON ai_usage_log
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll_mark_dirty();
CREATE TRIGGER tallyroll_dirty_update AFTER UPDATE ON chat_requests
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll_mark_dirty();
CREATE TRIGGER tallyroll_dirty_delete AFTER DELETE ON chat_requests
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll_mark_dirty();
CREATE TRIGGER tallyroll_dirty_insert AFTER INSERT ON request_analytics
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll_mark_dirty_analytics();
CREATE TRIGGER tallyroll_dirty_update AFTER UPDATE ON request_analytics
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tallyroll_mark_dirty_analytics();
CREATE TRIGGER tallyroll_dirty_delete AFTER DELETE ON request_analytics
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION tallyroll_mark_dirty_analytics();
