-- Who asks a function, and whether it may see everyone.

-- Who asks. The role that SET ROLE chose, else the one that logged in: inside a function that runs as its owner, CURRENT_USER
-- would be the owner. NULL where nobody is logged in: autovacuum runs what an index expression calls in a process of its own, whose
-- SESSION_USER is a superuser.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_asking_role() RETURNS NAME
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(NULLIF(current_setting('role', TRUE), 'none'), SESSION_USER::TEXT)::NAME
    FROM pg_stat_get_activity(pg_backend_pid()) AS process
    WHERE process.usesysid IS NOT NULL;
$$;

-- Whether auth.uid() may be believed: the session is the gateway's, which checks tokens and then takes the role `authenticated`, and the
-- function belongs to a superuser, to the log's owner, or to the role that the setting `auth_owner` names. A role that logs in by
-- itself could set what auth.uid() reads, whatever it is a member of.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_is_gateway() RETURNS BOOLEAN
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT tallyroll.tallyroll_asking_role() = 'authenticated'
        AND SESSION_USER = (SELECT value FROM tallyroll.tallyroll_setting WHERE name = 'gateway')
        AND EXISTS (
            SELECT 1
            FROM pg_proc AS uid
            JOIN pg_roles AS owner ON owner.oid = uid.proowner
            WHERE uid.oid = to_regprocedure('auth.uid()') AND uid.prorettype = 'pg_catalog.uuid'::REGTYPE AND (
                owner.rolsuper
                OR owner.oid = (SELECT relowner FROM pg_class WHERE oid = tallyroll.tallyroll_application_log())
                OR owner.rolname = (SELECT value FROM tallyroll.tallyroll_setting WHERE name = 'auth_owner')
            )
        );
$$;

INSERT INTO tallyroll.tallyroll_setting (name, value) VALUES ('gateway', 'authenticator') ON CONFLICT (name) DO NOTHING;

-- The user that asks: who a gateway's token says, else the user whose id or email is the name of the role.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_known_user_id() RETURNS UUID
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_role TEXT := tallyroll.tallyroll_asking_role();
    v_user_id UUID;
BEGIN
    IF tallyroll.tallyroll_is_gateway() THEN
        EXECUTE 'SELECT auth.uid()' INTO v_user_id;
        RETURN v_user_id;
    END IF;
    -- Whoever owns the users could be any of them; and a gateway's group is nobody, whatever a user's email is.
    IF v_role = 'authenticated' OR NOT EXISTS (
        SELECT 1
        FROM pg_class AS log
        JOIN pg_class AS users ON users.oid = '{app}.users'::REGCLASS
        JOIN pg_roles AS owner ON owner.oid = users.relowner
        WHERE log.oid = tallyroll.tallyroll_application_log() AND (owner.oid = log.relowner OR owner.rolsuper)
    ) THEN
        RETURN NULL;
    END IF;
    SELECT id INTO v_user_id
    FROM {app}.users
    WHERE id::TEXT = v_role OR email::TEXT = v_role
    ORDER BY id::TEXT = v_role DESC
    LIMIT 1;
    RETURN v_user_id;
END;
$$;

-- What policies and functions call. Replace this one where users are known otherwise: `migrate` makes it where there is none, and leaves
-- one of yours alone. Nothing that a session can set for itself must decide it.
DO $$
BEGIN
    IF COALESCE((
        -- As the release before this one made it.
        SELECT md5(prosrc) = '3e9669f7e98085bce43cca75d10afdf3'
        FROM pg_proc
        WHERE oid = to_regprocedure('tallyroll.tallyroll_current_user_id()')
    ), TRUE) THEN
        CREATE OR REPLACE FUNCTION tallyroll.tallyroll_current_user_id() RETURNS UUID
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS 'SELECT tallyroll.tallyroll_known_user_id()';
    END IF;
    -- Policies ask once a statement, in the leader: their tables can be read by several workers.
    ALTER FUNCTION tallyroll.tallyroll_current_user_id() PARALLEL RESTRICTED;
END;
$$;

-- Who sees everyone: whoever owns the summaries or reads them as tallyroll_reader or tallyroll_runner, and the seed's admins.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_is_admin() RETURNS BOOLEAN
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_is_admin BOOLEAN;
BEGIN
    SELECT COALESCE(BOOL_OR(pg_has_role(tallyroll.tallyroll_asking_role(), role.oid, 'MEMBER')), FALSE) INTO v_is_admin
    FROM pg_roles AS role
    WHERE role.rolname IN ('tallyroll_reader', 'tallyroll_runner')
        OR role.oid = (SELECT relowner FROM pg_class WHERE oid = 'tallyroll.usage_daily_user'::REGCLASS);
    -- The application's own table alone, of the log's owner: what somebody else calls by that name is neither asked nor run.
    IF NOT v_is_admin AND EXISTS (
        SELECT 1
        FROM pg_class AS log
        JOIN pg_class AS asked ON asked.relnamespace = log.relnamespace AND asked.relowner = log.relowner
        WHERE log.oid = tallyroll.tallyroll_application_log() AND asked.relname = 'user_roles' AND asked.relkind IN ('r', 'p')
            AND has_table_privilege(asked.oid, 'SELECT')
    ) THEN
        EXECUTE 'SELECT EXISTS (SELECT 1 FROM {app}.user_roles WHERE user_id = $1 AND user_role::TEXT = ''admin'')'
        INTO v_is_admin USING tallyroll.tallyroll_current_user_id();
    END IF;
    RETURN v_is_admin;
END;
$$;

-- Whether the asking role records for everyone: writers, runners, who owns the log, superusers. A role that is none of them, whatever
-- else it may be or had SET ROLE choose, is a user at most.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_records_for_all() RETURNS BOOLEAN
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT COALESCE(BOOL_OR(pg_has_role(tallyroll.tallyroll_asking_role(), oid, 'MEMBER')), FALSE)
    FROM pg_roles
    WHERE rolname IN ('tallyroll_writer', 'tallyroll_runner')
        OR oid = (SELECT relowner FROM pg_class WHERE oid = tallyroll.tallyroll_application_log());
$$;

-- Of the release before, which asked the wrong way around.
DROP FUNCTION IF EXISTS tallyroll.tallyroll_is_only_a_user();
