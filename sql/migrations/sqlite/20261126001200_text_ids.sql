-- Ids of users and customers are text, as the sources have them (docs/semantics.md section 3): what was a whole number is its digits. No row
-- has to be computed again, but the finance files of customers, whose column changes with the table.
-- Views of these tables stay as they are.
PRAGMA legacy_alter_table = ON;

CREATE TABLE usage_daily_new (
    usage_date TEXT NOT NULL,
    source TEXT NOT NULL,
    user_id TEXT NOT NULL,
    customer_id TEXT,
    request_type TEXT NOT NULL,
    category TEXT,
    model TEXT,
    user_email TEXT,
    customer_name TEXT,
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
    success_priced_count INTEGER NOT NULL DEFAULT 0,
    priced_tokens INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO usage_daily_new SELECT usage_date, source, user_id, CAST(customer_id AS TEXT), request_type, category, model, user_email, customer_name, request_count, success_count, error_count, unpriced_count, input_tokens, output_tokens, total_tokens, input_cost_nanos, output_cost_nanos, total_cost_nanos, success_total_tokens, success_cost_nanos, success_latency_ms_sum, success_latency_count, latency_ms_max, tool_turns, rating_sum, rating_count, first_request_at, last_request_at, success_priced_count, priced_tokens FROM usage_daily;
DROP TABLE usage_daily;
ALTER TABLE usage_daily_new RENAME TO usage_daily;
CREATE INDEX idx_usage_daily_customer ON usage_daily (usage_date, customer_id);
CREATE INDEX idx_usage_daily_category ON usage_daily (user_id, category) WHERE category IS NOT NULL;

CREATE TABLE usage_daily_customer_new (
    usage_date TEXT NOT NULL,
    customer_id TEXT,
    customer_name TEXT,
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
    success_priced_count INTEGER NOT NULL DEFAULT 0,
    priced_tokens INTEGER NOT NULL DEFAULT 0,
    UNIQUE (usage_date, customer_id)
) STRICT;
INSERT INTO usage_daily_customer_new SELECT usage_date, CAST(customer_id AS TEXT), customer_name, request_count, success_count, error_count, unpriced_count, input_tokens, output_tokens, total_tokens, input_cost_nanos, output_cost_nanos, total_cost_nanos, success_total_tokens, success_cost_nanos, success_latency_ms_sum, success_latency_count, latency_ms_max, tool_turns, rating_sum, rating_count, first_request_at, last_request_at, unique_users, success_priced_count, priced_tokens FROM usage_daily_customer;
DROP TABLE usage_daily_customer;
ALTER TABLE usage_daily_customer_new RENAME TO usage_daily_customer;

CREATE TABLE usage_monthly_customer_new (
    usage_month TEXT NOT NULL,
    customer_id TEXT,
    customer_name TEXT,
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
    success_priced_count INTEGER NOT NULL DEFAULT 0,
    priced_tokens INTEGER NOT NULL DEFAULT 0,
    UNIQUE (usage_month, customer_id)
) STRICT;
INSERT INTO usage_monthly_customer_new SELECT usage_month, CAST(customer_id AS TEXT), customer_name, request_count, success_count, error_count, unpriced_count, input_tokens, output_tokens, total_tokens, input_cost_nanos, output_cost_nanos, total_cost_nanos, success_total_tokens, success_cost_nanos, success_latency_ms_sum, success_latency_count, latency_ms_max, tool_turns, rating_sum, rating_count, first_request_at, last_request_at, unique_users, success_priced_count, priced_tokens FROM usage_monthly_customer;
DROP TABLE usage_monthly_customer;
ALTER TABLE usage_monthly_customer_new RENAME TO usage_monthly_customer;
CREATE INDEX idx_usage_monthly_customer_customer ON usage_monthly_customer (customer_id, usage_month);

PRAGMA legacy_alter_table = OFF;

UPDATE job_window SET state = 'due', due_reason = 'ids are text'
WHERE job = 'usage_monthly_customer' AND state = 'done';

-- By which the job user_dashboard finds accounts and plans of a user.
CREATE INDEX idx_users_id_text ON users (CAST(id AS TEXT));
CREATE INDEX idx_user_plans_user_text ON user_plans (CAST(user_id AS TEXT));
