-- Made-up subscriptions and ledger for `scripts/bench-seats.sh`: one org each, 36 months, rows spread over three years in the
-- order of time. Variables: subscriptions, rows.
INSERT INTO subscription (id, org_id, plan, committed_seats, start_at, license_id)
SELECT
    'subscription-' || number,
    'organisation-' || number,
    (ARRAY['team', 'business', 'enterprise'])[1 + number % 3],
    10 + number % 90,
    TIMESTAMPTZ '2022-12-01 00:00:00Z' + number % 31 * INTERVAL '1 day' + number % 1440 * INTERVAL '1 minute',
    'license-' || number
FROM generate_series(1, :subscriptions) AS number;

INSERT INTO seat_usage_event (id, org_id, seat_type, seats, occurred_at, recorded_at, reason)
SELECT
    number,
    'organisation-' || 1 + (hashint8(number) & 2147483647) % :subscriptions,
    'total',
    5 + (hashint8(number::BIGINT * 7919) & 2147483647) % 100,
    at,
    at,
    'seat_change'
FROM (
    SELECT number, TIMESTAMPTZ '2022-11-20 00:00:00Z' + number * (INTERVAL '1131 days' / :rows) AS at
    FROM generate_series(1, :rows) AS number
) AS event;
VACUUM (ANALYZE) seat_usage_event;
ANALYZE subscription;
