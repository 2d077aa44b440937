-- The bench's log: :rows rows over 90 days from 2026-01-10, 20,000 users, 2,000 customers. Few users write most of it, each
-- mostly for one customer, with one model and one request type: the repetition that real logs have.
-- The same seed gives the same log; the rows arrive in the order of time, as they do in life.
SELECT setseed(0.5);
DROP INDEX IF EXISTS idx_ai_usage_log_user, idx_ai_usage_log_customer, idx_ai_usage_log_type, idx_ai_usage_log_created, idx_ai_usage_log_ingest_xid;

INSERT INTO ai_usage_log (
    user_id, user_email, customer_id, customer_name, request_type, session_id, input_tokens, output_tokens, model_used, latency_ms,
    tool_turns, status, created_at
)
SELECT
    ('00000000-0000-4000-8000-' || lpad(to_hex(user_number), 12, '0'))::UUID,
    'user' || user_number || '@example.com',
    customer_number,
    'Customer ' || customer_number,
    CASE WHEN type_dice < 0.7 THEN 'report' WHEN type_dice < 0.9 THEN 'insight' WHEN type_dice < 0.97 THEN 'widget' ELSE 'scheduled' END,
    'session-' || (row_number_ / 5),
    200 + (random() * 4000)::INTEGER,
    50 + (random() * 1500)::INTEGER,
    CASE WHEN random() < 0.9 THEN model ELSE 'claude-haiku-4' END,
    CASE WHEN random() < 0.98 THEN 300 + (random() * 8000)::INTEGER END,
    (random() * 3)::INTEGER,
    CASE WHEN random() < 0.98 THEN 'success' ELSE 'error' END,
    occurred_at
FROM (
    SELECT
        g AS row_number_,
        user_number,
        CASE
            WHEN customer_dice < 0.04 THEN NULL
            WHEN customer_dice < 0.12 THEN 1 + (random() * 1999)::INTEGER
            ELSE 1 + user_number % 2000
        END AS customer_number,
        type_dice,
        CASE user_number % 3 WHEN 0 THEN 'gpt-4o' ELSE 'claude-sonnet-4-20250514' END AS model,
        TIMESTAMPTZ '2026-01-10 00:00:00Z' + g * (INTERVAL '90 days' / :rows) AS occurred_at
    FROM (
        SELECT g, floor(20000 * power(random(), 2))::INTEGER AS user_number, random() AS customer_dice, random() AS type_dice
        FROM generate_series(0, :rows - 1) AS g
    ) AS dice
) AS event;

CREATE INDEX idx_ai_usage_log_user ON ai_usage_log (user_id, created_at DESC);
CREATE INDEX idx_ai_usage_log_customer ON ai_usage_log (customer_id, created_at DESC);
CREATE INDEX idx_ai_usage_log_type ON ai_usage_log (request_type, created_at DESC);
CREATE INDEX idx_ai_usage_log_created ON ai_usage_log (created_at DESC);
CREATE INDEX idx_ai_usage_log_ingest_xid ON ai_usage_log (ingest_xid, created_at);
VACUUM ANALYZE ai_usage_log;
CHECKPOINT;
-- Both sides read a log that is in memory as far as it fits.
SELECT count(*), min(created_at), max(created_at), sum(total_tokens) FROM ai_usage_log;
