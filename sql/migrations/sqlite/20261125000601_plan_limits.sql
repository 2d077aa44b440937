-- What the plan in force allows beside requests.
ALTER TABLE user_dashboard_data ADD COLUMN max_tokens_per_request INTEGER;
ALTER TABLE user_dashboard_data ADD COLUMN features TEXT;
