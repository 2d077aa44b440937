-- Change tracking (docs/semantics.md section 5): the triggers' functions. An update or delete of a raw row marks the quarter of an hour
-- that the row was or is in. A quarter of an hour lies in one day of every time zone of today, whatever reporting.timezone is.

-- What is past the calendar lies in no day, and has no quarter of an hour that could be told: such a row must be able to go.
-- The writer needs no right on usage_dirty_day: the marks are set as the owner. Extracting the epoch makes the slot
-- independent of the writer's session time zone, also where created_at is a timestamp without zone.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_mark_dirty() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO tallyroll.usage_dirty_day (source, slot_start)
        SELECT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM created_at) / 900) * 900) FROM old_rows WHERE created_at < '9999-12-31'
        UNION
        SELECT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM created_at) / 900) * 900) FROM new_rows WHERE created_at < '9999-12-31';
    ELSE
        INSERT INTO tallyroll.usage_dirty_day (source, slot_start)
        SELECT DISTINCT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM created_at) / 900) * 900) FROM old_rows WHERE created_at < '9999-12-31';
    END IF;
    RETURN NULL;
END;
$$;

-- Of the source whose instant is called otherwise.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_mark_dirty_event() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO tallyroll.usage_dirty_day (source, slot_start)
        SELECT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM occurred_at) / 900) * 900) FROM old_rows WHERE occurred_at < '9999-12-31'
        UNION
        SELECT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM occurred_at) / 900) * 900) FROM new_rows WHERE occurred_at < '9999-12-31';
    ELSE
        INSERT INTO tallyroll.usage_dirty_day (source, slot_start)
        SELECT DISTINCT TG_TABLE_NAME, to_timestamp(floor(extract(EPOCH FROM occurred_at) / 900) * 900) FROM old_rows WHERE occurred_at < '9999-12-31';
    END IF;
    RETURN NULL;
END;
$$;

-- An analytics row changes the usage event of its chat request.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_mark_dirty_analytics() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO tallyroll.usage_dirty_day (source, slot_start)
        SELECT DISTINCT 'chat_requests', to_timestamp(floor(extract(EPOCH FROM request.created_at) / 900) * 900)
        FROM old_rows AS changed JOIN {app}.chat_requests AS request ON request.id = changed.request_id
        WHERE request.created_at < '9999-12-31';
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO tallyroll.usage_dirty_day (source, slot_start)
        SELECT DISTINCT 'chat_requests', to_timestamp(floor(extract(EPOCH FROM request.created_at) / 900) * 900)
        FROM new_rows AS changed JOIN {app}.chat_requests AS request ON request.id = changed.request_id
        WHERE request.created_at < '9999-12-31';
    END IF;
    RETURN NULL;
END;
$$;

-- A row is tracked by the transaction that inserted it, whatever the writer gave.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_stamp_ingest() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.ingest_xid := pg_current_xact_id();
    RETURN NEW;
END;
$$;

-- An emptied table says no more which days its rows were of: every day that was written is looked at, by its noon, which lies in
-- it in every zone.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_mark_truncated() RETURNS TRIGGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO tallyroll.usage_dirty_day (source, slot_start)
    SELECT DISTINCT
        CASE TG_TABLE_NAME WHEN 'request_analytics' THEN 'chat_requests' ELSE TG_TABLE_NAME END,
        (window_start + TIME '12:00') AT TIME ZONE timezone
    FROM tallyroll.job_window
    WHERE window_end = window_start + 1 AND write_count > 0;
    RETURN NULL;
END;
$$;
