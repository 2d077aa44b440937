-- Grain: month, and one row for all. Input: usage_daily_user, usage_daily_customer. Output: what `tallyroll demo` prints.
WITH
-- Both summaries add up to the same log; each knows one side of it.
by_user AS (
    SELECT
        substr(usage_date, 1, 7) AS month,
        usage_date AS usage_date,
        user_id AS user_id,
        request_count AS request_count,
        unpriced_count AS unpriced_count,
        total_tokens AS total_tokens,
        total_cost_nanos AS total_cost_nanos
    FROM usage_daily_user
),
by_customer AS (
    SELECT
        substr(usage_date, 1, 7) AS month,
        customer_id AS customer_id
    FROM usage_daily_customer
)
SELECT
    month,
    COUNT(DISTINCT usage_date) AS days,
    COUNT(DISTINCT user_id) AS users,
    (SELECT COUNT(DISTINCT customer_id) FROM by_customer WHERE by_customer.month = by_user.month) AS customers,
    SUM(request_count) AS requests,
    SUM(unpriced_count) AS unpriced,
    SUM(total_tokens) AS total_tokens,
    COALESCE(SUM(total_cost_nanos), 0) AS total_cost_nanos
FROM by_user
GROUP BY month
UNION ALL
SELECT
    'all' AS month,
    COUNT(DISTINCT usage_date) AS days,
    COUNT(DISTINCT user_id) AS users,
    (SELECT COUNT(DISTINCT customer_id) FROM by_customer) AS customers,
    SUM(request_count) AS requests,
    SUM(unpriced_count) AS unpriced,
    SUM(total_tokens) AS total_tokens,
    COALESCE(SUM(total_cost_nanos), 0) AS total_cost_nanos
FROM by_user
ORDER BY month
