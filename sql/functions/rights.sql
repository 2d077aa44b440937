-- None of the functions is executable by everyone, nor by a default privilege; sql/roles.sql says by whom. Last of the files here.

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
    FOR v_function, v_role IN
        SELECT DISTINCT pg_proc.oid, CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        FROM pg_proc, aclexplode(COALESCE(proacl, acldefault('f', proowner))) AS given
        WHERE (pronamespace = 'tallyroll'::REGNAMESPACE OR pronamespace = '{app}'::REGNAMESPACE AND proname IN (
            'log_ai_usage', 'track_chat_request', 'complete_chat_request', 'get_ai_usage_dashboard', 'get_user_ai_usage',
            'get_ai_cost_summary', 'record_seat_change', 'upsert_seat_assignment', 'remove_seat_assignment', 'record_ai_seat_usage'
        )) AND pg_has_role(proowner, 'USAGE') AND given.grantee <> proowner
            -- A default privilege that it was made under; what was granted later is left.
            AND (given.grantee = 0 OR NOT EXISTS (SELECT 1 FROM tallyroll.tallyroll_setting WHERE name = 'functions'))
            AND (given.grantee = 0 OR pg_get_userbyid(given.grantee) NOT IN (
                'tallyroll_migrator', 'tallyroll_owner', 'tallyroll_runner', 'tallyroll_writer', 'tallyroll_reader', 'tallyroll_user', 'authenticated'
            ))
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s CASCADE', v_function, v_role);
    END LOOP;
    -- The history says what `migrate` does next.
    FOR v_role IN
        SELECT DISTINCT CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        FROM pg_class, aclexplode(relacl) AS given
        WHERE pg_class.oid = to_regclass('{app}.tallyroll_migration') AND pg_has_role(relowner, 'USAGE') AND given.grantee <> relowner
            AND (given.grantee = 0 OR pg_get_userbyid(given.grantee) NOT LIKE 'tallyroll\_%')
    LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON %s FROM %s CASCADE', to_regclass('{app}.tallyroll_migration'), v_role);
    END LOOP;
END;
$$;
