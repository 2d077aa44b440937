-- The seat ledger (docs/semantics.md section 6), one row per recorded count, in any order: org_id, seat_type, occurred_at, id,
-- seats, reason. Types are as cast here. Input: seat_usage_event.
SELECT
    org_id::TEXT AS org_id,
    seat_type::TEXT AS seat_type,
    occurred_at::TIMESTAMPTZ AS occurred_at,
    id::BIGINT AS id,
    seats::BIGINT AS seats,
    reason::TEXT AS reason
FROM seat_usage_event
