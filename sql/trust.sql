-- What is not trusted to run with the rights of this session: what it is, whose, and of which kind.
--
-- Trusted are superusers and the roles that own what is ours; by a session that is no superuser also its role, what that was made a
-- member of by one who may (before PostgreSQL 15 a role gives itself to anybody), the database's owner, who may be the migrator, and,
-- once the schema is there, the log's owner. $1 names the tables of the application. $2 is 1 before migrate, which takes the right
-- to create in our schema back, 2 where roles were just made: then only what tables use is asked for, as the functions' owner would run it;
-- and 3 after migrate, which `--roles` may follow.
WITH RECURSIVE session AS (
    SELECT oid, rolsuper FROM pg_roles WHERE rolname IN (CURRENT_USER, SESSION_USER)
), own AS (
    SELECT oid FROM session
    UNION
    SELECT given.roleid
    FROM own
    JOIN pg_auth_members AS given ON given.member = own.oid
    JOIN pg_roles AS giver ON giver.oid = given.grantor
    WHERE giver.rolsuper OR giver.rolcreaterole OR giver.oid IN (SELECT oid FROM session)
), here AS (
    -- The functions' owner is no superuser, whoever makes the roles.
    SELECT datdba, (SELECT bool_or(rolsuper) FROM session) AND $2 <> 2 AS is_super FROM pg_database WHERE datname = current_database()
), place AS (
    SELECT oid, nspname, nspowner, nspacl, nspname = 'tallyroll' AS is_ours
    FROM pg_namespace
    WHERE nspname IN ('tallyroll', current_setting('tallyroll.application_schema'))
), root AS (
    SELECT oid FROM pg_roles WHERE rolsuper OR rolname IN ('tallyroll_migrator', 'tallyroll_owner')
    UNION
    SELECT oid FROM own WHERE NOT (SELECT is_super FROM here)
    UNION
    SELECT oid FROM pg_roles
    WHERE pg_has_role(oid, to_regrole('tallyroll_migrator'), 'MEMBER') AND NOT (SELECT is_super FROM here)
    UNION
    SELECT datdba FROM here WHERE NOT is_super
    UNION
    SELECT nspowner FROM place WHERE is_ours AND $2 = 2
), trusted AS (
    SELECT oid FROM root
    UNION
    SELECT log.relowner
    FROM place
    JOIN pg_class AS log ON log.relnamespace = place.oid AND log.relname = 'ai_usage_log' AND log.relkind IN ('r', 'p')
    WHERE NOT place.is_ours AND NOT (SELECT is_super FROM here) AND EXISTS (
        SELECT 1 FROM place AS ours JOIN pg_class AS setting ON setting.relnamespace = ours.oid
        WHERE ours.is_ours AND ours.nspowner IN (SELECT oid FROM root)
            AND setting.relname = 'tallyroll_setting' AND setting.relkind = 'r'
    )
    UNION
    SELECT oid FROM pg_roles WHERE rolname = 'pg_database_owner' AND (SELECT datdba FROM here) IN (SELECT oid FROM root)
), family AS (
    -- Whether it is one of those that are named, or follows from one.
    SELECT class.oid, class.relkind, class.relowner, class.relnamespace, place.is_ours OR class.relname = ANY (string_to_array($1, ',')) AS is_named
    FROM pg_class AS class
    JOIN place ON place.oid = class.relnamespace
    WHERE class.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND (place.is_ours OR (SELECT is_super FROM here) OR class.relname = ANY (string_to_array($1, ',')))
    UNION
    -- What it inherits from (a partition has its key and its triggers from there), what inherits from it, what refers to it by a foreign
    -- key that writes when such a row goes, and where its rules write.
    SELECT other.oid, other.relkind, other.relowner, other.relnamespace, family.is_named
    FROM family
    JOIN (
        SELECT inhparent AS oid, inhrelid AS other FROM pg_inherits
        UNION ALL
        SELECT inhrelid, inhparent FROM pg_inherits
        UNION ALL
        SELECT ev_class, refobjid
        FROM pg_rewrite
        JOIN pg_depend ON classid = 'pg_rewrite'::REGCLASS AND objid = pg_rewrite.oid AND refclassid = 'pg_class'::REGCLASS
        -- A view that is written to stands for the tables that it reads; those of somebody else it trusts (SECURITY.md).
        WHERE ev_type <> '1' OR (SELECT relowner FROM pg_class WHERE pg_class.oid = refobjid) IN (SELECT oid FROM trusted)
        UNION ALL
        SELECT confrelid, conrelid FROM pg_constraint WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
    ) AS tie ON tie.oid = family.oid
    JOIN pg_class AS other ON other.oid = tie.other
), part AS (
    -- What is run when a row is read or written: defaults and generated columns, checks, indexes, rules, triggers with their conditions,
    -- keys of partitions, what the planner reckons by, and the types of the columns.
    SELECT adrelid AS relation, 'pg_attrdef'::REGCLASS AS class, pg_attrdef.oid FROM family JOIN pg_attrdef ON adrelid = family.oid
    UNION ALL
    SELECT conrelid, 'pg_constraint'::REGCLASS, pg_constraint.oid FROM family JOIN pg_constraint ON conrelid = family.oid
    UNION ALL
    SELECT indrelid, 'pg_class'::REGCLASS, indexrelid FROM family JOIN pg_index ON indrelid = family.oid
    UNION ALL
    SELECT ev_class, 'pg_rewrite'::REGCLASS, pg_rewrite.oid FROM family JOIN pg_rewrite ON ev_class = family.oid
    UNION ALL
    SELECT tgrelid, 'pg_trigger'::REGCLASS, pg_trigger.oid FROM family JOIN pg_trigger ON tgrelid = family.oid AND NOT tgisinternal
    UNION ALL
    SELECT stxrelid, 'pg_statistic_ext'::REGCLASS, pg_statistic_ext.oid FROM family JOIN pg_statistic_ext ON stxrelid = family.oid
    UNION ALL
    SELECT oid, 'pg_class'::REGCLASS, oid FROM family WHERE relkind = 'p'
    UNION ALL
    SELECT attrelid, 'pg_type'::REGCLASS, atttypid FROM family JOIN pg_attribute ON attrelid = family.oid WHERE attnum > 0 AND NOT attisdropped
), used AS (
    -- In whatever schema; PostgreSQL's own has lower numbers. What a function's body does is up to its owner.
    SELECT relation, class, oid FROM part WHERE oid >= 16384
    UNION
    SELECT used.relation, further.class, further.oid
    FROM used CROSS JOIN LATERAL (
        SELECT refclassid AS class, refobjid AS oid
        FROM pg_depend
        WHERE classid = used.class AND objid = used.oid
            AND used.class <> 'pg_proc'::REGCLASS AND used.class <> 'pg_operator'::REGCLASS
            AND refclassid IN ('pg_proc'::REGCLASS, 'pg_operator'::REGCLASS, 'pg_type'::REGCLASS, 'pg_opclass'::REGCLASS)
        UNION ALL
        SELECT 'pg_proc'::REGCLASS, amproc
        FROM pg_opclass JOIN pg_amproc ON amprocfamily = opcfamily
        WHERE used.class = 'pg_opclass'::REGCLASS AND pg_opclass.oid = used.oid
        UNION ALL
        SELECT 'pg_constraint'::REGCLASS, pg_constraint.oid FROM pg_constraint WHERE used.class = 'pg_type'::REGCLASS AND contypid = used.oid
        UNION ALL
        -- What a type is an array of, a domain over, a range of or made up of.
        SELECT 'pg_type'::REGCLASS, inner_type.oid
        FROM pg_type
        LEFT JOIN pg_range ON rngtypid = pg_type.oid
        CROSS JOIN LATERAL (
            VALUES (typelem), (typbasetype), (rngsubtype)
            UNION ALL
            SELECT atttypid FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped
        ) AS inner_type (oid)
        WHERE used.class = 'pg_type'::REGCLASS AND pg_type.oid = used.oid
    ) AS further
    WHERE further.oid >= 16384
), called AS (
    SELECT used.relation, 'function ' || pg_proc.oid::REGPROCEDURE::TEXT AS what, proowner AS owner
    FROM used
    JOIN pg_proc ON used.class = 'pg_proc'::REGCLASS AND pg_proc.oid = used.oid
    UNION ALL
    SELECT used.relation, 'operator ' || pg_operator.oid::REGOPERATOR::TEXT, whose.oid
    FROM used
    JOIN pg_operator ON used.class = 'pg_operator'::REGCLASS AND pg_operator.oid = used.oid
    JOIN pg_proc ON pg_proc.oid = oprcode
    CROSS JOIN LATERAL (VALUES (oprowner), (proowner)) AS whose (oid)
    UNION ALL
    SELECT used.relation, 'type ' || pg_type.oid::REGTYPE::TEXT, typowner
    FROM used
    JOIN pg_type ON used.class = 'pg_type'::REGCLASS AND pg_type.oid = used.oid
    UNION ALL
    -- A table of another schema is there because one of these uses it.
    SELECT family.oid, 'table ' || family.oid::REGCLASS::TEXT, relowner FROM family WHERE relnamespace NOT IN (SELECT oid FROM place)
    UNION ALL
    -- One that refers to a row is read, as its owner, before that row goes.
    SELECT family.oid, 'table ' || conrelid::REGCLASS::TEXT, other.relowner
    FROM family
    JOIN pg_constraint ON confrelid = family.oid AND contype = 'f'
    JOIN pg_class AS other ON other.oid = conrelid
    UNION ALL
    -- What an extension brings is a superuser's, whoever made the extension.
    SELECT used.relation, 'extension ' || quote_ident(extname), extowner
    FROM used
    JOIN pg_depend ON classid = used.class AND objid = used.oid AND refclassid = 'pg_extension'::REGCLASS AND deptype = 'e'
    JOIN pg_extension ON pg_extension.oid = refobjid
), stranger AS (
    -- Who made a trigger is not recorded, it stays when the right to make it is taken back, and what its condition names by a text or a
    -- number is in no catalog. So one that is not ours is somebody's until the table's owner, who alone may, says in its comment that this
    -- very one is meant.
    SELECT DISTINCT quote_ident(tgname) || ' ON ' || tgrelid::REGCLASS::TEXT AS what, definition, digest
    FROM family
    JOIN pg_trigger ON tgrelid = family.oid AND NOT tgisinternal
    JOIN pg_proc ON pg_proc.oid = tgfoid
    LEFT JOIN pg_description ON classoid = 'pg_trigger'::REGCLASS AND objoid = pg_trigger.oid
    CROSS JOIN LATERAL (SELECT pg_get_triggerdef(pg_trigger.oid) AS definition) AS made
    -- Whether it is switched on is a part of it.
    CROSS JOIN LATERAL (SELECT encode(sha256(convert_to(definition || ' ' || tgenabled::TEXT, 'UTF8')), 'hex') AS digest) AS known
    -- Before it had a schema of its own, what is ours was beside the application's tables.
    WHERE family.is_named AND NOT (tgname LIKE 'tallyroll\_%' AND proname LIKE 'tallyroll\_%' AND proowner IN (SELECT oid FROM trusted)
            AND pronamespace IN (SELECT oid FROM place WHERE is_ours OR $2 = 1))
        AND COALESCE(strpos(description, 'tallyroll: accepted ' || digest), 0) = 0
), found AS (
    SELECT 'schema ' || quote_ident(nspname) AS what, nspowner AS owner FROM place
    UNION ALL
    SELECT CASE relkind WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence ' ELSE 'table ' END || oid::REGCLASS::TEXT, relowner FROM family
    UNION ALL
    SELECT 'trigger ' || quote_ident(tgname) || ' on ' || tgrelid::REGCLASS::TEXT, proowner
    FROM family
    JOIN pg_trigger ON pg_trigger.tgrelid = family.oid
    JOIN pg_proc ON pg_proc.oid = pg_trigger.tgfoid
    UNION ALL
    SELECT 'function ' || pg_proc.oid::REGPROCEDURE::TEXT, proowner FROM place JOIN pg_proc ON pg_proc.pronamespace = place.oid
    UNION ALL
    SELECT 'operator ' || pg_operator.oid::REGOPERATOR::TEXT, oprowner FROM place JOIN pg_operator ON pg_operator.oprnamespace = place.oid
    UNION ALL
    SELECT 'type ' || pg_type.oid::REGTYPE::TEXT, typowner
    FROM place
    JOIN pg_type ON pg_type.typnamespace = place.oid
    LEFT JOIN pg_class AS class ON class.oid = pg_type.typrelid
    WHERE typcategory <> 'A' AND COALESCE(class.relkind = 'c', TRUE)
    UNION ALL
    -- One that is trusted by PostgreSQL is made by whoever may create in the database, and its things are a superuser's.
    SELECT 'extension ' || quote_ident(extname), extowner FROM place JOIN pg_extension ON extnamespace = place.oid
    UNION ALL
    SELECT 'cast ' || castsource::REGTYPE::TEXT || ' AS ' || casttarget::REGTYPE::TEXT, proowner
    FROM pg_cast
    JOIN pg_proc ON pg_proc.oid = pg_cast.castfunc
    -- PostgreSQL's own have lower numbers. One from or to a type of somebody else is met by nobody who does not name that type: where a
    -- table does, the type is told. Everybody may make one to the type of a row.
    WHERE pg_cast.oid >= 16384 AND EXISTS (
        SELECT 1 FROM place JOIN pg_type ON pg_type.typnamespace = place.oid WHERE pg_type.oid IN (castsource, casttarget)
    ) AND NOT EXISTS (
        SELECT 1 FROM pg_type WHERE pg_type.oid IN (castsource, casttarget) AND typowner NOT IN (SELECT oid FROM trusted)
    )
)
-- Owned by somebody else: a thing of ours or the application's, then what such a table calls; then a right to create.
SELECT found.what AS what,
    -- Which stands for the database's owner.
    pg_get_userbyid(CASE WHEN found.owner = to_regrole('pg_database_owner') THEN datdba ELSE found.owner END)::TEXT AS owner,
    'owned' AS kind, is_super
FROM found, here
WHERE found.owner NOT IN (SELECT oid FROM trusted) AND ($2 <> 2 OR found.what LIKE 'trigger %')
UNION ALL
SELECT what || ', which ' || relation::REGCLASS::TEXT || ' uses,', pg_get_userbyid(owner)::TEXT, 'owned: used', is_super
FROM called, here
WHERE owner NOT IN (SELECT oid FROM trusted)
UNION ALL
SELECT what, definition || chr(10) || digest, 'trigger', is_super FROM stranger, here
UNION ALL
-- What a session makes is not somebody's to put a trigger on: not even while `migrate` is at work.
SELECT 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(pg_get_userbyid(defaclrole)) || COALESCE(' IN SCHEMA ' || quote_ident(nspname), '')
        || CASE defaclobjtype WHEN 'r' THEN ' REVOKE TRIGGER ON TABLES' ELSE ' REVOKE CREATE ON SCHEMAS' END || ' FROM ' || CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END,
    CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(given.grantee) END, 'default', (SELECT is_super FROM here)
FROM pg_default_acl
JOIN session ON session.oid = defaclrole
LEFT JOIN pg_namespace ON pg_namespace.oid = defaclnamespace
CROSS JOIN LATERAL aclexplode(defaclacl) AS given
WHERE $2 = 1 AND (defaclobjtype = 'r' AND given.privilege_type = 'TRIGGER' OR defaclobjtype = 'n' AND given.privilege_type = 'CREATE')
    AND given.grantee NOT IN (SELECT oid FROM trusted) AND (defaclnamespace = 0 OR defaclnamespace IN (SELECT oid FROM place))
UNION ALL
-- One in a transaction that is open is not seen, and fires in the statement that has waited for it.
SELECT DISTINCT 'REVOKE TRIGGER ON ' || family.oid::REGCLASS::TEXT || ' FROM ' || CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END,
    CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(given.grantee) END, 'trigger right', (SELECT is_super FROM here)
FROM family
JOIN pg_class ON pg_class.oid = family.oid
CROSS JOIN LATERAL aclexplode(relacl) AS given
WHERE $2 = 0 AND family.is_named AND given.privilege_type = 'TRIGGER' AND given.grantee <> family.relowner AND given.grantee NOT IN (SELECT oid FROM trusted)
UNION ALL
SELECT quote_ident(place.nspname), CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END,
    'right', (SELECT is_super FROM here)
FROM place, aclexplode(COALESCE(place.nspacl, acldefault('n', place.nspowner))) AS given
WHERE given.privilege_type = 'CREATE' AND given.grantee NOT IN (SELECT oid FROM trusted) AND NOT (place.is_ours AND $2 = 1) AND $2 <> 2
ORDER BY kind, what
LIMIT 1;
