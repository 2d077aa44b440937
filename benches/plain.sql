-- The peer: the same five tables by plain SQL inside PostgreSQL, as a person would write them, from the same log.
-- Labels are MAX(label), which is cheaper than the latest one and the same here, where nobody is renamed.
\timing on
SET TIME ZONE 'UTC';
CREATE TABLE plain_daily AS
SELECT
    created_at::DATE AS usage_date,
    'ai_usage_log' AS source,
    user_id,
    customer_id,
    request_type,
    model_used AS model,
    MAX(user_email) AS user_email,
    MAX(customer_name) AS customer_name,
    COUNT(*) AS request_count,
    COUNT(*) FILTER (WHERE status = 'success') AS success_count,
    COUNT(*) FILTER (WHERE status = 'error') AS error_count,
    COUNT(*) FILTER (WHERE total_cost_usd IS NULL) AS unpriced_count,
    SUM(input_tokens) AS input_tokens,
    SUM(output_tokens) AS output_tokens,
    SUM(total_tokens) AS total_tokens,
    SUM(input_cost_usd) AS input_cost_usd,
    SUM(output_cost_usd) AS output_cost_usd,
    SUM(total_cost_usd) AS total_cost_usd,
    SUM(total_tokens) FILTER (WHERE status = 'success') AS success_total_tokens,
    SUM(total_cost_usd) FILTER (WHERE status = 'success') AS success_cost_usd,
    SUM(latency_ms) FILTER (WHERE status = 'success') AS success_latency_ms_sum,
    COUNT(latency_ms) FILTER (WHERE status = 'success') AS success_latency_count,
    MAX(latency_ms) AS latency_ms_max,
    SUM(tool_turns) AS tool_turns,
    MIN(created_at) AS first_request_at,
    MAX(created_at) AS last_request_at
FROM ai_usage_log
GROUP BY created_at::DATE, user_id, customer_id, request_type, model_used;
CREATE UNIQUE INDEX ON plain_daily (usage_date, source, user_id, customer_id, request_type, model);
CREATE TABLE plain_daily_user AS
SELECT
    usage_date AS usage_date,
    user_id,
    MAX(user_email) AS user_email,
    SUM(request_count) AS request_count,
    SUM(success_count) AS success_count,
    SUM(error_count) AS error_count,
    SUM(unpriced_count) AS unpriced_count,
    SUM(input_tokens) AS input_tokens,
    SUM(output_tokens) AS output_tokens,
    SUM(total_tokens) AS total_tokens,
    SUM(input_cost_usd) AS input_cost_usd,
    SUM(output_cost_usd) AS output_cost_usd,
    SUM(total_cost_usd) AS total_cost_usd,
    SUM(success_total_tokens) AS success_total_tokens,
    SUM(success_cost_usd) AS success_cost_usd,
    SUM(success_latency_ms_sum) AS success_latency_ms_sum,
    SUM(success_latency_count) AS success_latency_count,
    MAX(latency_ms_max) AS latency_ms_max,
    SUM(tool_turns) AS tool_turns,
    MIN(first_request_at) AS first_request_at,
    MAX(last_request_at) AS last_request_at,
    COUNT(DISTINCT customer_id) AS unique_customers
FROM plain_daily
GROUP BY usage_date, user_id;
CREATE UNIQUE INDEX ON plain_daily_user (usage_date, user_id);
CREATE TABLE plain_daily_customer AS
SELECT
    usage_date AS usage_date,
    customer_id,
    MAX(customer_name) AS customer_name,
    SUM(request_count) AS request_count,
    SUM(success_count) AS success_count,
    SUM(error_count) AS error_count,
    SUM(unpriced_count) AS unpriced_count,
    SUM(input_tokens) AS input_tokens,
    SUM(output_tokens) AS output_tokens,
    SUM(total_tokens) AS total_tokens,
    SUM(input_cost_usd) AS input_cost_usd,
    SUM(output_cost_usd) AS output_cost_usd,
    SUM(total_cost_usd) AS total_cost_usd,
    SUM(success_total_tokens) AS success_total_tokens,
    SUM(success_cost_usd) AS success_cost_usd,
    SUM(success_latency_ms_sum) AS success_latency_ms_sum,
    SUM(success_latency_count) AS success_latency_count,
    MAX(latency_ms_max) AS latency_ms_max,
    SUM(tool_turns) AS tool_turns,
    MIN(first_request_at) AS first_request_at,
    MAX(last_request_at) AS last_request_at,
    COUNT(DISTINCT user_id) AS unique_users
FROM plain_daily
GROUP BY usage_date, customer_id;
CREATE UNIQUE INDEX ON plain_daily_customer (usage_date, customer_id);
CREATE TABLE plain_monthly_user AS
SELECT
    date_trunc('month', usage_date)::DATE AS usage_month,
    user_id,
    MAX(user_email) AS user_email,
    SUM(request_count) AS request_count,
    SUM(success_count) AS success_count,
    SUM(error_count) AS error_count,
    SUM(unpriced_count) AS unpriced_count,
    SUM(input_tokens) AS input_tokens,
    SUM(output_tokens) AS output_tokens,
    SUM(total_tokens) AS total_tokens,
    SUM(input_cost_usd) AS input_cost_usd,
    SUM(output_cost_usd) AS output_cost_usd,
    SUM(total_cost_usd) AS total_cost_usd,
    SUM(success_total_tokens) AS success_total_tokens,
    SUM(success_cost_usd) AS success_cost_usd,
    SUM(success_latency_ms_sum) AS success_latency_ms_sum,
    SUM(success_latency_count) AS success_latency_count,
    MAX(latency_ms_max) AS latency_ms_max,
    SUM(tool_turns) AS tool_turns,
    MIN(first_request_at) AS first_request_at,
    MAX(last_request_at) AS last_request_at,
    COUNT(DISTINCT customer_id) AS unique_customers
FROM plain_daily
GROUP BY date_trunc('month', usage_date)::DATE, user_id;
CREATE UNIQUE INDEX ON plain_monthly_user (usage_month, user_id);
CREATE TABLE plain_monthly_customer AS
SELECT
    date_trunc('month', usage_date)::DATE AS usage_month,
    customer_id,
    MAX(customer_name) AS customer_name,
    SUM(request_count) AS request_count,
    SUM(success_count) AS success_count,
    SUM(error_count) AS error_count,
    SUM(unpriced_count) AS unpriced_count,
    SUM(input_tokens) AS input_tokens,
    SUM(output_tokens) AS output_tokens,
    SUM(total_tokens) AS total_tokens,
    SUM(input_cost_usd) AS input_cost_usd,
    SUM(output_cost_usd) AS output_cost_usd,
    SUM(total_cost_usd) AS total_cost_usd,
    SUM(success_total_tokens) AS success_total_tokens,
    SUM(success_cost_usd) AS success_cost_usd,
    SUM(success_latency_ms_sum) AS success_latency_ms_sum,
    SUM(success_latency_count) AS success_latency_count,
    MAX(latency_ms_max) AS latency_ms_max,
    SUM(tool_turns) AS tool_turns,
    MIN(first_request_at) AS first_request_at,
    MAX(last_request_at) AS last_request_at,
    COUNT(DISTINCT user_id) AS unique_users
FROM plain_daily
GROUP BY date_trunc('month', usage_date)::DATE, customer_id;
CREATE UNIQUE INDEX ON plain_monthly_customer (usage_month, customer_id);
