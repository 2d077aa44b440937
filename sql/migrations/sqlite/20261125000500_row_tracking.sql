-- Who writes a row does not decide how it is tracked (docs/semantics.md section 5), and no row holds a text that a run could not
-- take in (section 3). A quarter of an hour is cut out of the instant's text: an integer division rounds toward zero, and before
-- 1970 that is the next quarter.

DROP TRIGGER tallyroll_ai_usage_log_update;
DROP TRIGGER tallyroll_ai_usage_log_delete;
DROP TRIGGER tallyroll_ai_usage_log_replace;
DROP TRIGGER tallyroll_chat_requests_update;
DROP TRIGGER tallyroll_chat_requests_delete;
DROP TRIGGER tallyroll_chat_requests_replace;
DROP TRIGGER tallyroll_request_analytics_insert;
DROP TRIGGER tallyroll_request_analytics_update;
DROP TRIGGER tallyroll_request_analytics_delete;

CREATE TRIGGER tallyroll_ai_usage_log_update AFTER UPDATE ON ai_usage_log BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('ai_usage_log', substr(OLD.created_at, 1, 14) || printf('%02d:00.000000Z', substr(OLD.created_at, 15, 2) / 15 * 15));
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('ai_usage_log', substr(NEW.created_at, 1, 14) || printf('%02d:00.000000Z', substr(NEW.created_at, 15, 2) / 15 * 15));
END;

CREATE TRIGGER tallyroll_ai_usage_log_delete AFTER DELETE ON ai_usage_log BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('ai_usage_log', substr(OLD.created_at, 1, 14) || printf('%02d:00.000000Z', substr(OLD.created_at, 15, 2) / 15 * 15));
END;

-- INSERT OR REPLACE deletes the old row without a trigger, the one with the same id and the one with the same number.
CREATE TRIGGER tallyroll_ai_usage_log_replace BEFORE INSERT ON ai_usage_log
WHEN EXISTS (
    SELECT 1
    FROM ai_usage_log
    WHERE (id = NEW.id AND created_at <> NEW.created_at) OR (ingest_seq = NEW.ingest_seq AND id <> NEW.id)
) BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'ai_usage_log', substr(created_at, 1, 14) || printf('%02d:00.000000Z', substr(created_at, 15, 2) / 15 * 15)
    FROM ai_usage_log
    WHERE id = NEW.id OR ingest_seq = NEW.ingest_seq;
END;

-- A row that brings a number from before the last one given, a row put back say, is not among the larger numbers that a run
-- looks for: its quarter of an hour is marked. A statement's own numbers are counted when it ends.
CREATE TRIGGER tallyroll_ai_usage_log_put_back AFTER INSERT ON ai_usage_log
WHEN NEW.ingest_seq <= COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'ai_usage_log'), 0) BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('ai_usage_log', substr(NEW.created_at, 1, 14) || printf('%02d:00.000000Z', substr(NEW.created_at, 15, 2) / 15 * 15));
END;

CREATE TRIGGER tallyroll_ai_usage_log_number_insert AFTER INSERT ON ai_usage_log
WHEN NEW.ingest_seq > 4611686018427387904 BEGIN
    SELECT RAISE(ABORT, 'ingest_seq is given by the table: past 2^62 it would have no number for the next row');
END;

CREATE TRIGGER tallyroll_ai_usage_log_number_update BEFORE UPDATE OF ingest_seq ON ai_usage_log
WHEN NEW.ingest_seq IS NOT OLD.ingest_seq BEGIN
    SELECT RAISE(ABORT, 'ingest_seq is given by the table and says which rows are new: it does not change');
END;

CREATE TRIGGER tallyroll_chat_requests_update AFTER UPDATE ON chat_requests BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('chat_requests', substr(OLD.created_at, 1, 14) || printf('%02d:00.000000Z', substr(OLD.created_at, 15, 2) / 15 * 15));
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('chat_requests', substr(NEW.created_at, 1, 14) || printf('%02d:00.000000Z', substr(NEW.created_at, 15, 2) / 15 * 15));
END;

CREATE TRIGGER tallyroll_chat_requests_delete AFTER DELETE ON chat_requests BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('chat_requests', substr(OLD.created_at, 1, 14) || printf('%02d:00.000000Z', substr(OLD.created_at, 15, 2) / 15 * 15));
END;

-- INSERT OR REPLACE deletes the old row without a trigger, the one with the same id and the one with the same number.
CREATE TRIGGER tallyroll_chat_requests_replace BEFORE INSERT ON chat_requests
WHEN EXISTS (
    SELECT 1
    FROM chat_requests
    WHERE (id = NEW.id AND created_at <> NEW.created_at) OR (ingest_seq = NEW.ingest_seq AND id <> NEW.id)
) BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', substr(created_at, 1, 14) || printf('%02d:00.000000Z', substr(created_at, 15, 2) / 15 * 15)
    FROM chat_requests
    WHERE id = NEW.id OR ingest_seq = NEW.ingest_seq;
END;

-- A row that brings a number from before the last one given, a row put back say, is not among the larger numbers that a run
-- looks for: its quarter of an hour is marked. A statement's own numbers are counted when it ends.
CREATE TRIGGER tallyroll_chat_requests_put_back AFTER INSERT ON chat_requests
WHEN NEW.ingest_seq <= COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'chat_requests'), 0) BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start) VALUES ('chat_requests', substr(NEW.created_at, 1, 14) || printf('%02d:00.000000Z', substr(NEW.created_at, 15, 2) / 15 * 15));
END;

CREATE TRIGGER tallyroll_chat_requests_number_insert AFTER INSERT ON chat_requests
WHEN NEW.ingest_seq > 4611686018427387904 BEGIN
    SELECT RAISE(ABORT, 'ingest_seq is given by the table: past 2^62 it would have no number for the next row');
END;

CREATE TRIGGER tallyroll_chat_requests_number_update BEFORE UPDATE OF ingest_seq ON chat_requests
WHEN NEW.ingest_seq IS NOT OLD.ingest_seq BEGIN
    SELECT RAISE(ABORT, 'ingest_seq is given by the table and says which rows are new: it does not change');
END;

-- An analytics row changes the usage event of its chat request.
CREATE TRIGGER tallyroll_request_analytics_insert AFTER INSERT ON request_analytics BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', substr(created_at, 1, 14) || printf('%02d:00.000000Z', substr(created_at, 15, 2) / 15 * 15) FROM chat_requests WHERE id = NEW.request_id;
END;

CREATE TRIGGER tallyroll_request_analytics_update AFTER UPDATE ON request_analytics BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', substr(created_at, 1, 14) || printf('%02d:00.000000Z', substr(created_at, 15, 2) / 15 * 15) FROM chat_requests WHERE id = OLD.request_id;
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', substr(created_at, 1, 14) || printf('%02d:00.000000Z', substr(created_at, 15, 2) / 15 * 15) FROM chat_requests WHERE id = NEW.request_id;
END;

CREATE TRIGGER tallyroll_request_analytics_delete AFTER DELETE ON request_analytics BEGIN
    INSERT OR IGNORE INTO usage_dirty_day (source, slot_start)
    SELECT 'chat_requests', substr(created_at, 1, 14) || printf('%02d:00.000000Z', substr(created_at, 15, 2) / 15 * 15) FROM chat_requests WHERE id = OLD.request_id;
END;

-- Texts that jobs read, in bytes. What no job reads is the application's own. (octet_length is not in every SQLite that writes.)
CREATE TRIGGER tallyroll_ai_usage_log_text_insert BEFORE INSERT ON ai_usage_log
WHEN length(CAST(NEW.id AS BLOB)) > 1000
    OR length(CAST(NEW.user_id AS BLOB)) > 1000
    OR length(CAST(NEW.user_email AS BLOB)) > 1000
    OR length(CAST(NEW.customer_name AS BLOB)) > 1000
    OR length(CAST(NEW.request_type AS BLOB)) > 1000
    OR length(CAST(NEW.model_used AS BLOB)) > 1000
    OR length(CAST(NEW.status AS BLOB)) > 1000 BEGIN
    SELECT RAISE(ABORT, 'a text of ai_usage_log that jobs read holds at most 1000 bytes: id, user_id, user_email, customer_name, request_type, model_used, status');
END;

CREATE TRIGGER tallyroll_ai_usage_log_text_update BEFORE UPDATE OF id, user_id, user_email, customer_name, request_type, model_used, status ON ai_usage_log
WHEN length(CAST(NEW.id AS BLOB)) > 1000
    OR length(CAST(NEW.user_id AS BLOB)) > 1000
    OR length(CAST(NEW.user_email AS BLOB)) > 1000
    OR length(CAST(NEW.customer_name AS BLOB)) > 1000
    OR length(CAST(NEW.request_type AS BLOB)) > 1000
    OR length(CAST(NEW.model_used AS BLOB)) > 1000
    OR length(CAST(NEW.status AS BLOB)) > 1000 BEGIN
    SELECT RAISE(ABORT, 'a text of ai_usage_log that jobs read holds at most 1000 bytes: id, user_id, user_email, customer_name, request_type, model_used, status');
END;

CREATE TRIGGER tallyroll_chat_requests_text_insert BEFORE INSERT ON chat_requests
WHEN length(CAST(NEW.id AS BLOB)) > 1000
    OR length(CAST(NEW.user_id AS BLOB)) > 1000
    OR length(CAST(NEW.model AS BLOB)) > 1000
    OR length(CAST(NEW.status AS BLOB)) > 1000 BEGIN
    SELECT RAISE(ABORT, 'a text of chat_requests that jobs read holds at most 1000 bytes: id, user_id, model, status');
END;

CREATE TRIGGER tallyroll_chat_requests_text_update BEFORE UPDATE OF id, user_id, model, status ON chat_requests
WHEN length(CAST(NEW.id AS BLOB)) > 1000
    OR length(CAST(NEW.user_id AS BLOB)) > 1000
    OR length(CAST(NEW.model AS BLOB)) > 1000
    OR length(CAST(NEW.status AS BLOB)) > 1000 BEGIN
    SELECT RAISE(ABORT, 'a text of chat_requests that jobs read holds at most 1000 bytes: id, user_id, model, status');
END;

CREATE TRIGGER tallyroll_request_analytics_text_insert BEFORE INSERT ON request_analytics
WHEN length(CAST(NEW.id AS BLOB)) > 1000
    OR length(CAST(NEW.request_type AS BLOB)) > 1000
    OR length(CAST(NEW.category AS BLOB)) > 1000 BEGIN
    SELECT RAISE(ABORT, 'a text of request_analytics that jobs read holds at most 1000 bytes: id, request_type, category');
END;

CREATE TRIGGER tallyroll_request_analytics_text_update BEFORE UPDATE OF id, request_type, category ON request_analytics
WHEN length(CAST(NEW.id AS BLOB)) > 1000
    OR length(CAST(NEW.request_type AS BLOB)) > 1000
    OR length(CAST(NEW.category AS BLOB)) > 1000 BEGIN
    SELECT RAISE(ABORT, 'a text of request_analytics that jobs read holds at most 1000 bytes: id, request_type, category');
END;

CREATE TRIGGER tallyroll_seat_usage_event_text_insert BEFORE INSERT ON seat_usage_event
WHEN length(CAST(NEW.org_id AS BLOB)) > 1000
    OR length(CAST(NEW.seat_type AS BLOB)) > 1000
    OR length(CAST(NEW.reason AS BLOB)) > 1000 BEGIN
    SELECT RAISE(ABORT, 'a text of seat_usage_event that jobs read holds at most 1000 bytes: org_id, seat_type, reason');
END;
