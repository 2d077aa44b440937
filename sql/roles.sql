-- Roles, rights and row-level security on PostgreSQL 13 to 17. Run by `tallyroll migrate --roles`, or by psql, as one who may create
-- roles (BYPASSRLS takes a superuser before PostgreSQL 16) and owns the tables; again after every upgrade. It adds what is missing, takes
-- back what others may on what is ours, and stops before it changes anything where something is not as it should be.
--
-- None of the roles can log in until it is told to: ALTER ROLE tallyroll_runner LOGIN PASSWORD '…'. Or make a role of your own a
-- member: GRANT tallyroll_writer TO my_application. The runner has to be this very role, its BYPASSRLS is not inherited.
--
-- No table is read: its owner's indexes would run code as whoever makes the roles, a superuser say. All is asked of the catalog, and until
-- the first statement has said where names are looked for, types have their schema.
DO $$
DECLARE
    v_application pg_catalog.TEXT;
    v_roles CONSTANT pg_catalog.NAME[] := ARRAY[
        'tallyroll_migrator', 'tallyroll_owner', 'tallyroll_runner', 'tallyroll_writer', 'tallyroll_reader', 'tallyroll_user'
    ];
    v_name pg_catalog.TEXT;
    v_role pg_catalog.TEXT;
    v_fix pg_catalog.TEXT;
    -- Of the log, and of our schema.
    v_owner pg_catalog.OID;
    v_migrated_by pg_catalog.OID;
    v_relation pg_catalog.REGCLASS;
    v_function pg_catalog.REGPROCEDURE;
    v_uid pg_catalog.OID;
    -- Of whom a policy is true is asked once a statement. No policy is made for a role by name: its members could drop it.
    v_is_member CONSTANT pg_catalog.TEXT := '(SELECT pg_has_role(CURRENT_USER, to_regrole(%L), ''USAGE''))';
    v_is_own CONSTANT pg_catalog.TEXT := 'user_id = (SELECT tallyroll.tallyroll_current_user_id()%s) OR ';
    v_user_sees pg_catalog.TEXT;
    v_own_alone pg_catalog.TEXT;
    -- What applications call: the first seven write, by the first three an application does.
    v_signatures CONSTANT pg_catalog.TEXT[] := ARRAY[
        'log_ai_usage(uuid, text, integer, text, text, text, integer, integer, text, integer, integer, text, text)',
        'track_chat_request(uuid, text, text, text, text, text, text)',
        'complete_chat_request(uuid, text, text, integer, integer, integer, integer, integer, integer, text)',
        'record_seat_change(text, text)',
        'upsert_seat_assignment(bigint, bigint[], text[], bigint, text)',
        'remove_seat_assignment(bigint, bigint[], text)',
        'record_ai_seat_usage(uuid, text, text, text)',
        'get_ai_usage_dashboard(integer)',
        'get_user_ai_usage(uuid, integer)',
        'get_ai_cost_summary()'
    ];
    v_functions pg_catalog.REGPROCEDURE[];
    v_family pg_catalog.OID[];
    v_sources CONSTANT pg_catalog.TEXT[] := ARRAY[
        'ai_usage_log', 'chat_requests', 'request_analytics', 'users', 'user_plans', 'subscription', 'seat_usage_event', 'ai_seat_state',
        'subscription_seat_assignments', 'usage_event'
    ];
BEGIN
    -- Nothing that somebody made is found by what follows.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', TRUE);
    v_user_sees := format(v_is_member, 'tallyroll_user') || ' AND (%s(SELECT tallyroll.tallyroll_is_admin()))';
    SELECT nspowner INTO v_migrated_by
    FROM pg_namespace
    WHERE nspname = 'tallyroll' AND EXISTS (
        SELECT 1 FROM pg_class WHERE relnamespace = pg_namespace.oid AND relname = 'usage_daily' AND relkind = 'r'
    );
    IF v_migrated_by IS NULL THEN
        RAISE EXCEPTION 'the schema is not there' USING HINT = 'first `tallyroll migrate`, as the owner of the tables';
    END IF;
    -- Where the history of migrations is, of the owner of our schema, as sessions look for it (src/store/postgres.rs).
    SELECT CASE count(*) WHEN 1 THEN min(place.nspname) END INTO v_application
    FROM pg_class AS history
    JOIN pg_namespace AS place ON place.oid = history.relnamespace
    WHERE history.relname = 'tallyroll_migration' AND history.relkind = 'r' AND history.relowner = v_migrated_by AND place.nspname <> 'tallyroll';
    SELECT relowner INTO v_owner
    FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(v_application)) AND relname = 'ai_usage_log' AND relkind IN ('r', 'p');
    IF v_owner IS NULL THEN
        RAISE EXCEPTION 'the application''s tables are not beside a table tallyroll_migration of the owner of schema tallyroll'
            USING HINT = 'first `tallyroll migrate`, as the owner of the tables';
    END IF;

    -- What would get a right, or be run by a role, has to be of those whose this is: nobody gives away by us what is another's.
    IF NOT has_schema_privilege(v_migrated_by, to_regnamespace(quote_ident(v_application))::OID, 'CREATE') THEN
        RAISE EXCEPTION 'schema % is not for % to give rights on, who owns the schema tallyroll', quote_ident(v_application), v_migrated_by::REGROLE
            USING HINT = format('GRANT CREATE ON SCHEMA %I TO %s', v_application, v_migrated_by::REGROLE);
    END IF;
    SELECT format('%s of %s', oid::REGCLASS, relowner::REGROLE) INTO v_name
    FROM pg_class
    WHERE relnamespace = to_regnamespace(quote_ident(v_application))
        AND relname = ANY (v_sources || ARRAY['user_roles', 'user_dashboard_data', 'tallyroll_migration', 'ai_usage_summary'])
        AND relowner NOT IN (v_owner, v_migrated_by) AND relowner IS DISTINCT FROM to_regrole('tallyroll_migrator')
        -- A superuser is a member of everybody.
        AND NOT EXISTS (
            SELECT 1 FROM pg_roles AS role JOIN pg_roles AS its ON its.oid = relowner
            WHERE role.oid IN (v_owner, v_migrated_by) AND (its.rolsuper OR NOT role.rolsuper) AND pg_has_role(role.oid, its.oid, 'MEMBER')
        )
    LIMIT 1;
    IF v_name IS NOT NULL THEN
        RAISE EXCEPTION 'the table % is not of the owner of the log, nor of a role that this is a member of', v_name
            USING HINT = 'give it to the owner of the log, or drop it';
    END IF;
    -- The application's tables, what is a part of them or they of it (partitions, and what inherits), and what is written through them.
    WITH RECURSIVE family AS (
        SELECT oid FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(v_application))
            AND relname = ANY (v_sources || ARRAY['user_dashboard_data', 'user_roles', 'tallyroll_migration'])
        UNION
        SELECT tie.other
        FROM family
        JOIN (
            SELECT inhparent AS oid, inhrelid AS other FROM pg_inherits
            UNION ALL
            SELECT inhrelid, inhparent FROM pg_inherits
            UNION ALL
            -- A view that is written to stands for the tables that it reads.
            SELECT ev_class, refobjid
            FROM pg_rewrite
            JOIN pg_depend ON classid = 'pg_rewrite'::REGCLASS AND objid = pg_rewrite.oid AND refclassid = 'pg_class'::REGCLASS
            UNION ALL
            -- What refers to a row goes with it.
            SELECT confrelid, conrelid FROM pg_constraint WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
        ) AS tie ON tie.oid = family.oid
    )
    SELECT array_agg(oid) INTO v_family FROM family;
    -- Nobody makes a trigger on them until the right to do so is gone: one whose transaction is open is waited for, and seen below.
    PERFORM set_config('lock_timeout', '10s', TRUE);
    FOR v_name IN
        SELECT oid::REGCLASS::TEXT FROM pg_class
        WHERE oid = ANY (v_family) AND relkind IN ('r', 'p') AND pg_has_role(relowner, 'USAGE') ORDER BY oid
    LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_name);
    END LOOP;
    SELECT array_agg(to_regprocedure(format('%I.%s', v_application, signature)) ORDER BY place) INTO v_functions
    FROM unnest(v_signatures) WITH ORDINALITY AS known (signature, place);
    SELECT format('%s of %s', oid::REGPROCEDURE, proowner::REGROLE) INTO v_name
    FROM pg_proc
    WHERE pronamespace = to_regnamespace(quote_ident(v_application))
        AND proname = ANY (SELECT split_part(signature, '(', 1) FROM unnest(v_signatures) AS signature)
        AND NOT COALESCE(oid = ANY (v_functions) AND (
            proowner IN (v_owner, v_migrated_by) OR pg_has_role(proowner, to_regrole('tallyroll_migrator'), 'MEMBER')
            OR proowner = to_regrole('tallyroll_owner')
        ), FALSE)
    LIMIT 1;
    IF v_name IS NOT NULL THEN
        RAISE EXCEPTION 'the function % has a name of ours, and is not one that `tallyroll migrate` made as the owner of the tables', v_name
            USING HINT = 'rename it or drop it, then `tallyroll migrate`';
    END IF;
    IF EXISTS (SELECT 1 FROM unnest(v_functions) AS known WHERE known IS NULL) THEN
        RAISE EXCEPTION 'functions are not there' USING HINT = 'first `tallyroll migrate`, as the owner of the tables';
    END IF;
    SELECT format('%s on %s, whose function is of %s', quote_ident(tgname), tgrelid::REGCLASS, proowner::REGROLE) INTO v_name
    FROM pg_trigger
    JOIN pg_class ON pg_class.oid = tgrelid
    JOIN pg_proc ON pg_proc.oid = tgfoid
    WHERE (relnamespace = 'tallyroll'::REGNAMESPACE OR pg_class.oid = ANY (v_family))
        AND proowner NOT IN (v_owner, v_migrated_by) AND NOT (SELECT rolsuper FROM pg_roles WHERE pg_roles.oid = proowner)
        AND proowner IS DISTINCT FROM to_regrole('tallyroll_owner') AND proowner <> relowner
        AND COALESCE(NOT pg_has_role(proowner, to_regrole('tallyroll_migrator'), 'MEMBER'), TRUE)
    LIMIT 1;
    IF v_name IS NOT NULL THEN
        RAISE EXCEPTION 'the trigger %, would run with the rights of others', v_name
            USING HINT = 'DROP TRIGGER, or give its function to the owner of the table after a look at what it does';
    END IF;

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
    -- Roles that somebody made before may be otherwise, and then are somebody's.
    SELECT role.said, role.fix INTO v_name, v_fix
    FROM (
        SELECT format('the role %s can do more than it should, or less', rolname) AS said,
            format('ALTER ROLE %s NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION %s%s', rolname,
                CASE WHEN rolname IN ('tallyroll_owner', 'tallyroll_runner') THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END,
                CASE rolname WHEN 'tallyroll_owner' THEN ' NOLOGIN' ELSE '' END) AS fix
        FROM pg_roles
        WHERE rolname = ANY (v_roles) AND (
            rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication
            OR rolbypassrls <> (rolname IN ('tallyroll_owner', 'tallyroll_runner'))
            OR rolname = 'tallyroll_owner' AND rolcanlogin
        )
        UNION ALL
        -- tallyroll_owner's members are the migrator's; the migrator's were made by an administrator, or own the tables. Before
        -- PostgreSQL 16 whoever may create roles could make any.
        SELECT format('%s is a member of %s, and no administrator made it one (granted again by one, it is)', member.rolname, role.rolname),
            format('REVOKE %s FROM %s CASCADE', role.rolname, quote_ident(member.rolname))
        FROM pg_auth_members AS given
        JOIN pg_roles AS role ON role.oid = given.roleid
        JOIN pg_roles AS member ON member.oid = given.member
        LEFT JOIN pg_roles AS giver ON giver.oid = given.grantor
        WHERE NOT member.rolsuper AND member.rolname <> CURRENT_USER AND member.oid NOT IN (v_owner, v_migrated_by) AND (
            role.rolname = 'tallyroll_owner' AND member.rolname <> 'tallyroll_migrator'
            OR role.rolname = 'tallyroll_migrator' AND (
                member.rolname = ANY (v_roles)
                OR NOT COALESCE(giver.rolsuper OR giver.rolname = CURRENT_USER OR giver.oid IN (v_owner, v_migrated_by), FALSE)
            )
        )
    ) AS role
    LIMIT 1;
    IF v_name IS NOT NULL THEN
        RAISE EXCEPTION '%', v_name USING HINT = v_fix;
    END IF;
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
    -- What row-level security is put on below is locked before its rights change: a worker that has analyzed the table waits for those.
    FOREACH v_name IN ARRAY ARRAY[
        'tallyroll.usage_daily', 'tallyroll.usage_daily_user', 'tallyroll.usage_daily_customer', 'tallyroll.usage_daily_total',
        'tallyroll.usage_daily_type', 'tallyroll.usage_monthly_user', 'tallyroll.usage_dashboard'
    ] || ARRAY(
        SELECT oid::REGCLASS::TEXT
        FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(v_application)) AND relname IN ('ai_usage_log', 'user_dashboard_data')
            AND pg_has_role(relowner, 'USAGE')
    ) LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_name);
    END LOOP;
    -- Owners: what is ours is the migrator's, its functions and their views are tallyroll_owner's, who then creates no more.
    FOR v_relation, v_role IN
        SELECT class.oid, owner.name
        FROM pg_class AS class, LATERAL (
            SELECT CASE WHEN relkind = 'v' AND relname LIKE 'tallyroll\_%' THEN 'tallyroll_owner' ELSE 'tallyroll_migrator' END AS name
        ) AS owner
        WHERE (relnamespace = 'tallyroll'::REGNAMESPACE OR relnamespace = to_regnamespace(quote_ident(v_application))
                AND relname IN ('tallyroll_migration', 'ai_usage_summary'))
            AND relkind IN ('r', 'v') AND relowner <> to_regrole(owner.name)
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO %I', v_relation, v_role);
    END LOOP;
    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE (oid = ANY (v_functions) OR pronamespace = 'tallyroll'::REGNAMESPACE AND proname LIKE 'tallyroll\_%'
                AND (proowner IN (v_owner, v_migrated_by) OR pg_has_role(proowner, 'tallyroll_migrator', 'MEMBER')))
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

    -- What is given to one of these roles is not for its members to give on, nor on the source tables for anybody but the owner: what was
    -- given on goes, to these roles as well.
    FOR v_name, v_role IN
        SELECT DISTINCT object.name, quote_ident(pg_get_userbyid(given.grantee))
        FROM (
            SELECT 'TABLE ' || oid::REGCLASS::TEXT AS name, relowner AS owner, acl, oid = ANY (v_family) AS is_source
            FROM pg_class
            CROSS JOIN LATERAL (SELECT relacl AS acl UNION ALL SELECT attacl FROM pg_attribute WHERE attrelid = pg_class.oid) AS given
            WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND (relnamespace = 'tallyroll'::REGNAMESPACE OR oid = ANY (v_family)
                OR relnamespace = to_regnamespace(quote_ident(v_application)) AND relname = 'ai_usage_summary')
            UNION ALL
            SELECT 'FUNCTION ' || oid::REGPROCEDURE::TEXT, proowner, proacl, FALSE
            FROM pg_proc
            WHERE pronamespace = 'tallyroll'::REGNAMESPACE OR oid = ANY (v_functions)
            UNION ALL
            SELECT 'SCHEMA ' || quote_ident(nspname), nspowner, nspacl, FALSE FROM pg_namespace WHERE nspname = 'tallyroll'
        ) AS object, aclexplode(object.acl) AS given
        WHERE given.is_grantable AND given.grantee <> object.owner AND given.grantee <> 0
            AND (is_source OR pg_get_userbyid(given.grantee) = ANY (v_roles))
            AND (NOT is_source OR object.owner IN (v_owner, v_migrated_by))
    LOOP
        EXECUTE format('REVOKE GRANT OPTION FOR ALL ON %s FROM %s CASCADE', v_name, v_role);
    END LOOP;
    -- Rights on columns that were given on by one who had the table's option: the option has to be the giver's on the column to go with all
    -- that came of it.
    FOR v_name, v_role IN
        SELECT DISTINCT format('%s (%I) ON %s', given.privilege_type, attname, attrelid::REGCLASS), quote_ident(pg_get_userbyid(given.grantor))
        FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid
        CROSS JOIN LATERAL aclexplode(attacl) AS given
        WHERE attrelid = ANY (v_family) AND given.grantor <> relowner AND relowner IN (v_owner, v_migrated_by)
    LOOP
        EXECUTE format('GRANT %s TO %s WITH GRANT OPTION', v_name, v_role);
        EXECUTE format('REVOKE %s FROM %s CASCADE', v_name, v_role);
    END LOOP;
    -- Rights that somebody has who is neither the owner nor one of these roles: by default privileges (a hosted database gives its users
    -- everything), or by hand.
    FOR v_name, v_role IN
        SELECT DISTINCT object.name, CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        FROM (
            SELECT 'TABLE ' || oid::REGCLASS::TEXT AS name, relowner AS owner, relacl AS acl
            FROM pg_class
            WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND (relnamespace = 'tallyroll'::REGNAMESPACE
                OR relnamespace = to_regnamespace(quote_ident(v_application)) AND relname IN ('tallyroll_migration', 'ai_usage_summary'))
            UNION ALL
            SELECT 'TABLE ' || attrelid::REGCLASS::TEXT, relowner, attacl
            FROM pg_attribute
            JOIN pg_class ON pg_class.oid = attrelid
            WHERE relnamespace = 'tallyroll'::REGNAMESPACE OR relnamespace = to_regnamespace(quote_ident(v_application))
                AND relname IN ('tallyroll_migration', 'ai_usage_summary')
            UNION ALL
            SELECT 'FUNCTION ' || oid::REGPROCEDURE::TEXT, proowner, COALESCE(proacl, acldefault('f', proowner))
            FROM pg_proc
            WHERE pronamespace = 'tallyroll'::REGNAMESPACE OR oid = ANY (v_functions)
        ) AS object, aclexplode(object.acl) AS given
        WHERE given.grantee <> object.owner AND (given.grantee = 0 OR pg_get_userbyid(given.grantee) <> ALL (v_roles))
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s CASCADE', v_name, v_role);
    END LOOP;
    -- Of the application's tables nobody but the owner makes a trigger, which would run with the rights of whoever writes.
    FOR v_name, v_role IN
        SELECT DISTINCT pg_class.oid::REGCLASS::TEXT, CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        FROM pg_class
        CROSS JOIN LATERAL (SELECT relacl AS acl UNION ALL SELECT attacl FROM pg_attribute WHERE attrelid = pg_class.oid) AS object
        CROSS JOIN LATERAL aclexplode(object.acl) AS given
        WHERE pg_class.oid = ANY (v_family) AND (relnamespace = to_regnamespace(quote_ident(v_application)) OR relowner IN (v_owner, v_migrated_by))
            AND given.grantee <> relowner AND given.privilege_type IN ('TRIGGER', 'REFERENCES', 'TRUNCATE')
    LOOP
        EXECUTE format('REVOKE TRIGGER, REFERENCES, TRUNCATE ON %s FROM %s CASCADE', v_name, v_role);
    END LOOP;

    -- What the functions do.
    EXECUTE format('GRANT SELECT, INSERT ON %1$I.ai_usage_log, %1$I.seat_usage_event TO tallyroll_owner', v_application);
    EXECUTE format('GRANT SELECT ON %1$I.usage_event TO tallyroll_owner', v_application);
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
    -- Nobody else sets them to where no row comes after.
    FOR v_name, v_role IN
        SELECT DISTINCT sequence.oid::REGCLASS::TEXT, CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        FROM pg_depend
        JOIN pg_class AS sequence ON sequence.oid = pg_depend.objid AND sequence.relkind = 'S'
        CROSS JOIN LATERAL aclexplode(sequence.relacl) AS given
        WHERE pg_depend.classid = 'pg_class'::REGCLASS AND pg_depend.refclassid = 'pg_class'::REGCLASS AND pg_depend.deptype IN ('a', 'i')
            AND pg_depend.refobjid = ANY (v_family) AND sequence.relowner IN (v_owner, v_migrated_by)
            AND given.privilege_type = 'UPDATE' AND given.grantee <> sequence.relowner
            AND (given.grantee = 0 OR pg_get_userbyid(given.grantee) <> ALL (v_roles))
    LOOP
        EXECUTE format('REVOKE UPDATE ON SEQUENCE %s FROM %s CASCADE', v_name, v_role);
    END LOOP;
    v_relation := pg_get_serial_sequence(format('%I.seat_usage_event', v_application), 'id')::REGCLASS;
    IF v_relation IS NOT NULL THEN
        EXECUTE format('GRANT UPDATE ON SEQUENCE %s TO tallyroll_owner', v_relation);
    END IF;
    GRANT SELECT ON tallyroll.job_window TO tallyroll_owner;
    GRANT INSERT ON tallyroll.usage_dirty_day TO tallyroll_owner;
    GRANT SELECT, INSERT, UPDATE ON tallyroll.seat_org TO tallyroll_owner;
    -- The seed's database knows its users by auth.uid(), which they call themselves. By the catalog: who may not use the schema cannot
    -- name the function.
    SELECT uid.oid INTO v_uid
    FROM pg_namespace AS auth JOIN pg_proc AS uid ON uid.pronamespace = auth.oid
    WHERE auth.nspname = 'auth' AND uid.proname = 'uid' AND uid.pronargs = 0;
    IF to_regrole('authenticated') IS NOT NULL AND v_uid IS NOT NULL THEN
        BEGIN
            IF NOT has_schema_privilege('authenticated', 'auth', 'USAGE') THEN GRANT USAGE ON SCHEMA auth TO authenticated; END IF;
            IF NOT has_function_privilege('authenticated', v_uid, 'EXECUTE') THEN
                GRANT EXECUTE ON FUNCTION auth.uid() TO authenticated;
            END IF;
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE WARNING 'no user is known by its token before the owner of schema auth lets authenticated call auth.uid()';
        END;
    END IF;

    -- The application's tables: the runner reads them (and imports into them), the application inserts, in its own transaction.
    FOREACH v_name IN ARRAY v_sources LOOP
        EXECUTE format('GRANT SELECT, INSERT ON %I.%I TO tallyroll_runner', v_application, v_name);
    END LOOP;
    IF EXISTS (
        SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(format('%I.users', v_application)) AND attname = 'requests_used'
    ) THEN
        EXECUTE format('GRANT UPDATE (requests_used) ON %I.users TO tallyroll_runner', v_application);
    END IF;
    EXECUTE format('GRANT UPDATE ON %I.subscription TO tallyroll_runner', v_application);
    EXECUTE format('GRANT SELECT ON %1$I.tallyroll_migration, %1$I.ai_usage_summary TO tallyroll_runner', v_application);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I.user_dashboard_data TO tallyroll_runner', v_application);
    EXECUTE format('GRANT INSERT ON %1$I.ai_usage_log, %1$I.chat_requests, %1$I.request_analytics, %1$I.usage_event TO tallyroll_writer', v_application);

    -- Results and state.
    GRANT SELECT, INSERT, UPDATE, DELETE ON
        tallyroll.usage_daily, tallyroll.usage_daily_user, tallyroll.usage_daily_customer, tallyroll.usage_daily_total,
        tallyroll.usage_daily_type, tallyroll.usage_monthly_user, tallyroll.usage_monthly_customer, tallyroll.usage_dashboard,
        tallyroll.peak_seats, tallyroll.reconciliation, tallyroll.snapshot_file, tallyroll.quarantined_event, tallyroll.job_run,
        tallyroll.job_window, tallyroll.job_lock, tallyroll.schedule_state, tallyroll.schedule_notice, tallyroll.session_revoked,
        tallyroll.usage_dirty_day, tallyroll.usage_watermark, tallyroll.result_table, tallyroll.file_digest, tallyroll.archived_day,
        tallyroll.archive_leftover
    TO tallyroll_runner;
    -- What an import was is not changed afterwards: by it the owner takes rows out again.
    REVOKE UPDATE, DELETE ON tallyroll.usage_import FROM tallyroll_runner;
    GRANT SELECT, INSERT ON tallyroll.usage_import TO tallyroll_runner;
    GRANT SELECT, INSERT, UPDATE ON tallyroll.seat_org TO tallyroll_runner;
    GRANT SELECT ON tallyroll.usage_requests_by_category TO tallyroll_runner;
    GRANT SELECT ON
        tallyroll.usage_daily, tallyroll.usage_daily_user, tallyroll.usage_daily_customer, tallyroll.usage_daily_total,
        tallyroll.usage_daily_type, tallyroll.usage_monthly_user, tallyroll.usage_monthly_customer, tallyroll.usage_dashboard,
        tallyroll.peak_seats, tallyroll.reconciliation, tallyroll.snapshot_file, tallyroll.quarantined_event, tallyroll.job_run,
        tallyroll.job_window, tallyroll.schedule_state, tallyroll.file_digest, tallyroll.archived_day
    TO tallyroll_reader;
    EXECUTE format('GRANT SELECT ON %1$I.ai_usage_summary, %1$I.user_dashboard_data TO tallyroll_reader', v_application);
    GRANT SELECT ON
        tallyroll.usage_daily, tallyroll.usage_daily_user, tallyroll.usage_daily_customer, tallyroll.usage_daily_total,
        tallyroll.usage_daily_type, tallyroll.usage_monthly_user, tallyroll.usage_dashboard
    TO tallyroll_user;
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

    FOREACH v_function IN ARRAY v_functions[1:7] LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_writer', v_function);
    END LOOP;
    -- The runner imports, and records what is posted to `serve`.
    FOREACH v_function IN ARRAY v_functions[1:7] || ARRAY[
        'tallyroll.tallyroll_application_log()'::REGPROCEDURE, 'tallyroll.tallyroll_pass_ledger_ids()'::REGPROCEDURE
    ] LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_runner', v_function);
    END LOOP;
    GRANT SELECT ON tallyroll.tallyroll_visible_usage, tallyroll.tallyroll_visible_chat, tallyroll.tallyroll_visible_event TO tallyroll_reader, tallyroll_runner, tallyroll_user;
    -- What the functions call: they run with the rights of whoever asks.
    FOREACH v_function IN ARRAY v_functions[8:10] LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tallyroll_reader, tallyroll_runner, tallyroll_user', v_function);
    END LOOP;
    GRANT EXECUTE ON FUNCTION
        tallyroll.tallyroll_application_log(), tallyroll.tallyroll_is_gateway(), tallyroll.tallyroll_user_of(name),
        tallyroll.tallyroll_known_user_id(), tallyroll.tallyroll_current_user_id(), tallyroll.tallyroll_user_is_admin(uuid),
        tallyroll.tallyroll_is_admin(), tallyroll.tallyroll_timezone(text), tallyroll.tallyroll_today(), tallyroll.tallyroll_check_days(integer),
        tallyroll.tallyroll_usd(numeric, numeric, integer), tallyroll.tallyroll_cost(numeric, numeric, integer),
        tallyroll.tallyroll_cost_of_each(numeric, numeric, numeric, integer), tallyroll.tallyroll_logged_cost(numeric),
        tallyroll.tallyroll_average(numeric, numeric), tallyroll.tallyroll_instant(timestamptz), tallyroll.tallyroll_days(date, date),
        tallyroll.tallyroll_usage_dashboard(integer, date), tallyroll.tallyroll_user_usage(uuid, integer, date, text),
        tallyroll.tallyroll_cost_summary(date)
    TO tallyroll_reader, tallyroll_runner, tallyroll_user;
    GRANT EXECUTE ON FUNCTION tallyroll.tallyroll_application_log(), tallyroll.tallyroll_logs_for()
    TO tallyroll_writer, tallyroll_runner, tallyroll_user;
    -- As the seed does; one who is only a user logs for itself alone.
    IF to_regrole('authenticated') IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO authenticated', v_functions[1]);
    END IF;
    -- What log_ai_usage inserts into, and shows nothing; a trigger says who logs.
    SELECT string_agg(quote_ident(attname), ', ') INTO v_name
    FROM pg_attribute
    WHERE attrelid = 'tallyroll.tallyroll_log_entry'::REGCLASS AND attnum > 0 AND attname NOT IN ('id', 'logs_for');
    EXECUTE format('GRANT SELECT, INSERT (%s) ON tallyroll.tallyroll_log_entry TO tallyroll_writer, tallyroll_runner, tallyroll_user', v_name);

    -- Results: a reader sees all, the seed's admins too, a user what is of it alone. Whoever asks is found once, not once a row.
    FOR v_name, v_own_alone IN
        -- In the seeds' tables a user is a UUID, in ours a text.
        VALUES ('tallyroll.usage_daily', format(v_is_own, '::TEXT')), ('tallyroll.usage_daily_user', format(v_is_own, '::TEXT')),
            ('tallyroll.usage_monthly_user', format(v_is_own, '::TEXT')), (format('%I.user_dashboard_data', v_application), format(v_is_own, '')),
            ('tallyroll.usage_daily_customer', ''), ('tallyroll.usage_daily_total', ''), ('tallyroll.usage_daily_type', ''),
            ('tallyroll.usage_dashboard', '')
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_name);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_all ON %s', v_name);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_own ON %s', v_name);
        EXECUTE format(
            'CREATE POLICY tallyroll_read_all ON %s FOR SELECT USING (' || v_is_member || ' OR ' || v_is_member || ')',
            v_name, 'tallyroll_reader', 'tallyroll_runner'
        );
        EXECUTE format('CREATE POLICY tallyroll_read_own ON %s FOR SELECT USING (%s)', v_name, format(v_user_sees, v_own_alone));
    END LOOP;

    -- The seed's log has row-level security. Where it has none yet it gets it if nobody but its owner and our roles has a right on it, so
    -- that it takes rows from nobody. Who was granted INSERT inserts as before.
    v_relation := format('%I.ai_usage_log', v_application);
    IF NOT EXISTS (
        SELECT 1
        FROM pg_class, aclexplode(relacl) AS given
        LEFT JOIN pg_roles AS role ON role.oid = given.grantee
        WHERE pg_class.oid = v_relation AND given.grantee <> relowner AND role.rolname IS DISTINCT FROM 'authenticated'
            AND COALESCE(role.rolname <> ALL (v_roles), TRUE)
    ) THEN
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_relation);
    END IF;
    IF (SELECT relrowsecurity FROM pg_class WHERE oid = v_relation) THEN
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_insert ON %s', v_relation);
        EXECUTE format('DROP POLICY IF EXISTS tallyroll_read_own ON %s', v_relation);
        EXECUTE format('CREATE POLICY tallyroll_insert ON %s FOR INSERT WITH CHECK (' || v_is_member || ')', v_relation, 'tallyroll_writer');
        EXECUTE format('CREATE POLICY tallyroll_read_own ON %s FOR SELECT USING (%s)', v_relation, format(v_user_sees, format(v_is_own, '')));
        EXECUTE format('GRANT SELECT ON %s TO tallyroll_user', v_relation);
    END IF;
    -- Of the release before, whose policies called it.
    DROP FUNCTION IF EXISTS tallyroll.tallyroll_asking_role();
END;
$$;
