-- A user has one row: record_ai_seat_usage relies on it. A table that the application made may lack the key.
SET LOCAL lock_timeout = '10s';

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT 1
        FROM pg_index
        JOIN pg_attribute ON attrelid = indrelid AND attname = 'user_id'
        WHERE indrelid = 'ai_seat_state'::REGCLASS AND indisunique AND indpred IS NULL AND indnkeyatts = 1 AND indkey[0] = attnum
    ) THEN
        CREATE UNIQUE INDEX idx_ai_seat_state_user ON ai_seat_state (user_id);
    END IF;
EXCEPTION
    WHEN unique_violation THEN
        RAISE EXCEPTION 'ai_seat_state holds a user more than once, and must hold each once (%)', SQLERRM;
END;
$$;
