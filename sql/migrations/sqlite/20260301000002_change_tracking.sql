-- Change tracking (docs/semantics.md section 5): an update or delete of a raw row marks the quarter of an hour that the row
-- was or is in. A quarter of an hour lies in one day of every time zone of today, whatever reporting.timezone is.
CREATE TABLE usage_dirty_day (
    mark_seq INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    slot_start TEXT NOT NULL,
    UNIQUE (source, slot_start)
) STRICT;

CREATE TABLE usage_watermark (
    source TEXT PRIMARY KEY,
    position TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

CREATE TRIGGER tallyroll_ai_usage_log_update AFTER UPDATE ON ai_usage_log BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('ai_usage_log', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(OLD.created_at, 1, 19)) / 900 * 900, 'unixepoch'));
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('ai_usage_log', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(NEW.created_at, 1, 19)) / 900 * 900, 'unixepoch'));
END;

CREATE TRIGGER tallyroll_ai_usage_log_delete AFTER DELETE ON ai_usage_log BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('ai_usage_log', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(OLD.created_at, 1, 19)) / 900 * 900, 'unixepoch'));
END;

CREATE TRIGGER tallyroll_chat_requests_update AFTER UPDATE ON chat_requests BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('chat_requests', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(OLD.created_at, 1, 19)) / 900 * 900, 'unixepoch'));
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('chat_requests', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(NEW.created_at, 1, 19)) / 900 * 900, 'unixepoch'));
END;

CREATE TRIGGER tallyroll_chat_requests_delete AFTER DELETE ON chat_requests BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('chat_requests', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(OLD.created_at, 1, 19)) / 900 * 900, 'unixepoch'));
END;

-- An analytics row changes the usage event of its chat request.
CREATE TRIGGER tallyroll_request_analytics_insert AFTER INSERT ON request_analytics BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(created_at, 1, 19)) / 900 * 900, 'unixepoch') FROM chat_requests WHERE id = NEW.request_id;
END;

CREATE TRIGGER tallyroll_request_analytics_update AFTER UPDATE ON request_analytics BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(created_at, 1, 19)) / 900 * 900, 'unixepoch') FROM chat_requests WHERE id = OLD.request_id;
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(created_at, 1, 19)) / 900 * 900, 'unixepoch') FROM chat_requests WHERE id = NEW.request_id;
END;

CREATE TRIGGER tallyroll_request_analytics_delete AFTER DELETE ON request_analytics BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(created_at, 1, 19)) / 900 * 900, 'unixepoch') FROM chat_requests WHERE id = OLD.request_id;
END;

-- INSERT OR REPLACE deletes the old row without a trigger: its day is marked before.
CREATE TRIGGER tallyroll_ai_usage_log_replace BEFORE INSERT ON ai_usage_log
WHEN EXISTS (SELECT 1 FROM ai_usage_log WHERE id = NEW.id AND created_at <> NEW.created_at) BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'ai_usage_log', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(created_at, 1, 19)) / 900 * 900, 'unixepoch')
    FROM ai_usage_log
    WHERE id = NEW.id;
END;

-- INSERT OR REPLACE deletes the old row without a trigger: its day is marked before.
CREATE TRIGGER tallyroll_chat_requests_replace BEFORE INSERT ON chat_requests
WHEN EXISTS (SELECT 1 FROM chat_requests WHERE id = NEW.id AND created_at <> NEW.created_at) BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', strftime('%Y-%m-%dT%H:%M:%S.000000Z', unixepoch(substr(created_at, 1, 19)) / 900 * 900, 'unixepoch')
    FROM chat_requests
    WHERE id = NEW.id;
END;
