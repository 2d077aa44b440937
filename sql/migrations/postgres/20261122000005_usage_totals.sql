-- Two summaries of few rows, so that a dashboard of any span is computed in milliseconds: per day, and per day, request type and model.
SET LOCAL lock_timeout = '10s';

CREATE TABLE usage_daily_total (
    usage_date DATE NOT NULL PRIMARY KEY,
    request_count BIGINT NOT NULL,
    success_count BIGINT NOT NULL,
    error_count BIGINT NOT NULL,
    unpriced_count BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    total_tokens BIGINT NOT NULL,
    input_cost_nanos BIGINT,
    output_cost_nanos BIGINT,
    total_cost_nanos BIGINT,
    success_total_tokens BIGINT NOT NULL,
    success_cost_nanos BIGINT,
    success_latency_ms_sum BIGINT NOT NULL,
    success_latency_count BIGINT NOT NULL,
    latency_ms_max BIGINT,
    tool_turns BIGINT NOT NULL,
    rating_sum BIGINT NOT NULL,
    rating_count BIGINT NOT NULL,
    first_request_at TIMESTAMPTZ NOT NULL,
    last_request_at TIMESTAMPTZ NOT NULL,
    unique_users BIGINT NOT NULL,
    unique_customers BIGINT NOT NULL
);

CREATE TABLE usage_daily_type (
    usage_date DATE NOT NULL,
    request_type TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C",
    request_count BIGINT NOT NULL,
    success_count BIGINT NOT NULL,
    error_count BIGINT NOT NULL,
    unpriced_count BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    total_tokens BIGINT NOT NULL,
    input_cost_nanos BIGINT,
    output_cost_nanos BIGINT,
    total_cost_nanos BIGINT,
    success_total_tokens BIGINT NOT NULL,
    success_cost_nanos BIGINT,
    success_latency_ms_sum BIGINT NOT NULL,
    success_latency_count BIGINT NOT NULL,
    latency_ms_max BIGINT,
    tool_turns BIGINT NOT NULL,
    rating_sum BIGINT NOT NULL,
    rating_count BIGINT NOT NULL,
    first_request_at TIMESTAMPTZ NOT NULL,
    last_request_at TIMESTAMPTZ NOT NULL,
    UNIQUE (usage_date, request_type, model)
);

-- A day's rows are written customer by customer, so the customers of a dashboard are read by their days.
CREATE INDEX idx_usage_daily_customer ON usage_daily (usage_date, customer_id);
DROP INDEX idx_usage_daily_date;
-- Few events have a category: those of one user, or of all, are found without reading the others.
CREATE INDEX idx_usage_daily_category ON usage_daily (user_id, category) WHERE category IS NOT NULL;
CREATE INDEX idx_user_plans_user ON user_plans (user_id);
