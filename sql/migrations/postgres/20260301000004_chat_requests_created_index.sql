-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_chat_requests_created ON chat_requests (created_at)
