-- The source of our own (docs/semantics.md section 3): usage events of applications that have no log, and of files. Its tokens nest:
-- cached and cache-write tokens are part of the input, reasoning of the output.
CREATE TABLE usage_event (
    ingest_seq INTEGER PRIMARY KEY AUTOINCREMENT,
    source_name TEXT NOT NULL DEFAULT 'application',
    event_id TEXT NOT NULL DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
    occurred_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z') CHECK (length(occurred_at) = 27 AND occurred_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9].[0-9][0-9][0-9][0-9][0-9][0-9]Z' AND substr(occurred_at, 12, 2) < '24' AND strftime('%Y-%m-%dT%H:%M:%S', substr(occurred_at, 1, 19)) IS substr(occurred_at, 1, 19)),
    user_id TEXT NOT NULL,
    user_name TEXT,
    customer_id TEXT,
    customer_name TEXT,
    request_type TEXT NOT NULL DEFAULT 'request',
    category TEXT,
    provider TEXT,
    model TEXT,
    service_tier TEXT,
    status TEXT NOT NULL DEFAULT 'success',
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    total_tokens INTEGER,
    cost_nanos INTEGER,
    latency_ms INTEGER,
    tool_turns INTEGER NOT NULL DEFAULT 0,
    rating INTEGER,
    tags TEXT CHECK (tags IS NULL OR json_valid(tags)),
    import_id TEXT,
    UNIQUE (source_name, event_id)
) STRICT;

CREATE INDEX idx_usage_event_occurred ON usage_event (occurred_at);
CREATE INDEX idx_usage_event_user ON usage_event (user_id, occurred_at DESC);

CREATE TRIGGER tallyroll_usage_event_update AFTER UPDATE ON usage_event BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('usage_event', substr(OLD.occurred_at, 1, 14) || printf('%02d:00.000000Z', substr(OLD.occurred_at, 15, 2) / 15 * 15));
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('usage_event', substr(NEW.occurred_at, 1, 14) || printf('%02d:00.000000Z', substr(NEW.occurred_at, 15, 2) / 15 * 15));
END;

CREATE TRIGGER tallyroll_usage_event_delete AFTER DELETE ON usage_event BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('usage_event', substr(OLD.occurred_at, 1, 14) || printf('%02d:00.000000Z', substr(OLD.occurred_at, 15, 2) / 15 * 15));
END;

-- INSERT OR REPLACE deletes the old row without a trigger, the one with the same id and the one with the same number.
CREATE TRIGGER tallyroll_usage_event_replace BEFORE INSERT ON usage_event
WHEN EXISTS (
    SELECT 1
    FROM usage_event
    WHERE (source_name = NEW.source_name AND event_id = NEW.event_id AND occurred_at <> NEW.occurred_at)
        OR (ingest_seq = NEW.ingest_seq AND (source_name <> NEW.source_name OR event_id <> NEW.event_id))
) BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'usage_event', substr(usage_event.occurred_at, 1, 14) || printf('%02d:00.000000Z', substr(usage_event.occurred_at, 15, 2) / 15 * 15)
    FROM usage_event
    WHERE (source_name = NEW.source_name AND event_id = NEW.event_id) OR ingest_seq = NEW.ingest_seq;
END;

-- A row put back with an old number is not among the larger numbers that a run looks for.
CREATE TRIGGER tallyroll_usage_event_put_back AFTER INSERT ON usage_event
WHEN NEW.ingest_seq <= COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'usage_event'), 0) BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('usage_event', substr(NEW.occurred_at, 1, 14) || printf('%02d:00.000000Z', substr(NEW.occurred_at, 15, 2) / 15 * 15));
END;

CREATE TRIGGER tallyroll_usage_event_number_insert AFTER INSERT ON usage_event
WHEN NEW.ingest_seq > 4611686018427387904 BEGIN
    SELECT RAISE(ABORT, 'ingest_seq is given by the table: past 2^62 it would have no number for the next row');
END;

CREATE TRIGGER tallyroll_usage_event_number_update BEFORE UPDATE OF ingest_seq ON usage_event
WHEN NEW.ingest_seq IS NOT OLD.ingest_seq BEGIN
    SELECT RAISE(ABORT, 'ingest_seq is given by the table and says which rows are new: it does not change');
END;

CREATE TRIGGER tallyroll_usage_event_text_insert BEFORE INSERT ON usage_event
WHEN length(CAST(NEW.source_name AS BLOB)) > 100
    OR instr(NEW.source_name, '/') > 0
    OR length(CAST(NEW.event_id AS BLOB)) > 800
    OR length(CAST(NEW.user_id AS BLOB)) > 1000
    OR length(CAST(NEW.user_name AS BLOB)) > 1000
    OR length(CAST(NEW.customer_id AS BLOB)) > 1000
    OR length(CAST(NEW.customer_name AS BLOB)) > 1000
    OR length(CAST(NEW.request_type AS BLOB)) > 1000
    OR length(CAST(NEW.category AS BLOB)) > 1000
    OR length(CAST(NEW.provider AS BLOB)) > 1000
    OR length(CAST(NEW.model AS BLOB)) > 1000
    OR length(CAST(NEW.service_tier AS BLOB)) > 1000
    OR length(CAST(NEW.status AS BLOB)) > 1000
    OR length(CAST(NEW.tags AS BLOB)) > 10000 BEGIN
    SELECT RAISE(ABORT, 'a text of usage_event holds at most 1000 bytes (source_name 100 and no /, event_id 800, tags 10000): source_name, event_id, user_id, user_name, customer_id, customer_name, request_type, category, provider, model, service_tier, status');
END;

CREATE TRIGGER tallyroll_usage_event_text_update BEFORE UPDATE ON usage_event
WHEN length(CAST(NEW.source_name AS BLOB)) > 100
    OR instr(NEW.source_name, '/') > 0
    OR length(CAST(NEW.event_id AS BLOB)) > 800
    OR length(CAST(NEW.user_id AS BLOB)) > 1000
    OR length(CAST(NEW.user_name AS BLOB)) > 1000
    OR length(CAST(NEW.customer_id AS BLOB)) > 1000
    OR length(CAST(NEW.customer_name AS BLOB)) > 1000
    OR length(CAST(NEW.request_type AS BLOB)) > 1000
    OR length(CAST(NEW.category AS BLOB)) > 1000
    OR length(CAST(NEW.provider AS BLOB)) > 1000
    OR length(CAST(NEW.model AS BLOB)) > 1000
    OR length(CAST(NEW.service_tier AS BLOB)) > 1000
    OR length(CAST(NEW.status AS BLOB)) > 1000
    OR length(CAST(NEW.tags AS BLOB)) > 10000 BEGIN
    SELECT RAISE(ABORT, 'a text of usage_event holds at most 1000 bytes (source_name 100 and no /, event_id 800, tags 10000): source_name, event_id, user_id, user_name, customer_id, customer_name, request_type, category, provider, model, service_tier, status');
END;

-- The three measures that only this source has: for what the others logged they are 0, and no row has to be computed again.
ALTER TABLE usage_daily ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_user ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_user ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_user ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_customer ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_customer ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_customer ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_total ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_total ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_total ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_type ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_type ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_daily_type ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly_user ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly_user ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly_user ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly_customer ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly_customer ADD COLUMN cache_write_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_monthly_customer ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;

-- Digests from before this source and these measures were declared are held against what they were made from.
UPDATE job_window SET definition = 'v1 ' || definition WHERE definition IS NOT NULL;
UPDATE job_window SET input_fingerprint = 'v1 ' || input_fingerprint WHERE job = 'usage_daily' AND input_fingerprint IS NOT NULL;
