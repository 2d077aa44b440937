-- What materialized views of the names in $1, a line each, are made from: a plan stops at them.
WITH RECURSIVE behind AS (
    SELECT oid, relkind FROM pg_class WHERE relkind = 'm' AND relname = ANY (string_to_array($1, chr(10)))
    UNION
    SELECT base.oid, base.relkind
    FROM behind
    JOIN pg_rewrite ON pg_rewrite.ev_class = behind.oid
    JOIN pg_depend ON pg_depend.classid = 'pg_rewrite'::REGCLASS AND pg_depend.objid = pg_rewrite.oid AND refclassid = 'pg_class'::REGCLASS
    JOIN pg_class AS base ON base.oid = refobjid
)
SELECT relname::TEXT AS name FROM behind JOIN pg_class USING (oid) ORDER BY 1
