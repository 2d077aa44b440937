-- The demo's printed table of peak seats: one row per billing month, over its subscription months in total. Input: peak_seats.
SELECT
    billing_month,
    MIN(state) AS state,
    COUNT(*) AS subscriptions,
    CAST(SUM(peak_seats) AS BIGINT) AS peak_seats,
    CAST(SUM(overage_seats) AS BIGINT) AS overage_seats,
    CAST(SUM(CASE WHEN coverage = 'complete' THEN 0 ELSE 1 END) AS BIGINT) AS not_covered
FROM peak_seats
WHERE seat_type = 'total'
GROUP BY billing_month
ORDER BY billing_month
