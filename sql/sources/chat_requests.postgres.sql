-- Maps chat_requests to usage events (docs/semantics.md section 3). Edit this file to read other tables.

-- name: events
-- Grain: one usage event. Input: the rows of [:window_start, :window_end). A field that the table lacks is a typed NULL.
SELECT
    request.id AS event_id,
    request.created_at AS occurred_at,
    request.user_id AS user_id,
    -- A request logs no label, and one read from users would change behind the window's back.
    CAST(NULL AS TEXT) AS user_email,
    CAST(NULL AS BIGINT) AS customer_id,
    CAST(NULL AS TEXT) AS customer_name,
    COALESCE(analytics.request_type, 'chat') AS request_type,
    analytics.category AS category,
    request.model AS model,
    analytics.tokens_input AS input_tokens,
    analytics.tokens_output AS output_tokens,
    -- Analytics that only rate or sort a request leave its tokens to the request.
    CASE
        WHEN analytics.tokens_input IS NULL AND analytics.tokens_output IS NULL THEN CAST(request.tokens_used AS BIGINT)
        ELSE CAST(COALESCE(analytics.tokens_input, 0) AS BIGINT) + COALESCE(analytics.tokens_output, 0)
    END AS total_tokens,
    CAST(NULL AS NUMERIC) AS input_cost_usd,
    CAST(NULL AS NUMERIC) AS output_cost_usd,
    CAST(request.cost AS NUMERIC) / 100 AS total_cost_usd,
    request.duration AS latency_ms,
    CASE request.status WHEN 'completed' THEN 'success' ELSE 'error' END AS status,
    analytics.user_rating AS rating,
    CAST(0 AS BIGINT) AS tool_turns
FROM chat_requests AS request
-- Nothing keeps a request from having several analytics rows; the latest one describes it.
LEFT JOIN LATERAL (
    SELECT
        one.request_type AS request_type,
        one.category AS category,
        one.tokens_input AS tokens_input,
        one.tokens_output AS tokens_output,
        one.user_rating AS user_rating
    FROM request_analytics AS one
    WHERE one.request_id = request.id
    ORDER BY one.created_at DESC, one.id DESC
    LIMIT 1
) AS analytics ON TRUE
-- A pending request is not an event yet; its update marks the day.
WHERE request.created_at >= :window_start AND request.created_at < :window_end
    AND request.status IN ('completed', 'failed')

-- name: changed
-- Quarters of an hour that hold rows which the snapshot :seen did not see, or that a trigger marked.
SELECT DISTINCT to_timestamp(floor(extract(EPOCH FROM created_at) / 900) * 900) AS slot_start, 'new rows' AS reason
FROM chat_requests
-- PostgreSQL counts past the calendar that windows have, to infinity: such a row lies in no day and is never read.
WHERE created_at >= '0001-01-02' AND created_at < '9999-12-01'
    AND ingest_xid >= pg_snapshot_xmin(CAST(:seen AS PG_SNAPSHOT))
    AND NOT pg_visible_in_snapshot(ingest_xid, CAST(:seen AS PG_SNAPSHOT))
UNION
SELECT slot_start, 'rows updated or deleted' AS reason
FROM usage_dirty_day
WHERE source = 'chat_requests' AND slot_start >= '0001-01-02' AND slot_start < '9999-12-01'

-- name: position
-- The snapshot says which transactions had ended. Rows of one that had not are found by the next run, whenever it commits.
-- A server whose counter is behind what was seen is a restored copy.
SELECT
    CAST(pg_current_snapshot() AS TEXT) AS position,
    COALESCE(pg_snapshot_xmax(CAST(:seen AS PG_SNAPSHOT)) > pg_snapshot_xmax(pg_current_snapshot()), FALSE) AS is_behind

-- name: next_event
SELECT MIN(created_at) AS occurred_at FROM chat_requests WHERE created_at >= :from AND created_at < '9999-12-01'

-- name: archive request_analytics
-- Where the rows stand that the events of [:window_start, :window_end) are made from, and of which event each is. A table comes before
-- those that it refers to.
SELECT request.id AS event_id, analytics.ctid AS place
FROM request_analytics AS analytics
JOIN chat_requests AS request ON request.id = analytics.request_id
WHERE request.created_at >= :window_start AND request.created_at < :window_end AND request.status IN ('completed', 'failed')

-- name: archive chat_requests
SELECT id AS event_id, ctid AS place
FROM chat_requests
WHERE created_at >= :window_start AND created_at < :window_end AND status IN ('completed', 'failed')
