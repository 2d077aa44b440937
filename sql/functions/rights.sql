-- None of the functions is executable by everyone; sql/roles.sql says by whom. Last of the files here.

DO $$
DECLARE
    v_function REGPROCEDURE;
BEGIN
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
