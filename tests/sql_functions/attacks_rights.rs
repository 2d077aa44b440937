//! What somebody with the documentation alone tried: logging for others, dropping what protects, reading rows out of errors.

use sqlx::Connection;

use super::{ANN, BOB, ROLES, database, drop_roles, is_refused, login, try_rows, with_roles};
use crate::support::{Engine, Fixture};

const POLICIES_AND_RIGHTS: &str = "SELECT tablename || policyname || roles::TEXT || COALESCE(qual, '') || COALESCE(with_check, '') FROM pg_policies \
     UNION ALL SELECT oid::REGCLASS || relacl::TEXT FROM pg_class WHERE relacl::TEXT LIKE '%tallyroll%' \
     UNION ALL SELECT oid::REGPROCEDURE || proacl::TEXT FROM pg_proc WHERE proacl::TEXT LIKE '%tallyroll%' ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn one_who_is_no_writer_logs_for_itself_alone_whatever_role_it_takes() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let (user, plain) = (format!("ann-{}", database(&fixture)), format!("plain-{}", database(&fixture)));
    fixture.execute(&format!("CREATE ROLE \"{plain}\"")).await;
    let mut ann = login(&fixture, &user, "tallyroll_user").await;
    fixture.execute(&format!("GRANT \"{plain}\" TO \"{user}\"")).await;
    fixture.execute(&format!("GRANT EXECUTE ON FUNCTION log_ai_usage TO \"{user}\"")).await;
    let count = fixture.number("SELECT COUNT(*) FROM ai_usage_log").await;
    let forge = format!(
        "CREATE FUNCTION pg_temp.forge() RETURNS TEXT LANGUAGE sql SECURITY DEFINER \
         AS $$ SELECT public.log_ai_usage('{BOB}', p_input_tokens => 999999)::TEXT $$"
    );
    try_rows(&mut ann, &forge).await.unwrap();
    try_rows(&mut ann, &format!("SET ROLE \"{plain}\"")).await.unwrap();
    let forged = try_rows(&mut ann, "SELECT pg_temp.forge()").await;
    assert!(is_refused(&forged), "{forged:?}");
    try_rows(&mut ann, "RESET ROLE").await.unwrap();
    assert!(is_refused(&try_rows(&mut ann, "SELECT pg_temp.forge()").await));
    // What would be quarantined would bring the whole day past the ratio that stops it.
    for bad in ["p_input_tokens", "p_output_tokens", "p_latency_ms", "p_tool_turns"] {
        let error = try_rows(&mut ann, &format!("SELECT log_ai_usage('{ANN}', {bad} => -1)::TEXT")).await.expect_err(bad);
        assert!(error.contains("not negative"), "{error}");
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM ai_usage_log").await, count);
    try_rows(&mut ann, &format!("SELECT log_ai_usage('{ANN}')::TEXT")).await.unwrap();
    // The log's owner logs for everyone, as does a superuser.
    fixture.execute(&format!("SELECT log_ai_usage('{BOB}')")).await;
    assert_eq!(fixture.number("SELECT COUNT(*) FROM ai_usage_log").await, count + 2);
    try_rows(&mut ann, "DISCARD TEMP").await.unwrap();
    ann.close().await.unwrap();
    drop_roles(&fixture, &[user, plain]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_drops_what_its_group_owns_drops_nothing() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let before = fixture.rows(POLICIES_AND_RIGHTS).await;
    assert!(before.len() > 30, "{before:?}");
    let mut names = Vec::new();
    for group in ["runner", "writer", "reader", "user"] {
        let name = format!("{group}-{}", database(&fixture));
        let mut member = login(&fixture, &name, &format!("tallyroll_{group}")).await;
        try_rows(&mut member, &format!("DROP OWNED BY tallyroll_{group} CASCADE")).await.unwrap();
        member.close().await.unwrap();
        assert_eq!(fixture.rows(POLICIES_AND_RIGHTS).await, before, "{group}");
        names.push(name);
    }
    drop_roles(&fixture, &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_asks_who_reads_once_a_statement() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let name = format!("fin-{}", database(&fixture));
    let mut reader = login(&fixture, &name, "tallyroll_reader").await;
    for setting in ["min_parallel_table_scan_size = 0", "parallel_setup_cost = 0", "parallel_tuple_cost = 0"] {
        try_rows(&mut reader, &format!("SET {setting}")).await.unwrap();
    }
    let plan = try_rows(&mut reader, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM usage_daily").await.unwrap().join("\n");
    // Asked in plans of their own: the reader's once, those for users never.
    assert!(plan.contains("Parallel Seq Scan on usage_daily"), "{plan}");
    let filter = plan.lines().find(|line| line.contains("Filter:")).unwrap_or_default();
    assert!(!filter.contains("pg_has_role") && !filter.contains("tallyroll_"), "{plan}");
    assert!(plan.contains("(actual rows=1 loops=1)") || plan.contains("(actual rows=1.00 loops=1)"), "{plan}");
    reader.close().await.unwrap();
    drop_roles(&fixture, &[name]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_of_a_writers_function_shows_a_row() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let name = format!("app-{}", database(&fixture));
    let mut app = login(&fixture, &name, "tallyroll_writer").await;
    try_rows(&mut app, &format!("SELECT record_ai_seat_usage('{ANN}', 'org', 'chat', 'A secret')::TEXT")).await.unwrap();
    try_rows(&mut app, "SELECT upsert_seat_assignment(1, '{3}', '{base}')::TEXT").await.unwrap();
    let request = try_rows(&mut app, &format!("SELECT track_chat_request('{ANN}', 'A secret')::TEXT")).await.unwrap().remove(0);
    // The application's own constraints, which a function cannot know beforehand.
    fixture.execute("ALTER TABLE chat_requests ADD CHECK (tokens_used < 1000)").await;
    fixture.execute("ALTER TABLE ai_seat_state ADD CHECK (last_event_description <> 'odd')").await;
    for call in [
        format!("record_ai_seat_usage('{ANN}', 'org', 'chat', NULL)"),
        format!("record_ai_seat_usage('{ANN}', 'org', NULL)"),
        format!("record_ai_seat_usage('{ANN}', NULL, 'chat')"),
        format!("record_ai_seat_usage('{ANN}', 'org', 'chat', 'odd')"),
        "record_ai_seat_usage(NULL, 'org', 'chat')".to_owned(),
        "track_chat_request(NULL, 'p')".to_owned(),
        format!("complete_chat_request('{request}', p_tokens_used => 1000)"),
        "complete_chat_request(NULL)".to_owned(),
        "log_ai_usage(NULL)".to_owned(),
        "record_seat_change(NULL)".to_owned(),
        "upsert_seat_assignment(NULL, '{3}', '{base}')".to_owned(),
        "upsert_seat_assignment(1, '{NULL}', '{base}')".to_owned(),
        "upsert_seat_assignment(1, NULL, NULL)".to_owned(),
        "upsert_seat_assignment(1, '{3}', NULL)".to_owned(),
        "remove_seat_assignment(NULL, '{3}')".to_owned(),
        // Texts that the tables refuse as too long.
        "record_seat_change('77', repeat('r', 1001))".to_owned(),
        "upsert_seat_assignment(77, '{3}', ARRAY[repeat('r', 1001)])".to_owned(),
        "remove_seat_assignment(1, '{3}', repeat('r', 1001))".to_owned(),
        format!("log_ai_usage('{ANN}', p_model_used => repeat('r', 1001))"),
        format!("track_chat_request('{ANN}', p_model => repeat('r', 1001))"),
    ] {
        let sql = format!("SELECT {call}::TEXT");
        let error = sqlx::Executor::fetch_all(&mut app, sqlx::AssertSqlSafe(sql)).await.expect_err(&call);
        let said = error.as_database_error().unwrap().downcast_ref::<sqlx::postgres::PgDatabaseError>();
        assert!(["22023", "P0002"].contains(&said.code()), "{call}: {said:?}");
        assert_eq!(said.detail(), None, "{call}: {said:?}");
    }
    app.close().await.unwrap();
    drop_roles(&fixture, &[name]).await;
}

/// Default privileges on schemas, as on tables: nobody gets into ours by them.
#[tokio::test(flavor = "multi_thread")]
async fn default_privileges_on_schemas_open_nothing() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = Fixture::empty(Engine::Postgres).await;
    let name = format!("all-{}", database(&fixture));
    fixture.execute(&format!("CREATE ROLE \"{name}\"")).await;
    fixture.execute(&format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO \"{name}\", PUBLIC")).await;
    let open = format!(
        "SELECT has_schema_privilege('{name}', 'tallyroll', 'CREATE'), has_schema_privilege('{name}', 'tallyroll', 'USAGE'), \
         has_schema_privilege('public', 'tallyroll', 'USAGE')"
    );
    // In a schema that is just made somebody could put what migrations find: the right to create has to go first.
    for role in ["PUBLIC", &format!("\"{name}\"")] {
        let refused = fixture.run(&["migrate"]);
        assert!(refused.code == Some(78) && refused.stderr.contains("may create in each schema"), "{refused:?}");
        fixture.execute(&format!("ALTER DEFAULT PRIVILEGES REVOKE CREATE ON SCHEMAS FROM {role}")).await;
    }
    fixture.run_well(&["migrate"]);
    assert_eq!(fixture.rows(&open).await, ["0|0|0"]);
    // What is granted by hand stays, but CREATE never, and with the roles nothing.
    fixture.execute(&format!("GRANT ALL ON SCHEMA tallyroll TO \"{name}\"")).await;
    fixture.run_well(&["migrate"]);
    assert_eq!(fixture.rows(&open).await, ["0|1|0"]);
    fixture.execute(&format!("GRANT ALL ON SCHEMA tallyroll TO \"{name}\" WITH GRANT OPTION")).await;
    fixture.run_well(&["migrate", "--roles"]);
    assert_eq!(fixture.rows(&open).await, ["0|0|0"]);
    fixture.execute(&format!("ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM \"{name}\", PUBLIC")).await;
    drop_roles(&fixture, &[name]).await;
}

/// Anybody who may connect can take the locks that migrations take.
#[tokio::test(flavor = "multi_thread")]
async fn migrate_waits_for_no_lock_for_ever() {
    let fixture = Fixture::empty(Engine::Postgres).await;
    for sql in [
        "CREATE TABLE public.noted (lock_timeout TEXT)",
        "CREATE FUNCTION public.note() RETURNS EVENT_TRIGGER LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO public.noted VALUES (current_setting('lock_timeout')); END $$",
        "CREATE EVENT TRIGGER note ON ddl_command_start EXECUTE FUNCTION public.note()",
    ] {
        fixture.execute(sql).await;
    }
    fixture.run_well(&["migrate"]);
    assert_eq!(fixture.rows("SELECT DISTINCT lock_timeout FROM public.noted ORDER BY 1").await, ["10s", "5min"]);
    let mut other = sqlx::PgConnection::connect(&fixture.url).await.unwrap();
    try_rows(&mut other, "SELECT pg_advisory_lock(8241560137722291)::TEXT").await.unwrap();
    let late = fixture.run(&["migrate"]);
    assert_eq!(late.code, Some(75), "{late:?}");
    assert!(late.stderr.contains("pg_locks"), "{}", late.stderr);
    other.close().await.unwrap();
    fixture.run_well(&["migrate"]);
}
