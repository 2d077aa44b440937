-- Which schema is the application's. The functions name the application's tables by the schema's name at the time of `migrate`.

-- The application's log, in the schema of that name, which must be the one with the history of migrations, a table of the owner of schema
-- tallyroll. Every function that runs as its owner asks this before it touches a table of the application: once the schema has
-- been renamed, anybody who may create schemas can make one of the old name.
CREATE OR REPLACE FUNCTION tallyroll.tallyroll_application_log() RETURNS OID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_log OID;
BEGIN
    SELECT log.oid INTO v_log
    FROM pg_namespace AS own
    JOIN pg_class AS history ON history.relowner = own.nspowner
    JOIN pg_class AS log ON log.relnamespace = history.relnamespace
    WHERE own.nspname = 'tallyroll'
        AND history.relnamespace = to_regnamespace('{app}') AND history.relname = 'tallyroll_migration' AND history.relkind = 'r'
        AND log.relname = 'ai_usage_log' AND log.relkind IN ('r', 'p');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Schema % is not the application''s: that was renamed after these functions were made', '{app}'
            USING ERRCODE = 'invalid_schema_name', HINT = 'Run `tallyroll migrate`, which makes them for the new name.';
    END IF;
    RETURN v_log;
END;
$$;
