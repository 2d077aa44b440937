-- Maps usage_event to usage events (docs/semantics.md section 3). Edit this file to read other tables.

-- name: events
-- Grain: one usage event. Input: the rows of [:window_start, :window_end). An id is one of its source's.
SELECT
    source_name || '/' || event_id AS event_id,
    occurred_at AS occurred_at,
    user_id AS user_id,
    user_name AS user_email,
    customer_id AS customer_id,
    customer_name AS customer_name,
    request_type AS request_type,
    category AS category,
    provider AS provider,
    model AS model,
    service_tier AS service_tier,
    input_tokens AS input_tokens,
    cached_input_tokens AS cached_input_tokens,
    cache_write_tokens AS cache_write_tokens,
    output_tokens AS output_tokens,
    reasoning_tokens AS reasoning_tokens,
    total_tokens AS total_tokens,
    CAST(NULL AS NUMERIC) AS input_cost_usd,
    CAST(NULL AS NUMERIC) AS output_cost_usd,
    cost_usd AS total_cost_usd,
    latency_ms AS latency_ms,
    status AS status,
    rating AS rating,
    tool_turns AS tool_turns
FROM usage_event
WHERE occurred_at >= :window_start AND occurred_at < :window_end

-- name: changed
-- Quarters of an hour that hold rows which the snapshot :seen did not see, or that a trigger marked.
SELECT DISTINCT to_timestamp(floor(extract(EPOCH FROM occurred_at) / 900) * 900) AS slot_start, 'new rows' AS reason
FROM usage_event
-- PostgreSQL counts past the calendar that windows have, to infinity: such a row lies in no day and is never read.
WHERE occurred_at >= '0001-01-02' AND occurred_at < '9999-12-01'
    AND ingest_xid >= pg_snapshot_xmin(CAST(:seen AS PG_SNAPSHOT))
    AND NOT pg_visible_in_snapshot(ingest_xid, CAST(:seen AS PG_SNAPSHOT))
UNION
SELECT slot_start, 'rows updated or deleted' AS reason
FROM usage_dirty_day
WHERE source = 'usage_event' AND slot_start >= '0001-01-02' AND slot_start < '9999-12-01'

-- name: position
-- The snapshot says which transactions had ended. Rows of one that had not are found by the next run, whenever it commits.
-- A server whose counter is behind what was seen is a restored copy.
SELECT
    CAST(pg_current_snapshot() AS TEXT) AS position,
    COALESCE(pg_snapshot_xmax(CAST(:seen AS PG_SNAPSHOT)) > pg_snapshot_xmax(pg_current_snapshot()), FALSE) AS is_behind

-- name: next_event
SELECT MIN(occurred_at) AS occurred_at FROM usage_event WHERE occurred_at >= :from AND occurred_at < '9999-12-01'

-- name: archive usage_event
-- Where the rows stand that the events of [:window_start, :window_end) are made from, and of which event each is. A table comes before
-- those that it refers to.
SELECT source_name || '/' || event_id AS event_id, ctid AS place FROM usage_event WHERE occurred_at >= :window_start AND occurred_at < :window_end
