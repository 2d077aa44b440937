//! What a role tries to become the functions' owner, or more: operators, functions, casts, triggers and names of its own.

use sqlx::Connection;

use super::{ANN, ROLES, database, drop_roles, json, login, try_rows, with_roles};
use crate::support::{Engine, Fixture};

/// Functions of ours, wherever they are.
const OURS: &str = "FROM pg_proc WHERE pronamespace = 'tallyroll'::REGNAMESPACE OR pronamespace = 'public'::REGNAMESPACE AND proname IN \
     ('log_ai_usage', 'track_chat_request', 'complete_chat_request', 'record_seat_change', 'upsert_seat_assignment', \
     'remove_seat_assignment', 'record_ai_seat_usage', 'get_ai_usage_dashboard', 'get_user_ai_usage', 'get_ai_cost_summary')";

/// Notes who runs it, and tries what only a superuser may.
const TRACE: &str = "LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.trace VALUES (CURRENT_USER); \
     BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', SESSION_USER); EXCEPTION WHEN OTHERS THEN NULL; END; RETURN NULL; END $$";

/// Objects in `schema` that fit what the functions' bodies say better than PostgreSQL's own.
fn planted(schema: &str) -> Vec<String> {
    let mut planted = Vec::new();
    for (operator, left, right, result) in [
        ("*", "INTEGER", "NUMERIC", "NUMERIC"),
        ("*", "NUMERIC", "INTEGER", "NUMERIC"),
        ("/", "NUMERIC", "INTEGER", "NUMERIC"),
        ("^", "NUMERIC", "INTEGER", "NUMERIC"),
        ("=", "NUMERIC", "INTEGER", "BOOLEAN"),
        (">", "NUMERIC", "INTEGER", "BOOLEAN"),
        ("+", "NUMERIC", "INTEGER", "NUMERIC"),
        ("||", "TEXT", "VARCHAR", "TEXT"),
    ] {
        let name = format!("m{}", planted.len());
        planted.push(format!("CREATE FUNCTION {schema}.{name}({left}, {right}) RETURNS {result} {TRACE}"));
        planted.push(format!("CREATE OPERATOR {schema}.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {schema}.{name})"));
    }
    for (signature, result) in [
        ("div(NUMERIC, INTEGER)", "NUMERIC"),
        ("mod(NUMERIC, INTEGER)", "NUMERIC"),
        ("jsonb_build_object(TEXT, BIGINT, TEXT, BIGINT, TEXT, NUMERIC)", "JSONB"),
        ("format(TEXT, TEXT)", "TEXT"),
        ("clock_timestamp()", "TIMESTAMPTZ"),
        ("to_timestamp(NUMERIC)", "TIMESTAMPTZ"),
        ("tallyroll_is_admin()", "BOOLEAN"),
        ("tallyroll_current_user_id()", "UUID"),
    ] {
        planted.push(format!("CREATE FUNCTION {schema}.{signature} RETURNS {result} {TRACE}"));
    }
    planted
}

/// What calls every function; a function that was fooled leaves a trace.
fn calls() -> Vec<String> {
    [
        format!("SELECT log_ai_usage('{ANN}', p_input_tokens => 7)::TEXT"),
        format!("SELECT complete_chat_request(track_chat_request('{ANN}', 'p'), p_tokens_input => 1)::TEXT"),
        "SELECT upsert_seat_assignment(1, '{3}', '{base}')::TEXT".to_owned(),
        "SELECT remove_seat_assignment(1, '{3}')::TEXT".to_owned(),
        format!("SELECT record_ai_seat_usage('{ANN}', '1', 'chat')::TEXT"),
        "SELECT get_ai_cost_summary()::TEXT".to_owned(),
        "SELECT get_ai_usage_dashboard(3660)::TEXT".to_owned(),
        format!("SELECT get_user_ai_usage('{ANN}', 3660)::TEXT"),
    ]
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_function_looks_where_nobody_creates_and_has_an_owner_without_power() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    assert!(fixture.number(&format!("SELECT COUNT(*) {OURS}")).await > 25);
    let wrong = format!(
        "SELECT proname::TEXT FROM (SELECT * {OURS}) AS ours WHERE proconfig IS DISTINCT FROM '{{\"search_path=pg_catalog, pg_temp\"}}' \
         OR has_function_privilege('public', oid, 'EXECUTE') OR proowner <> 'tallyroll_owner'::REGROLE"
    );
    assert_eq!(fixture.rows(&wrong).await, Vec::<String>::new());
    assert_eq!(
        fixture.rows("SELECT rolsuper, rolcanlogin, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = 'tallyroll_owner'").await,
        ["0|0|0|0"]
    );
    let creators = "SELECT rolname::TEXT, nspname::TEXT FROM pg_roles, pg_namespace WHERE nspname IN ('tallyroll', 'public') \
         AND rolname LIKE 'tallyroll%' AND has_schema_privilege(pg_roles.oid, pg_namespace.oid, 'CREATE') ORDER BY 2";
    assert_eq!(fixture.rows(creators).await, ["tallyroll_migrator|public", "tallyroll_migrator|tallyroll"]);
    // Nothing that the owner of functions does not need: it deletes no ledger row and reads no prompt of others' tables.
    let too_much = "SELECT relname::TEXT FROM pg_class WHERE relnamespace IN ('tallyroll'::REGNAMESPACE, 'public'::REGNAMESPACE) \
         AND relkind = 'r' AND has_table_privilege('tallyroll_owner', oid, 'DELETE, TRUNCATE, TRIGGER, REFERENCES')";
    assert_eq!(fixture.rows(too_much).await, ["subscription_seat_assignments"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_fits_better_is_run_as_the_owner() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let before = json(&fixture, "get_ai_usage_dashboard(3660)").await;
    let name = format!("plant-{}", database(&fixture));
    let mut caller = login(&fixture, &name, "tallyroll_writer").await;
    fixture.execute(&format!("GRANT tallyroll_reader TO \"{name}\"")).await;
    fixture.execute("CREATE TABLE public.trace (by_whom TEXT)").await;
    fixture.execute("GRANT ALL ON public.trace TO PUBLIC").await;
    // Even with what only the migrator could make, and with what every session may make for itself.
    for sql in planted("public").into_iter().chain(planted("tallyroll").into_iter().filter(|sql| !sql.contains("tallyroll_"))) {
        fixture.execute(&sql).await;
    }
    let temporary = [
        "CREATE TEMP TABLE users (id UUID, email TEXT)",
        "CREATE TEMP TABLE usage_daily_total (usage_date DATE)",
        "CREATE TEMP TABLE usage_daily_user (usage_date DATE)",
        "CREATE TEMP TABLE tallyroll_setting (name TEXT, value TEXT)",
        "CREATE TYPE pg_temp.numeric AS (n INTEGER)",
        "CREATE DOMAIN pg_temp.jsonb AS TEXT",
    ];
    for sql in planted("pg_temp").iter().map(String::as_str).chain(temporary) {
        try_rows(&mut caller, sql).await.unwrap();
    }
    for path in ["public, tallyroll", "pg_temp, public, tallyroll, pg_catalog"] {
        try_rows(&mut caller, &format!("SET search_path = {path}")).await.unwrap();
        for call in calls() {
            try_rows(&mut caller, &call).await.unwrap_or_else(|error| panic!("{call}: {error}"));
        }
    }
    fixture.execute("UPDATE ai_usage_log SET latency_ms = 1").await;
    // What the caller runs as itself, a default of a column of its own say, is its own affair.
    assert_eq!(fixture.rows(&format!("SELECT DISTINCT by_whom FROM public.trace WHERE by_whom <> '{name}'")).await, Vec::<String>::new());
    assert_eq!(fixture.rows(&format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{name}'")).await, ["0"]);
    try_rows(&mut caller, "DISCARD TEMP").await.unwrap();
    caller.close().await.unwrap();
    for sql in ["DROP FUNCTION public.clock_timestamp, public.to_timestamp CASCADE", "DROP TABLE public.trace CASCADE"] {
        fixture.execute(sql).await;
    }
    assert_eq!(json(&fixture, "get_ai_usage_dashboard(3660)").await["costs"], before["costs"]);
    drop_roles(&fixture, &[name]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_role_makes_changes_or_becomes_what_others_run() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let attempts = planted("public").into_iter().chain(planted("tallyroll")).chain(
        [
            "CREATE TABLE public.mine (n INTEGER)",
            "CREATE TABLE tallyroll.mine (n INTEGER)",
            "CREATE VIEW tallyroll.mine AS SELECT * FROM tallyroll.usage_daily_total",
            "CREATE SCHEMA mine",
            "CREATE OR REPLACE FUNCTION tallyroll.tallyroll_instant(p_at TIMESTAMPTZ) RETURNS TEXT LANGUAGE sql AS $$ SELECT '' $$",
            "ALTER FUNCTION tallyroll.tallyroll_is_admin() SET search_path = public",
            "ALTER FUNCTION tallyroll.tallyroll_is_admin() RENAME TO other",
            "DROP FUNCTION tallyroll.tallyroll_is_admin() CASCADE",
            "CREATE TRIGGER mine AFTER INSERT ON public.ai_usage_log FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "CREATE TRIGGER mine AFTER INSERT ON tallyroll.usage_daily FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "CREATE RULE mine AS ON INSERT TO public.ai_usage_log DO ALSO SELECT 1",
            "CREATE RULE mine AS ON INSERT TO tallyroll.seat_org DO ALSO SELECT 1",
            "CREATE POLICY mine ON tallyroll.usage_daily USING (TRUE)",
            "ALTER TABLE tallyroll.usage_daily DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE public.seat_usage_event DISABLE TRIGGER USER",
            "ALTER TABLE public.ai_usage_log ADD COLUMN mine INTEGER",
            "CREATE INDEX ON public.ai_usage_log (user_id)",
            "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "CREATE CAST (NUMERIC AS DATE) WITH INOUT AS IMPLICIT",
            "CREATE EXTENSION plpgsql SCHEMA tallyroll",
            "ALTER DEFAULT PRIVILEGES FOR ROLE tallyroll_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC",
            "ALTER ROLE tallyroll_owner LOGIN",
            "GRANT tallyroll_owner TO CURRENT_USER",
            "GRANT tallyroll_migrator TO CURRENT_USER",
            "SET ROLE tallyroll_owner",
            "SET ROLE tallyroll_migrator",
            "SET SESSION AUTHORIZATION tallyroll_owner",
            "UPDATE tallyroll.tallyroll_setting SET value = CURRENT_USER",
            "INSERT INTO tallyroll.tallyroll_setting VALUES ('auth_owner', CURRENT_USER)",
            "DELETE FROM public.tallyroll_migration",
            "DELETE FROM public.seat_usage_event",
            "TRUNCATE public.seat_usage_event",
            "UPDATE public.ai_usage_log SET input_tokens = 0",
            "SELECT tallyroll.tallyroll_append_seats('1', 'total', 0, now(), 'r')::TEXT",
            "SELECT tallyroll.tallyroll_give_result_table('tallyroll.job_lock')::TEXT",
        ]
        .map(str::to_owned),
    );
    let attempts: Vec<String> = attempts.collect();
    let mut names = Vec::new();
    for group in ["runner", "writer", "reader", "user"] {
        let name = format!("{group}-{}", database(&fixture));
        let mut role = login(&fixture, &name, &format!("tallyroll_{group}")).await;
        for attempt in &attempts {
            // All but the superuser's own `SET SESSION AUTHORIZATION` end in a plain refusal.
            let result = try_rows(&mut role, attempt).await;
            let error = result.expect_err(&format!("{name}: {attempt}"));
            assert!(
                ["permission denied", "must be owner", "must have admin option", "must be superuser", "must be member"]
                    .iter()
                    .any(|word| error.contains(word))
                    || attempt.starts_with("CREATE OPERATOR") && error.contains("does not exist")
                    || attempt.contains("EXTENSION") && error.contains("already exists"),
                "{name}: {attempt}: {error}"
            );
        }
        role.close().await.unwrap();
        names.push(name);
    }
    drop_roles(&fixture, &names).await;
}

/// A hosted database gives its users everything that is made in `public`.
#[tokio::test(flavor = "multi_thread")]
async fn default_privileges_open_nothing() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = Fixture::empty(Engine::Postgres).await;
    let name = format!("all-{}", database(&fixture));
    fixture.execute(&format!("CREATE ROLE \"{name}\"")).await;
    for kind in ["TABLES", "FUNCTIONS", "SEQUENCES"] {
        fixture.execute(&format!("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {kind} TO \"{name}\"")).await;
    }
    // Triggers are more than rights: what they do runs with those of others.
    let refused = fixture.run(&["migrate", "--roles"]);
    assert!(refused.code == Some(78) && refused.stderr.contains("IN SCHEMA public REVOKE TRIGGER ON TABLES FROM"), "{refused:?}");
    fixture.execute(&format!("ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE TRIGGER ON TABLES FROM \"{name}\"")).await;
    fixture.run_well(&["migrate", "--roles"]);
    fixture.execute(&format!("GRANT USAGE ON SCHEMA tallyroll TO \"{name}\"")).await;
    let open = format!(
        "SELECT relname::TEXT FROM pg_class WHERE relnamespace = 'tallyroll'::REGNAMESPACE AND relkind IN ('r', 'v') \
             AND has_table_privilege('{name}', oid, 'SELECT, INSERT, UPDATE, DELETE') \
         UNION ALL SELECT proname::TEXT FROM (SELECT * {OURS}) AS ours WHERE has_function_privilege('{name}', oid, 'EXECUTE')"
    );
    assert_eq!(fixture.rows(&open).await, Vec::<String>::new());
    drop_roles(&fixture, &[name]).await;
}
