-- The foreign keys to table $1 that do something to the rows that refer to one that goes: of which table they are, and when two rows are of
-- one key.
SELECT
    class.relname::TEXT AS table_name,
    conrelid::REGCLASS::TEXT AS table_quoted,
    string_agg(format('referring.%I = referred.%I', own.attname, other.attname), ' AND ') AS same
FROM pg_constraint
JOIN pg_class AS class ON class.oid = conrelid
CROSS JOIN unnest(conkey, confkey) AS pair (own, other)
JOIN pg_attribute AS own ON own.attrelid = conrelid AND own.attnum = pair.own
JOIN pg_attribute AS other ON other.attrelid = confrelid AND other.attnum = pair.other
WHERE contype = 'f' AND confrelid = to_regclass(quote_ident($1)) AND confdeltype IN ('c', 'n', 'd')
GROUP BY pg_constraint.oid, conrelid, class.relname
ORDER BY class.relname
