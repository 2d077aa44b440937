-- Maps chat_requests to usage events (docs/semantics.md section 3). Edit this file to read other tables.

-- name: events
-- Grain: one usage event. Input: the rows of [:window_start, :window_end).
SELECT
    request.id AS event_id,
    request.created_at AS occurred_at,
    request.user_id AS user_id,
    -- A request logs no label, and one read from users would change behind the window's back.
    NULL AS user_email,
    CAST(NULL AS BIGINT) AS customer_id,
    CAST(NULL AS TEXT) AS customer_name,
    COALESCE(analytics.request_type, 'chat') AS request_type,
    analytics.category AS category,
    request.model AS model,
    analytics.tokens_input AS input_tokens,
    analytics.tokens_output AS output_tokens,
    -- Analytics that only rate or sort a request leave its tokens to the request.
    CASE
        WHEN analytics.tokens_input IS NULL AND analytics.tokens_output IS NULL THEN request.tokens_used
        ELSE COALESCE(analytics.tokens_input, 0) + COALESCE(analytics.tokens_output, 0)
    END AS total_tokens,
    NULL AS input_cost_nanos,
    NULL AS output_cost_nanos,
    request.cost * 10000000 AS total_cost_nanos,
    request.duration AS latency_ms,
    CASE request.status WHEN 'completed' THEN 'success' ELSE 'error' END AS status,
    analytics.user_rating AS rating,
    CAST(0 AS BIGINT) AS tool_turns
FROM chat_requests AS request
-- Nothing keeps a request from having several analytics rows; the latest one describes it.
LEFT JOIN request_analytics AS analytics ON analytics.id = (
    SELECT one.id
    FROM request_analytics AS one
    WHERE one.request_id = request.id
    ORDER BY one.created_at DESC, one.id DESC
    LIMIT 1
)
-- A pending request is not an event yet; its update marks the day.
WHERE request.created_at >= :window_start AND request.created_at < :window_end
    AND request.status IN ('completed', 'failed')

-- name: changed
-- Quarters of an hour that hold rows numbered from :seen on, or that a trigger marked.
SELECT DISTINCT substr(created_at, 1, 14) || printf('%02d:00.000000Z', substr(created_at, 15, 2) / 15 * 15) AS slot_start, 'new rows' AS reason
FROM chat_requests
WHERE created_at >= '0001-01-02' AND created_at < '9999-12-01' AND ingest_seq >= CAST(:seen AS INTEGER)
UNION
SELECT slot_start, 'rows updated or deleted' AS reason
FROM usage_dirty_day
WHERE source = 'chat_requests' AND slot_start >= '0001-01-02' AND slot_start < '9999-12-01'

-- name: position
-- AUTOINCREMENT never gives a number twice, and there is one writer at a time: the next row's number is the position.
-- Numbers that went back mean a restored copy.
SELECT
    CAST(COALESCE(MAX(seq), 0) + 1 AS TEXT) AS position,
    COALESCE(CAST(:seen AS INTEGER) > COALESCE(MAX(seq), 0) + 1, FALSE) AS is_behind
FROM sqlite_sequence
WHERE name = 'chat_requests'

-- name: next_event
SELECT MIN(created_at) AS occurred_at FROM chat_requests WHERE created_at >= :from AND created_at < '9999-12-01'

-- name: archive request_analytics
-- Where the rows stand that the events of [:window_start, :window_end) are made from, and of which event each is. A table comes before
-- those that it refers to.
SELECT request.id AS event_id, analytics.rowid AS place
FROM request_analytics AS analytics
JOIN chat_requests AS request ON request.id = analytics.request_id
WHERE request.created_at >= :window_start AND request.created_at < :window_end AND request.status IN ('completed', 'failed')

-- name: archive chat_requests
SELECT id AS event_id, rowid AS place
FROM chat_requests
WHERE created_at >= :window_start AND created_at < :window_end AND status IN ('completed', 'failed')
