-- What averages of cost are divided by: successful requests whose cost is known, and tokens of requests whose cost is known. Rows that are
-- there count as the versions before did, exact where nothing was unpriced; a window that is written again is exact.

ALTER TABLE usage_daily ADD COLUMN success_priced_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN priced_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE usage_daily SET
    success_priced_count = CASE WHEN success_cost_nanos IS NULL THEN 0 ELSE success_count END,
    priced_tokens = CASE WHEN total_cost_nanos IS NULL THEN 0 ELSE total_tokens END;

ALTER TABLE usage_daily_user ADD COLUMN success_priced_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_user ADD COLUMN priced_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE usage_daily_user SET
    success_priced_count = CASE WHEN success_cost_nanos IS NULL THEN 0 ELSE success_count END,
    priced_tokens = CASE WHEN total_cost_nanos IS NULL THEN 0 ELSE total_tokens END;

ALTER TABLE usage_daily_customer ADD COLUMN success_priced_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_customer ADD COLUMN priced_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE usage_daily_customer SET
    success_priced_count = CASE WHEN success_cost_nanos IS NULL THEN 0 ELSE success_count END,
    priced_tokens = CASE WHEN total_cost_nanos IS NULL THEN 0 ELSE total_tokens END;

ALTER TABLE usage_daily_type ADD COLUMN success_priced_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_type ADD COLUMN priced_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE usage_daily_type SET
    success_priced_count = CASE WHEN success_cost_nanos IS NULL THEN 0 ELSE success_count END,
    priced_tokens = CASE WHEN total_cost_nanos IS NULL THEN 0 ELSE total_tokens END;

ALTER TABLE usage_daily_total ADD COLUMN success_priced_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_total ADD COLUMN priced_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE usage_daily_total SET
    success_priced_count = CASE WHEN success_cost_nanos IS NULL THEN 0 ELSE success_count END,
    priced_tokens = CASE WHEN total_cost_nanos IS NULL THEN 0 ELSE total_tokens END;

ALTER TABLE usage_monthly_user ADD COLUMN success_priced_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly_user ADD COLUMN priced_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE usage_monthly_user SET
    success_priced_count = CASE WHEN success_cost_nanos IS NULL THEN 0 ELSE success_count END,
    priced_tokens = CASE WHEN total_cost_nanos IS NULL THEN 0 ELSE total_tokens END;

ALTER TABLE usage_monthly_customer ADD COLUMN success_priced_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly_customer ADD COLUMN priced_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE usage_monthly_customer SET
    success_priced_count = CASE WHEN success_cost_nanos IS NULL THEN 0 ELSE success_count END,
    priced_tokens = CASE WHEN total_cost_nanos IS NULL THEN 0 ELSE total_tokens END;
