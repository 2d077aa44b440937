-- Ids of users and customers are text, as the sources have them (docs/semantics.md section 3): a UUID or a whole number becomes its text. No
-- row has to be computed again, but those of users who were set aside because they were no UUIDs, and the finance files of customers,
-- whose column changes with the table. Each table is written anew once, and nobody reads it meanwhile.
SET LOCAL lock_timeout = '10s';

DO $$
DECLARE
    v_views CONSTANT OID[] := ARRAY['ai_usage_summary'::REGCLASS, 'usage_requests_by_category'::REGCLASS];
    v_again TEXT[];
    v_statement TEXT;
BEGIN
    -- Our views and policies name the columns: they are made again as they were, with the owners of the views and the rights that were given on them.
    SELECT array_agg(statement ORDER BY place) INTO v_again
    FROM (
        SELECT 1 AS place, format('CREATE VIEW %s.%I AS %s', relnamespace::REGNAMESPACE, relname, pg_get_viewdef(oid)) AS statement
        FROM pg_class WHERE oid = ANY (v_views)
        UNION ALL
        SELECT 2, format(
            'GRANT %s ON %s.%I TO %s', given.privilege_type, relnamespace::REGNAMESPACE, relname,
            CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END
        )
        FROM pg_class, aclexplode(relacl) AS given
        WHERE oid = ANY (v_views) AND given.grantee <> relowner
        UNION ALL
        SELECT 4, format('ALTER VIEW %s.%I OWNER TO %I', relnamespace::REGNAMESPACE, relname, pg_get_userbyid(relowner))
        FROM pg_class WHERE oid = ANY (v_views)
        UNION ALL
        SELECT 3, format(
            'CREATE POLICY tallyroll_read_own ON %s FOR SELECT USING (%s)', polrelid::REGCLASS,
            replace(pg_get_expr(polqual, polrelid), 'tallyroll_current_user_id()', 'tallyroll_current_user_id()::TEXT')
        )
        FROM pg_policy
        WHERE polname = 'tallyroll_read_own' AND polrelid IN (
            'tallyroll.usage_daily'::REGCLASS, 'tallyroll.usage_daily_user'::REGCLASS, 'tallyroll.usage_monthly_user'::REGCLASS
        )
    ) AS made;
    DROP VIEW ai_usage_summary, usage_requests_by_category;
    DROP POLICY IF EXISTS tallyroll_read_own ON tallyroll.usage_daily;
    DROP POLICY IF EXISTS tallyroll_read_own ON tallyroll.usage_daily_user;
    DROP POLICY IF EXISTS tallyroll_read_own ON tallyroll.usage_monthly_user;

    ALTER TABLE tallyroll.usage_daily
        ALTER COLUMN user_id TYPE TEXT COLLATE "C" USING user_id::TEXT,
        ALTER COLUMN customer_id TYPE TEXT COLLATE "C" USING customer_id::TEXT;
    ALTER TABLE tallyroll.usage_daily_user ALTER COLUMN user_id TYPE TEXT COLLATE "C" USING user_id::TEXT;
    ALTER TABLE tallyroll.usage_daily_customer ALTER COLUMN customer_id TYPE TEXT COLLATE "C" USING customer_id::TEXT;
    ALTER TABLE tallyroll.usage_monthly_user ALTER COLUMN user_id TYPE TEXT COLLATE "C" USING user_id::TEXT;
    ALTER TABLE tallyroll.usage_monthly_customer ALTER COLUMN customer_id TYPE TEXT COLLATE "C" USING customer_id::TEXT;

    FOREACH v_statement IN ARRAY v_again LOOP
        EXECUTE v_statement;
    END LOOP;
END;
$$;

UPDATE tallyroll.job_window SET state = 'due', due_reason = 'ids are text'
WHERE state = 'done' AND (
    job = 'usage_monthly_customer'
    OR job = 'usage_daily' AND window_start IN (SELECT usage_date FROM tallyroll.quarantined_event WHERE reason = 'user_not_uuid')
);

-- By which the job user_dashboard finds accounts and plans of a user whose id is text.
CREATE INDEX IF NOT EXISTS idx_users_id_text ON users ((CAST(id AS TEXT)));
CREATE INDEX IF NOT EXISTS idx_user_plans_user_text ON user_plans ((CAST(user_id AS TEXT)));
