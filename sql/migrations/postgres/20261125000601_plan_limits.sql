-- What the plan in force allows beside requests.
SET LOCAL lock_timeout = '10s';

ALTER TABLE user_dashboard_data ADD COLUMN IF NOT EXISTS max_tokens_per_request BIGINT, ADD COLUMN IF NOT EXISTS features JSONB;
