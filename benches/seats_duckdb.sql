-- The peer of the peak fold: the same peaks by DuckDB over the same Parquet, with as-of joins. `{dir}` holds ledger.parquet and
-- subscription.parquet.
CREATE TABLE period AS
SELECT
    id AS subscription_id,
    org_id,
    CAST(k AS INTEGER) AS month_number,
    -- Months are added to the start itself, and a missing day becomes the month's last.
    start_at + to_months(CAST(k - 1 AS INTEGER)) AS period_start,
    start_at + to_months(CAST(k AS INTEGER)) AS period_end
FROM read_parquet('{dir}/subscription.parquet'), range(1, 61) AS months(k)
WHERE start_at + to_months(CAST(k - 1 AS INTEGER)) <= TIMESTAMP '2026-01-01';

CREATE TABLE ledger AS SELECT org_id, occurred_at, id, seats FROM read_parquet('{dir}/ledger.parquet') WHERE occurred_at <= TIMESTAMP '2026-01-01';

-- Each row in the month that holds it.
CREATE TABLE inside AS
SELECT
    period.subscription_id,
    period.month_number,
    max(ledger.seats) AS peak_seats,
    count(*) AS ledger_rows,
    arg_max(ledger.seats, (ledger.occurred_at, ledger.id)) AS closing_seats,
    min(ledger.occurred_at) = any_value(period.period_start) AS has_row_at_start
FROM ledger
ASOF JOIN period ON ledger.org_id = period.org_id AND ledger.occurred_at >= period.period_start
WHERE ledger.occurred_at < period.period_end
GROUP BY ALL;

-- The count carried in: the last row before the start.
CREATE TABLE carried AS
SELECT period.subscription_id, period.month_number, ledger.seats
FROM period
ASOF JOIN (SELECT org_id, occurred_at, last(seats ORDER BY id) AS seats FROM ledger GROUP BY ALL) AS ledger
    ON period.org_id = ledger.org_id AND period.period_start > ledger.occurred_at;

COPY (
    SELECT
        period.subscription_id,
        period.month_number,
        greatest(coalesce(inside.peak_seats, 0), CASE WHEN coalesce(inside.has_row_at_start, FALSE) THEN 0 ELSE coalesce(carried.seats, 0) END) AS peak_seats,
        coalesce(inside.ledger_rows, 0) AS ledger_rows,
        coalesce(inside.closing_seats, carried.seats) AS closing_seats
    FROM period
    LEFT JOIN inside USING (subscription_id, month_number)
    LEFT JOIN carried USING (subscription_id, month_number)
) TO '{dir}/duckdb.parquet' (FORMAT parquet);
