-- The daily summary of the lake by DuckDB: the keys, labels and measures of usage_daily, of events that log their cost.
CREATE OR REPLACE TABLE usage_daily AS
SELECT
    CAST(occurred_at AT TIME ZONE 'UTC' AS DATE) AS usage_date,
    source,
    user_id,
    customer_id,
    request_type,
    category,
    model,
    max_by(user_email, (occurred_at, event_id)) FILTER (user_email IS NOT NULL) AS user_email,
    max_by(customer_name, (occurred_at, event_id)) FILTER (customer_name IS NOT NULL) AS customer_name,
    count(*) AS request_count,
    count(*) FILTER (status = 'success') AS success_count,
    count(*) FILTER (status = 'error') AS error_count,
    count(*) FILTER (total_cost_nanos IS NULL) AS unpriced_count,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    CAST(sum(total_tokens) AS BIGINT) AS total_tokens,
    CAST(sum(input_cost_nanos) AS BIGINT) AS input_cost_nanos,
    CAST(sum(output_cost_nanos) AS BIGINT) AS output_cost_nanos,
    CAST(sum(total_cost_nanos) AS BIGINT) AS total_cost_nanos,
    CAST(sum(total_tokens) FILTER (status = 'success') AS BIGINT) AS success_total_tokens,
    CAST(sum(total_cost_nanos) FILTER (status = 'success') AS BIGINT) AS success_cost_nanos,
    CAST(sum(latency_ms) FILTER (status = 'success') AS BIGINT) AS success_latency_ms_sum,
    count(latency_ms) FILTER (status = 'success') AS success_latency_count,
    max(latency_ms) FILTER (status = 'success') AS latency_ms_max,
    CAST(sum(tool_turns) AS BIGINT) AS tool_turns,
    min(occurred_at) AS first_request_at,
    max(occurred_at) AS last_request_at
FROM read_parquet('{lake}/**/*.parquet', hive_partitioning = true)
GROUP BY ALL;
