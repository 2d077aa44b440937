-- Results, state and helper functions move into a schema of their own, `tallyroll`, where nobody else creates. The tables that
-- applications know stay where they are, as do the functions that they call and the view ai_usage_summary. Nothing is rewritten.
-- The functions themselves are no longer made here: sql/functions/ holds them, and `migrate` makes them anew each time.
SET LOCAL lock_timeout = '10s';

DO $$
DECLARE
    v_application TEXT := current_schema();
    v_name TEXT;
    v_function REGPROCEDURE;
BEGIN
    IF to_regnamespace('tallyroll') IS NULL THEN
        CREATE SCHEMA tallyroll;
    ELSIF NOT pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'tallyroll'), 'USAGE') THEN
        RAISE EXCEPTION 'the schema tallyroll belongs to somebody else: its owner has to be the role that migrates';
    END IF;
    CREATE TABLE tallyroll.tallyroll_setting (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    );
    COMMENT ON TABLE tallyroll.tallyroll_setting IS 'Where the application''s tables are, and whom the functions believe (docs/interface.md)';
    INSERT INTO tallyroll.tallyroll_setting (name, value) VALUES ('application_schema', v_application);

    FOREACH v_name IN ARRAY ARRAY[
        'usage_daily', 'usage_daily_user', 'usage_daily_customer', 'usage_daily_total', 'usage_daily_type', 'usage_monthly_user',
        'usage_monthly_customer', 'usage_dashboard', 'usage_requests_by_category', 'peak_seats', 'reconciliation', 'snapshot_file',
        'quarantined_event', 'job_run', 'job_window', 'job_lock', 'schedule_state', 'schedule_notice', 'usage_dirty_day',
        'usage_watermark', 'seat_org'
    ] LOOP
        EXECUTE format('ALTER TABLE %I.%I SET SCHEMA tallyroll', v_application, v_name);
    END LOOP;

    -- Until `migrate` makes them anew, they find what has moved.
    FOR v_function IN
        SELECT oid
        FROM pg_proc
        WHERE pronamespace = v_application::REGNAMESPACE AND (proname LIKE 'tallyroll\_%' OR proname IN (
            'log_ai_usage', 'track_chat_request', 'complete_chat_request', 'get_ai_usage_dashboard', 'get_user_ai_usage',
            'get_ai_cost_summary', 'record_seat_change', 'upsert_seat_assignment', 'remove_seat_assignment', 'record_ai_seat_usage'
        ))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = tallyroll, %I, pg_temp', v_function, v_application);
        IF (SELECT proname LIKE 'tallyroll\_%' FROM pg_proc WHERE oid = v_function) THEN
            EXECUTE format('ALTER FUNCTION %s SET SCHEMA tallyroll', v_function);
        END IF;
    END LOOP;
END;
$$;
