//! The application's schema under a new name, with one of the old name that somebody made; and functions of third schemas that the
//! application's tables call.

use sqlx::Connection;

use super::attacks_owners::{drop_owner, owned};
use super::owners::run_as;
use super::planted::{as_role, assert_nobody_ran, assert_refused, drop_eve, eve};
use super::{ANN, ROLES, database, drop_roles, login, try_rows, with_roles};

/// What eve makes where the application's schema was: she is ann and an admin there, and whatever a function does calls hers.
const OLD_NAME: &str = "CREATE SCHEMA public;
    GRANT ALL ON SCHEMA public TO PUBLIC;
    CREATE DOMAIN public.kind AS TEXT CHECK (evil.act());
    CREATE TABLE public.tallyroll_migration (version BIGINT);
    CREATE TABLE public.ai_usage_log (id UUID DEFAULT gen_random_uuid(), user_id UUID CHECK (evil.act()), user_email TEXT, customer_id INTEGER,
        customer_name TEXT, request_type TEXT, session_id TEXT, input_tokens INTEGER, output_tokens INTEGER, model_used TEXT, latency_ms INTEGER,
        tool_turns INTEGER, status TEXT, error_message TEXT);
    CREATE TABLE public.users AS SELECT 'eve-id'::UUID AS id, CURRENT_USER::TEXT AS email;
    CREATE VIEW public.user_roles AS SELECT id AS user_id, 'admin' AS user_role FROM public.users WHERE evil.act();
    CREATE TABLE public.admins AS SELECT id AS user_id, 'admin' AS user_role FROM public.users;
    CREATE TABLE public.seat_usage_event (id BIGSERIAL, org_id TEXT CHECK (evil.act()), seat_type TEXT, seats BIGINT, occurred_at TIMESTAMPTZ,
        recorded_at TIMESTAMPTZ, reason TEXT);
    CREATE TABLE public.subscription_seat_assignments (id BIGSERIAL, namespace_id BIGINT CHECK (evil.act()), organization_id BIGINT,
        user_id BIGINT, seat_type TEXT, created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ);
    CREATE UNIQUE INDEX ON public.subscription_seat_assignments (namespace_id, user_id) WHERE namespace_id IS NOT NULL;
    CREATE FUNCTION public.record_seat_change(TEXT, TEXT) RETURNS INTEGER LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.act(); RETURN 1; END $$;
    CREATE TABLE public.ai_seat_state (user_id UUID PRIMARY KEY, org_id TEXT, first_used_at TIMESTAMPTZ, last_used_at TIMESTAMPTZ,
        last_event_type public.kind, last_event_description TEXT, updated_at TIMESTAMPTZ);
    CREATE TABLE public.chat_requests (id UUID DEFAULT gen_random_uuid(), user_id UUID CHECK (evil.act()), session_id TEXT, prompt TEXT,
        response TEXT, model TEXT, status TEXT, tokens_used INTEGER, cost INTEGER, duration INTEGER, error_message TEXT,
        started_at TIMESTAMPTZ, completed_at TIMESTAMPTZ, created_at TIMESTAMPTZ DEFAULT now());
    CREATE VIEW public.request_analytics AS SELECT NULL::UUID AS id WHERE evil.act();
    GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC";

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_the_old_name_is_not_the_applications() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let eve = eve(&fixture).await;
    let (runner, user) = (format!("run-{}", database(&fixture)), format!("ann-{}", database(&fixture)));
    fixture.execute(&format!("CREATE ROLE \"{runner}\" LOGIN BYPASSRLS IN ROLE tallyroll_runner")).await;
    let here = fixture.rows("SELECT current_database()::TEXT").await.remove(0);
    fixture.execute(&format!("GRANT CREATE ON DATABASE {here} TO \"{eve}\"")).await;
    fixture.execute(&format!("GRANT tallyroll_user, tallyroll_writer TO \"{eve}\"")).await;
    fixture.execute(&format!("INSERT INTO chat_requests (id, user_id, status) VALUES ('{ANN}', '{ANN}', 'pending')")).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream"]);
    fixture.execute("ALTER SCHEMA public RENAME TO app").await;
    as_role(&fixture, &eve, &OLD_NAME.replace("eve-id", ANN)).await;
    fixture.execute("DELETE FROM evil.trace").await;

    let calls = [
        "log_ai_usage(gen_random_uuid())".to_owned(),
        "track_chat_request(gen_random_uuid())".to_owned(),
        format!("complete_chat_request('{ANN}', 'completed')"),
        "record_seat_change('1')".to_owned(),
        "upsert_seat_assignment(1, ARRAY[1], ARRAY['full'])".to_owned(),
        "remove_seat_assignment(1, ARRAY[1])".to_owned(),
        format!("record_ai_seat_usage('{ANN}', 'acme', 'chat')"),
        "get_ai_usage_dashboard()".to_owned(),
        format!("get_user_ai_usage('{ANN}')"),
        "get_ai_cost_summary()".to_owned(),
    ];
    let mut session =
        sqlx::PgConnection::connect(&fixture.url.replace("postgres://postgres@", &format!("postgres://{eve}@"))).await.unwrap();
    // First as a view that runs her code, then as a table that says she is an admin.
    for roles in ["", "DROP VIEW public.user_roles; ALTER TABLE public.admins RENAME TO user_roles"] {
        as_role(&fixture, &eve, &format!("SELECT; {roles}")).await;
        for call in &calls {
            let refused = try_rows(&mut session, &format!("SELECT (app.{call})::TEXT")).await.unwrap_err();
            assert!(refused.contains("is not the application's"), "{call} {refused}");
            assert_nobody_ran(&fixture, &eve, call).await;
        }
    }
    session.close().await.unwrap();
    // What an application inserts is tracked; what would look at a request by the old name is refused.
    fixture.execute("INSERT INTO app.ai_usage_log (user_id) SELECT user_id FROM app.ai_usage_log LIMIT 1").await;
    let analytics = format!("INSERT INTO app.request_analytics (user_id, request_id) VALUES ('{ANN}', '{ANN}')");
    let refused = fixture.store.execute(&analytics, &[]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("is not the application's"), "{refused:#}");
    assert_nobody_ran(&fixture, &eve, "a trigger").await;
    // The commands find the schema under its new name, and say what has to be done.
    let commands = [&["status"][..], &["run-job", "usage_daily"], &["run-job", "user_dashboard", "--force"], &["dashboard", "--costs"]];
    assert_refused(&fixture, &runner, &eve, &commands, "tallyroll migrate").await;

    fixture.run_well(&["migrate"]);
    fixture.run_well(&["migrate", "--roles"]);
    assert_eq!(run_as(&fixture, &runner, &["run-job", "user_dashboard", "--force"]).code, Some(0));
    fixture.store.execute(&analytics, &[]).await.unwrap();
    let mut ann = login(&fixture, &user, "tallyroll_user").await;
    fixture.execute(&format!("UPDATE app.users SET email = '{user}' WHERE id = '{ANN}'")).await;
    assert!(try_rows(&mut ann, &format!("SELECT app.get_user_ai_usage('{ANN}')::TEXT")).await.unwrap()[0].contains("daily_usage"));
    ann.close().await.unwrap();
    let mut session =
        sqlx::PgConnection::connect(&fixture.url.replace("postgres://postgres@", &format!("postgres://{eve}@"))).await.unwrap();
    let refused = try_rows(&mut session, "SELECT app.get_ai_cost_summary()::TEXT").await.unwrap_err();
    assert!(refused.contains("for admins"), "{refused}");
    session.close().await.unwrap();
    assert_nobody_ran(&fixture, &eve, "after migrate").await;
    drop_eve(&fixture, eve).await;
    drop_roles(&fixture, &[runner, user]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_applications_tables_call_is_of_somebody_trusted() {
    let _one_at_a_time = ROLES.lock().await;
    let roles = with_roles().await;
    let (owned, name) = owned().await;
    let eve = eve(&owned).await;
    let runner = format!("run-{}", database(&owned));
    owned.execute(&format!("CREATE ROLE \"{runner}\" LOGIN BYPASSRLS IN ROLE tallyroll_runner")).await;
    assert_eq!(run_as(&owned, &name, &["migrate"]).code, Some(0));
    owned.run_well(&["migrate", "--roles"]);
    let hers = "CREATE OPERATOR evil.## (LEFTARG = TEXT, RIGHTARG = TEXT, FUNCTION = evil.same);
         CREATE DOMAIN evil.word AS TEXT;
         CREATE TYPE evil.span AS RANGE (SUBTYPE = INTEGER);
         CREATE FUNCTION evil.safe(pg_catalog.text) RETURNS pg_catalog.text LANGUAGE sql IMMUTABLE AS 'SELECT $1'";
    as_role(
        &owned,
        &eve,
        &hers.replace("evil.same)", "evil.equal)").replacen(
            "CREATE OPERATOR",
            "CREATE FUNCTION evil.equal(TEXT, TEXT) RETURNS BOOLEAN LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2 AND evil.act()';
         GRANT ALL ON SCHEMA evil TO PUBLIC; CREATE OPERATOR",
            1,
        ),
    )
    .await;
    let boom = "evil.boom('x')";
    for (made, undone, named) in [
        (
            format!("ALTER TABLE public.users ADD CONSTRAINT planted CHECK ({boom})"),
            "ALTER TABLE public.users DROP CONSTRAINT planted",
            "evil.boom(text), which public.users uses",
        ),
        (
            format!("ALTER TABLE public.chat_requests ADD planted BOOLEAN DEFAULT {boom}"),
            "ALTER TABLE public.chat_requests DROP planted",
            "evil.boom(text)",
        ),
        (
            format!("ALTER TABLE public.ai_usage_log ADD planted BOOLEAN GENERATED ALWAYS AS ({boom}) STORED"),
            "ALTER TABLE public.ai_usage_log DROP planted",
            "evil.boom(text)",
        ),
        ("CREATE INDEX planted ON public.subscription ((evil.safe(id)))".to_owned(), "DROP INDEX public.planted", "evil.safe(text)"),
        (format!("CREATE INDEX planted ON public.subscription (id) WHERE {boom}"), "DROP INDEX public.planted", "evil.boom(text)"),
        (
            format!("CREATE DOMAIN public.planted AS TEXT CHECK ({boom}); ALTER TABLE public.users ADD planted public.planted"),
            "ALTER TABLE public.users DROP planted; DROP DOMAIN public.planted",
            "evil.boom(text)",
        ),
        (
            "ALTER TABLE public.users ADD planted evil.word[]".to_owned(),
            "ALTER TABLE public.users DROP planted",
            "type evil.word, which public.users uses",
        ),
        ("ALTER TABLE public.users ADD planted evil.span".to_owned(), "ALTER TABLE public.users DROP planted", "type evil.span"),
        (
            format!("CREATE RULE planted AS ON INSERT TO public.user_dashboard_data DO ALSO SELECT {boom}"),
            "DROP RULE planted ON public.user_dashboard_data",
            "evil.boom(text)",
        ),
        (
            "ALTER TABLE public.users ADD CONSTRAINT planted CHECK (email OPERATOR(evil.##) 'x')".to_owned(),
            "ALTER TABLE public.users DROP CONSTRAINT planted",
            "evil.##(text,text)",
        ),
    ] {
        as_role(&owned, &name, &made).await;
        owned.execute("DELETE FROM evil.trace").await;
        for who in [&runner, &name] {
            assert_refused(&owned, who, &eve, &[&["run-job", "user_dashboard", "--force"], &["check"]], named).await;
        }
        as_role(&owned, &name, undone).await;
    }
    // PostgreSQL's own, an extension's and the owner's are no matter.
    owned.execute("CREATE EXTENSION pgcrypto SCHEMA evil").await;
    as_role(
        &owned,
        &name,
        "CREATE FUNCTION public.mine(TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE TYPE public.mood AS ENUM ('good');
         ALTER TABLE public.users ADD planted TEXT DEFAULT public.mine('x') CHECK (lower(planted) <> 'y'), ADD mood public.mood,
            ADD token BYTEA DEFAULT evil.gen_random_bytes(4)",
    )
    .await;
    assert_eq!(run_as(&owned, &runner, &["run-job", "user_dashboard", "--force"]).code, Some(0));
    assert_nobody_ran(&owned, &eve, "anybody").await;
    owned.execute("DROP EXTENSION pgcrypto CASCADE").await;
    drop_eve(&owned, eve).await;
    drop_owner(&owned, name).await;
    drop_roles(&roles, &[runner]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_imports_seats_with_their_ids() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let runner = format!("run-{}", database(&fixture));
    fixture.execute(&format!("CREATE ROLE \"{runner}\" LOGIN BYPASSRLS IN ROLE tallyroll_runner")).await;
    fixture.write("seats.csv", "id,org_id,seats,occurred_at\n7000000,acme,3,2026-03-01T00:00:00Z\n");
    let imported = run_as(&fixture, &runner, &["import", "seats", "seats.csv"]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    fixture.execute("SELECT record_seat_change('77')").await;
    assert_eq!(fixture.rows("SELECT MAX(id) > 7000000 FROM seat_usage_event").await, ["1"]);
    drop_roles(&fixture, &[runner]).await;
}
