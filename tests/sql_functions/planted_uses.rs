//! What a table uses besides the functions of its triggers: conditions, casts to domains, tables that refer to it, where rules write, keys
//! of partitions.

use sqlx::{Connection as _, Executor as _, PgConnection};

use super::planted::{as_role, assert_nobody_ran, assert_refused, drop_eve, eve};
use super::{ROLES, database, drop_roles, with_roles};
use crate::support::{Finished, Fixture};

/// What the owner of the tables does, then eve, what is named, and how it goes again.
const PLANTED: [(&str, &str, &str, &str); 25] = [
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE TRIGGER z BEFORE UPDATE ON public.ai_usage_log FOR EACH ROW WHEN (evil.boom('x')) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "evil.boom",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    (
        "GRANT REFERENCES (id) ON user_dashboard_data TO eve",
        "CREATE TABLE evil.fk (id UUID REFERENCES public.user_dashboard_data (id) ON DELETE CASCADE); \
             CREATE TRIGGER n BEFORE DELETE ON evil.fk FOR EACH STATEMENT EXECUTE FUNCTION evil.row()",
        "evil.fk",
        "DROP TABLE evil.fk; REVOKE REFERENCES (id) ON user_dashboard_data FROM eve",
    ),
    (
        "CREATE FUNCTION public.app() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN RETURN NEW;END'; \
             CREATE TRIGGER app BEFORE INSERT ON ai_usage_log FOR EACH ROW WHEN (evil.boom(NEW.status)) EXECUTE FUNCTION public.app()",
        "",
        "evil.boom",
        "DROP TRIGGER app ON ai_usage_log; DROP FUNCTION public.app()",
    ),
    (
        "CREATE DOMAIN evil.name AS pg_catalog.text; ALTER DOMAIN evil.name OWNER TO eve; \
             ALTER TABLE ai_usage_log ADD CONSTRAINT named CHECK (length(request_type::evil.name) > 0)",
        "ALTER DOMAIN evil.name ADD CHECK (evil.boom(VALUE))",
        "evil.boom",
        "ALTER TABLE ai_usage_log DROP CONSTRAINT named; DROP DOMAIN evil.name",
    ),
    (
        "CREATE TABLE evil.audit (x pg_catalog.text); ALTER TABLE evil.audit OWNER TO eve; GRANT INSERT ON evil.audit TO PUBLIC; \
             CREATE RULE r AS ON INSERT TO user_dashboard_data DO ALSO INSERT INTO evil.audit VALUES ('x')",
        "CREATE TRIGGER t BEFORE INSERT ON evil.audit FOR EACH ROW EXECUTE FUNCTION evil.row()",
        "evil.audit",
        "DROP RULE r ON user_dashboard_data; DROP TABLE evil.audit",
    ),
    (
        "ALTER TABLE user_plans RENAME TO kept; CREATE TABLE public.user_plans (LIKE kept) PARTITION BY LIST (evil.boom(plan_name))",
        "",
        "evil.boom",
        "DROP TABLE user_plans; ALTER TABLE kept RENAME TO user_plans",
    ),
    // Made of PostgreSQL's own functions alone.
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE TRIGGER z BEFORE UPDATE ON public.ai_usage_log FOR EACH ROW WHEN (query_to_xml('SELECT evil.act()', true, true, '') IS NULL) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "query_to_xml",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    (
        "GRANT TRIGGER ON chat_requests TO eve",
        "CREATE TRIGGER z BEFORE UPDATE ON public.chat_requests FOR EACH ROW WHEN (pg_notify('evil', NEW::TEXT) IS NULL) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "pg_notify",
        "DROP TRIGGER z ON chat_requests; REVOKE TRIGGER ON chat_requests FROM eve",
    ),
    // Of ours, and of an extension whose arguments say what it reads.
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE TRIGGER z BEFORE UPDATE ON public.ai_usage_log FOR EACH ROW \
             WHEN (public.remove_seat_assignment(7, ARRAY[1]::BIGINT[], 'evil') IS NULL) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "remove_seat_assignment",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    (
        "CREATE EXTENSION refint SCHEMA public; GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE TRIGGER z AFTER INSERT ON public.ai_usage_log FOR EACH ROW \
             EXECUTE FUNCTION public.check_primary_key('request_type', 'evil.v', 'request_type')",
        "check_primary_key",
        "DROP TRIGGER z ON ai_usage_log; DROP EXTENSION refint; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    // Behind a view that a rule writes to.
    (
        "CREATE TABLE public.audit (x TEXT); CREATE VIEW public.audited AS TABLE audit; GRANT TRIGGER ON audit TO eve; \
             CREATE RULE r AS ON INSERT TO user_dashboard_data DO ALSO INSERT INTO audited VALUES ('x')",
        "CREATE TRIGGER z BEFORE INSERT ON public.audit FOR EACH ROW EXECUTE FUNCTION evil.row()",
        "public.audit",
        "DROP RULE r ON user_dashboard_data; DROP VIEW audited; DROP TABLE audit",
    ),
    // Of what a table is a partition of: its key, and a trigger whose copy names nothing that it calls.
    (
        "CREATE TABLE public.whole (LIKE user_plans) PARTITION BY LIST (evil.boom(plan_name)); \
             ALTER TABLE whole ATTACH PARTITION user_plans DEFAULT",
        "",
        "evil.boom",
        "ALTER TABLE whole DETACH PARTITION user_plans; DROP TABLE whole",
    ),
    (
        "CREATE TABLE public.whole (LIKE user_plans) PARTITION BY LIST (plan_name); ALTER TABLE whole ATTACH PARTITION user_plans DEFAULT; \
             GRANT TRIGGER ON whole, user_plans TO eve",
        "CREATE TRIGGER z BEFORE UPDATE ON public.whole FOR EACH ROW WHEN (evil.boom(NEW.plan_name)) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "evil.boom",
        "DROP TRIGGER z ON whole; ALTER TABLE whole DETACH PARTITION user_plans; DROP TABLE whole; REVOKE TRIGGER ON user_plans FROM eve",
    ),
    ("CREATE STATISTICS planted ON (evil.boom('x')), created_at FROM chat_requests", "", "evil.boom", "DROP STATISTICS planted"),
    (
        "CREATE TABLE public.audit (x TEXT); GRANT TRIGGER ON audit TO eve; GRANT INSERT ON audit TO PUBLIC; \
             CREATE RULE r AS ON INSERT TO user_dashboard_data DO ALSO INSERT INTO audit VALUES ('x')",
        "CREATE TRIGGER z BEFORE INSERT ON public.audit FOR EACH ROW EXECUTE FUNCTION evil.row()",
        "public.audit",
        "DROP RULE r ON user_dashboard_data; DROP TABLE audit",
    ),
    // Types, tables and functions that a text or a number names, of which the catalog knows nothing.
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE DOMAIN evil.d AS pg_catalog.text CHECK (evil.boom(VALUE)); CREATE TYPE evil.c AS (x evil.d); \
             CREATE TRIGGER z BEFORE UPDATE ON public.ai_usage_log FOR EACH ROW \
             WHEN (record_in('(x)', to_regtype('evil.c')::oid, -1) IS NULL) EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "record_in",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE TRIGGER z BEFORE UPDATE ON public.ai_usage_log FOR EACH ROW \
             WHEN (domain_in('x'::cstring, to_regtype('evil.d')::oid, -1) IS NULL) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "domain_in",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE FUNCTION evil.lit() RETURNS evil.c LANGUAGE sql AS $$ SELECT '(y)'::evil.c $$; \
             CREATE TRIGGER z BEFORE UPDATE ON public.ai_usage_log FOR EACH ROW \
             WHEN (fmgr_sql_validator(to_regprocedure('evil.lit()')::oid) IS NULL) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "fmgr_sql_validator",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE VIEW evil.v AS SELECT evil.boom('x'); CREATE TRIGGER z BEFORE UPDATE ON public.ai_usage_log FOR EACH ROW \
             WHEN (table_to_xml(to_regclass('evil.v'), true, true, '') IS NULL) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "table_to_xml",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    // A type that PostgreSQL's catalog knows nothing of: that of an array's elements.
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE TRIGGER z BEFORE INSERT ON public.ai_usage_log FOR EACH ROW \
             WHEN (jsonb_populate_record((ARRAY[]::evil.c[])[1], '{\"x\": \"y\"}') IS NULL) EXECUTE FUNCTION tsvector_update_trigger()",
        "jsonb_populate_record",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    // What the owner's own functions do for whoever calls them.
    (
        "CREATE FUNCTION public.exec_sql(p TEXT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$ BEGIN EXECUTE p, RETURN TRUE, END $$; \
             GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE TRIGGER z BEFORE INSERT ON public.ai_usage_log FOR EACH ROW WHEN (public.exec_sql('SELECT evil.act()')) \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "exec_sql",
        "DROP TRIGGER z ON ai_usage_log; DROP FUNCTION public.exec_sql(TEXT); REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    (
        "GRANT TRIGGER ON seat_usage_event TO eve",
        "CREATE TRIGGER z BEFORE INSERT ON public.seat_usage_event FOR EACH STATEMENT EXECUTE FUNCTION tsvector_update_trigger()",
        "tsvector_update_trigger",
        "DROP TRIGGER z ON seat_usage_event; REVOKE TRIGGER ON seat_usage_event FROM eve",
    ),
    // What keeps usage out, moves it, or ends what is billed.
    (
        "GRANT TRIGGER ON ai_usage_log TO eve",
        "CREATE TRIGGER z BEFORE INSERT ON public.ai_usage_log FOR EACH ROW WHEN (NEW.user_id = '00000000-0000-4000-8000-00000000dead') \
             EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "suppress_redundant_updates_trigger",
        "DROP TRIGGER z ON ai_usage_log; REVOKE TRIGGER ON ai_usage_log FROM eve",
    ),
    (
        "CREATE EXTENSION moddatetime SCHEMA public; GRANT TRIGGER ON subscription TO eve",
        "CREATE TRIGGER z BEFORE UPDATE ON public.subscription FOR EACH ROW EXECUTE FUNCTION public.moddatetime(end_at)",
        "moddatetime",
        "DROP TRIGGER z ON subscription; DROP EXTENSION moddatetime; REVOKE TRIGGER ON subscription FROM eve",
    ),
    // An operator alone of an extension.
    (
        "GRANT CREATE ON DATABASE \"DATABASE\" TO eve",
        "CREATE EXTENSION pg_trgm SCHEMA evil",
        "extension pg_trgm",
        "ALTER TABLE users DROP CONSTRAINT alike; REVOKE CREATE ON DATABASE \"DATABASE\" FROM eve",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_somebody_else_that_a_table_uses_is_run() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let eve = eve(&fixture).await;
    let runner = format!("run-{}", database(&fixture));
    fixture.execute(&format!("CREATE ROLE \"{runner}\" LOGIN BYPASSRLS IN ROLE tallyroll_runner")).await;
    fixture.execute("GRANT REFERENCES, INSERT ON ALL TABLES IN SCHEMA evil TO postgres").await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    let commands = [&["run-job", "usage_daily", "--downstream", "--force"][..], &["status"], &["import", "usage", "none.csv"]];
    let current = fixture.rows("SELECT current_database()").await.remove(0);
    for (owner, eves, named, undo) in PLANTED {
        let of_eve = |sql: &str| sql.replace(" eve", &format!(" \"{eve}\"")).replace("DATABASE\"", &format!("{current}\""));
        for sql in of_eve(owner).split("; ").filter(|sql| !sql.is_empty()) {
            // A comma stands for the semicolon within a body.
            let sql = if sql.contains("$$ BEGIN") { sql.replace(", ", "; ") } else { sql.to_owned() };
            fixture.execute(&sql).await;
        }
        as_role(&fixture, &eve, eves).await;
        if named == "extension pg_trgm" {
            fixture.execute("ALTER TABLE users ADD CONSTRAINT alike CHECK (name OPERATOR(evil.%) 'x' OR TRUE)").await;
        }
        fixture.execute("DELETE FROM evil.trace").await;
        for who in [runner.as_str(), "postgres"] {
            assert_refused(&fixture, who, &eve, &commands, named).await;
        }
        // Before functions would run it with the rights of their owner.
        assert_refused(&fixture, "postgres", &eve, &[&["migrate", "--roles"]], named).await;
        for sql in of_eve(undo).split("; ") {
            fixture.execute(sql).await;
        }
        fixture.run_well(commands[0]);
        assert_nobody_ran(&fixture, &eve, named).await;
    }
    rights_are_taken_back(&fixture, &eve).await;
    nobody_is_kept_out_by_a_cast(&fixture, &eve, commands[0]).await;
    fixture.run_well(commands[0]);
    drop_eve(&fixture, eve).await;
    drop_roles(&fixture, &[runner]).await;
}

async fn rights_are_taken_back(fixture: &Fixture, eve: &str) {
    // One in a transaction that is open would fire in the statement that has waited for it: who may make one stops every command.
    fixture.execute(&format!("GRANT TRIGGER ON subscription TO \"{eve}\"")).await;
    let refused = fixture.run(&["import", "subscriptions", "none.csv"]);
    assert!(refused.code == Some(78) && refused.stderr.contains("REVOKE TRIGGER ON public.subscription FROM"), "{refused:?}");
    fixture.run_well(&["migrate", "--roles"]);
    assert_eq!(fixture.run(&["import", "subscriptions", "none.csv"]).code, Some(2), "there is no such file");
    // Rights on columns are taken back as those on tables are.
    fixture.execute(&format!("GRANT REFERENCES (id) ON ai_usage_log TO \"{eve}\"")).await;
    fixture.run_well(&["migrate", "--roles"]);
    let right = format!("SELECT has_column_privilege('{eve}', 'ai_usage_log', 'id', 'REFERENCES')");
    assert_eq!(fixture.rows(&right).await, ["0"]);
    // And those on what inherits.
    fixture.execute("CREATE TABLE public.old_requests () INHERITS (chat_requests)").await;
    fixture.execute(&format!("GRANT TRIGGER, TRUNCATE ON old_requests TO \"{eve}\"")).await;
    fixture.run_well(&["migrate", "--roles"]);
    assert_eq!(fixture.rows(&format!("SELECT has_table_privilege('{eve}', 'old_requests', 'TRIGGER, TRUNCATE')")).await, ["0"]);
    // A trigger whose transaction is open is waited for.
    fixture.execute(&format!("GRANT TRIGGER ON chat_requests TO \"{eve}\"")).await;
    let url = fixture.url.replace("postgres://postgres@", &format!("postgres://{eve}@"));
    let mut open = PgConnection::connect(&url).await.unwrap();
    let trigger = "BEGIN; CREATE TRIGGER late BEFORE INSERT ON public.chat_requests FOR EACH ROW EXECUTE FUNCTION evil.row()";
    open.execute(sqlx::raw_sql(trigger)).await.unwrap();
    let roles = fixture.command(&["migrate", "--roles"]).spawn().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    open.execute("COMMIT").await.unwrap();
    let roles = Finished::of(&roles.wait_with_output().unwrap());
    assert!(roles.code == Some(78) && roles.stderr.contains("late on"), "{roles:?}");
    open.close().await.unwrap();
    fixture.execute("DROP TRIGGER late ON chat_requests").await;
    // An application's own trigger is named once, and accepted by the table's owner; another one of its name is not.
    let own = "CREATE TRIGGER own BEFORE UPDATE ON ai_usage_log FOR EACH ROW \
         WHEN (OLD.status IS DISTINCT FROM NEW.status AND NEW.created_at < now() + INTERVAL '1 hour') \
         EXECUTE FUNCTION suppress_redundant_updates_trigger()";
    fixture.execute(own).await;
    let refused = fixture.run(&["migrate", "--roles"]);
    assert!(refused.code == Some(78) && refused.stderr.contains("own ON public.ai_usage_log"), "{refused:?}");
    let accept = refused.stderr.split("accept it: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    fixture.execute(&accept).await;
    fixture.run_well(&["migrate", "--roles"]);
    fixture.execute("ALTER TABLE ai_usage_log DISABLE TRIGGER own").await;
    assert_eq!(fixture.run(&["migrate", "--roles"]).code, Some(78), "one that is switched on or off is another one");
    fixture.execute("ALTER TABLE ai_usage_log ENABLE TRIGGER own").await;
    fixture.run_well(&["migrate", "--roles"]);
    fixture.execute(&own.replace("CREATE", "CREATE OR REPLACE").replace("1 hour", "2 hours")).await;
    assert_eq!(fixture.run(&["migrate", "--roles"]).code, Some(78));
    fixture.execute("DROP TRIGGER own ON ai_usage_log").await;
    fixture.run_well(&["migrate", "--roles"]);
}

/// Whoever may use the type of a row, and that is everybody, may make a cast to it, which nobody calls.
async fn nobody_is_kept_out_by_a_cast(fixture: &Fixture, eve: &str, run: &[&str]) {
    let cast = "CREATE TYPE evil.t AS (x pg_catalog.int4); \
         CREATE FUNCTION evil.f(evil.t) RETURNS public.user_plans LANGUAGE sql AS 'SELECT NULL::public.user_plans'; \
         CREATE CAST (evil.t AS public.user_plans) WITH FUNCTION evil.f(evil.t)";
    as_role(fixture, eve, cast).await;
    fixture.run_well(run);
    fixture.run_well(&["migrate", "--roles"]);
}

/// What default privileges give, and what members of the roles give on.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_come_by_themselves_go() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = Fixture::empty(crate::support::Engine::Postgres).await;
    let eve = eve(&fixture).await;
    for what in ["TABLES", "SEQUENCES", "FUNCTIONS"] {
        fixture.execute(&format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO \"{eve}\"")).await;
    }
    // While the tables are made she could put a trigger on one.
    let refused = fixture.run(&["migrate"]);
    assert!(refused.code == Some(78) && refused.stderr.contains("may make triggers"), "{refused:?}");
    let revoke = refused.stderr.split("hint: first ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    fixture.execute(&revoke).await;
    fixture.run_well(&["migrate"]);
    // Before there are roles.
    let may = |right: &str| format!("SELECT {right}").replace("EVE", &eve);
    for right in [
        "has_function_privilege('EVE', 'record_seat_change(text, text)', 'EXECUTE')",
        "has_table_privilege('EVE', 'tallyroll_migration', 'UPDATE')",
    ] {
        assert_eq!(fixture.rows(&may(right)).await, ["0"], "{right}");
    }
    // What an administrator grants afterwards stays.
    fixture.execute(&format!("GRANT EXECUTE ON FUNCTION record_seat_change(text, text) TO \"{eve}\"")).await;
    fixture.run_well(&["migrate"]);
    assert_eq!(fixture.rows(&may("has_function_privilege('EVE', 'record_seat_change(text, text)', 'EXECUTE')")).await, ["1"]);
    super::share_roles(&fixture).await;
    fixture.run_well(&["migrate", "--roles"]);
    fixture.execute("GRANT SELECT ON ai_usage_summary TO tallyroll_reader WITH GRANT OPTION").await;
    let given_on = format!("SET ROLE tallyroll_reader; GRANT SELECT ON public.ai_usage_summary TO \"{eve}\"; RESET ROLE");
    as_role(&fixture, "postgres", &given_on).await;
    fixture.execute(&format!("GRANT UPDATE ON SEQUENCE seat_usage_event_id_seq TO \"{eve}\"")).await;
    // By the option on a table, on one of its columns.
    fixture.execute(&format!("GRANT SELECT ON chat_requests TO \"{eve}\" WITH GRANT OPTION")).await;
    as_role(&fixture, &eve, "GRANT SELECT (prompt) ON public.chat_requests TO tallyroll_user").await;
    fixture.execute("CREATE TABLE public.note (id UUID REFERENCES chat_requests (id) ON DELETE CASCADE)").await;
    fixture.run_well(&["migrate", "--roles"]);
    for right in [
        "has_function_privilege('EVE', 'record_seat_change(text, text)', 'EXECUTE')",
        "has_table_privilege('EVE', 'ai_usage_summary', 'SELECT')",
        "has_table_privilege('tallyroll_reader', 'ai_usage_summary', 'SELECT WITH GRANT OPTION')",
        "has_sequence_privilege('EVE', 'seat_usage_event_id_seq', 'UPDATE')",
        "has_table_privilege('EVE', 'note', 'TRIGGER')",
        "has_column_privilege('tallyroll_user', 'chat_requests', 'prompt', 'SELECT')",
    ] {
        assert_eq!(fixture.rows(&may(right)).await, ["0"], "{right}");
    }
    assert_eq!(fixture.rows(&may("has_table_privilege('tallyroll_reader', 'ai_usage_summary', 'SELECT')")).await, ["1"]);
    for what in ["TABLES", "SEQUENCES", "FUNCTIONS"] {
        fixture.execute(&format!("ALTER DEFAULT PRIVILEGES REVOKE ALL ON {what} FROM \"{eve}\"")).await;
    }
    drop_eve(&fixture, eve).await;
}

/// Whoever may set `session_replication_role` changes nothing of it either.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_append_only_where_a_session_replicates() {
    let fixture = Fixture::new(crate::support::Engine::Postgres).await;
    fixture.seats(1, "org", "2026-03-01T00:00:00Z", 5).await;
    let mut session = PgConnection::connect(&fixture.url).await.unwrap();
    session.execute("SET session_replication_role = replica").await.unwrap();
    for sql in ["UPDATE seat_usage_event SET seats = 1", "DELETE FROM seat_usage_event", "TRUNCATE seat_usage_event"] {
        let refused = session.execute(sql).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
    assert_eq!(fixture.number("SELECT SUM(seats) FROM seat_usage_event").await, 5);
}
