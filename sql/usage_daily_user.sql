-- Grain: usage_date, user_id. Input: usage_daily, the days [:window_start, :window_end). Output: usage_daily_user.
-- The bucket of no customer is none of the unique customers.
SELECT
    :window_start AS usage_date,
    user_id AS user_id,
    -- All rows of a day carry the day's latest label, or none.
    MAX(user_email) AS user_email,
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
    CAST(SUM(success_priced_count) AS BIGINT) AS success_priced_count,
    CAST(SUM(priced_tokens) AS BIGINT) AS priced_tokens,
    MAX(latency_ms_max) AS latency_ms_max,
    CAST(SUM(tool_turns) AS BIGINT) AS tool_turns,
    CAST(SUM(rating_sum) AS BIGINT) AS rating_sum,
    CAST(SUM(rating_count) AS BIGINT) AS rating_count,
    MIN(first_request_at) AS first_request_at,
    MAX(last_request_at) AS last_request_at,
    COUNT(DISTINCT customer_id) AS unique_customers
FROM usage_daily
WHERE usage_date >= :window_start AND usage_date < :window_end
GROUP BY user_id
ORDER BY user_id
