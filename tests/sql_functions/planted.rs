//! What somebody put into a database before others came: tables, schemas, operators and functions that would run with their rights.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::attacks_owners::{drop_owner, owned};
use super::owners::run_as;
use super::{ANN, ROLES, database, drop_roles, share_roles, with_roles};
use crate::support::{Engine, Fixture};

/// Runs statements in a session of this role.
pub async fn as_role(fixture: &Fixture, name: &str, sql: &str) {
    let url = fixture.url.replace("postgres://postgres@", &format!("postgres://{name}@"));
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    connection.close().await.unwrap();
}

/// A role that nobody should trust, with a schema of its own. `evil.boom` notes who runs it and makes the role a superuser if it can.
pub async fn eve(fixture: &Fixture) -> String {
    let eve = format!("eve-{}", database(fixture));
    fixture.execute(&format!("CREATE ROLE \"{eve}\" LOGIN")).await;
    fixture.execute(&format!("CREATE SCHEMA evil AUTHORIZATION \"{eve}\"")).await;
    let evil = format!(
        "CREATE TABLE evil.trace (by_whom pg_catalog.text);
         GRANT USAGE ON SCHEMA evil TO PUBLIC;
         GRANT ALL ON evil.trace TO PUBLIC;
         CREATE FUNCTION evil.act() RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO evil.trace VALUES (CURRENT_USER);
             IF pg_catalog.current_setting('is_superuser') = 'on' THEN EXECUTE 'ALTER ROLE \"{eve}\" SUPERUSER'; END IF;
             RETURN TRUE;
         EXCEPTION WHEN OTHERS THEN
             RETURN TRUE;
         END $$;
         CREATE FUNCTION evil.boom(pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN PERFORM evil.act(); RETURN TRUE; END $$;
         CREATE FUNCTION evil.same(pg_catalog.varchar, pg_catalog.varchar) RETURNS pg_catalog.bool LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN PERFORM evil.act(); RETURN $1::pg_catalog.text = $2::pg_catalog.text; END $$;
         CREATE FUNCTION evil.row() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.act(); RETURN NEW; END $$;"
    );
    as_role(fixture, &eve, &evil).await;
    eve
}

/// Nothing of eve's ran as anybody else.
pub async fn assert_nobody_ran(fixture: &Fixture, eve: &str, what: &str) {
    let is_super = fixture.rows(&format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{eve}'")).await;
    assert_eq!(is_super, ["0"], "{what}");
    let by_whom = fixture.rows(&format!("SELECT DISTINCT by_whom FROM evil.trace WHERE by_whom <> '{eve}'")).await;
    assert_eq!(by_whom, Vec::<String>::new(), "{what}");
}

pub async fn drop_eve(fixture: &Fixture, eve: String) {
    fixture.execute(&format!("ALTER ROLE \"{eve}\" NOSUPERUSER")).await;
    fixture.execute(&format!("DROP OWNED BY \"{eve}\" CASCADE")).await;
    fixture.execute(&format!("DROP ROLE \"{eve}\"")).await;
}

/// All of these are refused, name what is in the way, and run nothing of it.
pub async fn assert_refused(fixture: &Fixture, who: &str, eve: &str, commands: &[&[&str]], named: &str) {
    for arguments in commands {
        let refused = run_as(fixture, who, arguments);
        assert_nobody_ran(fixture, eve, &format!("{arguments:?}")).await;
        assert_eq!(refused.code, Some(78), "{arguments:?} {refused:?}");
        assert!(refused.stderr.contains(named), "{arguments:?} {named}\n{}", refused.stderr);
    }
}

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream"];

/// The planner runs index predicates, index expressions and the like as whoever reads the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_reads_no_table_before_the_catalog_says_whose_it_is() {
    let _one_at_a_time = ROLES.lock().await;
    let roles = with_roles().await;
    let (owned, name) = owned().await;
    let eve = eve(&owned).await;
    assert_eq!(run_as(&owned, &name, &["migrate"]).code, Some(0));
    for (n, planted) in [
        "CREATE INDEX planted ON tallyroll.tallyroll_setting (name) WHERE evil.boom('x')",
        "CREATE INDEX planted ON tallyroll.tallyroll_setting ((evil.boom('x')))",
        "CREATE TABLE evil.child () INHERITS (tallyroll.tallyroll_setting); CREATE INDEX ON evil.child (name) WHERE evil.boom('x')",
        "ALTER TABLE tallyroll.tallyroll_setting ADD CHECK (evil.boom('x')); ALTER DATABASE here SET constraint_exclusion = on",
        "CREATE INDEX planted ON tallyroll.tallyroll_setting (name) WHERE evil.boom('x'); ALTER DATABASE here SET role = 'owner'",
        "ALTER DATABASE here SET search_path = evil, pg_catalog; CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.boom('x')); \
         CREATE FUNCTION evil.pg_backend_pid() RETURNS pg_catalog.int4 LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.act(); RETURN 1; END $$",
    ]
    .into_iter()
    .enumerate()
    {
        owned.execute(&format!("GRANT ALL ON SCHEMA evil TO \"{name}\"")).await;
        let here = owned.rows("SELECT current_database()::TEXT").await.remove(0);
        as_role(&owned, &name, &planted.replace(" here ", &format!(" {here} ")).replace("'owner'", &format!("\"{name}\""))).await;
        owned.execute("DELETE FROM evil.trace").await;
        for arguments in [&["status"][..], &["check"], &["migrate"], &["migrate", "--roles"]] {
            let ran = owned.run(arguments);
            // What the functions' owner would run is no ground to give it rights on; whoever is a superuser makes roles otherwise.
            let is_made = arguments.len() > 1 && !planted.contains("ON tallyroll") && !planted.contains("TABLE");
            assert_eq!(ran.code, Some(if is_made { 0 } else { 78 }), "{planted} {arguments:?} {ran:?}");
            assert_nobody_ran(&owned, &eve, &format!("{n} {arguments:?}")).await;
        }
        // By psql, too.
        let mut psql = PgConnection::connect(&owned.url).await.unwrap();
        psql.execute(sqlx::raw_sql(include_str!("../../sql/roles.sql"))).await.unwrap();
        psql.close().await.unwrap();
        assert_nobody_ran(&owned, &eve, &format!("{n} by psql")).await;
        for clean in [
            "DROP INDEX IF EXISTS tallyroll.planted".to_owned(),
            "DROP TABLE IF EXISTS evil.child".to_owned(),
            "ALTER TABLE tallyroll.tallyroll_setting DROP CONSTRAINT IF EXISTS tallyroll_setting_check".to_owned(),
            format!("ALTER DATABASE {here} RESET ALL"),
        ] {
            owned.execute(&clean).await;
        }
    }
    // Sessions that began meanwhile have the role that the database's owner gave them.
    let owned = Fixture::reopened(owned).await;
    drop_eve(&owned, eve).await;
    drop_owner(&owned, name).await;
    drop(roles);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_our_name_that_somebody_made_before_is_not_entered() {
    let _one_at_a_time = ROLES.lock().await;
    let (owned, name) = owned().await;
    let eve = eve(&owned).await;
    owned.execute(&format!("GRANT CREATE ON DATABASE {} TO \"{eve}\"", owned.rows("SELECT current_database()::TEXT").await[0])).await;
    let planted = "CREATE SCHEMA tallyroll; CREATE TABLE tallyroll.tallyroll_setting (name TEXT, value TEXT); \
         GRANT USAGE ON SCHEMA tallyroll TO PUBLIC; GRANT SELECT ON tallyroll.tallyroll_setting TO PUBLIC; \
         CREATE INDEX ON tallyroll.tallyroll_setting (name) WHERE evil.boom('x')";
    as_role(&owned, &eve, planted).await;
    for who in ["postgres", &name] {
        let commands = [&["status"][..], &["migrate"], &["migrate", "--dry-run"], RUN];
        assert_refused(&owned, who, &eve, &commands, &eve).await;
    }
    let refused = owned.run(&["migrate", "--roles"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert_nobody_ran(&owned, &eve, "--roles").await;
    drop_eve(&owned, eve).await;
    assert_eq!(run_as(&owned, &name, &["migrate"]).code, Some(0));
    drop_owner(&owned, name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_looks_at_the_owner_of_every_table() {
    let _one_at_a_time = ROLES.lock().await;
    let (owned, name) = owned().await;
    let eve = eve(&owned).await;
    // Tables alone, as a first `migrate` that failed leaves them.
    as_role(&owned, &name, "CREATE TABLE public.users (id UUID PRIMARY KEY, email TEXT, plan VARCHAR)").await;
    let commands = [&["migrate"][..], &["migrate", "--roles"], &["status"]];
    for arguments in commands {
        let refused = owned.run(arguments);
        assert_eq!(refused.code, Some(78), "{arguments:?} {refused:?}");
    }
    as_role(&owned, &name, "DROP TABLE public.users").await;
    // Without the log.
    assert_eq!(run_as(&owned, &name, &["migrate"]).code, Some(0));
    as_role(
        &owned,
        &name,
        "ALTER TABLE public.ai_usage_log RENAME TO elsewhere; CREATE INDEX ON tallyroll.job_window (job) WHERE evil.boom('x'); \
         CREATE INDEX ON public.tallyroll_migration (version) WHERE evil.boom('x')",
    )
    .await;
    owned.execute("DELETE FROM evil.trace").await;
    assert_refused(&owned, "postgres", &eve, &[&["status"], RUN, &["migrate"]], &name).await;
    owned.run(&["migrate", "--roles"]);
    assert_nobody_ran(&owned, &eve, "--roles").await;
    drop_eve(&owned, eve).await;
    drop_owner(&owned, name).await;

    // A superuser's, but for one table of the application.
    let fixture = with_roles().await;
    let eve = self::eve(&fixture).await;
    fixture.execute("UPDATE users SET requests_used = 0").await;
    fixture.execute(&format!("ALTER TABLE public.users OWNER TO \"{eve}\"")).await;
    as_role(&fixture, &eve, "CREATE TRIGGER planted BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION evil.row()").await;
    let planted = [&["run-job", "user_dashboard", "--force"][..], &["status"], &["migrate"]];
    assert_refused(&fixture, "postgres", &eve, &planted, "public.users").await;
    fixture.execute("ALTER TABLE public.users OWNER TO postgres").await;
    // The trigger is still hers.
    assert_refused(&fixture, "postgres", &eve, &planted, "planted").await;
    fixture.execute("DROP TRIGGER planted ON public.users").await;
    fixture.run_well(planted[0]);
    drop_eve(&fixture, eve).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_named_like_a_role_is_not_looked_in() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let eve = eve(&fixture).await;
    let runner = format!("run-{}", database(&fixture));
    fixture.execute(&format!("CREATE ROLE \"{runner}\" LOGIN BYPASSRLS IN ROLE tallyroll_runner")).await;
    fixture.execute("UPDATE users SET plan_expires_at = '2020-01-01'").await;
    let here = fixture.rows("SELECT current_database()::TEXT").await.remove(0);
    fixture.execute(&format!("GRANT CREATE ON DATABASE {here} TO \"{eve}\"")).await;
    for who in [runner.as_str(), "postgres"] {
        let planted = format!(
            "CREATE SCHEMA \"{who}\"; GRANT USAGE ON SCHEMA \"{who}\" TO PUBLIC; \
             CREATE OPERATOR \"{who}\".= (LEFTARG = VARCHAR, RIGHTARG = VARCHAR, FUNCTION = evil.same)"
        );
        as_role(&fixture, &eve, &planted).await;
        let ran = run_as(&fixture, who, &["run-job", "user_dashboard", "--force"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_nobody_ran(&fixture, &eve, who).await;
    }
    drop_eve(&fixture, eve).await;
    drop_roles(&fixture, &[runner]).await;

    // Nor does a first `migrate` put anything there.
    let (owned, name) = owned().await;
    let eve = self::eve(&owned).await;
    let here = owned.rows("SELECT current_database()::TEXT").await.remove(0);
    owned.execute(&format!("GRANT CREATE ON DATABASE {here} TO \"{eve}\"")).await;
    as_role(&owned, &eve, &format!("CREATE SCHEMA \"{name}\"; GRANT ALL ON SCHEMA \"{name}\" TO PUBLIC")).await;
    assert_refused(&owned, &name, &eve, &[&["migrate"], &["migrate", "--dry-run"], &["status"]], &format!("schema \"{name}\"")).await;
    drop_eve(&owned, eve).await;
    assert_eq!(run_as(&owned, &name, &["migrate"]).code, Some(0));
    drop_owner(&owned, name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_left_in_the_applications_schema_stops_everything() {
    let _one_at_a_time = ROLES.lock().await;
    let roles = with_roles().await;
    let (owned, name) = owned().await;
    let eve = eve(&owned).await;
    let runner = format!("run-{}", database(&owned));
    owned.execute(&format!("CREATE ROLE \"{runner}\" LOGIN BYPASSRLS IN ROLE tallyroll_runner")).await;
    // As before PostgreSQL 15.
    owned.execute("GRANT CREATE ON SCHEMA public TO PUBLIC").await;
    assert_refused(&owned, &name, &eve, &[&["migrate"]], "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let operator = "CREATE OPERATOR public.= (LEFTARG = VARCHAR, RIGHTARG = VARCHAR, FUNCTION = evil.same)";
    as_role(&owned, &eve, operator).await;
    owned.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    assert_refused(&owned, &name, &eve, &[&["migrate"], &["migrate", "--dry-run"]], "operator public.=").await;
    as_role(&owned, &eve, "DROP OPERATOR public.= (VARCHAR, VARCHAR)").await;
    assert_eq!(run_as(&owned, &name, &["migrate"]).code, Some(0));
    owned.run_well(&["migrate", "--roles"]);
    owned.execute(&format!("INSERT INTO users (id, email, plan_expires_at) VALUES ('{ANN}', 'ann@x', '2020-01-01')")).await;
    let job = &["run-job", "user_dashboard", "--force"][..];
    assert_eq!(run_as(&owned, &runner, job).code, Some(0));
    // A function of the owner's is the owner's affair.
    as_role(&owned, &name, "CREATE FUNCTION public.mine() RETURNS INTEGER LANGUAGE sql AS 'SELECT 1'").await;
    for (made, dropped, named) in [
        (operator, "DROP OPERATOR public.= (VARCHAR, VARCHAR)", "operator public.="),
        (
            "CREATE FUNCTION public.lower(VARCHAR) RETURNS TEXT LANGUAGE sql IMMUTABLE AS 'SELECT $1::TEXT'",
            "DROP FUNCTION public.lower(VARCHAR)",
            "function public.lower(character varying)",
        ),
        ("CREATE DOMAIN public.amount AS INTEGER", "DROP DOMAIN public.amount", "type public.amount"),
    ] {
        owned.execute(&format!("GRANT CREATE ON SCHEMA public TO \"{eve}\"")).await;
        assert_refused(&owned, &runner, &eve, &[job, &["run-due"], &["status"]], &format!("FROM \"{eve}\"")).await;
        as_role(&owned, &eve, made).await;
        owned.execute(&format!("REVOKE CREATE ON SCHEMA public FROM \"{eve}\"")).await;
        for who in [&runner, &name] {
            assert_refused(&owned, who, &eve, &[job, &["run-due"], &["check"]], named).await;
        }
        as_role(&owned, &eve, dropped).await;
        assert_eq!(run_as(&owned, &runner, job).code, Some(0));
    }
    as_role(&owned, &name, "CREATE TYPE public.kind AS ENUM ('a')").await;
    as_role(&owned, &eve, "CREATE FUNCTION evil.of_kind(public.kind) RETURNS BOOLEAN LANGUAGE sql IMMUTABLE AS 'SELECT TRUE'").await;
    as_role(&owned, &name, "CREATE CAST (public.kind AS BOOLEAN) WITH FUNCTION evil.of_kind(public.kind)").await;
    assert_refused(&owned, &runner, &eve, &[job], "cast public.kind AS boolean").await;
    as_role(&owned, &name, "DROP CAST (public.kind AS BOOLEAN)").await;
    assert_nobody_ran(&owned, &eve, "the runner").await;
    drop_eve(&owned, eve).await;
    drop_owner(&owned, name).await;
    drop_roles(&roles, &[runner]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_our_name_that_is_not_ours_stays_its_owners() {
    let _one_at_a_time = ROLES.lock().await;
    let roles = with_roles().await;
    let (owned, name) = owned().await;
    let eve = eve(&owned).await;
    assert_eq!(run_as(&owned, &name, &["migrate"]).code, Some(0));
    owned.execute(&format!("GRANT CREATE ON SCHEMA public TO \"{eve}\"")).await;
    let planted = "CREATE FUNCTION public.complete_chat_request(x TEXT) RETURNS TEXT LANGUAGE plpgsql SECURITY DEFINER AS \
         $$ DECLARE r TEXT; BEGIN EXECUTE x INTO r; RETURN r; END $$";
    as_role(&owned, &eve, planted).await;
    owned.execute(&format!("REVOKE CREATE ON SCHEMA public FROM \"{eve}\"")).await;
    let of_whom = "SELECT proowner::REGROLE::TEXT FROM pg_proc WHERE oid = 'public.complete_chat_request(TEXT)'::REGPROCEDURE";
    for (its_owner, whose) in [(&eve, &eve), (&name, &name)] {
        owned.execute(&format!("ALTER FUNCTION public.complete_chat_request(TEXT) OWNER TO \"{its_owner}\"")).await;
        let refused = owned.run(&["migrate", "--roles"]);
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.stderr.contains("complete_chat_request(text)"), "{}", refused.stderr);
        assert_eq!(owned.rows(of_whom).await, [format!("\"{whose}\"")]);
    }
    owned.execute("DROP FUNCTION public.complete_chat_request(TEXT)").await;
    // One of ours that came to another owner.
    owned.execute(&format!("ALTER FUNCTION public.get_ai_cost_summary() OWNER TO \"{eve}\"")).await;
    let refused = owned.run(&["migrate", "--roles"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("get_ai_cost_summary()") && refused.stderr.contains(&eve), "{}", refused.stderr);
    owned.execute(&format!("ALTER FUNCTION public.get_ai_cost_summary() OWNER TO \"{name}\"")).await;
    owned.run_well(&["migrate", "--roles"]);
    drop_eve(&owned, eve).await;
    drop_owner(&owned, name).await;
    drop(roles);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_somebody_made_before_are_not_taken_up() {
    let _one_at_a_time = ROLES.lock().await;
    let (owned, name) = owned().await;
    let eve = eve(&owned).await;
    let mal = format!("mal-{}", database(&owned));
    owned.execute(&format!("CREATE ROLE \"{mal}\" LOGIN")).await;
    owned.execute(&format!("GRANT \"{eve}\" TO \"{mal}\" WITH ADMIN OPTION")).await;
    for planted in [
        "tallyroll_migration (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), \
         success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL)",
        "subscription (id TEXT PRIMARY KEY, org_id TEXT, plan TEXT, committed_seats BIGINT, start_at TIMESTAMPTZ, end_at TIMESTAMPTZ, license_id TEXT)",
        "user_roles (user_id UUID, user_role TEXT)",
    ] {
        let table = planted.split(' ').next().unwrap();
        owned.execute(&format!("GRANT CREATE ON SCHEMA public TO \"{eve}\"")).await;
        as_role(
            &owned,
            &eve,
            &format!(
                "CREATE TABLE public.{planted}; GRANT ALL ON public.{table} TO PUBLIC; \
                 CREATE TRIGGER planted BEFORE INSERT ON public.{table} FOR EACH ROW EXECUTE FUNCTION evil.row()"
            ),
        )
        .await;
        owned.execute(&format!("REVOKE CREATE ON SCHEMA public FROM \"{eve}\"")).await;
        let named = format!("public.{table}");
        assert_refused(&owned, &name, &eve, &[&["migrate"], &["migrate", "--dry-run"]], &named).await;
        // A membership that no administrator gave is none: before PostgreSQL 15 eve could give it herself.
        as_role(&owned, &mal, &format!("GRANT \"{eve}\" TO \"{name}\"")).await;
        assert_refused(&owned, &name, &eve, &[&["migrate"]], &named).await;
        as_role(&owned, &mal, &format!("REVOKE \"{eve}\" FROM \"{name}\"")).await;
        owned.execute(&format!("DROP TABLE public.{table}")).await;
    }
    // A table of the application's, whose owner the administrator made the migrating role a member of.
    owned.execute(&format!("GRANT CREATE ON SCHEMA public TO \"{eve}\"")).await;
    as_role(&owned, &eve, "CREATE TABLE public.user_roles (user_id UUID, user_role TEXT)").await;
    owned.execute(&format!("REVOKE CREATE ON SCHEMA public FROM \"{eve}\"")).await;
    owned.execute(&format!("GRANT \"{eve}\" TO \"{name}\"")).await;
    let migrated = run_as(&owned, &name, &["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    owned.execute("DROP TABLE public.user_roles").await;
    drop_eve(&owned, eve).await;
    drop_roles(&owned, &[mal]).await;
    drop_owner(&owned, name).await;
}

/// Roles are of the whole server: somebody may have made them before.
#[tokio::test(flavor = "multi_thread")]
async fn roles_that_somebody_made_otherwise_are_refused() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let eve = format!("eve-{}", database(&fixture));
    fixture.execute(&format!("CREATE ROLE \"{eve}\" CREATEROLE LOGIN")).await;
    let eves = format!("GRANT tallyroll_migrator TO \"{eve}\"");
    let mut wrongs = vec![
        "ALTER ROLE tallyroll_owner LOGIN".to_owned(),
        "ALTER ROLE tallyroll_owner SUPERUSER".to_owned(),
        "ALTER ROLE tallyroll_owner NOBYPASSRLS".to_owned(),
        "ALTER ROLE tallyroll_owner CREATEROLE".to_owned(),
        "ALTER ROLE tallyroll_runner SUPERUSER".to_owned(),
        "ALTER ROLE tallyroll_runner NOBYPASSRLS".to_owned(),
        "ALTER ROLE tallyroll_migrator SUPERUSER".to_owned(),
        "ALTER ROLE tallyroll_reader BYPASSRLS".to_owned(),
        format!("GRANT tallyroll_owner TO \"{eve}\""),
        "GRANT tallyroll_migrator TO tallyroll_writer".to_owned(),
    ];
    if fixture.number("SELECT current_setting('server_version_num')::INTEGER").await < 160_000 {
        wrongs.push(eves.clone());
    }
    for wrong in wrongs {
        if wrong == eves {
            as_role(&fixture, &eve, &eves).await;
        } else {
            fixture.execute(&wrong).await;
        }
        let refused = fixture.run(&["migrate", "--roles"]);
        assert_eq!(refused.code, Some(78), "{wrong} {refused:?}");
        let fix = refused.stderr.split("hint: ").nth(1).unwrap().trim();
        assert!(fix.starts_with("ALTER ROLE tallyroll_") || fix.starts_with("REVOKE tallyroll_"), "{wrong} {fix}");
        fixture.execute(fix).await;
        fixture.run_well(&["migrate", "--roles"]);
    }
    // A member that the administrator made is meant, and a runner that logs in.
    fixture.execute(&eves).await;
    fixture.execute("ALTER ROLE tallyroll_runner LOGIN").await;
    fixture.run_well(&["migrate", "--roles"]);
    fixture.execute("ALTER ROLE tallyroll_runner NOLOGIN").await;
    drop_roles(&fixture, &[eve]).await;
}

/// What anybody has a right on is read off the objects themselves.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_are_nobodys_are_taken_back_whoever_has_them() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = Fixture::empty(Engine::Postgres).await;
    share_roles(&fixture).await;
    let name = format!("tallyroll_{}", database(&fixture));
    fixture.execute(&format!("CREATE ROLE \"{name}\" LOGIN")).await;
    let privileges = |what: &str| {
        format!("ALTER DEFAULT PRIVILEGES {what} ON TABLES {} \"{name}\", PUBLIC", if what.contains("GRANT") { "TO" } else { "FROM" })
    };
    fixture.execute(&privileges("GRANT ALL")).await;
    fixture.execute(&privileges("REVOKE TRIGGER")).await;
    fixture.execute(&format!("ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO \"{name}\"")).await;
    fixture.run_well(&["migrate"]);
    fixture.execute(&privileges("REVOKE ALL")).await;
    fixture.execute(&format!("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM \"{name}\"")).await;
    fixture.execute(&format!("GRANT SELECT (job) ON tallyroll.job_lock TO \"{name}\"")).await;
    fixture.execute("GRANT EXECUTE ON FUNCTION public.get_ai_cost_summary() TO PUBLIC").await;
    fixture.execute(&format!("GRANT TRIGGER ON ALL TABLES IN SCHEMA public TO \"{name}\", PUBLIC")).await;
    fixture.run_well(&["migrate", "--roles"]);
    let left = format!(
        "WITH object AS (
             SELECT oid::REGCLASS::TEXT AS name, relacl AS acl, relnamespace = 'tallyroll'::REGNAMESPACE OR relname IN ('tallyroll_migration', 'ai_usage_summary') AS is_ours FROM pg_class
             WHERE relnamespace IN ('tallyroll'::REGNAMESPACE, 'public'::REGNAMESPACE)
             UNION ALL SELECT attrelid::REGCLASS::TEXT || '.' || attname, attacl, TRUE FROM pg_attribute WHERE attrelid = 'tallyroll.job_lock'::REGCLASS
             UNION ALL SELECT oid::REGPROCEDURE::TEXT, proacl, TRUE FROM pg_proc WHERE pronamespace IN ('tallyroll'::REGNAMESPACE, 'public'::REGNAMESPACE)
         )
         SELECT name || ' ' || privilege_type FROM object, aclexplode(acl) AS given
         WHERE given.grantee IN (0, to_regrole('\"{name}\"')) AND (is_ours OR privilege_type IN ('TRIGGER', 'REFERENCES', 'TRUNCATE'))"
    );
    assert_eq!(fixture.rows(&left).await, Vec::<String>::new());
    // A trigger that was made meanwhile is named.
    fixture.execute("GRANT TRIGGER ON public.ai_usage_log TO PUBLIC").await;
    let mut other = PgConnection::connect(&fixture.url.replace("postgres://postgres@", &format!("postgres://{name}@"))).await.unwrap();
    for sql in [
        "CREATE FUNCTION pg_temp.row() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
        "CREATE TRIGGER planted BEFORE INSERT ON public.ai_usage_log FOR EACH ROW EXECUTE FUNCTION pg_temp.row()",
    ] {
        other.execute(sql).await.unwrap();
    }
    for arguments in [&["migrate", "--roles"][..], RUN] {
        let refused = fixture.run(arguments);
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.stderr.contains("planted") && refused.stderr.contains(&name), "{}", refused.stderr);
    }
    other.close().await.unwrap();
    fixture.execute("DROP TRIGGER IF EXISTS planted ON public.ai_usage_log").await;
    fixture.run_well(&["migrate", "--roles"]);
    drop_roles(&fixture, &[name]).await;
}

/// Whoever owns the users could be any of them by its email.
#[tokio::test(flavor = "multi_thread")]
async fn users_of_somebody_else_are_asked_for_nobody() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let (ann, stranger) = (format!("ann-{}", database(&fixture)), format!("mal-{}", database(&fixture)));
    let mut connection = super::login(&fixture, &ann, "tallyroll_user").await;
    let seen = "SELECT DISTINCT user_id::TEXT FROM usage_daily";
    assert_eq!(super::try_rows(&mut connection, seen).await.unwrap(), [ANN]);
    fixture.execute(&format!("CREATE ROLE \"{stranger}\"")).await;
    fixture.execute(&format!("ALTER TABLE public.users OWNER TO \"{stranger}\"")).await;
    assert_eq!(super::try_rows(&mut connection, seen).await.unwrap(), Vec::<String>::new());
    connection.close().await.unwrap();
    fixture.execute("ALTER TABLE public.users OWNER TO postgres").await;
    drop_roles(&fixture, &[ann, stranger]).await;
}
