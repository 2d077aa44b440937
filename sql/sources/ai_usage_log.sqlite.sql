-- Maps ai_usage_log to usage events (docs/semantics.md section 3). Edit this file to read other tables.

-- name: events
-- Grain: one usage event. Input: the rows of [:window_start, :window_end). Totals and costs are computed as the generated columns
-- are, which cannot be read where they do not fit: here they become a number that does not fit, and the event is quarantined.
SELECT
    id AS event_id,
    created_at AS occurred_at,
    user_id AS user_id,
    user_email AS user_email,
    customer_id AS customer_id,
    customer_name AS customer_name,
    request_type AS request_type,
    NULL AS category,
    model_used AS model,
    input_tokens AS input_tokens,
    output_tokens AS output_tokens,
    input_tokens + output_tokens AS total_tokens,
    CASE WHEN cost_basis = 'generated' THEN input_tokens * 3000 END AS input_cost_nanos,
    CASE WHEN cost_basis = 'generated' THEN output_tokens * 15000 END AS output_cost_nanos,
    CASE WHEN cost_basis = 'generated' THEN input_tokens * 3000 + output_tokens * 15000 ELSE logged_cost_nanos END AS total_cost_nanos,
    latency_ms AS latency_ms,
    status AS status,
    NULL AS rating,
    tool_turns AS tool_turns
FROM ai_usage_log
WHERE created_at >= :window_start AND created_at < :window_end

-- name: changed
-- Quarters of an hour that hold rows numbered from :seen on, or that a trigger marked.
SELECT DISTINCT substr(created_at, 1, 14) || printf('%02d:00.000000Z', substr(created_at, 15, 2) / 15 * 15) AS slot_start, 'new rows' AS reason
FROM ai_usage_log
WHERE created_at >= '0001-01-02' AND created_at < '9999-12-01' AND ingest_seq >= CAST(:seen AS INTEGER)
UNION
SELECT slot_start, 'rows updated or deleted' AS reason
FROM usage_dirty_day
WHERE source = 'ai_usage_log' AND slot_start >= '0001-01-02' AND slot_start < '9999-12-01'

-- name: position
-- AUTOINCREMENT never gives a number twice, and there is one writer at a time: the next row's number is the position.
-- Numbers that went back mean a restored copy.
SELECT
    CAST(COALESCE(MAX(seq), 0) + 1 AS TEXT) AS position,
    COALESCE(CAST(:seen AS INTEGER) > COALESCE(MAX(seq), 0) + 1, FALSE) AS is_behind
FROM sqlite_sequence
WHERE name = 'ai_usage_log'

-- name: next_event
SELECT MIN(created_at) AS occurred_at FROM ai_usage_log WHERE created_at >= :from AND created_at < '9999-12-01'

-- name: archive ai_usage_log
-- Where the rows stand that the events of [:window_start, :window_end) are made from, and of which event each is. A table comes before
-- those that it refers to.
SELECT id AS event_id, rowid AS place FROM ai_usage_log WHERE created_at >= :window_start AND created_at < :window_end
