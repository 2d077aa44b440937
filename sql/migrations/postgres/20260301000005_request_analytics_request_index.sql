-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_request_analytics_request ON request_analytics (request_id)
