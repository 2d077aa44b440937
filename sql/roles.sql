-- Roles, rights and row-level security on PostgreSQL 13 to 17. Run by `tallyroll migrate --roles`, or by psql, as one who may create
-- roles (BYPASSRLS takes a superuser before PostgreSQL 16) and owns the tables; again after every upgrade. It only adds what is missing.
--
-- None of the roles can log in until it is told to: ALTER ROLE tallyroll_runner LOGIN PASSWORD '…'. Or make a role of your own a
-- member: GRANT tallyroll_writer TO my_application. The runner has to be this very role, its BYPASSRLS is not inherited.
DO $$
DECLARE
    v_application TEXT;
    v_name TEXT;
    v_function REGPROCEDURE;
BEGIN
    -- Nothing that somebody made is found by what follows.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', TRUE);
    SELECT value INTO STRICT v_application FROM tallyroll.tallyroll_setting WHERE name = 'application_schema';

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
    -- The role that users of a hosted database have.
    IF to_regrole('authenticated') IS NOT NULL THEN GRANT tallyroll_user TO authenticated; END IF;

    -- Before PostgreSQL 15 everyone may create in `public`. The runner may nowhere: what runs with its rights is what the migrator made.
    FOREACH v_name IN ARRAY ARRAY[v_application, 'tallyroll'] LOOP
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, tallyroll_runner', v_name);
        EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %I TO tallyroll_migrator', v_name);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO tallyroll_runner, tallyroll_writer, tallyroll_reader, tallyroll_user', v_name);
    END LOOP;

    -- The application's tables: the runner reads them (and imports into them), the application inserts, in its own transaction.
    FOREACH v_name IN ARRAY ARRAY[
        'ai_usage_log', 'chat_requests', 'request_analytics', 'users', 'user_plans', 'subscription', 'seat_usage_event', 'ai_seat_state',
        'subscription_seat_assignments'
    ] LOOP
        EXECUTE format('GRANT SELECT, INSERT ON %I.%I TO tallyroll_runner', v_application, v_name);
    END LOOP;
    EXECUTE format('GRANT UPDATE (requests_used) ON %I.users TO tallyroll_runner', v_application);
    EXECUTE format('GRANT UPDATE ON %I.subscription TO tallyroll_runner', v_application);
    EXECUTE format('GRANT SELECT ON %1$I.tallyroll_migration, %1$I.ai_usage_summary TO tallyroll_runner', v_application);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.user_dashboard_data TO tallyroll_runner', v_application);
    EXECUTE format('GRANT INSERT ON %1$I.ai_usage_log, %1$I.chat_requests, %1$I.request_analytics TO tallyroll_writer', v_application);

    -- Results and state.
    GRANT SELECT, INSERT, UPDATE, DELETE ON
        tallyroll.usage_daily, tallyroll.usage_daily_user, tallyroll.usage_daily_customer, tallyroll.usage_daily_total,
        tallyroll.usage_daily_type, tallyroll.usage_monthly_user, tallyroll.usage_monthly_customer, tallyroll.usage_dashboard,
        tallyroll.peak_seats, tallyroll.reconciliation, tallyroll.snapshot_file, tallyroll.quarantined_event, tallyroll.job_run,
        tallyroll.job_window, tallyroll.job_lock, tallyroll.schedule_state, tallyroll.schedule_notice, tallyroll.session_revoked,
        tallyroll.usage_dirty_day, tallyroll.usage_watermark, tallyroll.result_table
    TO tallyroll_runner;
    GRANT SELECT, INSERT, UPDATE ON tallyroll.seat_org TO tallyroll_runner;
    GRANT SELECT ON tallyroll.usage_requests_by_category TO tallyroll_runner;
    GRANT SELECT ON
        tallyroll.usage_daily, tallyroll.usage_daily_user, tallyroll.usage_daily_customer, tallyroll.usage_daily_total,
        tallyroll.usage_daily_type, tallyroll.usage_monthly_user, tallyroll.usage_monthly_customer, tallyroll.usage_dashboard,
        tallyroll.peak_seats, tallyroll.reconciliation, tallyroll.snapshot_file, tallyroll.quarantined_event, tallyroll.job_run,
        tallyroll.job_window, tallyroll.schedule_state
    TO tallyroll_reader;
    EXECUTE format('GRANT SELECT ON %1$I.ai_usage_summary, %1$I.user_dashboard_data TO tallyroll_reader', v_application);
    GRANT SELECT ON tallyroll.usage_daily, tallyroll.usage_daily_user, tallyroll.usage_monthly_user TO tallyroll_user;
    EXECUTE format('GRANT SELECT ON %I.user_dashboard_data TO tallyroll_user', v_application);
    GRANT SELECT ON tallyroll.tallyroll_setting TO tallyroll_runner, tallyroll_reader, tallyroll_user;
    GRANT SELECT ON tallyroll.tallyroll_project TO tallyroll_runner, tallyroll_reader;

    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = to_regnamespace(quote_ident(v_application)) AND proname IN (
            'log_ai_usage', 'track_chat_request', 'complete_chat_request', 'record_seat_change', 'upsert_seat_assignment',
            'remove_seat_assignment', 'record_ai_seat_usage'
        )
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_writer, tallyroll_runner', v_function);
    END LOOP;
    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = to_regnamespace(quote_ident(v_application))
                AND proname IN ('get_ai_usage_dashboard', 'get_user_ai_usage', 'get_ai_cost_summary')
            OR pronamespace = 'tallyroll'::REGNAMESPACE
                AND proname IN ('tallyroll_current_user_id', 'tallyroll_is_admin', 'tallyroll_asking_role')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_reader, tallyroll_runner, tallyroll_user', v_function);
    END LOOP;

    -- Results that are of a user: a reader sees all, a user its own, the seed's admins all. Whoever asks is found once, not once a row.
    FOREACH v_name IN ARRAY ARRAY[
        'tallyroll.usage_daily', 'tallyroll.usage_daily_user', 'tallyroll.usage_monthly_user',
        format('%I.user_dashboard_data', v_application)
    ] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_name);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_all ON %s', v_name);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_own ON %s', v_name);
        EXECUTE format('CREATE POLICY tallyroll_read_all ON %s FOR SELECT TO tallyroll_reader USING (TRUE)', v_name);
        EXECUTE format(
            'CREATE POLICY tallyroll_read_own ON %s FOR SELECT TO tallyroll_user '
            'USING (user_id = (SELECT tallyroll.tallyroll_current_user_id()) OR (SELECT tallyroll.tallyroll_is_admin()))',
            v_name
        );
    END LOOP;
END;
$$;
