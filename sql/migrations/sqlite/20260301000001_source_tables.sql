-- Source tables: what applications write. Names and columns are the seeds'; an instant is TEXT `YYYY-MM-DDTHH:MM:SS.ffffffZ`
-- (anything else is refused, for texts are compared), a UUID lower-case TEXT, logged money INTEGER nano-USD. `ingest_seq` never
-- reuses a number, so rows added since a run are those with a larger one (docs/semantics.md section 5).
CREATE TABLE users (
    id TEXT PRIMARY KEY DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    email TEXT UNIQUE,
    name TEXT,
    image TEXT,
    github_id TEXT UNIQUE,
    plan TEXT NOT NULL DEFAULT 'free',
    plan_expires_at TEXT CHECK (plan_expires_at IS NULL OR (length(plan_expires_at) = 27 AND plan_expires_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(plan_expires_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(plan_expires_at, 1, 19)) IS substr(plan_expires_at, 1, 19))),
    requests_used INTEGER NOT NULL DEFAULT 0,
    requests_limit INTEGER NOT NULL DEFAULT 100,
    is_active INTEGER NOT NULL DEFAULT 1,
    last_login_at TEXT CHECK (last_login_at IS NULL OR (length(last_login_at) = 27 AND last_login_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(last_login_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(last_login_at, 1, 19)) IS substr(last_login_at, 1, 19))),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(created_at) = 27 AND created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(created_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(created_at, 1, 19)) IS substr(created_at, 1, 19)),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(updated_at) = 27 AND updated_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(updated_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(updated_at, 1, 19)) IS substr(updated_at, 1, 19))
) STRICT;

CREATE TABLE user_plans (
    id TEXT PRIMARY KEY DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    user_id TEXT NOT NULL REFERENCES users (id),
    plan_name TEXT NOT NULL,
    monthly_requests INTEGER NOT NULL,
    daily_requests INTEGER NOT NULL,
    max_tokens_per_request INTEGER,
    features TEXT,
    is_active INTEGER NOT NULL DEFAULT 1,
    price_per_month INTEGER NOT NULL DEFAULT 0,
    billing_cycle TEXT NOT NULL DEFAULT 'monthly',
    starts_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(starts_at) = 27 AND starts_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(starts_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(starts_at, 1, 19)) IS substr(starts_at, 1, 19)),
    expires_at TEXT CHECK (expires_at IS NULL OR (length(expires_at) = 27 AND expires_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(expires_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(expires_at, 1, 19)) IS substr(expires_at, 1, 19))),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(created_at) = 27 AND created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(created_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(created_at, 1, 19)) IS substr(created_at, 1, 19)),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(updated_at) = 27 AND updated_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(updated_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(updated_at, 1, 19)) IS substr(updated_at, 1, 19))
) STRICT;

CREATE TABLE ai_usage_log (
    ingest_seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    user_id TEXT NOT NULL CHECK (user_id = lower(user_id)),
    user_email TEXT,
    customer_id INTEGER,
    customer_name TEXT,
    request_type TEXT NOT NULL DEFAULT 'report',
    session_id TEXT,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    total_tokens INTEGER GENERATED ALWAYS AS (input_tokens + output_tokens) VIRTUAL,
    input_cost_nanos INTEGER GENERATED ALWAYS AS (input_tokens * 3000) VIRTUAL,
    output_cost_nanos INTEGER GENERATED ALWAYS AS (output_tokens * 15000) VIRTUAL,
    total_cost_nanos INTEGER GENERATED ALWAYS AS (input_tokens * 3000 + output_tokens * 15000) VIRTUAL,
    cost_basis TEXT NOT NULL DEFAULT 'generated',
    logged_cost_nanos INTEGER,
    model_used TEXT DEFAULT 'claude-sonnet-4-20250514',
    latency_ms INTEGER,
    tool_turns INTEGER DEFAULT 0,
    status TEXT NOT NULL DEFAULT 'success',
    error_message TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(created_at) = 27 AND created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(created_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(created_at, 1, 19)) IS substr(created_at, 1, 19))
) STRICT;

CREATE INDEX idx_ai_usage_log_user ON ai_usage_log (user_id, created_at DESC);
CREATE INDEX idx_ai_usage_log_created ON ai_usage_log (created_at);

CREATE TABLE chat_requests (
    ingest_seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    user_id TEXT NOT NULL REFERENCES users (id),
    session_id TEXT,
    prompt TEXT,
    response TEXT,
    model TEXT,
    tokens_used INTEGER,
    cost INTEGER,
    duration INTEGER,
    status TEXT NOT NULL DEFAULT 'pending',
    error_message TEXT,
    ip_address TEXT,
    user_agent TEXT,
    started_at TEXT CHECK (started_at IS NULL OR (length(started_at) = 27 AND started_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(started_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(started_at, 1, 19)) IS substr(started_at, 1, 19))),
    completed_at TEXT CHECK (completed_at IS NULL OR (length(completed_at) = 27 AND completed_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(completed_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(completed_at, 1, 19)) IS substr(completed_at, 1, 19))),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(created_at) = 27 AND created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(created_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(created_at, 1, 19)) IS substr(created_at, 1, 19))
) STRICT;

CREATE INDEX idx_chat_requests_created ON chat_requests (created_at);

CREATE TABLE request_analytics (
    id TEXT PRIMARY KEY DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    user_id TEXT NOT NULL REFERENCES users (id),
    request_id TEXT NOT NULL REFERENCES chat_requests (id),
    request_type TEXT,
    category TEXT,
    complexity TEXT,
    response_time INTEGER,
    tokens_input INTEGER,
    tokens_output INTEGER,
    user_rating INTEGER,
    was_successful INTEGER,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(created_at) = 27 AND created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(created_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(created_at, 1, 19)) IS substr(created_at, 1, 19))
) STRICT;

CREATE INDEX idx_request_analytics_request ON request_analytics (request_id);

CREATE TABLE subscription (
    id TEXT PRIMARY KEY,
    org_id TEXT NOT NULL,
    plan TEXT,
    committed_seats INTEGER CHECK (committed_seats >= 0),
    start_at TEXT NOT NULL CHECK (length(start_at) = 27 AND start_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(start_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(start_at, 1, 19)) IS substr(start_at, 1, 19)),
    end_at TEXT CHECK (end_at IS NULL OR (length(end_at) = 27 AND end_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(end_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(end_at, 1, 19)) IS substr(end_at, 1, 19))),
    license_id TEXT,
    CHECK (end_at > start_at)
) STRICT;

CREATE TABLE seat_usage_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    org_id TEXT NOT NULL,
    seat_type TEXT NOT NULL DEFAULT 'total',
    seats INTEGER NOT NULL CHECK (seats >= 0),
    occurred_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(occurred_at) = 27 AND occurred_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(occurred_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(occurred_at, 1, 19)) IS substr(occurred_at, 1, 19)),
    recorded_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(recorded_at) = 27 AND recorded_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(recorded_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(recorded_at, 1, 19)) IS substr(recorded_at, 1, 19)),
    reason TEXT
) STRICT;

CREATE INDEX idx_seat_usage_event_org ON seat_usage_event (org_id, seat_type, occurred_at, id);

CREATE TABLE ai_seat_state (
    user_id TEXT PRIMARY KEY,
    first_used_at TEXT NOT NULL CHECK (length(first_used_at) = 27 AND first_used_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(first_used_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(first_used_at, 1, 19)) IS substr(first_used_at, 1, 19)),
    last_used_at TEXT NOT NULL CHECK (length(last_used_at) = 27 AND last_used_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(last_used_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(last_used_at, 1, 19)) IS substr(last_used_at, 1, 19)),
    last_event_type TEXT NOT NULL,
    last_event_description TEXT NOT NULL,
    updated_at TEXT NOT NULL CHECK (length(updated_at) = 27 AND updated_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(updated_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(updated_at, 1, 19)) IS substr(updated_at, 1, 19))
) STRICT;

CREATE TABLE subscription_seat_assignments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace_id INTEGER,
    organization_id INTEGER,
    user_id INTEGER NOT NULL,
    seat_type TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(created_at) = 27 AND created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(created_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(created_at, 1, 19)) IS substr(created_at, 1, 19)),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(updated_at) = 27 AND updated_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(updated_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(updated_at, 1, 19)) IS substr(updated_at, 1, 19))
) STRICT;

CREATE UNIQUE INDEX idx_seat_assignments_user
    ON subscription_seat_assignments (namespace_id, user_id) WHERE namespace_id IS NOT NULL;
