-- Who writes a row does not decide how it is tracked (docs/semantics.md section 5), and no new row holds a text that a run could
-- not take in (section 3); rows from before are not looked through. The functions' bodies: sql/functions/change_tracking.sql.
SET LOCAL lock_timeout = '10s';

CREATE FUNCTION tallyroll.tallyroll_stamp_ingest() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.ingest_xid := pg_current_xact_id();
    RETURN NEW;
END;
$$;

CREATE FUNCTION tallyroll.tallyroll_mark_truncated() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN NULL;
END;
$$;

-- The default stamps a row already: the function runs only where somebody gave another transaction, or none.
CREATE TRIGGER tallyroll_stamp_insert BEFORE INSERT ON ai_usage_log FOR EACH ROW
    WHEN (NEW.ingest_xid IS DISTINCT FROM pg_catalog.pg_current_xact_id()) EXECUTE FUNCTION tallyroll.tallyroll_stamp_ingest();
CREATE TRIGGER tallyroll_stamp_update BEFORE UPDATE ON ai_usage_log FOR EACH ROW
    WHEN (NEW.ingest_xid IS DISTINCT FROM OLD.ingest_xid) EXECUTE FUNCTION tallyroll.tallyroll_stamp_ingest();
CREATE TRIGGER tallyroll_dirty_truncate AFTER TRUNCATE ON ai_usage_log
    FOR EACH STATEMENT EXECUTE FUNCTION tallyroll.tallyroll_mark_truncated();
CREATE TRIGGER tallyroll_stamp_insert BEFORE INSERT ON chat_requests FOR EACH ROW
    WHEN (NEW.ingest_xid IS DISTINCT FROM pg_catalog.pg_current_xact_id()) EXECUTE FUNCTION tallyroll.tallyroll_stamp_ingest();
CREATE TRIGGER tallyroll_stamp_update BEFORE UPDATE ON chat_requests FOR EACH ROW
    WHEN (NEW.ingest_xid IS DISTINCT FROM OLD.ingest_xid) EXECUTE FUNCTION tallyroll.tallyroll_stamp_ingest();
CREATE TRIGGER tallyroll_dirty_truncate AFTER TRUNCATE ON chat_requests
    FOR EACH STATEMENT EXECUTE FUNCTION tallyroll.tallyroll_mark_truncated();
CREATE TRIGGER tallyroll_dirty_truncate AFTER TRUNCATE ON request_analytics
    FOR EACH STATEMENT EXECUTE FUNCTION tallyroll.tallyroll_mark_truncated();

DO $$
DECLARE
    v_trigger RECORD;
    v_column RECORD;
BEGIN
    -- Also in a session that replicates or restores.
    FOR v_trigger IN
        SELECT tgrelid::REGCLASS AS on_table, tgname
        FROM pg_trigger
        WHERE tgrelid IN ('ai_usage_log'::REGCLASS, 'chat_requests'::REGCLASS, 'request_analytics'::REGCLASS)
            AND (tgname LIKE 'tallyroll\_stamp\_%' OR tgname LIKE 'tallyroll\_dirty\_%')
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', v_trigger.on_table, v_trigger.tgname);
    END LOOP;

    -- Texts that jobs read, in bytes, where the table has them. What no job reads is the application's own.
    FOR v_column IN
        SELECT attrelid::REGCLASS AS on_table, attname
        FROM pg_attribute
        JOIN pg_type ON pg_type.oid = atttypid AND typcategory = 'S'
        WHERE attnum > 0 AND NOT attisdropped AND (
            attrelid = 'ai_usage_log'::REGCLASS AND attname IN ('user_email', 'customer_name', 'request_type', 'model_used', 'status')
            OR attrelid = 'chat_requests'::REGCLASS AND attname IN ('model', 'status')
            OR attrelid = 'request_analytics'::REGCLASS AND attname IN ('request_type', 'category')
            OR attrelid = 'seat_usage_event'::REGCLASS AND attname IN ('org_id', 'seat_type', 'reason')
        )
    LOOP
        EXECUTE format(
            'ALTER TABLE %s ADD CONSTRAINT %I CHECK (octet_length(%I::TEXT) <= 1000) NOT VALID',
            v_column.on_table, 'tallyroll_' || v_column.attname || '_length', v_column.attname
        );
    END LOOP;
END;
$$;
