-- A user's latest requests come from the raw log. The views show whoever asks its own, an admin everyone's; they read with the rights of
-- their owner. `details` are found by name in the whole row, so that the application's migrations may change those columns, and are
-- computed for no row that is not shown.

CREATE OR REPLACE VIEW tallyroll.tallyroll_visible_usage WITH (security_barrier = true) AS
SELECT
    log.id,
    log.user_id,
    log.created_at,
    (
        SELECT jsonb_build_object(
            'customer_name', customer_name,
            'request_type', request_type,
            'input_tokens', input_tokens,
            'output_tokens', output_tokens,
            'total_tokens', total_tokens,
            'cost', tallyroll.tallyroll_logged_cost(CASE WHEN cost_basis = 'generated' THEN total_cost_usd ELSE logged_cost_usd END),
            'latency_ms', latency_ms,
            'status', status
        )
        FROM jsonb_to_record(to_jsonb(log)) AS kept (
            customer_name TEXT, request_type TEXT, input_tokens NUMERIC, output_tokens NUMERIC, total_tokens NUMERIC, cost_basis TEXT,
            total_cost_usd NUMERIC, logged_cost_usd NUMERIC, latency_ms NUMERIC, status TEXT
        )
    ) AS details
FROM {app}.ai_usage_log AS log
WHERE log.user_id = (SELECT tallyroll.tallyroll_current_user_id()) OR (SELECT tallyroll.tallyroll_is_admin());

CREATE OR REPLACE VIEW tallyroll.tallyroll_visible_chat WITH (security_barrier = true) AS
SELECT
    request.id,
    request.user_id,
    request.created_at,
    (
        SELECT jsonb_build_object(
            'customer_name', NULL,
            'request_type', COALESCE(request_type, 'chat'),
            'input_tokens', tokens_input,
            'output_tokens', tokens_output,
            'total_tokens', CASE
                WHEN tokens_input IS NULL AND tokens_output IS NULL THEN tokens_used
                ELSE COALESCE(tokens_input, 0) + COALESCE(tokens_output, 0)
            END,
            'cost', tallyroll.tallyroll_logged_cost(kept.cost * 0.01),
            'latency_ms', kept.duration,
            'status', CASE request.status WHEN 'completed' THEN 'success' ELSE 'error' END
        )
        FROM jsonb_to_record(to_jsonb(request)) AS kept (tokens_used NUMERIC, cost NUMERIC, duration NUMERIC)
        LEFT JOIN LATERAL (
            SELECT known.*
            FROM {app}.request_analytics AS latest,
                LATERAL jsonb_to_record(to_jsonb(latest)) AS known (request_type TEXT, tokens_input NUMERIC, tokens_output NUMERIC)
            WHERE latest.request_id = request.id
            ORDER BY latest.created_at DESC, latest.id DESC
            LIMIT 1
        ) AS analytics ON TRUE
    ) AS details
FROM {app}.chat_requests AS request
WHERE request.status IN ('completed', 'failed')
    AND (request.user_id = (SELECT tallyroll.tallyroll_current_user_id()) OR (SELECT tallyroll.tallyroll_is_admin()));

CREATE OR REPLACE VIEW tallyroll.tallyroll_visible_event WITH (security_barrier = true) AS
SELECT
    event.source_name || '/' || event.event_id AS id,
    event.user_id,
    event.occurred_at AS created_at,
    jsonb_build_object(
        'customer_name', event.customer_name,
        'request_type', event.request_type,
        'input_tokens', event.input_tokens,
        'output_tokens', event.output_tokens,
        'total_tokens', COALESCE(event.total_tokens::NUMERIC, event.input_tokens::NUMERIC + event.output_tokens),
        'cost', tallyroll.tallyroll_logged_cost(event.cost_usd),
        'latency_ms', event.latency_ms,
        'status', event.status
    ) AS details
FROM {app}.usage_event AS event
WHERE event.user_id = (SELECT tallyroll.tallyroll_current_user_id())::TEXT OR (SELECT tallyroll.tallyroll_is_admin());
