-- Maps ai_usage_log to usage events (docs/semantics.md section 3). Edit this file to read other tables.

-- name: events
-- Grain: one usage event. Input: the rows of [:window_start, :window_end). A field that the table lacks is a typed NULL.
SELECT
    id AS event_id,
    created_at AS occurred_at,
    user_id AS user_id,
    user_email AS user_email,
    customer_id AS customer_id,
    customer_name AS customer_name,
    request_type AS request_type,
    CAST(NULL AS TEXT) AS category,
    model_used AS model,
    input_tokens AS input_tokens,
    output_tokens AS output_tokens,
    total_tokens AS total_tokens,
    CASE WHEN cost_basis = 'generated' THEN input_cost_usd END AS input_cost_usd,
    CASE WHEN cost_basis = 'generated' THEN output_cost_usd END AS output_cost_usd,
    CASE WHEN cost_basis = 'generated' THEN total_cost_usd ELSE logged_cost_usd END AS total_cost_usd,
    latency_ms AS latency_ms,
    status AS status,
    CAST(NULL AS BIGINT) AS rating,
    tool_turns AS tool_turns
FROM ai_usage_log
WHERE created_at >= :window_start AND created_at < :window_end

-- name: changed
-- Quarters of an hour that hold rows which the snapshot :seen did not see, or that a trigger marked.
SELECT DISTINCT to_timestamp(floor(extract(EPOCH FROM created_at) / 900) * 900) AS slot_start, 'new rows' AS reason
FROM ai_usage_log
-- PostgreSQL counts past the calendar that windows have, to infinity: such a row lies in no day and is never read.
WHERE created_at >= '0001-01-02' AND created_at < '9999-12-01'
    AND ingest_xid >= pg_snapshot_xmin(CAST(:seen AS PG_SNAPSHOT))
    AND NOT pg_visible_in_snapshot(ingest_xid, CAST(:seen AS PG_SNAPSHOT))
UNION
SELECT slot_start, 'rows updated or deleted' AS reason
FROM usage_dirty_day
WHERE source = 'ai_usage_log' AND slot_start >= '0001-01-02' AND slot_start < '9999-12-01'

-- name: position
-- The snapshot says which transactions had ended. Rows of one that had not are found by the next run, whenever it commits.
-- A server whose counter is behind what was seen is a restored copy.
SELECT
    CAST(pg_current_snapshot() AS TEXT) AS position,
    COALESCE(pg_snapshot_xmax(CAST(:seen AS PG_SNAPSHOT)) > pg_snapshot_xmax(pg_current_snapshot()), FALSE) AS is_behind

-- name: next_event
SELECT MIN(created_at) AS occurred_at FROM ai_usage_log WHERE created_at >= :from AND created_at < '9999-12-01'

-- name: archive ai_usage_log
-- Where the rows stand that the events of [:window_start, :window_end) are made from, and of which event each is. A table comes before
-- those that it refers to.
SELECT id AS event_id, ctid AS place FROM ai_usage_log WHERE created_at >= :window_start AND created_at < :window_end
