-- The usage-tracking seed's functions, by their names and signatures: the reading ones answer from the summaries (docs/semantics.md
-- section 8), the writing ones are all that an application needs. They run with the rights of their owner, so each says who may
-- ask, none is executable by everyone, and each looks for tables in this schema alone (the last statement).
SET LOCAL lock_timeout = '10s';

-- A log that holds no row yet gets totals of 64 bits: two 32-bit counts of one request may not fit one. A log with rows stays as it
-- is; rewriting it is not for a migration.
DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM ai_usage_log) AND EXISTS (
        SELECT 1 FROM pg_attribute
        WHERE attrelid = 'ai_usage_log'::REGCLASS AND attname = 'total_tokens' AND atttypid = 'INTEGER'::REGTYPE
    ) THEN
        ALTER TABLE ai_usage_log DROP COLUMN total_tokens;
        ALTER TABLE ai_usage_log ADD COLUMN total_tokens BIGINT GENERATED ALWAYS AS (input_tokens::BIGINT + output_tokens) STORED;
    END IF;
EXCEPTION
    -- A view of the application's reads the column: it stays as it is.
    WHEN dependent_objects_still_exist THEN NULL;
END;
$$;

-- The latest requests of one user.
CREATE INDEX IF NOT EXISTS idx_chat_requests_user ON chat_requests (user_id, created_at DESC);

-- Who asks. The role that SET ROLE chose, else the one that logged in: inside a function that runs as its owner, CURRENT_USER
-- would be the owner.
CREATE FUNCTION tallyroll_asking_role() RETURNS NAME
LANGUAGE sql STABLE AS $$
    SELECT COALESCE(NULLIF(current_setting('role', TRUE), 'none'), SESSION_USER::TEXT)::NAME;
$$;

-- The user that asks: auth.uid() where the database has it (the seed's) and the asking role is the one that its gateway chooses, else
-- the user whose id or email is the name of the role. A role that logs in by itself could set what auth.uid() reads.
-- Replace this function where users are known otherwise; nothing that a session can set for itself must decide it.
CREATE FUNCTION tallyroll_current_user_id() RETURNS UUID
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    v_user_id UUID;
BEGIN
    IF to_regprocedure('auth.uid()') IS NOT NULL AND tallyroll_asking_role() = 'authenticated' AND SESSION_USER <> 'authenticated' THEN
        EXECUTE 'SELECT auth.uid()' INTO v_user_id;
        RETURN v_user_id;
    END IF;
    SELECT id INTO v_user_id
    FROM users
    WHERE id::TEXT = tallyroll_asking_role()::TEXT OR email = tallyroll_asking_role()::TEXT
    ORDER BY id::TEXT = tallyroll_asking_role()::TEXT DESC
    LIMIT 1;
    RETURN v_user_id;
END;
$$;

-- Who sees everyone: whoever owns the summaries or reads them as tallyroll_reader or tallyroll_runner, and the seed's admins.
CREATE FUNCTION tallyroll_is_admin() RETURNS BOOLEAN
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    v_is_admin BOOLEAN;
    v_user_roles OID;
BEGIN
    SELECT BOOL_OR(pg_has_role(tallyroll_asking_role(), role.oid, 'MEMBER')) INTO v_is_admin
    FROM pg_roles AS role
    WHERE role.rolname IN ('tallyroll_reader', 'tallyroll_runner')
        OR role.oid = (SELECT relowner FROM pg_class WHERE oid = 'usage_daily_user'::REGCLASS);
    IF NOT v_is_admin THEN
        -- A table of this schema and of the summaries' owner alone: what somebody else calls by that name is neither asked nor run.
        SELECT table_of.oid INTO v_user_roles
        FROM pg_class AS summaries
        JOIN pg_class AS table_of ON table_of.relnamespace = summaries.relnamespace AND table_of.relowner = summaries.relowner
        WHERE summaries.oid = 'usage_daily_user'::REGCLASS AND table_of.relname = 'user_roles' AND table_of.relkind IN ('r', 'p');
        IF v_user_roles IS NOT NULL THEN
            EXECUTE format(
                'SELECT EXISTS (SELECT 1 FROM %s.user_roles WHERE user_id = $1 AND user_role = ''admin'')',
                (SELECT relnamespace::REGNAMESPACE::TEXT FROM pg_class WHERE oid = v_user_roles)
            ) INTO v_is_admin USING tallyroll_current_user_id();
        END IF;
    END IF;
    RETURN v_is_admin;
END;
$$;

-- The day that it is, in the time zone that the summaries were written in.
CREATE FUNCTION tallyroll_today() RETURNS DATE
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT (now() AT TIME ZONE COALESCE((SELECT timezone FROM job_window WHERE job = 'usage_daily_total' LIMIT 1), 'UTC'))::DATE;
$$;

-- Nano-USD for each of p_count, in USD with so many places, rounded half-even once; 0 for each of nothing.
CREATE FUNCTION tallyroll_usd(p_nanos NUMERIC, p_count NUMERIC, p_places INTEGER) RETURNS NUMERIC
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_count = 0 THEN round(0::NUMERIC, p_places) ELSE round((whole + CASE
        WHEN 2 * rest > divisor OR (2 * rest = divisor AND mod(whole, 2) = 1) THEN 1 ELSE 0
    END) / 10::NUMERIC ^ p_places, p_places) END
    FROM (
        SELECT div(scaled, divisor) AS whole, mod(scaled, divisor) AS rest, divisor
        FROM (
            SELECT COALESCE(p_nanos, 0) * 10::NUMERIC ^ p_places AS scaled, GREATEST(p_count, 1) * 1000000000 AS divisor
        ) AS fraction
    ) AS divided;
$$;

-- An instant in UTC, whatever the time zone of the session.
CREATE FUNCTION tallyroll_instant(p_at TIMESTAMPTZ) RETURNS TEXT
LANGUAGE sql STABLE AS $$
    SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
$$;

-- A whole average, rounded half-even; NULL of nothing.
CREATE FUNCTION tallyroll_average(p_sum NUMERIC, p_count NUMERIC) RETURNS BIGINT
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_count > 0 THEN (div(p_sum, p_count) + CASE
        WHEN 2 * mod(p_sum, p_count) > p_count OR (2 * mod(p_sum, p_count) = p_count AND mod(div(p_sum, p_count), 2) = 1) THEN 1 ELSE 0
    END)::BIGINT END;
$$;

-- Usage of the days [p_from, p_to), as one row of sums.
CREATE FUNCTION tallyroll_days(p_from DATE, p_to DATE, OUT requests BIGINT, OUT tokens BIGINT, OUT cost_nanos NUMERIC)
LANGUAGE sql STABLE AS $$
    SELECT COALESCE(SUM(request_count), 0)::BIGINT, COALESCE(SUM(total_tokens), 0)::BIGINT, COALESCE(SUM(total_cost_nanos), 0)
    FROM usage_daily_total
    WHERE usage_date >= p_from AND usage_date < p_to;
$$;

CREATE FUNCTION tallyroll_check_days(p_days INTEGER) RETURNS VOID
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF p_days IS NULL OR p_days NOT BETWEEN 0 AND 36600 THEN
        RAISE EXCEPTION 'p_days is %, and must be from 0 to 36600', COALESCE(p_days::TEXT, 'NULL') USING ERRCODE = 'invalid_parameter_value';
    END IF;
END;
$$;

-- The admin's dashboard of today and the p_days days before it, computed afresh.
CREATE FUNCTION tallyroll_usage_dashboard(p_days INTEGER, p_today DATE) RETURNS JSONB
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_from DATE := p_today - p_days;
    v_to DATE := p_today + 1;
    v_month DATE := date_trunc('month', p_today::TIMESTAMP)::DATE;
    -- Months that lie whole in the span are read as such.
    v_whole_from DATE := LEAST(date_trunc('month', v_from::TIMESTAMP + INTERVAL '1 month' - INTERVAL '1 day')::DATE, v_to);
    v_whole_to DATE := GREATEST(date_trunc('month', v_to::TIMESTAMP)::DATE, v_whole_from);
    v_by_user JSONB;
    v_by_customer JSONB;
BEGIN
    SELECT COALESCE(jsonb_agg(jsonb_build_object(
        'user_id', user_id,
        'user_email', COALESCE(user_email, 'Unknown'),
        'request_count', request_count,
        'input_tokens', input_tokens,
        'output_tokens', output_tokens,
        'total_tokens', total_tokens,
        'total_cost', tallyroll_usd(cost_nanos::NUMERIC, 1::NUMERIC, 4),
        'avg_cost_per_request', tallyroll_usd(cost_nanos::NUMERIC, request_count::NUMERIC, 6),
        'last_request', tallyroll_instant(last_request_at)
    ) ORDER BY cost_nanos DESC, user_id), '[]') INTO v_by_user
    FROM (
        WITH cost AS (
            SELECT user_id, total_cost_nanos FROM usage_monthly_user WHERE usage_month >= v_whole_from AND usage_month < v_whole_to
            UNION ALL
            SELECT user_id, total_cost_nanos FROM usage_daily_user WHERE usage_date >= v_from AND usage_date < v_whole_from
            UNION ALL
            SELECT user_id, total_cost_nanos FROM usage_daily_user WHERE usage_date >= v_whole_to AND usage_date < v_to
        ), listed AS (
            SELECT user_id FROM cost GROUP BY user_id ORDER BY COALESCE(SUM(total_cost_nanos), 0) DESC, user_id LIMIT 25
        )
        SELECT
            listed.user_id,
            substr(MAX(usage.usage_date::TEXT || user_email), 11) AS user_email,
            SUM(usage.request_count) AS request_count,
            SUM(usage.input_tokens) AS input_tokens,
            SUM(usage.output_tokens) AS output_tokens,
            SUM(usage.total_tokens) AS total_tokens,
            COALESCE(SUM(usage.total_cost_nanos), 0) AS cost_nanos,
            MAX(usage.last_request_at) AS last_request_at
        FROM listed
        JOIN usage_daily_total AS day ON day.usage_date >= v_from AND day.usage_date < v_to
        JOIN usage_daily_user AS usage ON usage.usage_date = day.usage_date AND usage.user_id = listed.user_id
        GROUP BY listed.user_id
    ) AS users;

    SELECT COALESCE(jsonb_agg(jsonb_build_object(
        'customer_id', listed.customer_id,
        'customer_name', COALESCE(customer_name, 'Unknown'),
        'request_count', request_count,
        'total_tokens', total_tokens,
        'total_cost', tallyroll_usd(cost_nanos::NUMERIC, 1::NUMERIC, 4),
        'unique_users', (
            SELECT COUNT(DISTINCT usage.user_id)
            FROM usage_daily_total AS day
            JOIN usage_daily AS usage ON usage.usage_date = day.usage_date AND usage.customer_id = listed.customer_id
            WHERE day.usage_date >= v_from AND day.usage_date < v_to
        )
    ) ORDER BY cost_nanos DESC, listed.customer_id), '[]') INTO v_by_customer
    FROM (
        SELECT
            customer_id,
            substr(MAX(usage_date::TEXT || customer_name), 11) AS customer_name,
            SUM(request_count) AS request_count,
            SUM(total_tokens) AS total_tokens,
            COALESCE(SUM(total_cost_nanos), 0) AS cost_nanos
        FROM usage_daily_customer
        WHERE usage_date >= v_from AND usage_date < v_to AND customer_id IS NOT NULL
        GROUP BY customer_id
        ORDER BY cost_nanos DESC, customer_id
        LIMIT 25
    ) AS listed;

    RETURN jsonb_build_object(
        'by_user', v_by_user,
        'by_customer', v_by_customer,
        'daily_trend', (
            SELECT COALESCE(jsonb_agg(jsonb_build_object(
                'date', usage_date,
                'requests', request_count,
                'tokens', total_tokens,
                'cost', tallyroll_usd(total_cost_nanos::NUMERIC, 1::NUMERIC, 4),
                'unique_users', unique_users
            ) ORDER BY usage_date), '[]')
            FROM usage_daily_total
            WHERE usage_date >= v_from AND usage_date < v_to
        ),
        'by_request_type', (
            SELECT COALESCE(jsonb_agg(jsonb_build_object(
                'request_type', request_type,
                'count', request_count,
                'tokens', total_tokens,
                'cost', tallyroll_usd(cost_nanos::NUMERIC, 1::NUMERIC, 4),
                'avg_latency', tallyroll_average(latency_ms_sum::NUMERIC, latency_count::NUMERIC)
            ) ORDER BY request_count DESC, request_type), '[]')
            FROM (
                SELECT
                    request_type,
                    SUM(request_count) AS request_count,
                    SUM(total_tokens) AS total_tokens,
                    SUM(total_cost_nanos) AS cost_nanos,
                    SUM(success_latency_ms_sum) AS latency_ms_sum,
                    SUM(success_latency_count) AS latency_count
                FROM usage_daily_type
                WHERE usage_date >= v_from AND usage_date < v_to
                GROUP BY request_type
            ) AS kind
        ),
        'current_month', (
            SELECT jsonb_build_object('requests', requests, 'tokens', tokens, 'cost_usd', tallyroll_usd(cost_nanos::NUMERIC, 1::NUMERIC, 2))
            FROM tallyroll_days(v_month, (v_month + INTERVAL '1 month')::DATE)
        ),
        'previous_month', (
            SELECT jsonb_build_object('requests', requests, 'tokens', tokens, 'cost_usd', tallyroll_usd(cost_nanos::NUMERIC, 1::NUMERIC, 2))
            FROM tallyroll_days((v_month - INTERVAL '1 month')::DATE, v_month)
        )
    ) || (
        SELECT jsonb_build_object(
            'summary', jsonb_build_object(
                'total_requests', COALESCE(SUM(request_count), 0),
                'successful_requests', COALESCE(SUM(success_count), 0),
                'failed_requests', COALESCE(SUM(error_count), 0),
                'total_input_tokens', COALESCE(SUM(input_tokens), 0),
                'total_output_tokens', COALESCE(SUM(output_tokens), 0),
                'total_tokens', COALESCE(SUM(total_tokens), 0),
                'total_cost_usd', tallyroll_usd(SUM(total_cost_nanos)::NUMERIC, 1::NUMERIC, 2),
                'avg_tokens_per_request', COALESCE(tallyroll_average(SUM(success_total_tokens)::NUMERIC, SUM(success_count)::NUMERIC), 0),
                'avg_cost_per_request', tallyroll_usd(SUM(success_cost_nanos)::NUMERIC, COALESCE(SUM(success_count), 0)::NUMERIC, 4),
                'avg_latency_ms', COALESCE(tallyroll_average(SUM(success_latency_ms_sum)::NUMERIC, SUM(success_latency_count)::NUMERIC), 0)
            ),
            'costs', jsonb_build_object(
                'input_cost_usd', tallyroll_usd(SUM(input_cost_nanos)::NUMERIC, 1::NUMERIC, 2),
                'output_cost_usd', tallyroll_usd(SUM(output_cost_nanos)::NUMERIC, 1::NUMERIC, 2),
                'total_cost_usd', tallyroll_usd(SUM(total_cost_nanos)::NUMERIC, 1::NUMERIC, 2),
                'cost_per_1k_tokens', tallyroll_usd((SUM(total_cost_nanos) * 1000)::NUMERIC, COALESCE(SUM(total_tokens), 0)::NUMERIC, 4)
            )
        )
        FROM usage_daily_total
        WHERE usage_date >= v_from AND usage_date < v_to
    );
END;
$$;

-- One user's usage of today and the p_days days before it. Only the latest requests come from the raw log.
CREATE FUNCTION tallyroll_user_usage(p_user_id UUID, p_days INTEGER, p_today DATE, p_timezone TEXT) RETURNS JSONB
LANGUAGE sql STABLE AS $$
    WITH span AS (
        SELECT
            p_today - p_days AS from_date,
            p_today + 1 AS to_date,
            (p_today - p_days)::TIMESTAMP AT TIME ZONE p_timezone AS from_at,
            (p_today + 1)::TIMESTAMP AT TIME ZONE p_timezone AS to_at
    ), daily AS (
        SELECT usage.*
        FROM span
        JOIN usage_daily_total AS day ON day.usage_date >= span.from_date AND day.usage_date < span.to_date
        JOIN usage_daily_user AS usage ON usage.usage_date = day.usage_date AND usage.user_id = p_user_id
    ), recent AS (
        (
            SELECT
                log.id,
                log.customer_name,
                log.request_type,
                log.input_tokens,
                log.output_tokens,
                log.total_tokens::BIGINT AS total_tokens,
                CASE WHEN log.cost_basis = 'generated' THEN log.total_cost_usd ELSE log.logged_cost_usd END AS cost_usd,
                log.latency_ms,
                log.status,
                log.created_at
            FROM span, ai_usage_log AS log
            WHERE log.user_id = p_user_id AND log.created_at >= span.from_at AND log.created_at < span.to_at
            ORDER BY log.created_at DESC, log.id DESC
            LIMIT 50
        )
        UNION ALL
        (
            SELECT
                request.id,
                NULL,
                COALESCE(analytics.request_type, 'chat'),
                analytics.tokens_input,
                analytics.tokens_output,
                CASE
                    WHEN analytics.tokens_input IS NULL AND analytics.tokens_output IS NULL THEN request.tokens_used::BIGINT
                    ELSE COALESCE(analytics.tokens_input, 0)::BIGINT + COALESCE(analytics.tokens_output, 0)
                END,
                request.cost * 0.01,
                request.duration,
                CASE request.status WHEN 'completed' THEN 'success' ELSE 'error' END,
                request.created_at
            FROM span, chat_requests AS request
            LEFT JOIN LATERAL (
                SELECT one.request_type, one.tokens_input, one.tokens_output
                FROM request_analytics AS one
                WHERE one.request_id = request.id
                ORDER BY one.created_at DESC, one.id DESC
                LIMIT 1
            ) AS analytics ON TRUE
            WHERE request.user_id = p_user_id AND request.created_at >= span.from_at AND request.created_at < span.to_at
                AND request.status IN ('completed', 'failed')
            ORDER BY request.created_at DESC, request.id DESC
            LIMIT 50
        )
        ORDER BY created_at DESC, id DESC
        LIMIT 50
    )
    SELECT jsonb_build_object(
        'summary', jsonb_build_object(
            'total_requests', COALESCE(SUM(request_count), 0),
            'total_tokens', COALESCE(SUM(total_tokens), 0),
            'total_cost_usd', tallyroll_usd(SUM(total_cost_nanos)::NUMERIC, 1::NUMERIC, 4),
            'avg_tokens_per_request', COALESCE(tallyroll_average(SUM(success_total_tokens)::NUMERIC, SUM(success_count)::NUMERIC), 0)
        ),
        'recent_requests', (
            SELECT COALESCE(jsonb_agg(jsonb_build_object(
                'id', id,
                'customer_name', customer_name,
                'request_type', request_type,
                'input_tokens', input_tokens,
                'output_tokens', output_tokens,
                'total_tokens', total_tokens,
                'cost', CASE WHEN cost_usd >= 0 AND cost_usd < 'NaN' THEN tallyroll_usd((round(cost_usd * 1000000000))::NUMERIC, 1::NUMERIC, 6) END,
                'latency_ms', latency_ms,
                'status', status,
                'created_at', tallyroll_instant(created_at)
            ) ORDER BY created_at DESC, id DESC), '[]')
            FROM recent
        ),
        'daily_usage', COALESCE(jsonb_agg(jsonb_build_object(
            'date', usage_date,
            'requests', request_count,
            'tokens', total_tokens,
            'cost', tallyroll_usd(total_cost_nanos::NUMERIC, 1::NUMERIC, 4)
        ) ORDER BY usage_date), '[]')
    )
    FROM daily;
$$;

CREATE FUNCTION tallyroll_cost_summary(p_today DATE) RETURNS JSONB
LANGUAGE sql STABLE AS $$
    WITH span (name, from_date, to_date) AS (
        SELECT 'today', p_today, p_today + 1
        UNION ALL SELECT 'yesterday', p_today - 1, p_today
        UNION ALL SELECT 'this_week', date_trunc('week', p_today::TIMESTAMP)::DATE, date_trunc('week', p_today::TIMESTAMP)::DATE + 7
        UNION ALL SELECT 'this_month', month, (month + INTERVAL '1 month')::DATE FROM date_trunc('month', p_today::TIMESTAMP) AS month
        UNION ALL SELECT 'last_month', (month - INTERVAL '1 month')::DATE, month FROM date_trunc('month', p_today::TIMESTAMP) AS month
        UNION ALL SELECT 'all_time', '-infinity', 'infinity'
    ), total AS (
        SELECT span.name, days.requests, tallyroll_usd(days.cost_nanos::NUMERIC, 1::NUMERIC, 2) AS cost_usd
        FROM span, tallyroll_days(span.from_date::DATE, span.to_date::DATE) AS days
    )
    SELECT jsonb_object_agg(name, cost_usd) || jsonb_build_object(
        'requests_today', MAX(requests) FILTER (WHERE name = 'today'),
        'requests_this_month', MAX(requests) FILTER (WHERE name = 'this_month')
    )
    FROM total;
$$;

CREATE OR REPLACE FUNCTION get_ai_usage_dashboard(p_days INTEGER DEFAULT 30) RETURNS JSONB
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
DECLARE
    v_kept JSONB;
BEGIN
    IF NOT tallyroll_is_admin() THEN
        RAISE EXCEPTION 'The usage of everyone is for admins' USING ERRCODE = 'insufficient_privilege',
            HINT = 'get_user_ai_usage shows a user its own usage.';
    END IF;
    PERFORM tallyroll_check_days(p_days);
    -- What the job usage_dashboard keeps, as long as it is of today.
    SELECT kept.content INTO v_kept
    FROM usage_dashboard AS kept
    JOIN job_window AS written ON written.job = 'usage_dashboard' AND written.state = 'done'
    WHERE kept.dashboard_key = 'admin:' || p_days
        AND (kept.last_calculated_at AT TIME ZONE written.timezone)::DATE = tallyroll_today();
    RETURN COALESCE(v_kept, tallyroll_usage_dashboard(p_days, tallyroll_today()));
END;
$$;

CREATE OR REPLACE FUNCTION get_user_ai_usage(p_user_id UUID, p_days INTEGER DEFAULT 30) RETURNS JSONB
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    IF NOT (COALESCE(p_user_id = tallyroll_current_user_id(), FALSE) OR tallyroll_is_admin()) THEN
        RAISE EXCEPTION 'The usage of user % is for that user and for admins', p_user_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM tallyroll_check_days(p_days);
    RETURN tallyroll_user_usage(
        p_user_id,
        p_days,
        tallyroll_today(),
        COALESCE((SELECT timezone FROM job_window WHERE job = 'usage_daily_total' LIMIT 1), 'UTC')
    );
END;
$$;

CREATE OR REPLACE FUNCTION get_ai_cost_summary() RETURNS JSONB
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    IF NOT tallyroll_is_admin() THEN
        RAISE EXCEPTION 'The costs of everyone are for admins' USING ERRCODE = 'insufficient_privilege',
            HINT = 'get_user_ai_usage shows a user its own usage.';
    END IF;
    RETURN tallyroll_cost_summary(tallyroll_today());
END;
$$;

CREATE OR REPLACE FUNCTION log_ai_usage(
    p_user_id UUID,
    p_user_email TEXT DEFAULT NULL,
    p_customer_id INTEGER DEFAULT NULL,
    p_customer_name TEXT DEFAULT NULL,
    p_request_type TEXT DEFAULT 'report',
    p_session_id TEXT DEFAULT NULL,
    p_input_tokens INTEGER DEFAULT 0,
    p_output_tokens INTEGER DEFAULT 0,
    p_model_used TEXT DEFAULT 'claude-sonnet-4-20250514',
    p_latency_ms INTEGER DEFAULT NULL,
    p_tool_turns INTEGER DEFAULT 0,
    p_status TEXT DEFAULT 'success',
    p_error_message TEXT DEFAULT NULL
) RETURNS UUID
LANGUAGE sql SECURITY DEFINER AS $$
    INSERT INTO ai_usage_log (
        user_id, user_email, customer_id, customer_name, request_type, session_id, input_tokens, output_tokens, model_used, latency_ms,
        tool_turns, status, error_message
    ) VALUES (
        p_user_id, p_user_email, p_customer_id, p_customer_name, COALESCE(p_request_type, 'report'), p_session_id,
        COALESCE(p_input_tokens, 0), COALESCE(p_output_tokens, 0), p_model_used, p_latency_ms, p_tool_turns,
        COALESCE(p_status, 'success'), p_error_message
    )
    RETURNING id;
$$;

-- Begins a chat request, with what sorts it: it counts once it is complete.
CREATE OR REPLACE FUNCTION track_chat_request(
    p_user_id UUID,
    p_prompt TEXT DEFAULT NULL,
    p_session_id TEXT DEFAULT NULL,
    p_model TEXT DEFAULT NULL,
    p_request_type TEXT DEFAULT 'chat',
    p_category TEXT DEFAULT NULL,
    p_complexity TEXT DEFAULT NULL
) RETURNS UUID
LANGUAGE sql SECURITY DEFINER AS $$
    WITH request AS (
        INSERT INTO chat_requests (user_id, session_id, prompt, model, status, started_at)
        VALUES (p_user_id, p_session_id, p_prompt, p_model, 'pending', now())
        RETURNING id, user_id
    ), analytics AS (
        INSERT INTO request_analytics (user_id, request_id, request_type, category, complexity)
        SELECT user_id, id, p_request_type, p_category, p_complexity
        FROM request
    )
    SELECT id FROM request;
$$;

-- Completes a chat request. Called again, it adds what is known only later, a rating say: what is NULL stays as it was.
CREATE OR REPLACE FUNCTION complete_chat_request(
    p_request_id UUID,
    p_status TEXT DEFAULT NULL,
    p_response TEXT DEFAULT NULL,
    p_tokens_used INTEGER DEFAULT NULL,
    p_cost INTEGER DEFAULT NULL,
    p_duration INTEGER DEFAULT NULL,
    p_user_rating INTEGER DEFAULT NULL,
    p_tokens_input INTEGER DEFAULT NULL,
    p_tokens_output INTEGER DEFAULT NULL,
    p_error_message TEXT DEFAULT NULL
) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF p_status NOT IN ('completed', 'failed') THEN
        RAISE EXCEPTION 'A chat request ends as completed or failed, not as %', p_status USING ERRCODE = 'invalid_parameter_value';
    END IF;
    UPDATE chat_requests
    SET status = COALESCE(p_status, NULLIF(status, 'pending'), 'completed'),
        response = COALESCE(p_response, response),
        tokens_used = COALESCE(p_tokens_used, tokens_used, CASE
            WHEN COALESCE(p_tokens_input, p_tokens_output) IS NOT NULL
                THEN LEAST(COALESCE(p_tokens_input, 0)::BIGINT + COALESCE(p_tokens_output, 0), 2147483647)
        END),
        cost = COALESCE(p_cost, cost),
        duration = COALESCE(p_duration, duration),
        error_message = COALESCE(p_error_message, error_message),
        completed_at = COALESCE(completed_at, now())
    WHERE id = p_request_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no chat request %', p_request_id USING ERRCODE = 'no_data_found',
            HINT = 'track_chat_request gives the id of one.';
    END IF;
    UPDATE request_analytics
    SET user_rating = COALESCE(p_user_rating, user_rating),
        tokens_input = COALESCE(p_tokens_input, tokens_input),
        tokens_output = COALESCE(p_tokens_output, tokens_output),
        response_time = COALESCE(p_duration, response_time),
        was_successful = (SELECT status = 'completed' FROM chat_requests WHERE id = p_request_id)
    WHERE id = (SELECT id FROM request_analytics WHERE request_id = p_request_id ORDER BY created_at DESC, id DESC LIMIT 1);
    IF NOT FOUND AND COALESCE(p_user_rating, p_tokens_input, p_tokens_output) IS NOT NULL THEN
        INSERT INTO request_analytics (user_id, request_id, tokens_input, tokens_output, user_rating, was_successful)
        SELECT user_id, id, p_tokens_input, p_tokens_output, p_user_rating, status = 'completed'
        FROM chat_requests
        WHERE id = p_request_id;
    END IF;
END;
$$;

-- Every function looks in this schema first and in the session's temporary one last: a table of the same name that a caller makes
-- for itself is never found. None is executable by everyone; sql/roles.sql says by whom. Applications record seats by functions, too,
-- and need no right on the tables behind them.
DO $$
DECLARE
    v_function REGPROCEDURE;
BEGIN
    FOR v_function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = current_schema()::REGNAMESPACE AND (proname LIKE 'tallyroll\_%' OR proname IN (
            'log_ai_usage', 'track_chat_request', 'complete_chat_request', 'get_ai_usage_dashboard', 'get_user_ai_usage',
            'get_ai_cost_summary', 'record_seat_change', 'upsert_seat_assignment', 'remove_seat_assignment', 'record_ai_seat_usage'
        ))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', v_function, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
        IF (SELECT proname LIKE '%seat%' AND proname NOT LIKE 'tallyroll\_%' FROM pg_proc WHERE oid = v_function) THEN
            EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', v_function);
        END IF;
    END LOOP;
END;
$$;
