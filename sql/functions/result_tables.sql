-- The tables of jobs that a project adds: made from their SELECT by `migrate` or by the first run (src/operator/sql.rs).

-- Gives such a table to the migrator and its rights to runner and reader, where there are those roles; sql/roles.sql finds it by its
-- comment. Runs with the rights of whoever made the table.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_give_result_table(p_table REGCLASS) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('COMMENT ON TABLE %s IS ''Result of a job of the project''', p_table);
    IF to_regrole('tallyroll_runner') IS NOT NULL THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO tallyroll_runner', p_table);
    END IF;
    IF to_regrole('tallyroll_reader') IS NOT NULL THEN
        EXECUTE format('GRANT SELECT ON %s TO tallyroll_reader', p_table);
    END IF;
    -- Where roles have been made here, the schema is the migrator's.
    IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'tallyroll') = to_regrole('tallyroll_migrator') THEN
        EXECUTE format('ALTER TABLE %s OWNER TO tallyroll_migrator', p_table);
    END IF;
END;
$$;
