-- Roles, rights and row-level security on PostgreSQL 13 to 17. Run by `tallyroll migrate --roles`, or by psql, as one who may create
-- roles (BYPASSRLS takes a superuser before PostgreSQL 16) and owns the tables; again after every upgrade. It only adds what is missing.
--
-- None of the roles can log in until it is told to: ALTER ROLE tallyroll_runner LOGIN PASSWORD '…'. Or make a role of your own a
-- member: GRANT tallyroll_writer TO my_application. The runner has to be this very role, its BYPASSRLS is not inherited.
DO $$
DECLARE
    v_application TEXT;
    v_roles CONSTANT NAME[] := ARRAY[
        'tallyroll_migrator', 'tallyroll_owner', 'tallyroll_runner', 'tallyroll_writer', 'tallyroll_reader', 'tallyroll_user'
    ];
    v_name TEXT;
    v_role TEXT;
    v_owner OID;
    v_relation REGCLASS;
    v_function REGPROCEDURE;
    -- Of whom a policy is true is asked once a statement. No policy is made for a role by name: its members could drop it.
    v_is_member CONSTANT TEXT := '(SELECT pg_has_role(CURRENT_USER, to_regrole(%L), ''USAGE''))';
    v_is_own TEXT;
    v_functions CONSTANT TEXT[] := ARRAY[
        'log_ai_usage', 'track_chat_request', 'complete_chat_request', 'record_seat_change', 'upsert_seat_assignment',
        'remove_seat_assignment', 'record_ai_seat_usage', 'get_ai_usage_dashboard', 'get_user_ai_usage', 'get_ai_cost_summary'
    ];
BEGIN
    -- Nothing that somebody made is found by what follows.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', TRUE);
    v_is_own := format(v_is_member, 'tallyroll_user')
        || ' AND (user_id = (SELECT tallyroll.tallyroll_current_user_id()) OR (SELECT tallyroll.tallyroll_is_admin()))';
    -- Nor is anything run that the tables' owner made: whoever makes the roles may be a superuser.
    IF NOT EXISTS (
        SELECT 1 FROM pg_class
        WHERE oid = to_regclass('tallyroll.tallyroll_setting') AND relkind = 'r' AND 2 = (
            SELECT count(*) FROM pg_attribute
            WHERE attrelid = pg_class.oid AND attname IN ('name', 'value') AND atttypid = 'text'::REGTYPE
        )
    ) THEN
        RAISE EXCEPTION 'the schema is not there' USING HINT = 'first `tallyroll migrate`, as the owner of the tables';
    END IF;
    SELECT value INTO STRICT v_application FROM tallyroll.tallyroll_setting WHERE name = 'application_schema';
    v_owner := (SELECT relowner FROM pg_class WHERE oid = to_regclass(format('%I.ai_usage_log', v_application)));

    -- Roles are of the whole server: who is a member here owns what is theirs in every database. What says that this is meant belongs to
    -- the role and not into a database, whose owner could say so alone.
    IF EXISTS (
        SELECT 1 FROM pg_shdepend
        WHERE refclassid = 'pg_authid'::REGCLASS AND refobjid IN (to_regrole('tallyroll_migrator'), to_regrole('tallyroll_owner'))
            AND dbid NOT IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    ) AND shobj_description(to_regrole('tallyroll_migrator'), 'pg_authid') IS DISTINCT FROM 'shared by databases' THEN
        SELECT string_agg(quote_ident(rolname), ', ' ORDER BY rolname) INTO v_role
        FROM pg_roles AS role
        WHERE NOT rolsuper AND rolname <> ALL (v_roles) AND (
            NOT pg_has_role(oid, 'tallyroll_migrator', 'MEMBER') AND (oid IN (
                v_owner, (SELECT relowner FROM pg_class WHERE oid = to_regclass('tallyroll.usage_daily'))
            ) OR rolname = CURRENT_USER)
            OR oid <> v_owner AND EXISTS (
                SELECT 1 FROM pg_auth_members WHERE roleid = to_regrole('tallyroll_migrator') AND member = role.oid
            )
        );
        IF v_role IS NOT NULL THEN
            RAISE EXCEPTION 'the roles are used in another database of this server, and % would own the results of both', v_role
                USING HINT = 'Take a server for each, or, where the applications of both may do everything to one another: '
                    'COMMENT ON ROLE tallyroll_migrator IS ''shared by databases''';
        END IF;
    END IF;

    -- Creates and upgrades the schema.
    IF to_regrole('tallyroll_migrator') IS NULL THEN CREATE ROLE tallyroll_migrator; END IF;
    -- Owns the functions, and has the rights that they need. Nobody is it; who upgrades is a member.
    IF to_regrole('tallyroll_owner') IS NULL THEN CREATE ROLE tallyroll_owner NOLOGIN BYPASSRLS; END IF;
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
    IF NOT pg_has_role('tallyroll_migrator', 'tallyroll_owner', 'MEMBER') THEN GRANT tallyroll_owner TO tallyroll_migrator; END IF;
    -- Whoever made the tables, and whoever makes the roles, goes on upgrading.
    FOR v_role IN
        SELECT rolname FROM pg_roles
        WHERE (oid = (SELECT relowner FROM pg_class WHERE oid = 'tallyroll.usage_daily'::REGCLASS) OR rolname = CURRENT_USER)
            AND NOT pg_has_role(oid, 'tallyroll_migrator', 'MEMBER') AND NOT pg_has_role('tallyroll_migrator', oid, 'MEMBER')
    LOOP
        EXECUTE format('GRANT tallyroll_migrator TO %I', v_role);
    END LOOP;

    -- Before PostgreSQL 15 everyone may create in `public`. The runner may nowhere: what runs with its rights is what the migrator made.
    FOREACH v_name IN ARRAY ARRAY[v_application, 'tallyroll'] LOOP
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, tallyroll_runner, tallyroll_writer, tallyroll_reader, tallyroll_user', v_name);
        EXECUTE format('GRANT CREATE, USAGE ON SCHEMA %I TO tallyroll_migrator', v_name);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO tallyroll_owner, tallyroll_runner, tallyroll_writer, tallyroll_reader, tallyroll_user', v_name);
        -- For as long as it is given its functions.
        EXECUTE format('GRANT CREATE ON SCHEMA %I TO tallyroll_owner', v_name);
    END LOOP;

    -- Nobody but these roles has anything to do with our own schema.
    FOR v_role IN
        SELECT DISTINCT CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        FROM pg_namespace, aclexplode(nspacl) AS given
        WHERE nspname = 'tallyroll' AND given.grantee <> nspowner AND (given.grantee = 0 OR pg_get_userbyid(given.grantee) <> ALL (v_roles))
    LOOP
        EXECUTE format('REVOKE ALL ON SCHEMA tallyroll FROM %s CASCADE', v_role);
    END LOOP;
    -- What others got by default privileges when it was made (a hosted database gives its users everything) is taken back.
    FOR v_role IN
        SELECT DISTINCT quote_ident(role.rolname)
        FROM pg_default_acl, aclexplode(defaclacl) AS given
        JOIN pg_roles AS role ON role.oid = given.grantee
        WHERE defaclnamespace IN (0, to_regnamespace(quote_ident(v_application)), 'tallyroll'::REGNAMESPACE)
            AND role.rolname NOT LIKE 'tallyroll\_%' AND NOT role.rolsuper
            AND role.oid <> (SELECT relowner FROM pg_class WHERE oid = 'tallyroll.usage_daily'::REGCLASS)
    LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA tallyroll FROM %s', v_role);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tallyroll FROM %s', v_role);
        EXECUTE format('REVOKE ALL ON %I.tallyroll_migration, %1$I.ai_usage_summary FROM %s', v_application, v_role);
        FOR v_function IN
            SELECT oid FROM pg_proc
            WHERE pronamespace = to_regnamespace(quote_ident(v_application)) AND proname = ANY (v_functions)
        LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %s', v_function, v_role);
        END LOOP;
    END LOOP;

    -- Owners: what is ours is the migrator's, its functions are tallyroll_owner's, who then creates no more.
    FOR v_relation IN
        SELECT oid FROM pg_class
        WHERE (relnamespace = 'tallyroll'::REGNAMESPACE OR relnamespace = to_regnamespace(quote_ident(v_application))
                AND relname IN ('tallyroll_migration', 'ai_usage_summary'))
            AND relkind IN ('r', 'v') AND relowner <> to_regrole('tallyroll_migrator')
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO tallyroll_migrator', v_relation);
    END LOOP;
    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE (pronamespace = 'tallyroll'::REGNAMESPACE
                OR pronamespace = to_regnamespace(quote_ident(v_application)) AND proname = ANY (v_functions))
            AND proowner <> to_regrole('tallyroll_owner')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO tallyroll_owner', v_function);
    END LOOP;
    FOREACH v_name IN ARRAY ARRAY[v_application, 'tallyroll'] LOOP
        EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM tallyroll_owner', v_name);
    END LOOP;
    IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'tallyroll') <> to_regrole('tallyroll_migrator') THEN
        ALTER SCHEMA tallyroll OWNER TO tallyroll_migrator;
    END IF;

    -- What the functions do.
    EXECUTE format('GRANT SELECT, INSERT ON %1$I.ai_usage_log, %1$I.seat_usage_event TO tallyroll_owner', v_application);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %1$I.chat_requests, %1$I.request_analytics, %1$I.ai_seat_state TO tallyroll_owner', v_application);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.subscription_seat_assignments TO tallyroll_owner', v_application);
    EXECUTE format('GRANT SELECT (id, email) ON %I.users TO tallyroll_owner', v_application);
    IF to_regclass(format('%I.user_roles', v_application)) IS NOT NULL THEN
        EXECUTE format('GRANT SELECT ON %I.user_roles TO tallyroll_owner', v_application);
    END IF;
    FOR v_relation IN
        -- Sequences that number the rows of tables that the application made.
        SELECT sequence.oid
        FROM pg_depend
        JOIN pg_class AS sequence ON sequence.oid = pg_depend.objid AND sequence.relkind = 'S'
        JOIN pg_class AS numbered ON numbered.oid = pg_depend.refobjid
        WHERE pg_depend.classid = 'pg_class'::REGCLASS AND pg_depend.refclassid = 'pg_class'::REGCLASS AND pg_depend.deptype = 'a'
            AND numbered.relnamespace = to_regnamespace(quote_ident(v_application)) AND numbered.relname IN (
                'ai_usage_log', 'chat_requests', 'request_analytics', 'seat_usage_event', 'subscription_seat_assignments'
            )
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO tallyroll_owner, tallyroll_writer, tallyroll_runner', v_relation);
    END LOOP;
    GRANT SELECT ON
        tallyroll.usage_daily, tallyroll.usage_daily_user, tallyroll.usage_daily_customer, tallyroll.usage_daily_total,
        tallyroll.usage_daily_type, tallyroll.usage_monthly_user, tallyroll.usage_dashboard, tallyroll.job_window,
        tallyroll.tallyroll_setting
    TO tallyroll_owner;
    GRANT INSERT ON tallyroll.usage_dirty_day TO tallyroll_owner;
    GRANT SELECT, INSERT, UPDATE ON tallyroll.seat_org TO tallyroll_owner;
    -- The seed's database knows its users by auth.uid(), whose owner may have to grant this.
    IF to_regprocedure('auth.uid()') IS NOT NULL THEN
        BEGIN
            GRANT USAGE ON SCHEMA auth TO tallyroll_owner;
            GRANT EXECUTE ON FUNCTION auth.uid() TO tallyroll_owner;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE WARNING 'no user is known by its token before the owner of schema auth grants USAGE on it to tallyroll_owner';
        END;
    END IF;

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

    -- Tables of jobs that the project added.
    FOR v_relation IN
        SELECT oid FROM pg_class
        WHERE relnamespace = 'tallyroll'::REGNAMESPACE AND relkind = 'r'
            AND obj_description(oid, 'pg_class') = 'Result of a job of the project'
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO tallyroll_runner', v_relation);
        EXECUTE format('GRANT SELECT ON %s TO tallyroll_reader', v_relation);
    END LOOP;

    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = to_regnamespace(quote_ident(v_application)) AND proname = ANY (v_functions[1:7])
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_writer, tallyroll_runner', v_function);
    END LOOP;
    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = to_regnamespace(quote_ident(v_application)) AND proname = ANY (v_functions[8:])
            OR pronamespace = 'tallyroll'::REGNAMESPACE
                AND proname IN ('tallyroll_current_user_id', 'tallyroll_is_admin', 'tallyroll_asking_role')
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_reader, tallyroll_runner, tallyroll_user', v_function);
    END LOOP;
    -- As the seed does; one who is only a user logs for itself alone.
    IF to_regrole('authenticated') IS NOT NULL THEN
        FOR v_function IN
            SELECT oid FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(v_application)) AND proname = 'log_ai_usage'
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO authenticated', v_function);
        END LOOP;
    END IF;

    -- Results that are of a user: a reader sees all, a user its own, the seed's admins all. Whoever asks is found once, not once a row.
    FOREACH v_name IN ARRAY ARRAY[
        'tallyroll.usage_daily', 'tallyroll.usage_daily_user', 'tallyroll.usage_monthly_user',
        format('%I.user_dashboard_data', v_application)
    ] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_name);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_all ON %s', v_name);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_own ON %s', v_name);
        EXECUTE format('CREATE POLICY tallyroll_read_all ON %s FOR SELECT USING (' || v_is_member || ')', v_name, 'tallyroll_reader');
        EXECUTE format('CREATE POLICY tallyroll_read_own ON %s FOR SELECT USING (%s)', v_name, v_is_own);
    END LOOP;

    -- The seed's log has row-level security. Where it has none yet it gets it if nobody but its owner and our roles has a right on it, so
    -- that it takes rows from nobody. Who was granted INSERT inserts as before.
    v_relation := format('%I.ai_usage_log', v_application);
    IF NOT EXISTS (
        SELECT 1
        FROM pg_class, aclexplode(relacl) AS given
        LEFT JOIN pg_roles AS role ON role.oid = given.grantee
        WHERE pg_class.oid = v_relation AND given.grantee <> relowner AND role.rolname IS DISTINCT FROM 'authenticated'
            AND COALESCE(role.rolname NOT LIKE 'tallyroll\_%', TRUE)
    ) THEN
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_relation);
    END IF;
    IF (SELECT relrowsecurity FROM pg_class WHERE oid = v_relation) THEN
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_insert ON %s', v_relation);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_own ON %s', v_relation);
        EXECUTE format('CREATE POLICY tallyroll_insert ON %s FOR INSERT WITH CHECK (' || v_is_member || ')', v_relation, 'tallyroll_writer');
        EXECUTE format('CREATE POLICY tallyroll_read_own ON %s FOR SELECT USING (%s)', v_relation, v_is_own);
        EXECUTE format('GRANT SELECT ON %s TO tallyroll_user', v_relation);
    END IF;
END;
$$;
