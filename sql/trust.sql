-- What is not trusted to run with the rights of this session: what it is, whose, and of which kind.
--
-- Trusted are superusers and the roles that own what is ours; by a session that is no superuser also its role, what that was made a
-- member of by one who may (before PostgreSQL 15 a role gives itself to anybody), the database's owner, who may be the migrator, and,
-- once the schema is there, the log's owner. $1 names the tables of the application, $2 is 1 before migrate, which takes the right
-- to create in our schema back.
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
    SELECT datdba, (SELECT bool_or(rolsuper) FROM session) AS is_super FROM pg_database WHERE datname = current_database()
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
    SELECT class.oid, class.relkind, class.relowner
    FROM pg_class AS class
    JOIN place ON place.oid = class.relnamespace
    WHERE class.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND (place.is_ours OR (SELECT is_super FROM here) OR class.relname = ANY (string_to_array($1, ',')))
    UNION
    SELECT child.oid, child.relkind, child.relowner
    FROM family
    JOIN pg_inherits ON pg_inherits.inhparent = family.oid
    JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
), type AS (
    -- Of the columns, and what those are arrays of, domains over, ranges of or made up of.
    SELECT family.oid AS relation, atttypid AS oid FROM family JOIN pg_attribute ON attrelid = family.oid WHERE attnum > 0 AND NOT attisdropped
    UNION
    SELECT type.relation, part.oid
    FROM type
    JOIN pg_type ON pg_type.oid = type.oid AND pg_type.oid >= 16384
    LEFT JOIN pg_range ON rngtypid = pg_type.oid
    CROSS JOIN LATERAL (
        VALUES (typelem), (typbasetype), (rngsubtype)
        UNION ALL
        SELECT atttypid FROM pg_attribute WHERE attrelid = typrelid AND attnum > 0 AND NOT attisdropped
    ) AS part (oid)
    WHERE part.oid <> 0
), part AS (
    -- What calls functions when a row is read or written: defaults and generated columns, checks, indexes, rules.
    SELECT adrelid AS relation, 'pg_attrdef'::REGCLASS AS class, pg_attrdef.oid FROM family JOIN pg_attrdef ON adrelid = family.oid
    UNION ALL
    SELECT conrelid, 'pg_constraint'::REGCLASS, pg_constraint.oid FROM family JOIN pg_constraint ON conrelid = family.oid
    UNION ALL
    SELECT type.relation, 'pg_constraint'::REGCLASS, pg_constraint.oid FROM type JOIN pg_constraint ON contypid = type.oid
    UNION ALL
    SELECT relation, 'pg_type'::REGCLASS, oid FROM type WHERE oid >= 16384
    UNION ALL
    SELECT indrelid, 'pg_class'::REGCLASS, indexrelid FROM family JOIN pg_index ON indrelid = family.oid
    UNION ALL
    SELECT ev_class, 'pg_rewrite'::REGCLASS, pg_rewrite.oid FROM family JOIN pg_rewrite ON ev_class = family.oid
), called AS (
    -- In whatever schema; PostgreSQL's own is not listed.
    SELECT part.relation, 'function ' || pg_proc.oid::REGPROCEDURE::TEXT AS what, proowner AS owner
    FROM part
    JOIN pg_depend ON classid = part.class AND objid = part.oid AND refclassid = 'pg_proc'::REGCLASS
    JOIN pg_proc ON pg_proc.oid = refobjid
    UNION ALL
    SELECT part.relation, 'function ' || oprcode::REGPROCEDURE::TEXT, proowner
    FROM part
    JOIN pg_depend ON classid = part.class AND objid = part.oid AND refclassid = 'pg_operator'::REGCLASS
    JOIN pg_operator ON pg_operator.oid = refobjid
    JOIN pg_proc ON pg_proc.oid = oprcode
    UNION ALL
    SELECT relation, 'type ' || pg_type.oid::REGTYPE::TEXT, typowner FROM type JOIN pg_type ON pg_type.oid = type.oid
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
    -- PostgreSQL's own have lower numbers.
    WHERE pg_cast.oid >= 16384 AND EXISTS (
        SELECT 1 FROM place JOIN pg_type ON pg_type.typnamespace = place.oid WHERE pg_type.oid IN (castsource, casttarget)
    )
)
-- Owned by somebody else: a thing of ours or the application's, then what such a table calls; then a right to create.
SELECT found.what AS what,
    -- Which stands for the database's owner.
    pg_get_userbyid(CASE WHEN found.owner = to_regrole('pg_database_owner') THEN datdba ELSE found.owner END)::TEXT AS owner,
    'owned' AS kind, is_super
FROM found, here
WHERE found.owner NOT IN (SELECT oid FROM trusted)
UNION ALL
SELECT what || ', which ' || relation::REGCLASS::TEXT || ' uses,', pg_get_userbyid(owner)::TEXT, 'owned: used', is_super
FROM called, here
WHERE owner NOT IN (SELECT oid FROM trusted)
UNION ALL
SELECT quote_ident(place.nspname), CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(given.grantee)) END,
    'right', (SELECT is_super FROM here)
FROM place, aclexplode(COALESCE(place.nspacl, acldefault('n', place.nspowner))) AS given
WHERE given.privilege_type = 'CREATE' AND given.grantee NOT IN (SELECT oid FROM trusted) AND NOT (place.is_ours AND $2 = 1)
ORDER BY kind, what
LIMIT 1;
