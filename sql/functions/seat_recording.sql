-- Recording seats (docs/semantics.md section 6): the ledger takes rows and never changes them, and applications append to it
-- through these functions, in their own transactions.

CREATE OR REPLACE FUNCTION tallyroll.tallyroll_refuse_ledger_change() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'seat_usage_event is append-only: % is refused', lower(TG_OP)
        USING ERRCODE = 'restrict_violation',
              HINT = 'Append a row with the right count. A row that must go: ALTER TABLE seat_usage_event DISABLE TRIGGER USER, delete it, enable the triggers again, and run peak_seats with --force.';
END;
$$;

-- After rows with ids of their own, as an import writes them: the next row gets a larger one.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_pass_ledger_ids() RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_sequence REGCLASS;
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    v_sequence := pg_get_serial_sequence('{app}.seat_usage_event', 'id');
    RETURN setval(v_sequence, GREATEST((SELECT MAX(id) FROM {app}.seat_usage_event), nextval(v_sequence)));
END;
$$;

-- Takes the org's lock until the transaction ends, and gives the instant at which its changes count: never before that of
-- the change before it. In a REPEATABLE READ transaction that another change overtook, this is a serialization failure.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_lock_org(p_org_id TEXT) RETURNS TIMESTAMPTZ
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO tallyroll.seat_org (org_id, last_recorded_at) VALUES (p_org_id, clock_timestamp())
    ON CONFLICT (org_id) DO UPDATE SET last_recorded_at = GREATEST(clock_timestamp(), seat_org.last_recorded_at)
    RETURNING last_recorded_at;
$$;

-- Appends one count, unless it is the present one already.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_append_seats(p_org_id TEXT, p_seat_type TEXT, p_seats BIGINT, p_at TIMESTAMPTZ, p_reason TEXT) RETURNS INTEGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_seats IS NOT DISTINCT FROM (
        SELECT seats
        FROM {app}.seat_usage_event
        WHERE org_id COLLATE "C" = p_org_id AND seat_type COLLATE "C" = p_seat_type AND occurred_at <= p_at
        ORDER BY occurred_at DESC, id DESC
        LIMIT 1
    ) THEN
        RETURN 0;
    END IF;
    INSERT INTO {app}.seat_usage_event (org_id, seat_type, seats, occurred_at, recorded_at, reason)
    VALUES (p_org_id, p_seat_type, p_seats, p_at, p_at, p_reason);
    RETURN 1;
END;
$$;

-- Counts the assignments of an org (its namespace_id as text), per seat type and in total, and appends what changed; how many
-- rows that were. Call it last in the transaction that changes memberships.
CREATE OR REPLACE FUNCTION {app}.record_seat_change(p_org_id TEXT, p_reason TEXT DEFAULT 'seat_change') RETURNS INTEGER
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_namespace_id BIGINT;
    v_at TIMESTAMPTZ;
    v_appended INTEGER;
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    IF p_org_id IS NULL OR p_org_id !~ '^(0|-?[1-9][0-9]{0,18})$' THEN
        RAISE EXCEPTION 'org % is no namespace_id', quote_nullable(p_org_id)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Seats are counted from subscription_seat_assignments by namespace_id; for any other org insert the count into seat_usage_event.';
    END IF;
    v_namespace_id := p_org_id::BIGINT;
    v_at := tallyroll.tallyroll_lock_org(p_org_id);
    -- A statement of its own: what was committed before the lock was ours is seen.
    WITH RECURSIVE known_type AS (
        (
            SELECT seat_type
            FROM {app}.seat_usage_event
            WHERE org_id COLLATE "C" = p_org_id
            ORDER BY seat_type COLLATE "C"
            LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT event.seat_type
            FROM {app}.seat_usage_event AS event
            WHERE event.org_id COLLATE "C" = p_org_id AND event.seat_type COLLATE "C" > known_type.seat_type
            ORDER BY event.seat_type COLLATE "C"
            LIMIT 1
        )
        FROM known_type
        WHERE known_type.seat_type IS NOT NULL
    ), held AS (
        SELECT seat_type, COUNT(*) AS seats
        FROM {app}.subscription_seat_assignments
        WHERE namespace_id = v_namespace_id
        GROUP BY seat_type
    ), counted AS (
        SELECT 'total' AS seat_type, COALESCE(SUM(seats), 0)::BIGINT AS seats FROM held
        UNION ALL
        SELECT seat_type, seats FROM held WHERE seat_type NOT IN ('total', 'ai')
        UNION ALL
        -- Types that nobody holds any more.
        SELECT seat_type, 0
        FROM known_type
        WHERE seat_type NOT IN ('total', 'ai') AND seat_type NOT IN (SELECT seat_type FROM held WHERE seat_type IS NOT NULL)
    )
    SELECT SUM(tallyroll.tallyroll_append_seats(p_org_id, seat_type, seats, v_at, p_reason))
    INTO v_appended
    FROM (SELECT seat_type, seats FROM counted ORDER BY seat_type COLLATE "C") AS ordered;
    RETURN v_appended;
EXCEPTION
    -- PostgreSQL's own words would show the whole row, which the caller may not read.
    WHEN not_null_violation OR check_violation OR unique_violation OR exclusion_violation THEN
        RAISE EXCEPTION 'The seats of org % cannot be recorded so: %', p_org_id, SQLERRM USING ERRCODE = 'invalid_parameter_value';
END;
$$;

-- Gives users of a namespace a seat type, several at once, and records the change. updated_at moves only where something
-- changed. The org is locked first, so that two calls can't wait for each other's rows. Of a user who is given twice the last counts.
-- Gives the assignments' ids.
CREATE OR REPLACE FUNCTION {app}.upsert_seat_assignment(
    p_namespace_id BIGINT,
    p_user_ids BIGINT[],
    p_seat_types TEXT[],
    p_organization_id BIGINT DEFAULT NULL,
    p_reason TEXT DEFAULT 'seat_change'
) RETURNS SETOF BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    IF p_namespace_id IS NULL OR p_user_ids IS NULL OR p_seat_types IS NULL OR array_position(p_user_ids, NULL) IS NOT NULL OR cardinality(p_user_ids) IS DISTINCT FROM cardinality(p_seat_types) THEN
        RAISE EXCEPTION 'upsert_seat_assignment needs a namespace, users that are not NULL, and as many seat types as users'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM tallyroll.tallyroll_lock_org(p_namespace_id::TEXT);
    RETURN QUERY
    INSERT INTO {app}.subscription_seat_assignments AS present (namespace_id, organization_id, user_id, seat_type, created_at, updated_at)
    SELECT p_namespace_id, p_organization_id, wanted.user_id, wanted.seat_type, clock_timestamp(), clock_timestamp()
    FROM (
        SELECT DISTINCT ON (given.user_id) given.user_id, given.seat_type
        FROM unnest(p_user_ids, p_seat_types) WITH ORDINALITY AS given (user_id, seat_type, place)
        ORDER BY given.user_id, given.place DESC
    ) AS wanted
    ON CONFLICT (namespace_id, user_id) WHERE namespace_id IS NOT NULL DO UPDATE SET
        updated_at = CASE
            WHEN present.organization_id IS NOT DISTINCT FROM excluded.organization_id
                AND present.seat_type IS NOT DISTINCT FROM excluded.seat_type
            THEN present.updated_at
            ELSE excluded.updated_at
        END,
        organization_id = excluded.organization_id,
        seat_type = excluded.seat_type
    RETURNING present.id;
    PERFORM {app}.record_seat_change(p_namespace_id::TEXT, p_reason);
EXCEPTION
    -- PostgreSQL's own words would show the whole row, which the caller may not read.
    WHEN not_null_violation OR check_violation OR unique_violation OR exclusion_violation THEN
        RAISE EXCEPTION 'Seats of namespace % cannot be assigned so: %', p_namespace_id, SQLERRM USING ERRCODE = 'invalid_parameter_value';
END;
$$;

-- Takes the seats of users of a namespace away and records the change; how many had one.
CREATE OR REPLACE FUNCTION {app}.remove_seat_assignment(p_namespace_id BIGINT, p_user_ids BIGINT[], p_reason TEXT DEFAULT 'seat_change') RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_removed BIGINT;
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    IF p_namespace_id IS NULL THEN
        RAISE EXCEPTION 'remove_seat_assignment needs a namespace' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM tallyroll.tallyroll_lock_org(p_namespace_id::TEXT);
    DELETE FROM {app}.subscription_seat_assignments WHERE namespace_id = p_namespace_id AND user_id = ANY (p_user_ids);
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    PERFORM {app}.record_seat_change(p_namespace_id::TEXT, p_reason);
    RETURN v_removed;
EXCEPTION
    -- PostgreSQL's own words would show the whole row, which the caller may not read.
    WHEN not_null_violation OR check_violation OR unique_violation OR exclusion_violation THEN
        RAISE EXCEPTION 'Seats of namespace % cannot be taken away so: %', p_namespace_id, SQLERRM USING ERRCODE = 'invalid_parameter_value';
END;
$$;

-- Notes that a user used an AI feature. The first use takes a seat of type `ai` for good: the ledger gets the org's new count.
-- True when this was the first.
CREATE OR REPLACE FUNCTION {app}.record_ai_seat_usage(
    p_user_id UUID,
    p_org_id TEXT,
    p_event_type TEXT,
    p_event_description TEXT DEFAULT ''
) RETURNS BOOLEAN
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_at TIMESTAMPTZ;
BEGIN
    PERFORM tallyroll.tallyroll_application_log();
    DECLARE
        -- Text, or the application's own enumeration.
        v_event_type {app}.ai_seat_state.last_event_type%TYPE;
    BEGIN
        IF p_user_id IS NULL OR p_org_id IS NULL OR p_event_type IS NULL OR p_event_description IS NULL THEN
            RAISE EXCEPTION 'record_ai_seat_usage needs a user, the org that the seat counts for, an event type and a description (it may be empty)' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        BEGIN
            v_event_type := p_event_type;
        EXCEPTION
            WHEN invalid_text_representation THEN
                RAISE EXCEPTION 'ai_seat_state knows no event type %', quote_nullable(p_event_type)
                    USING ERRCODE = 'invalid_parameter_value', HINT = (
                        SELECT 'It is one of ' || string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) || '; ALTER TYPE … ADD VALUE adds one.'
                        FROM pg_enum
                        WHERE enumtypid = pg_typeof(v_event_type)
                    );
        END;
        UPDATE {app}.ai_seat_state
        SET last_used_at = GREATEST(last_used_at, clock_timestamp()),
            last_event_type = v_event_type,
            last_event_description = p_event_description,
            updated_at = clock_timestamp()
        WHERE user_id = p_user_id AND org_id IS NOT NULL;
        IF FOUND THEN
            RETURN FALSE;
        END IF;
        v_at := tallyroll.tallyroll_lock_org(p_org_id);
        -- Either new, or known from before seats had an org.
        INSERT INTO {app}.ai_seat_state AS present (user_id, org_id, first_used_at, last_used_at, last_event_type, last_event_description, updated_at)
        VALUES (p_user_id, p_org_id, v_at, v_at, v_event_type, p_event_description, v_at)
        ON CONFLICT (user_id) DO UPDATE SET
            org_id = COALESCE(present.org_id, excluded.org_id),
            last_used_at = GREATEST(present.last_used_at, excluded.last_used_at),
            last_event_type = excluded.last_event_type,
            last_event_description = excluded.last_event_description,
            updated_at = excluded.updated_at;
        -- A user has one AI seat, in the org that it was first used for.
        IF p_org_id <> (SELECT org_id FROM {app}.ai_seat_state WHERE user_id = p_user_id) THEN
            RETURN FALSE;
        END IF;
        RETURN tallyroll.tallyroll_append_seats(
            p_org_id,
            'ai',
            (SELECT COUNT(*) FROM {app}.ai_seat_state WHERE org_id = p_org_id AND first_used_at <= v_at),
            v_at,
            p_event_type
        ) = 1;
    END;
EXCEPTION
    -- PostgreSQL's own words would show the whole row, which the caller may not read.
    WHEN not_null_violation OR check_violation OR unique_violation OR exclusion_violation THEN
        RAISE EXCEPTION 'The use by user % cannot be recorded so: %', p_user_id, SQLERRM USING ERRCODE = 'invalid_parameter_value';
END;
$$;
