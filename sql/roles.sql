-- Roles, rights and row-level security on PostgreSQL. Run by `tallyroll migrate --roles`, or by psql, as one who may create roles
-- (BYPASSRLS takes a superuser before PostgreSQL 16); again after every upgrade. It only adds what is missing.
--
-- None of the roles can log in until it is told to: ALTER ROLE tallyroll_runner LOGIN PASSWORD '…'. Or make a role of your own a
-- member: GRANT tallyroll_writer TO my_application. The runner has to be this very role, its BYPASSRLS is not inherited.
DO $$
BEGIN
    -- Creates and upgrades the schema.
    IF to_regrole('tallyroll_migrator') IS NULL THEN CREATE ROLE tallyroll_migrator; END IF;
    -- Runs the jobs: reads the log whole, whoever's rows it holds.
    IF to_regrole('tallyroll_runner') IS NULL THEN CREATE ROLE tallyroll_runner BYPASSRLS; END IF;
    -- The application: records, and reads nothing.
    IF to_regrole('tallyroll_writer') IS NULL THEN CREATE ROLE tallyroll_writer; END IF;
    -- Finance and admins: reads every result, writes nothing.
    IF to_regrole('tallyroll_reader') IS NULL THEN CREATE ROLE tallyroll_reader; END IF;
    -- One user: sees itself.
    IF to_regrole('tallyroll_user') IS NULL THEN CREATE ROLE tallyroll_user; END IF;
    -- Before PostgreSQL 15 everyone may create in `public`, and so have the functions find what they made. Who still may is trusted.
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
    EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %I TO tallyroll_migrator, tallyroll_runner', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO tallyroll_writer, tallyroll_reader, tallyroll_user', current_schema());
    -- The role that users of a hosted database have.
    IF to_regrole('authenticated') IS NOT NULL THEN GRANT tallyroll_user TO authenticated; END IF;
END;
$$;

-- The runner: sources to read (and to import into), results and state to write.
GRANT SELECT, INSERT ON
    ai_usage_log, chat_requests, request_analytics, users, user_plans, subscription, seat_usage_event, seat_org, ai_seat_state,
    subscription_seat_assignments
TO tallyroll_runner;
GRANT UPDATE (requests_used) ON users TO tallyroll_runner;
GRANT UPDATE ON subscription, seat_org TO tallyroll_runner;
GRANT SELECT, INSERT, UPDATE, DELETE ON
    usage_daily, usage_daily_user, usage_daily_customer, usage_daily_total, usage_daily_type, usage_monthly_user, usage_monthly_customer,
    user_dashboard_data, usage_dashboard, peak_seats, reconciliation, snapshot_file, quarantined_event, job_run, job_window, job_lock,
    schedule_state, schedule_notice, usage_dirty_day, usage_watermark
TO tallyroll_runner;
GRANT SELECT ON tallyroll_migration, usage_requests_by_category, ai_usage_summary TO tallyroll_runner;

-- The application may also insert by itself, in its own transaction.
GRANT INSERT ON ai_usage_log, chat_requests, request_analytics TO tallyroll_writer;

GRANT SELECT ON
    usage_daily, usage_daily_user, usage_daily_customer, usage_daily_total, usage_daily_type, usage_monthly_user, usage_monthly_customer,
    ai_usage_summary, user_dashboard_data, usage_dashboard, peak_seats, reconciliation, snapshot_file, quarantined_event, job_run, job_window,
    schedule_state
TO tallyroll_reader;
GRANT SELECT ON usage_daily, usage_daily_user, usage_monthly_user, user_dashboard_data TO tallyroll_user;

DO $$
DECLARE
    v_function REGPROCEDURE;
    v_table TEXT;
BEGIN
    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = current_schema()::REGNAMESPACE AND proname IN (
            'log_ai_usage', 'track_chat_request', 'complete_chat_request', 'record_seat_change', 'upsert_seat_assignment',
            'remove_seat_assignment', 'record_ai_seat_usage'
        )
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_writer, tallyroll_runner', v_function);
    END LOOP;
    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = current_schema()::REGNAMESPACE AND proname IN (
            'get_ai_usage_dashboard', 'get_user_ai_usage', 'get_ai_cost_summary', 'tallyroll_current_user_id', 'tallyroll_is_admin',
            'tallyroll_asking_role'
        )
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_reader, tallyroll_runner, tallyroll_user', v_function);
    END LOOP;
    -- Results that are of a user: a reader sees all, a user its own, the seed's admins all. Whoever asks is found once, not once a row.
    FOREACH v_table IN ARRAY ARRAY['usage_daily', 'usage_daily_user', 'usage_monthly_user', 'user_dashboard_data'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', v_table);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_all ON %I', v_table);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_own ON %I', v_table);
        EXECUTE format('CREATE POLICY tallyroll_read_all ON %I FOR SELECT TO tallyroll_reader USING (TRUE)', v_table);
        EXECUTE format(
            'CREATE POLICY tallyroll_read_own ON %I FOR SELECT TO tallyroll_user '
            'USING (user_id = (SELECT tallyroll_current_user_id()) OR (SELECT tallyroll_is_admin()))',
            v_table
        );
    END LOOP;
END;
$$;
