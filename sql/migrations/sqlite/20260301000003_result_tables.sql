-- Result tables (docs/semantics.md section 4). Counts, tokens and nano-USD are 64 bits; a cost is NULL where no event of the
-- row has a known one. A window is replaced whole, so the grain of usage_daily needs no key: indexes serve reads. One user's days are read by
-- their dates and the user, 90 probes of the key for 90 days; a second index by user would cost every run more than that.
CREATE TABLE usage_daily (
    usage_date TEXT NOT NULL,
    source TEXT NOT NULL,
    user_id TEXT NOT NULL,
    customer_id INTEGER,
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
    last_request_at TEXT NOT NULL
) STRICT;
CREATE INDEX idx_usage_daily_date ON usage_daily (usage_date);

CREATE TABLE usage_daily_user (
    usage_date TEXT NOT NULL,
    user_id TEXT NOT NULL,
    user_email TEXT,
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
    unique_customers INTEGER NOT NULL,
    PRIMARY KEY (usage_date, user_id)
) STRICT;

CREATE TABLE usage_daily_customer (
    usage_date TEXT NOT NULL,
    customer_id INTEGER,
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
    UNIQUE (usage_date, customer_id)
) STRICT;

CREATE TABLE usage_monthly_user (
    usage_month TEXT NOT NULL,
    user_id TEXT NOT NULL,
    user_email TEXT,
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
    unique_customers INTEGER NOT NULL,
    PRIMARY KEY (usage_month, user_id)
) STRICT;
CREATE INDEX idx_usage_monthly_user_user ON usage_monthly_user (user_id, usage_month);

CREATE TABLE usage_monthly_customer (
    usage_month TEXT NOT NULL,
    customer_id INTEGER,
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
    UNIQUE (usage_month, customer_id)
) STRICT;
CREATE INDEX idx_usage_monthly_customer_customer ON usage_monthly_customer (customer_id, usage_month);

-- The seed's promised monthly summary per user, in USD.
CREATE VIEW ai_usage_summary AS
SELECT
    usage_month,
    user_id,
    user_email,
    request_count,
    success_count,
    error_count,
    unpriced_count,
    input_tokens,
    output_tokens,
    total_tokens,
    CASE WHEN input_cost_nanos IS NOT NULL THEN printf('%d.%09d', input_cost_nanos / 1000000000, input_cost_nanos % 1000000000) END AS input_cost_usd,
    CASE WHEN output_cost_nanos IS NOT NULL THEN printf('%d.%09d', output_cost_nanos / 1000000000, output_cost_nanos % 1000000000) END AS output_cost_usd,
    CASE WHEN total_cost_nanos IS NOT NULL THEN printf('%d.%09d', total_cost_nanos / 1000000000, total_cost_nanos % 1000000000) END AS total_cost_usd,
    unique_customers,
    first_request_at,
    last_request_at
FROM usage_monthly_user;

CREATE TABLE user_dashboard_data (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    total_requests INTEGER,
    total_tokens_used INTEGER,
    total_cost INTEGER,
    average_response_time INTEGER,
    requests_by_category TEXT,
    requests_this_month INTEGER,
    requests_today INTEGER,
    last_calculated_at TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE usage_dashboard (
    dashboard_key TEXT PRIMARY KEY,
    content TEXT NOT NULL,
    last_calculated_at TEXT NOT NULL
) STRICT;

CREATE TABLE peak_seats (
    billing_month TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    license_id TEXT,
    plan TEXT,
    seat_type TEXT NOT NULL,
    month_number INTEGER NOT NULL,
    period_start TEXT NOT NULL,
    period_end TEXT NOT NULL,
    period_last_date TEXT NOT NULL,
    coverage TEXT NOT NULL,
    state TEXT NOT NULL,
    peak_seats INTEGER NOT NULL,
    peak_at TEXT,
    peak_event_id INTEGER,
    peak_carried_in INTEGER,
    seconds_at_peak INTEGER,
    opening_seats INTEGER,
    closing_seats INTEGER,
    min_seats INTEGER,
    avg_seats_micros INTEGER,
    committed_seats INTEGER,
    overage_seats INTEGER,
    term_number INTEGER NOT NULL,
    term_peak_seats INTEGER NOT NULL,
    ledger_rows INTEGER NOT NULL,
    as_of TEXT NOT NULL,
    PRIMARY KEY (subscription_id, seat_type, month_number)
) STRICT;
CREATE INDEX idx_peak_seats_billing_month ON peak_seats (billing_month);
