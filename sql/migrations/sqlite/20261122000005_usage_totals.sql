-- Two summaries of few rows, so that a dashboard of any span is computed in milliseconds: per day, and per day, request type and model.
CREATE TABLE usage_daily_total (
    usage_date TEXT NOT NULL PRIMARY KEY,
    request_count INTEGER NOT NULL,
    success_count INTEGER NOT NULL,
    error_count INTEGER NOT NULL,
    unpriced_count INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    input_cost_nanos INTEGER,
    output_cost_nanos INTEGER,
    total_cost_nanos INTEGER,
    success_total_tokens INTEGER NOT NULL,
    success_cost_nanos INTEGER,
    success_latency_ms_sum INTEGER NOT NULL,
    success_latency_count INTEGER NOT NULL,
    latency_ms_max INTEGER,
    tool_turns INTEGER NOT NULL,
    rating_sum INTEGER NOT NULL,
    rating_count INTEGER NOT NULL,
    first_request_at TEXT NOT NULL,
    last_request_at TEXT NOT NULL,
    unique_users INTEGER NOT NULL,
    unique_customers INTEGER NOT NULL
) STRICT;

CREATE TABLE usage_daily_type (
    usage_date TEXT NOT NULL,
    request_type TEXT NOT NULL,
    model TEXT,
    request_count INTEGER NOT NULL,
    success_count INTEGER NOT NULL,
    error_count INTEGER NOT NULL,
    unpriced_count INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    input_cost_nanos INTEGER,
    output_cost_nanos INTEGER,
    total_cost_nanos INTEGER,
    success_total_tokens INTEGER NOT NULL,
    success_cost_nanos INTEGER,
    success_latency_ms_sum INTEGER NOT NULL,
    success_latency_count INTEGER NOT NULL,
    latency_ms_max INTEGER,
    tool_turns INTEGER NOT NULL,
    rating_sum INTEGER NOT NULL,
    rating_count INTEGER NOT NULL,
    first_request_at TEXT NOT NULL,
    last_request_at TEXT NOT NULL,
    UNIQUE (usage_date, request_type, model)
) STRICT;

-- A day's rows are written customer by customer, so the customers of a dashboard are read by their days.
CREATE INDEX idx_usage_daily_customer ON usage_daily (usage_date, customer_id);
DROP INDEX idx_usage_daily_date;
-- Few events have a category: those of one user, or of all, are found without reading the others.
CREATE INDEX idx_usage_daily_category ON usage_daily (user_id, category) WHERE category IS NOT NULL;
CREATE INDEX idx_user_plans_user ON user_plans (user_id);
