-- The reading functions of the usage-tracking seed, by its names and signatures: they answer from the summaries (docs/semantics.md
-- section 8), with the rights of whoever asks: row-level security shows an admin everything, a user its own (sql/roles.sql).

CREATE OR REPLACE FUNCTION tallyroll.tallyroll_follow_requests_used() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    UPDATE {app}.users
    SET requests_used = LEAST(dashboard.monthly_used, 2147483647)
    FROM new_rows AS dashboard
    WHERE users.id = dashboard.user_id AND users.requests_used IS DISTINCT FROM LEAST(dashboard.monthly_used, 2147483647);
    RETURN NULL;
END;
$$;

-- The admin's dashboard of today and the p_days days before it, computed afresh.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_usage_dashboard(p_days INTEGER, p_today DATE) RETURNS JSONB
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
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
        'total_cost', tallyroll.tallyroll_cost(cost_nanos::NUMERIC, request_count::NUMERIC, 4),
        'avg_cost_per_request', tallyroll.tallyroll_cost_of_each(success_cost_nanos::NUMERIC, success_priced_count::NUMERIC, success_count::NUMERIC, 6),
        'last_request', tallyroll.tallyroll_instant(last_request_at)
    ) ORDER BY COALESCE(cost_nanos, 0) DESC, user_id), '[]') INTO v_by_user
    FROM (
        WITH cost AS (
            SELECT user_id, total_cost_nanos FROM tallyroll.usage_monthly_user WHERE usage_month >= v_whole_from AND usage_month < v_whole_to
            UNION ALL
            SELECT user_id, total_cost_nanos FROM tallyroll.usage_daily_user WHERE usage_date >= v_from AND usage_date < v_whole_from
            UNION ALL
            SELECT user_id, total_cost_nanos FROM tallyroll.usage_daily_user WHERE usage_date >= v_whole_to AND usage_date < v_to
        ), listed AS (
            SELECT user_id FROM cost GROUP BY user_id ORDER BY COALESCE(SUM(total_cost_nanos), 0) DESC, user_id LIMIT 25
        )
        SELECT
            listed.user_id,
            substr(MAX(to_char(usage.usage_date, 'YYYY-MM-DD') || user_email), 11) AS user_email,
            SUM(usage.request_count) AS request_count,
            SUM(usage.input_tokens) AS input_tokens,
            SUM(usage.output_tokens) AS output_tokens,
            SUM(usage.total_tokens) AS total_tokens,
            SUM(usage.total_cost_nanos) AS cost_nanos,
            SUM(usage.success_count) AS success_count,
            SUM(usage.success_priced_count) AS success_priced_count,
            SUM(usage.success_cost_nanos) AS success_cost_nanos,
            MAX(usage.last_request_at) AS last_request_at
        FROM listed
        JOIN tallyroll.usage_daily_total AS day ON day.usage_date >= v_from AND day.usage_date < v_to
        JOIN tallyroll.usage_daily_user AS usage ON usage.usage_date = day.usage_date AND usage.user_id = listed.user_id
        GROUP BY listed.user_id
    ) AS users;

    SELECT COALESCE(jsonb_agg(jsonb_build_object(
        -- As the seed has it where it is such a number.
        'customer_id', CASE
            WHEN listed.customer_id ~ '^(0|-?[1-9][0-9]{0,17})$' THEN to_jsonb(listed.customer_id::BIGINT)
            ELSE to_jsonb(listed.customer_id)
        END,
        'customer_name', COALESCE(customer_name, 'Unknown'),
        'request_count', request_count,
        'total_tokens', total_tokens,
        'total_cost', tallyroll.tallyroll_cost(cost_nanos::NUMERIC, request_count::NUMERIC, 4),
        'unique_users', (
            SELECT COUNT(DISTINCT usage.user_id)
            FROM tallyroll.usage_daily_total AS day
            JOIN tallyroll.usage_daily AS usage ON usage.usage_date = day.usage_date AND usage.customer_id = listed.customer_id
            WHERE day.usage_date >= v_from AND day.usage_date < v_to
        )
    ) ORDER BY COALESCE(cost_nanos, 0) DESC, listed.customer_id), '[]') INTO v_by_customer
    FROM (
        SELECT
            customer_id,
            substr(MAX(to_char(usage_date, 'YYYY-MM-DD') || customer_name), 11) AS customer_name,
            SUM(request_count) AS request_count,
            SUM(total_tokens) AS total_tokens,
            SUM(total_cost_nanos) AS cost_nanos
        FROM tallyroll.usage_daily_customer
        WHERE usage_date >= v_from AND usage_date < v_to AND customer_id IS NOT NULL
        GROUP BY customer_id
        ORDER BY COALESCE(SUM(total_cost_nanos), 0) DESC, customer_id
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
                'cost', tallyroll.tallyroll_cost(total_cost_nanos::NUMERIC, request_count::NUMERIC, 4),
                'unique_users', unique_users
            ) ORDER BY usage_date), '[]')
            FROM tallyroll.usage_daily_total
            WHERE usage_date >= v_from AND usage_date < v_to
        ),
        'by_request_type', (
            SELECT COALESCE(jsonb_agg(jsonb_build_object(
                'request_type', request_type,
                'count', request_count,
                'tokens', total_tokens,
                'cost', tallyroll.tallyroll_cost(cost_nanos::NUMERIC, request_count::NUMERIC, 4),
                'avg_latency', tallyroll.tallyroll_average(latency_ms_sum::NUMERIC, latency_count::NUMERIC)
            ) ORDER BY request_count DESC, request_type), '[]')
            FROM (
                SELECT
                    request_type,
                    SUM(request_count) AS request_count,
                    SUM(total_tokens) AS total_tokens,
                    SUM(total_cost_nanos) AS cost_nanos,
                    SUM(success_latency_ms_sum) AS latency_ms_sum,
                    SUM(success_latency_count) AS latency_count
                FROM tallyroll.usage_daily_type
                WHERE usage_date >= v_from AND usage_date < v_to
                GROUP BY request_type
            ) AS kind
        ),
        'current_month', (
            SELECT jsonb_build_object('requests', requests, 'tokens', tokens, 'cost_usd', tallyroll.tallyroll_cost(cost_nanos::NUMERIC, requests::NUMERIC, 2))
            FROM tallyroll.tallyroll_days(v_month, (v_month + INTERVAL '1 month')::DATE)
        ),
        'previous_month', (
            SELECT jsonb_build_object('requests', requests, 'tokens', tokens, 'cost_usd', tallyroll.tallyroll_cost(cost_nanos::NUMERIC, requests::NUMERIC, 2))
            FROM tallyroll.tallyroll_days((v_month - INTERVAL '1 month')::DATE, v_month)
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
                'total_cost_usd', tallyroll.tallyroll_cost(SUM(total_cost_nanos)::NUMERIC, SUM(request_count)::NUMERIC, 2),
                'avg_tokens_per_request', COALESCE(tallyroll.tallyroll_average(SUM(success_total_tokens)::NUMERIC, SUM(success_count)::NUMERIC), 0),
                'avg_cost_per_request', tallyroll.tallyroll_cost_of_each(
                    SUM(success_cost_nanos)::NUMERIC, SUM(success_priced_count)::NUMERIC, SUM(success_count)::NUMERIC, 4
                ),
                'avg_latency_ms', tallyroll.tallyroll_average(SUM(success_latency_ms_sum)::NUMERIC, SUM(success_latency_count)::NUMERIC)
            ),
            'costs', jsonb_build_object(
                'input_cost_usd', tallyroll.tallyroll_cost(SUM(input_cost_nanos)::NUMERIC, SUM(request_count)::NUMERIC, 2),
                'output_cost_usd', tallyroll.tallyroll_cost(SUM(output_cost_nanos)::NUMERIC, SUM(request_count)::NUMERIC, 2),
                'total_cost_usd', tallyroll.tallyroll_cost(SUM(total_cost_nanos)::NUMERIC, SUM(request_count)::NUMERIC, 2),
                'cost_per_1k_tokens', tallyroll.tallyroll_cost_of_each(
                    (SUM(total_cost_nanos) * 1000)::NUMERIC, SUM(priced_tokens)::NUMERIC, SUM(total_tokens)::NUMERIC, 4
                )
            )
        )
        FROM tallyroll.usage_daily_total
        WHERE usage_date >= v_from AND usage_date < v_to
    );
END;
$$;

-- One user's usage of today and the p_days days before it. Only the latest requests come from the raw log.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_user_usage(p_user_id UUID, p_days INTEGER, p_today DATE, p_timezone TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH span AS (
        SELECT
            p_today - p_days AS from_date,
            p_today + 1 AS to_date,
            (p_today - p_days)::TIMESTAMP AT TIME ZONE p_timezone AS from_at,
            (p_today + 1)::TIMESTAMP AT TIME ZONE p_timezone AS to_at
    ), daily AS (
        SELECT usage.*
        FROM span, tallyroll.usage_daily_user AS usage
        WHERE usage.usage_date >= span.from_date AND usage.usage_date < span.to_date AND usage.user_id = p_user_id::TEXT
    ), recent AS (
        (
            SELECT 'usage' AS kind, log.id::TEXT COLLATE "C" AS id, log.created_at
            FROM span, tallyroll.tallyroll_visible_usage AS log
            WHERE log.user_id = p_user_id AND log.created_at >= span.from_at AND log.created_at < span.to_at
            ORDER BY log.created_at DESC, log.id DESC
            LIMIT 50
        )
        UNION ALL
        (
            SELECT 'chat', request.id::TEXT, request.created_at
            FROM span, tallyroll.tallyroll_visible_chat AS request
            WHERE request.user_id = p_user_id AND request.created_at >= span.from_at AND request.created_at < span.to_at
            ORDER BY request.created_at DESC, request.id DESC
            LIMIT 50
        )
        UNION ALL
        (
            SELECT 'event', event.id, event.created_at
            FROM span, tallyroll.tallyroll_visible_event AS event
            WHERE event.user_id = p_user_id::TEXT AND event.created_at >= span.from_at AND event.created_at < span.to_at
            ORDER BY event.created_at DESC, event.id DESC
            LIMIT 50
        )
        ORDER BY created_at DESC, id DESC
        LIMIT 50
    )
    SELECT jsonb_build_object(
        'summary', jsonb_build_object(
            'total_requests', COALESCE(SUM(request_count), 0),
            'total_tokens', COALESCE(SUM(total_tokens), 0),
            'total_cost_usd', tallyroll.tallyroll_cost(SUM(total_cost_nanos)::NUMERIC, SUM(request_count)::NUMERIC, 4),
            'avg_tokens_per_request', COALESCE(tallyroll.tallyroll_average(SUM(success_total_tokens)::NUMERIC, SUM(success_count)::NUMERIC), 0)
        ),
        'recent_requests', (
            SELECT COALESCE(jsonb_agg(jsonb_build_object('id', id, 'created_at', tallyroll.tallyroll_instant(created_at)) || CASE kind
                WHEN 'chat' THEN (SELECT request.details FROM tallyroll.tallyroll_visible_chat AS request WHERE request.id = recent.id::UUID)
                WHEN 'event' THEN (
                    SELECT event.details
                    FROM tallyroll.tallyroll_visible_event AS event
                    WHERE event.user_id = p_user_id::TEXT AND event.created_at = recent.created_at AND event.id = recent.id
                )
                ELSE (SELECT log.details FROM tallyroll.tallyroll_visible_usage AS log WHERE log.id = recent.id::UUID)
            END ORDER BY created_at DESC, id DESC), '[]')
            FROM recent
        ),
        'daily_usage', COALESCE(jsonb_agg(jsonb_build_object(
            'date', usage_date,
            'requests', request_count,
            'tokens', total_tokens,
            'cost', tallyroll.tallyroll_cost(total_cost_nanos::NUMERIC, request_count::NUMERIC, 4)
        ) ORDER BY usage_date), '[]')
    )
    FROM daily;
$$;

CREATE OR REPLACE FUNCTION tallyroll.tallyroll_cost_summary(p_today DATE) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH span (name, from_date, to_date) AS (
        SELECT 'today', p_today, p_today + 1
        UNION ALL SELECT 'yesterday', p_today - 1, p_today
        UNION ALL SELECT 'this_week', date_trunc('week', p_today::TIMESTAMP)::DATE, date_trunc('week', p_today::TIMESTAMP)::DATE + 7
        UNION ALL SELECT 'this_month', month, (month + INTERVAL '1 month')::DATE FROM date_trunc('month', p_today::TIMESTAMP) AS month
        UNION ALL SELECT 'last_month', (month - INTERVAL '1 month')::DATE, month FROM date_trunc('month', p_today::TIMESTAMP) AS month
        UNION ALL SELECT 'all_time', '-infinity', 'infinity'
    ), total AS (
        SELECT span.name, days.requests, tallyroll.tallyroll_cost(days.cost_nanos::NUMERIC, days.requests::NUMERIC, 2) AS cost_usd
        FROM span, tallyroll.tallyroll_days(span.from_date::DATE, span.to_date::DATE) AS days
    )
    SELECT jsonb_object_agg(name, cost_usd) || jsonb_build_object(
        'requests_today', MAX(requests) FILTER (WHERE name = 'today'),
        'requests_this_month', MAX(requests) FILTER (WHERE name = 'this_month')
    )
    FROM total;
$$;

CREATE OR REPLACE FUNCTION {app}.get_ai_usage_dashboard(p_days INTEGER DEFAULT 30) RETURNS JSONB
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_kept JSONB;
BEGIN
    IF NOT tallyroll.tallyroll_is_admin() THEN
        RAISE EXCEPTION 'The usage of everyone is for admins' USING ERRCODE = 'insufficient_privilege',
            HINT = 'get_user_ai_usage shows a user its own usage.';
    END IF;
    PERFORM tallyroll.tallyroll_check_days(p_days);
    -- What the job usage_dashboard keeps, as long as it is of today.
    SELECT content INTO v_kept
    FROM tallyroll.usage_dashboard
    WHERE dashboard_key = 'admin:' || p_days
        AND (last_calculated_at AT TIME ZONE tallyroll.tallyroll_timezone('usage_dashboard'))::DATE = tallyroll.tallyroll_today();
    RETURN COALESCE(v_kept, tallyroll.tallyroll_usage_dashboard(p_days, tallyroll.tallyroll_today()));
END;
$$;

CREATE OR REPLACE FUNCTION {app}.get_user_ai_usage(p_user_id UUID, p_days INTEGER DEFAULT 30) RETURNS JSONB
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT (COALESCE(p_user_id = tallyroll.tallyroll_current_user_id(), FALSE) OR tallyroll.tallyroll_is_admin()) THEN
        RAISE EXCEPTION 'The usage of user % is for that user and for admins', p_user_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM tallyroll.tallyroll_check_days(p_days);
    RETURN tallyroll.tallyroll_user_usage(
        p_user_id,
        p_days,
        tallyroll.tallyroll_today(),
        COALESCE(tallyroll.tallyroll_timezone('usage_daily_total'), 'UTC')
    );
END;
$$;

CREATE OR REPLACE FUNCTION {app}.get_ai_cost_summary() RETURNS JSONB
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT tallyroll.tallyroll_is_admin() THEN
        RAISE EXCEPTION 'The costs of everyone are for admins' USING ERRCODE = 'insufficient_privilege',
            HINT = 'get_user_ai_usage shows a user its own usage.';
    END IF;
    RETURN tallyroll.tallyroll_cost_summary(tallyroll.tallyroll_today());
END;
$$;
