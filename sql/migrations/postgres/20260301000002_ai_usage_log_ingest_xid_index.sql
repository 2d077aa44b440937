-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_ai_usage_log_ingest_xid ON ai_usage_log (ingest_xid, created_at)
