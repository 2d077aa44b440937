-- Subscriptions whose months are billed (docs/semantics.md section 6), one row each, in any order. An end at infinity
-- is none. Input: subscription.
SELECT
    id AS id,
    org_id AS org_id,
    plan AS plan,
    committed_seats AS committed_seats,
    start_at AS start_at,
    CASE WHEN isfinite(end_at) THEN end_at END AS end_at,
    license_id AS license_id
FROM subscription
