-- Recording seats (docs/semantics.md section 6): the ledger takes rows and never changes them. A view with an INSTEAD OF trigger
-- is SQLite's stored procedure: INSERT INTO record_seat_change (org_id) VALUES ('42') does what record_seat_change('42') does
-- on PostgreSQL, in the application's own transaction.
CREATE TABLE seat_org (
    org_id TEXT PRIMARY KEY,
    last_recorded_at TEXT NOT NULL
) STRICT;

DROP INDEX idx_seat_usage_event_org;
CREATE INDEX idx_seat_usage_event_ledger ON seat_usage_event (org_id, seat_type, occurred_at, id, seats);

ALTER TABLE ai_seat_state ADD COLUMN org_id TEXT;
CREATE INDEX idx_ai_seat_state_org ON ai_seat_state (org_id, first_used_at);

-- After the insert, when an id that SQLite chooses is known.
CREATE TRIGGER tallyroll_ledger_insert AFTER INSERT ON seat_usage_event
WHEN NEW.seats > 999999999999
    OR NEW.id NOT BETWEEN 1 AND 4611686018427387904
    OR NEW.occurred_at NOT BETWEEN '0001' AND '9999-12-31T23:59:59.999999Z' BEGIN
    SELECT RAISE(ABORT, 'a ledger row holds 0 to 999999999999 seats, an id from 1 on, and an instant of the years 1 to 9999');
END;

CREATE TRIGGER tallyroll_ledger_replace BEFORE INSERT ON seat_usage_event
WHEN EXISTS (
    SELECT 1
    FROM seat_usage_event
    WHERE id = NEW.id AND (org_id, seat_type, seats, occurred_at) <> (NEW.org_id, NEW.seat_type, NEW.seats, NEW.occurred_at)
) BEGIN
    SELECT RAISE(ABORT, 'seat_usage_event is append-only: another row has this id');
END;

CREATE TRIGGER tallyroll_ledger_update BEFORE UPDATE ON seat_usage_event BEGIN
    SELECT RAISE(ABORT, 'seat_usage_event is append-only: append a row with the right count');
END;

CREATE TRIGGER tallyroll_ledger_delete BEFORE DELETE ON seat_usage_event BEGIN
    SELECT RAISE(ABORT, 'seat_usage_event is append-only: a row that must go needs the trigger tallyroll_ledger_delete dropped, and peak_seats run with --force');
END;

-- Appends one count to the ledger, unless it is the present one already.
CREATE VIEW tallyroll_append_seats AS SELECT NULL AS org_id, NULL AS seat_type, NULL AS seats, NULL AS reason WHERE FALSE;
CREATE TRIGGER tallyroll_append_seats_insert INSTEAD OF INSERT ON tallyroll_append_seats
WHEN NEW.seats IS NOT (
    SELECT seats
    FROM seat_usage_event
    WHERE org_id = NEW.org_id
      AND seat_type = NEW.seat_type
      AND occurred_at <= (SELECT last_recorded_at FROM seat_org WHERE org_id = NEW.org_id)
    ORDER BY occurred_at DESC, id DESC
    LIMIT 1
) BEGIN
    INSERT INTO seat_usage_event (org_id, seat_type, seats, occurred_at, recorded_at, reason)
    SELECT NEW.org_id, NEW.seat_type, NEW.seats, last_recorded_at, last_recorded_at, NEW.reason
    FROM seat_org
    WHERE org_id = NEW.org_id;
END;

-- Counts the assignments of an org (its namespace_id as text), per seat type and in total, and appends what changed. Insert
-- into it last in the transaction that changes memberships.
CREATE VIEW record_seat_change AS SELECT NULL AS org_id, NULL AS reason WHERE FALSE;
CREATE TRIGGER tallyroll_record_seat_change INSTEAD OF INSERT ON record_seat_change BEGIN
    SELECT RAISE(ABORT, 'org_id is no namespace_id: seats are counted from subscription_seat_assignments')
    WHERE NEW.org_id IS NULL OR CAST(CAST(NEW.org_id AS INTEGER) AS TEXT) <> NEW.org_id;
    INSERT INTO seat_org (org_id, last_recorded_at) VALUES (NEW.org_id, strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')
    ON CONFLICT (org_id) DO UPDATE SET last_recorded_at = max(last_recorded_at, excluded.last_recorded_at);
    INSERT INTO tallyroll_append_seats (org_id, seat_type, seats, reason)
    SELECT NEW.org_id, counted.seat_type, counted.seats, COALESCE(NEW.reason, 'seat_change')
    FROM (
        SELECT 'total' AS seat_type, COUNT(*) AS seats
        FROM subscription_seat_assignments
        WHERE namespace_id = CAST(NEW.org_id AS INTEGER)
        UNION ALL
        SELECT known.seat_type, (
            SELECT COUNT(*)
            FROM subscription_seat_assignments AS assignment
            WHERE assignment.namespace_id = CAST(NEW.org_id AS INTEGER) AND assignment.seat_type = known.seat_type
        )
        FROM (
            SELECT seat_type FROM subscription_seat_assignments WHERE namespace_id = CAST(NEW.org_id AS INTEGER)
            UNION
            SELECT seat_type FROM seat_usage_event WHERE org_id = NEW.org_id
        ) AS known
        WHERE known.seat_type NOT IN ('total', 'ai')
    ) AS counted
    ORDER BY counted.seat_type;
END;

-- Gives a user of a namespace a seat type; updated_at moves only where something changed. A trigger runs row by row, so it does
-- not record: insert into record_seat_change once all are in, or counts between two rows of one transaction would stand in
-- the ledger as if someone had held them.
CREATE VIEW upsert_seat_assignment AS
SELECT NULL AS namespace_id, NULL AS organization_id, NULL AS user_id, NULL AS seat_type WHERE FALSE;
CREATE TRIGGER tallyroll_upsert_seat_assignment INSTEAD OF INSERT ON upsert_seat_assignment BEGIN
    INSERT INTO subscription_seat_assignments (namespace_id, organization_id, user_id, seat_type, created_at, updated_at)
    VALUES (NEW.namespace_id, NEW.organization_id, NEW.user_id, NEW.seat_type, strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z', strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')
    ON CONFLICT (namespace_id, user_id) WHERE namespace_id IS NOT NULL DO UPDATE SET
        updated_at = CASE
            WHEN organization_id IS excluded.organization_id AND seat_type IS excluded.seat_type THEN updated_at
            ELSE excluded.updated_at
        END,
        organization_id = excluded.organization_id,
        seat_type = excluded.seat_type;
END;

-- Notes that a user used an AI feature. The first use takes a seat of type `ai` for good: the ledger gets the org's new count.
CREATE VIEW record_ai_seat_usage AS
SELECT NULL AS user_id, NULL AS org_id, NULL AS event_type, NULL AS event_description WHERE FALSE;
CREATE TRIGGER tallyroll_record_ai_seat_usage INSTEAD OF INSERT ON record_ai_seat_usage BEGIN
    SELECT RAISE(ABORT, 'record_ai_seat_usage needs the org that the seat counts for') WHERE NEW.org_id IS NULL;
    INSERT INTO seat_org (org_id, last_recorded_at) VALUES (NEW.org_id, strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')
    ON CONFLICT (org_id) DO UPDATE SET last_recorded_at = max(last_recorded_at, excluded.last_recorded_at);
    INSERT INTO ai_seat_state (user_id, org_id, first_used_at, last_used_at, last_event_type, last_event_description, updated_at)
    SELECT NEW.user_id, NEW.org_id, last_recorded_at, last_recorded_at, NEW.event_type, COALESCE(NEW.event_description, ''), last_recorded_at
    FROM seat_org
    WHERE org_id = NEW.org_id
    ON CONFLICT (user_id) DO UPDATE SET
        org_id = COALESCE(org_id, excluded.org_id),
        last_used_at = max(last_used_at, excluded.last_used_at),
        last_event_type = excluded.last_event_type,
        last_event_description = excluded.last_event_description,
        updated_at = excluded.updated_at;
    INSERT INTO tallyroll_append_seats (org_id, seat_type, seats, reason)
    SELECT NEW.org_id, 'ai', counted.seats, NEW.event_type
    FROM (
        SELECT COUNT(*) AS seats
        FROM ai_seat_state
        WHERE org_id = NEW.org_id AND first_used_at <= (SELECT last_recorded_at FROM seat_org WHERE org_id = NEW.org_id)
    ) AS counted
    -- A user has one AI seat, in the org that it was first used for.
    WHERE EXISTS (SELECT 1 FROM ai_seat_state WHERE user_id = NEW.user_id AND org_id = NEW.org_id);
END;

-- The baseline: every org that has assignments and no ledger yet begins with what it holds now.
INSERT INTO record_seat_change (org_id, reason)
SELECT DISTINCT CAST(namespace_id AS TEXT), 'baseline'
FROM subscription_seat_assignments AS assignment
WHERE namespace_id IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM seat_usage_event AS event WHERE event.org_id = CAST(assignment.namespace_id AS TEXT));
