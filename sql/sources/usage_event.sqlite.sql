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
    NULL AS input_cost_nanos,
    NULL AS output_cost_nanos,
    cost_nanos AS total_cost_nanos,
    latency_ms AS latency_ms,
    status AS status,
    rating AS rating,
    tool_turns AS tool_turns
FROM usage_event
WHERE occurred_at >= :window_start AND occurred_at < :window_end

-- name: changed
-- Quarters of an hour that hold rows numbered from :seen on, or that a trigger marked.
SELECT DISTINCT substr(occurred_at, 1, 14) || printf('%02d:00.000000Z', substr(occurred_at, 15, 2) / 15 * 15) AS slot_start, 'new rows' AS reason
FROM usage_event
WHERE occurred_at >= '0001-01-02' AND occurred_at < '9999-12-01' AND ingest_seq >= CAST(:seen AS INTEGER)
UNION
SELECT slot_start, 'rows updated or deleted' AS reason
FROM usage_dirty_day
WHERE source = 'usage_event' AND slot_start >= '0001-01-02' AND slot_start < '9999-12-01'

-- name: position
-- AUTOINCREMENT never gives a number twice, and there is one writer at a time: the next row's number is the position.
-- Numbers that went back mean a restored copy.
SELECT
    CAST(COALESCE(MAX(seq), 0) + 1 AS TEXT) AS position,
    COALESCE(CAST(:seen AS INTEGER) > COALESCE(MAX(seq), 0) + 1, FALSE) AS is_behind
FROM sqlite_sequence
WHERE name = 'usage_event'

-- name: next_event
SELECT MIN(occurred_at) AS occurred_at FROM usage_event WHERE occurred_at >= :from AND occurred_at < '9999-12-01'

-- name: archive usage_event
-- Where the rows stand that the events of [:window_start, :window_end) are made from, and of which event each is. A table comes before
-- those that it refers to.
SELECT source_name || '/' || event_id AS event_id, rowid AS place FROM usage_event WHERE occurred_at >= :window_start AND occurred_at < :window_end
