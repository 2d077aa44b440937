-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_chat_requests_ingest_xid ON chat_requests (ingest_xid, created_at)
