-- Who asks, and whether it may see everyone. Asked with the rights of whoever asks, by its CURRENT_USER: code that runs as its owner, a
-- definer function, a trigger, an index expression, is that owner, whoever set it off.

-- Whether auth.uid() may be believed: the session is the gateway's, which checks tokens and then takes the role `authenticated`, and the
-- function and its schema belong to a superuser, to the log's owner, or to the role that the setting `auth_owner` names. A role that logs in by
-- itself could set what auth.uid() reads, whatever it is a member of.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_is_gateway() RETURNS BOOLEAN
LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
    SELECT CURRENT_USER = 'authenticated'
        AND SESSION_USER = (SELECT value FROM tallyroll.tallyroll_setting WHERE name = 'gateway')
        AND EXISTS (
            -- By the catalog: who may not use the schema could not name the function. Who owns the schema could replace it.
            SELECT 1
            FROM pg_namespace AS auth
            JOIN pg_proc AS uid ON uid.pronamespace = auth.oid AND uid.proname = 'uid' AND uid.pronargs = 0
            WHERE auth.nspname = 'auth' AND uid.prorettype = 'pg_catalog.uuid'::REGTYPE AND NOT EXISTS (
                SELECT 1
                FROM pg_roles AS owner
                WHERE owner.oid IN (auth.nspowner, uid.proowner) AND NOT owner.rolsuper
                    AND owner.oid <> (SELECT relowner FROM pg_class WHERE oid = tallyroll.tallyroll_application_log())
                    AND owner.rolname IS DISTINCT FROM (SELECT value FROM tallyroll.tallyroll_setting WHERE name = 'auth_owner')
            )
        );
$$;

INSERT INTO tallyroll.tallyroll_setting (name, value) VALUES ('gateway', 'authenticator') ON CONFLICT (name) DO NOTHING;

-- The user whose id or email is the name of the role, for a session that is that role or may become it; NULL where there is none.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_user_of(p_role NAME) RETURNS UUID
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_user_id UUID;
BEGIN
    -- A gateway's group is nobody, whatever a user's email is; and whoever owns the users could be any of them.
    IF p_role = 'authenticated' OR NOT pg_has_role(SESSION_USER, p_role, 'MEMBER') OR NOT EXISTS (
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
    WHERE id::TEXT = p_role::TEXT OR email::TEXT = p_role::TEXT
    ORDER BY id::TEXT = p_role::TEXT DESC
    LIMIT 1;
    RETURN v_user_id;
END;
$$;

-- The user that asks: who a gateway's token says, else the user of the role.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_known_user_id() RETURNS UUID
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_user_id UUID;
BEGIN
    IF tallyroll.tallyroll_is_gateway() THEN
        EXECUTE 'SELECT auth.uid()' INTO v_user_id;
        RETURN v_user_id;
    END IF;
    RETURN tallyroll.tallyroll_user_of(CURRENT_USER);
END;
$$;

-- What policies and functions call. Replace this one where users are known otherwise: `migrate` makes it where there is none, and leaves
-- one of yours alone. It runs with the rights of whoever asks, which is its CURRENT_USER. Nothing that a session can set for itself must
-- decide it.
DO $$
BEGIN
    IF COALESCE((
        -- As this release and those before it made it.
        SELECT md5(prosrc) IN ('3e9669f7e98085bce43cca75d10afdf3', md5('SELECT tallyroll.tallyroll_known_user_id()'))
        FROM pg_proc
        WHERE oid = to_regprocedure('tallyroll.tallyroll_current_user_id()')
    ), TRUE) THEN
        CREATE OR REPLACE FUNCTION tallyroll.tallyroll_current_user_id() RETURNS UUID
        LANGUAGE sql STABLE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
        AS 'SELECT tallyroll.tallyroll_known_user_id()';
    END IF;
    -- Policies ask once a statement, in the leader: their tables can be read by several workers.
    ALTER FUNCTION tallyroll.tallyroll_current_user_id() PARALLEL RESTRICTED;
END;
$$;

-- Whether the application's own table, the log's owner's, calls the user an admin: what somebody else calls by that name is neither
-- asked nor run.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_user_is_admin(p_user_id UUID) RETURNS BOOLEAN
LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_is_admin BOOLEAN := FALSE;
BEGIN
    IF p_user_id IS NOT NULL AND EXISTS (
        SELECT 1
        FROM pg_class AS log
        JOIN pg_class AS asked ON asked.relnamespace = log.relnamespace AND asked.relowner = log.relowner
        WHERE log.oid = tallyroll.tallyroll_application_log() AND asked.relname = 'user_roles' AND asked.relkind IN ('r', 'p')
            AND has_table_privilege(asked.oid, 'SELECT')
    ) THEN
        EXECUTE 'SELECT EXISTS (SELECT 1 FROM {app}.user_roles WHERE user_id = $1 AND user_role::TEXT = ''admin'')'
        INTO v_is_admin USING p_user_id;
    END IF;
    RETURN v_is_admin;
END;
$$;

-- Who sees everyone: whoever owns the summaries or reads them as tallyroll_reader or tallyroll_runner, and the seed's admins.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_is_admin() RETURNS BOOLEAN
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT 1
        FROM pg_roles AS role
        WHERE pg_has_role(CURRENT_USER, role.oid, 'MEMBER') AND (
            role.rolname IN ('tallyroll_reader', 'tallyroll_runner')
            OR role.oid = (SELECT relowner FROM pg_class WHERE oid = 'tallyroll.usage_daily_user'::REGCLASS)
        )
    ) OR tallyroll.tallyroll_user_is_admin(tallyroll.tallyroll_current_user_id());
END;
$$;

-- Of releases before, which asked the session.
DROP FUNCTION IF EXISTS tallyroll.tallyroll_is_only_a_user(), tallyroll.tallyroll_records_for_all();
