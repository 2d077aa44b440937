-- The seat ledger (docs/semantics.md section 6), one row per recorded count, in any order: org_id, seat_type, occurred_at, id,
-- seats, reason. Input: seat_usage_event.
SELECT
    org_id AS org_id,
    seat_type AS seat_type,
    occurred_at AS occurred_at,
    id AS id,
    seats AS seats,
    reason AS reason
FROM seat_usage_event
