-- None of the functions is executable by everyone; sql/roles.sql says by whom. Last of the files here.

DO $$
DECLARE
    v_function REGPROCEDURE;
    v_role TEXT;
BEGIN
    -- Nor does anybody get into the schema by a default privilege that it was made under. What was granted later is left; CREATE never.
    FOR v_role IN
        SELECT DISTINCT CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        FROM pg_namespace, aclexplode(nspacl) AS given
        WHERE nspname = 'tallyroll' AND given.grantee <> nspowner
            AND (given.grantee = 0 OR pg_get_userbyid(given.grantee) NOT IN (
                'tallyroll_migrator', 'tallyroll_owner', 'tallyroll_runner', 'tallyroll_writer', 'tallyroll_reader', 'tallyroll_user'
            ))
    LOOP
        EXECUTE format('REVOKE CREATE ON SCHEMA tallyroll FROM %s CASCADE', v_role);
        IF NOT EXISTS (SELECT 1 FROM tallyroll.tallyroll_setting WHERE name = 'functions') THEN
            EXECUTE format('REVOKE ALL ON SCHEMA tallyroll FROM %s CASCADE', v_role);
        END IF;
    END LOOP;
    FOR v_function IN
        SELECT oid
        FROM pg_proc
        WHERE (pronamespace = 'tallyroll'::REGNAMESPACE OR pronamespace = '{app}'::REGNAMESPACE AND proname IN (
            'log_ai_usage', 'track_chat_request', 'complete_chat_request', 'get_ai_usage_dashboard', 'get_user_ai_usage',
            'get_ai_cost_summary', 'record_seat_change', 'upsert_seat_assignment', 'remove_seat_assignment', 'record_ai_seat_usage'
        )) AND has_function_privilege('public', oid, 'EXECUTE')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
END;
$$;
