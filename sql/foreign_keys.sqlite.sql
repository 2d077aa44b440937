-- As foreign_keys.postgres.sql. A key that names no column refers to the primary key.
SELECT
    referring.name AS table_name,
    '"' || replace(referring.name, '"', '""') || '"' AS table_quoted,
    group_concat(
        'referring."' || replace(key."from", '"', '""') || '" = referred."'
        || replace(COALESCE(key."to", (SELECT name FROM pragma_table_info($1) WHERE pk = key.seq + 1)), '"', '""') || '"',
        ' AND '
    ) AS same
FROM sqlite_schema AS referring, pragma_foreign_key_list(referring.name) AS key
WHERE referring.type = 'table' AND lower(key."table") = lower($1) AND key.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
GROUP BY referring.name, key.id
ORDER BY referring.name
