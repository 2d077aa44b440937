-- Result tables (docs/semantics.md section 4). Counts, tokens and nano-USD are 64 bits; a cost is NULL where no event of the
-- row has a known one. A window is replaced whole, so the grain of usage_daily needs no key: indexes serve reads. One user's days are read by
-- their dates and the user, 90 probes of the key for 90 days; a second index by user would cost every run more than that.
CREATE TABLE usage_daily (
    usage_date DATE NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    user_id UUID NOT NULL,
    customer_id BIGINT,
    request_type TEXT COLLATE "C" NOT NULL,
    category TEXT COLLATE "C",
    model TEXT COLLATE "C",
    user_email TEXT COLLATE "C",
    customer_name TEXT COLLATE "C",
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
    last_request_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_usage_daily_date ON usage_daily (usage_date);

CREATE TABLE usage_daily_user (
    usage_date DATE NOT NULL,
    user_id UUID NOT NULL,
    user_email TEXT COLLATE "C",
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
    unique_customers BIGINT NOT NULL,
    PRIMARY KEY (usage_date, user_id)
);

CREATE TABLE usage_daily_customer (
    usage_date DATE NOT NULL,
    customer_id BIGINT,
    customer_name TEXT COLLATE "C",
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
    UNIQUE (usage_date, customer_id)
);

CREATE TABLE usage_monthly_user (
    usage_month DATE NOT NULL,
    user_id UUID NOT NULL,
    user_email TEXT COLLATE "C",
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
    unique_customers BIGINT NOT NULL,
    PRIMARY KEY (usage_month, user_id)
);
CREATE INDEX idx_usage_monthly_user_user ON usage_monthly_user (user_id, usage_month);

CREATE TABLE usage_monthly_customer (
    usage_month DATE NOT NULL,
    customer_id BIGINT,
    customer_name TEXT COLLATE "C",
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
    UNIQUE (usage_month, customer_id)
);
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
    (input_cost_nanos * 0.000000001)::NUMERIC(28, 9) AS input_cost_usd,
    (output_cost_nanos * 0.000000001)::NUMERIC(28, 9) AS output_cost_usd,
    (total_cost_nanos * 0.000000001)::NUMERIC(28, 9) AS total_cost_usd,
    unique_customers,
    first_request_at,
    last_request_at
FROM usage_monthly_user;

CREATE TABLE IF NOT EXISTS user_dashboard_data (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID NOT NULL,
    total_requests INTEGER,
    total_tokens_used INTEGER,
    total_cost INTEGER,
    average_response_time INTEGER,
    requests_by_category JSONB,
    requests_this_month INTEGER,
    requests_today INTEGER,
    last_calculated_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE usage_dashboard (
    dashboard_key TEXT PRIMARY KEY,
    content JSONB NOT NULL,
    last_calculated_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE peak_seats (
    billing_month TEXT NOT NULL,
    subscription_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    license_id TEXT,
    plan TEXT,
    seat_type TEXT NOT NULL,
    month_number INTEGER NOT NULL,
    period_start TIMESTAMPTZ NOT NULL,
    period_end TIMESTAMPTZ NOT NULL,
    period_last_date DATE NOT NULL,
    coverage TEXT NOT NULL,
    state TEXT NOT NULL,
    peak_seats BIGINT NOT NULL,
    peak_at TIMESTAMPTZ,
    peak_event_id BIGINT,
    peak_carried_in BOOLEAN,
    seconds_at_peak BIGINT,
    opening_seats BIGINT,
    closing_seats BIGINT,
    min_seats BIGINT,
    avg_seats_micros BIGINT,
    committed_seats BIGINT,
    overage_seats BIGINT,
    term_number INTEGER NOT NULL,
    term_peak_seats BIGINT NOT NULL,
    ledger_rows BIGINT NOT NULL,
    as_of TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (subscription_id, seat_type, month_number)
);
CREATE INDEX idx_peak_seats_billing_month ON peak_seats (billing_month);
