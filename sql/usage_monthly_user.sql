-- Grain: usage_month, user_id. Input: usage_daily, the days [:window_start, :window_end). Output: usage_monthly_user.
-- The bucket of no customer is none of the unique customers.
WITH
-- A month has far more rows than groups: hashed, they need no sort, which COUNT(DISTINCT) beside the sums would.
total AS (
    SELECT
        user_id AS user_id,
        -- The label of the latest day that has one; all rows of a day carry the day's latest.
        substr(MAX(CAST(usage_date AS TEXT) || user_email), 11) AS user_email,
        CAST(SUM(request_count) AS BIGINT) AS request_count,
        CAST(SUM(success_count) AS BIGINT) AS success_count,
        CAST(SUM(error_count) AS BIGINT) AS error_count,
        CAST(SUM(unpriced_count) AS BIGINT) AS unpriced_count,
        CAST(SUM(input_tokens) AS BIGINT) AS input_tokens,
        CAST(SUM(output_tokens) AS BIGINT) AS output_tokens,
        CAST(SUM(total_tokens) AS BIGINT) AS total_tokens,
        CAST(SUM(input_cost_nanos) AS BIGINT) AS input_cost_nanos,
        CAST(SUM(output_cost_nanos) AS BIGINT) AS output_cost_nanos,
        CAST(SUM(total_cost_nanos) AS BIGINT) AS total_cost_nanos,
        CAST(SUM(success_total_tokens) AS BIGINT) AS success_total_tokens,
        CAST(SUM(success_cost_nanos) AS BIGINT) AS success_cost_nanos,
        CAST(SUM(success_latency_ms_sum) AS BIGINT) AS success_latency_ms_sum,
        CAST(SUM(success_latency_count) AS BIGINT) AS success_latency_count,
        MAX(latency_ms_max) AS latency_ms_max,
        CAST(SUM(tool_turns) AS BIGINT) AS tool_turns,
        CAST(SUM(rating_sum) AS BIGINT) AS rating_sum,
        CAST(SUM(rating_count) AS BIGINT) AS rating_count,
        MIN(first_request_at) AS first_request_at,
        MAX(last_request_at) AS last_request_at
    FROM usage_daily
    WHERE usage_date >= :window_start AND usage_date < :window_end
    GROUP BY user_id
),
-- Exact, from the pairs themselves: days cannot be added up here.
unique_count AS (
    SELECT
        user_id AS user_id,
        COUNT(customer_id) AS unique_customers
    FROM (
        SELECT DISTINCT
            user_id AS user_id,
            customer_id AS customer_id
        FROM usage_daily
        WHERE usage_date >= :window_start AND usage_date < :window_end
    ) AS pair
    GROUP BY user_id
)
SELECT
    :window_start AS usage_month,
    total.user_id AS user_id,
    total.user_email AS user_email,
    total.request_count AS request_count,
    total.success_count AS success_count,
    total.error_count AS error_count,
    total.unpriced_count AS unpriced_count,
    total.input_tokens AS input_tokens,
    total.output_tokens AS output_tokens,
    total.total_tokens AS total_tokens,
    total.input_cost_nanos AS input_cost_nanos,
    total.output_cost_nanos AS output_cost_nanos,
    total.total_cost_nanos AS total_cost_nanos,
    total.success_total_tokens AS success_total_tokens,
    total.success_cost_nanos AS success_cost_nanos,
    total.success_latency_ms_sum AS success_latency_ms_sum,
    total.success_latency_count AS success_latency_count,
    total.latency_ms_max AS latency_ms_max,
    total.tool_turns AS tool_turns,
    total.rating_sum AS rating_sum,
    total.rating_count AS rating_count,
    total.first_request_at AS first_request_at,
    total.last_request_at AS last_request_at,
    unique_count.unique_customers AS unique_customers
FROM total
JOIN unique_count ON unique_count.user_id = total.user_id
ORDER BY total.user_id
