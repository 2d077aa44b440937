//! What each role may do, and what it may not.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::{ANN, BOB, ROLES, database, drop_roles, is_refused, login, try_rows, with_roles};

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_logs_and_reads_nothing() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let name = format!("app-{}", database(&fixture));
    let mut app = login(&fixture, &name, "tallyroll_writer").await;
    let count = fixture.number("SELECT COUNT(*) FROM ai_usage_log").await;
    for allowed in [
        format!("SELECT log_ai_usage('{ANN}', p_input_tokens => 7)::TEXT"),
        format!("INSERT INTO ai_usage_log (user_id, input_tokens) VALUES ('{ANN}', 9)"),
        format!("SELECT complete_chat_request(track_chat_request('{ANN}', 'p'))::TEXT"),
        "SELECT upsert_seat_assignment(1, '{3}', '{base}')::TEXT".to_owned(),
    ] {
        if let Err(error) = try_rows(&mut app, &allowed).await {
            panic!("{allowed}: {error}");
        }
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM ai_usage_log").await, count + 2);
    assert_eq!(fixture.number("SELECT seats FROM seat_usage_event WHERE seat_type = 'total'").await, 1);
    for table in [
        "ai_usage_log",
        "chat_requests",
        "usage_daily",
        "usage_monthly_user",
        "user_dashboard_data",
        "usage_dashboard",
        "peak_seats",
        "ai_usage_summary",
        "seat_usage_event",
    ] {
        let result = try_rows(&mut app, &format!("SELECT COUNT(*)::TEXT FROM {table}")).await;
        assert!(is_refused(&result), "{table}: {result:?}");
    }
    for function in [
        format!("get_user_ai_usage('{ANN}')"),
        "get_ai_usage_dashboard()".to_owned(),
        "get_ai_cost_summary()".to_owned(),
        format!("tallyroll_user_usage('{ANN}', 3, '2026-03-20', 'UTC')"),
    ] {
        let result = try_rows(&mut app, &format!("SELECT {function}::TEXT")).await;
        assert!(is_refused(&result), "{function}: {result:?}");
    }
    // A table of its own of the same name, with a trigger, is not what the functions write to.
    try_rows(&mut app, "CREATE TEMP TABLE ai_usage_log (user_id UUID)").await.unwrap();
    try_rows(&mut app, &format!("SELECT log_ai_usage('{ANN}')::TEXT")).await.unwrap();
    assert_eq!(fixture.number("SELECT COUNT(*) FROM ai_usage_log").await, count + 3);
    try_rows(&mut app, "DISCARD TEMP").await.unwrap();
    app.close().await.unwrap();
    drop_roles(&fixture, &[name]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_only_itself_and_an_admin_everyone() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let (ann_role, bob_role, eve_role) =
        (format!("ann-{}", database(&fixture)), format!("bob-{}", database(&fixture)), format!("eve-{}", database(&fixture)));
    let mut ann = login(&fixture, &ann_role, "tallyroll_user").await;
    // The log itself, too: it has the seed's row-level security.
    for table in ["usage_daily", "usage_daily_user", "usage_monthly_user", "user_dashboard_data", "ai_usage_log"] {
        let seen = try_rows(&mut ann, &format!("SELECT DISTINCT user_id::TEXT FROM {table}")).await.unwrap();
        assert_eq!(seen, [ANN], "{table}");
        let all = fixture.number(&format!("SELECT COUNT(DISTINCT user_id) FROM {table}")).await;
        assert!(all > 10, "{table}");
    }
    for table in ["usage_daily_customer", "usage_daily_total", "usage_daily_type", "usage_dashboard"] {
        assert_eq!(try_rows(&mut ann, &format!("SELECT 1::TEXT FROM {table}")).await.unwrap(), Vec::<String>::new(), "{table}");
        assert!(fixture.number(&format!("SELECT COUNT(*) FROM {table}")).await > 0, "{table}");
    }
    fixture.execute(&format!("SELECT complete_chat_request(track_chat_request('{BOB}'))")).await;
    for user in [ANN, BOB] {
        fixture.execute(&format!("INSERT INTO usage_event (user_id) VALUES ('{user}')")).await;
    }
    for view in ["tallyroll_visible_usage", "tallyroll_visible_chat", "tallyroll_visible_event"] {
        let seen = try_rows(&mut ann, &format!("SELECT DISTINCT user_id::TEXT FROM {view}")).await.unwrap();
        assert!(seen.iter().all(|user| user == ANN), "{view}: {seen:?}");
        assert!(fixture.number(&format!("SELECT COUNT(*) FROM {view} WHERE user_id <> '{ANN}'")).await > 0, "{view}");
    }
    let mine = try_rows(&mut ann, &format!("SELECT get_user_ai_usage('{ANN}', 3660)->'summary'->>'total_requests'")).await.unwrap();
    assert_eq!(mine, fixture.rows(&format!("SELECT SUM(request_count)::TEXT FROM usage_daily WHERE user_id = '{ANN}'")).await);
    for forbidden in [
        format!("SELECT get_user_ai_usage('{BOB}')::TEXT"),
        "SELECT get_ai_usage_dashboard()::TEXT".to_owned(),
        "SELECT get_ai_cost_summary()::TEXT".to_owned(),
        "SELECT COUNT(*)::TEXT FROM chat_requests".to_owned(),
        "SELECT COUNT(*)::TEXT FROM usage_event".to_owned(),
        format!("INSERT INTO usage_event (user_id) VALUES ('{ANN}')"),
        format!("INSERT INTO ai_usage_log (user_id) VALUES ('{ANN}')"),
        format!("SELECT log_ai_usage('{ANN}')::TEXT"),
        format!("DELETE FROM usage_daily WHERE user_id = '{ANN}'"),
        "SELECT get_user_ai_usage(NULL)::TEXT".to_owned(),
    ] {
        let result = try_rows(&mut ann, &forbidden).await;
        assert!(is_refused(&result), "{forbidden}: {result:?}");
    }
    // Nothing that a session sets for itself makes it someone else.
    for setting in [format!("SET tallyroll.user_id = '{BOB}'"), format!("SET request.jwt.claim.sub = '{BOB}'")] {
        try_rows(&mut ann, &setting).await.unwrap();
    }
    assert!(is_refused(&try_rows(&mut ann, &format!("SELECT get_user_ai_usage('{BOB}')::TEXT")).await));
    assert!(try_rows(&mut ann, &format!("SET ROLE \"{bob_role}\"")).await.is_err());

    // What it makes for itself under the names that the functions look for is neither asked nor run.
    for own in [
        "CREATE FUNCTION pg_temp.steal() RETURNS UUID LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE ' || quote_ident(SESSION_USER) || ' SUPERUSER'; RETURN NULL; END $$".to_owned(),
        format!("CREATE TEMP VIEW user_roles AS SELECT COALESCE(pg_temp.steal(), '{ANN}'::UUID) AS user_id, 'admin'::TEXT AS user_role"),
        "GRANT SELECT ON user_roles TO PUBLIC".to_owned(),
        "CREATE TEMP TABLE usage_daily_total (usage_date DATE)".to_owned(),
    ] {
        try_rows(&mut ann, &own).await.unwrap();
    }
    assert!(is_refused(&try_rows(&mut ann, "SELECT get_ai_cost_summary()::TEXT").await));
    assert_eq!(try_rows(&mut ann, "SELECT tallyroll_is_admin()::TEXT").await.unwrap(), ["false"]);
    assert_eq!(fixture.rows(&format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{ann_role}'")).await, ["0"]);
    try_rows(&mut ann, "DISCARD TEMP").await.unwrap();
    assert!(try_rows(&mut ann, "CREATE TABLE public.mine (n INTEGER)").await.is_err());

    // Someone who is no user of the application sees nothing.
    let mut eve = login(&fixture, &eve_role, "tallyroll_user").await;
    assert_eq!(try_rows(&mut eve, "SELECT user_id::TEXT FROM usage_daily").await.unwrap(), Vec::<String>::new());
    assert!(is_refused(&try_rows(&mut eve, "SELECT get_user_ai_usage(NULL)::TEXT").await));

    // The seed's admins see everyone.
    fixture.execute("CREATE TABLE public.user_roles (user_id UUID, user_role TEXT)").await;
    fixture.execute(&format!("INSERT INTO public.user_roles VALUES ('{BOB}', 'admin')")).await;
    fixture.run_well(&["migrate", "--roles"]);
    let mut bob = login(&fixture, &bob_role, "tallyroll_user").await;
    try_rows(&mut bob, &format!("SELECT get_user_ai_usage('{ANN}')::TEXT")).await.unwrap();
    let all = try_rows(&mut bob, "SELECT get_ai_usage_dashboard(3660)->'summary'->>'total_requests'").await.unwrap();
    assert_eq!(all, ["400"]);
    assert!(is_refused(&try_rows(&mut ann, "SELECT get_ai_cost_summary()::TEXT").await));
    try_rows(&mut ann, "DROP FUNCTION IF EXISTS pg_temp.steal()").await.unwrap();
    for connection in [ann, bob, eve] {
        connection.close().await.unwrap();
    }
    drop_roles(&fixture, &[ann_role, bob_role, eve_role]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_every_result_and_writes_nothing() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let name = format!("fin-{}", database(&fixture));
    let mut reader = login(&fixture, &name, "tallyroll_reader").await;
    let tables = fixture
        .rows(
            "SELECT oid::REGCLASS::TEXT FROM pg_class \
             WHERE relnamespace IN ('tallyroll'::REGNAMESPACE, 'public'::REGNAMESPACE) AND relkind IN ('r', 'v') ORDER BY 1",
        )
        .await;
    assert!(tables.len() > 25, "{tables:?}");
    for table in &tables {
        for change in [format!("DELETE FROM {table}"), format!("INSERT INTO {table} DEFAULT VALUES"), format!("TRUNCATE {table}")] {
            assert!(try_rows(&mut reader, &change).await.is_err(), "{change}");
        }
    }
    for table in
        ["usage_daily", "usage_daily_user", "usage_monthly_user", "user_dashboard_data", "usage_monthly_customer", "peak_seats", "job_run"]
    {
        let seen = try_rows(&mut reader, &format!("SELECT COUNT(*)::TEXT FROM {table}")).await.unwrap();
        assert_eq!(seen, fixture.rows(&format!("SELECT COUNT(*) FROM {table}")).await, "{table}");
    }
    for table in ["ai_usage_log", "session_revoked"] {
        assert!(is_refused(&try_rows(&mut reader, &format!("SELECT COUNT(*)::TEXT FROM {table}")).await), "{table}");
    }
    try_rows(&mut reader, "SELECT get_ai_cost_summary()::TEXT").await.unwrap();
    for function in [format!("log_ai_usage('{ANN}')"), "upsert_seat_assignment(1, '{3}', '{base}')".to_owned()] {
        assert!(is_refused(&try_rows(&mut reader, &format!("SELECT {function}::TEXT")).await), "{function}");
    }
    reader.close().await.unwrap();
    drop_roles(&fixture, &[name]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_runs_and_one_that_would_see_fewer_rows_stops() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    fixture.execute("ALTER TABLE ai_usage_log ENABLE ROW LEVEL SECURITY").await;
    let (right, wrong) = (format!("run-{}", database(&fixture)), format!("weak-{}", database(&fixture)));
    for (name, bypass) in [(&right, "BYPASSRLS"), (&wrong, "NOBYPASSRLS")] {
        fixture.execute(&format!("CREATE ROLE \"{name}\" LOGIN {bypass} IN ROLE tallyroll_runner")).await;
    }
    fixture.log("2026-03-21T10:00:00Z", &[]).await;
    let run = |name: &str, arguments: &[&str]| {
        let mut command = fixture.command(arguments);
        command.env("DATABASE_URL", fixture.url.replace("postgres://postgres@", &format!("postgres://{name}@")));
        crate::support::Finished::of(&command.output().unwrap())
    };
    let jobs = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-03-22"];
    let before = fixture.results().await;
    let stopped = run(&wrong, &jobs);
    assert_eq!(stopped.code, Some(78), "{stopped:?}");
    assert!(stopped.stderr.contains("row-level security"), "{stopped:?}");
    assert!(stopped.stderr.contains("BYPASSRLS"), "{stopped:?}");
    assert_eq!(fixture.results().await, before);
    for arguments in [&jobs[..], &["run-job", "peak_seats"], &["run-job", "reconcile", "--as-of", "2026-03-22"], &["status"]] {
        let ran = run(&right, arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?} {ran:?}");
    }
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily").await, 401);
    // Of a chat request it changes what is posted to it, by function; else no row of the log.
    let may = "SELECT has_table_privilege('tallyroll_runner', 'chat_requests', 'UPDATE') \
         OR has_table_privilege('tallyroll_runner', 'ai_usage_log', 'UPDATE')";
    assert_eq!(fixture.rows(may).await, ["0"]);
    // A right that is missing is told before a run needs it, also where the file is ours.
    fixture.execute("REVOKE SELECT ON chat_requests FROM tallyroll_runner").await;
    let refused = run(&right, &["check"]);
    assert!(refused.code == Some(78) && refused.stderr.contains("permission denied for table chat_requests"), "{refused:?}");
    drop_roles(&fixture, &[right, wrong]).await;
}

/// Who was granted it before, by hand or by a default, loses it to `--roles`.
#[tokio::test(flavor = "multi_thread")]
async fn no_role_but_the_migrator_creates_in_either_schema() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let roles = ["tallyroll_owner", "tallyroll_runner", "tallyroll_writer", "tallyroll_reader", "tallyroll_user"];
    for schema in ["public", "tallyroll"] {
        fixture.execute(&format!("GRANT CREATE ON SCHEMA {schema} TO {}", roles.join(", "))).await;
    }
    fixture.run_well(&["migrate", "--roles"]);
    for role in roles {
        let may =
            format!("SELECT has_schema_privilege('{role}', 'public', 'CREATE') OR has_schema_privilege('{role}', 'tallyroll', 'CREATE')");
        assert_eq!(fixture.rows(&may).await, ["0"], "{role}");
    }
}

/// What runs as its owner, a function or a view that is filled, sees and logs what that one may, whoever set it off.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_as_its_owner_may_what_that_one_may() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream"]);
    fixture.execute("CREATE TABLE public.user_roles (user_id UUID, user_role TEXT)").await;
    fixture.execute(&format!("INSERT INTO public.user_roles VALUES ('{ANN}', 'admin')")).await;
    fixture.execute("CREATE ROLE authenticated").await;
    fixture.run_well(&["migrate", "--roles"]);
    let [ann, bob, writer, plain] = ["ann", "bob", "app", "plain"].map(|name| format!("{name}-{}", database(&fixture)));
    let mut anns = login(&fixture, &ann, "authenticated").await;
    let mut bobs = login(&fixture, &bob, "authenticated").await;
    let mut apps = login(&fixture, &writer, "tallyroll_writer").await;
    fixture.execute(&format!("CREATE SCHEMA bobs AUTHORIZATION \"{bob}\"")).await;
    for sql in [
        "CREATE FUNCTION bobs.users() RETURNS BIGINT LANGUAGE sql SECURITY DEFINER AS 'SELECT COUNT(DISTINCT user_id) FROM tallyroll.usage_daily_user'",
        "CREATE FUNCTION bobs.try(p_sql TEXT) RETURNS TEXT LANGUAGE plpgsql SECURITY DEFINER AS \
             $$ DECLARE v TEXT; BEGIN EXECUTE p_sql INTO v; RETURN v; EXCEPTION WHEN insufficient_privilege THEN RETURN 'refused'; END $$",
        "CREATE MATERIALIZED VIEW bobs.seen AS SELECT DISTINCT user_id FROM tallyroll.usage_daily_user",
        // What REINDEX and ANALYZE compute, with its owner's rights; `got` counts what it came to.
        "CREATE SEQUENCE bobs.refused",
        "CREATE SEQUENCE bobs.got",
        "CREATE FUNCTION bobs.look(INTEGER) RETURNS BIGINT LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN CASE \
             bobs.try('SELECT public.get_ai_cost_summary()::TEXT') WHEN 'refused' THEN nextval('bobs.refused') ELSE nextval('bobs.got') END; END $$",
        "CREATE TABLE bobs.bait (n INTEGER)",
        "INSERT INTO bobs.bait VALUES (1)",
        "CREATE INDEX looked ON bobs.bait (bobs.look(n))",
        "GRANT USAGE ON SCHEMA bobs TO PUBLIC",
    ] {
        bobs.execute(sql).await.unwrap();
    }
    let users = "SELECT COUNT(DISTINCT user_id)::TEXT FROM tallyroll.usage_daily_user";
    let all = fixture.number("SELECT COUNT(DISTINCT user_id) FROM usage_daily_user").await;
    assert_eq!(try_rows(&mut anns, users).await.unwrap(), [all.to_string()], "ann is an admin");
    try_rows(&mut anns, "SELECT public.get_ai_cost_summary()::TEXT").await.unwrap();
    assert_eq!(try_rows(&mut bobs, users).await.unwrap(), ["1"]);
    let count = "SELECT COUNT(*) FROM ai_usage_log";
    let before = fixture.number(count).await;
    let mut superuser = PgConnection::connect(&fixture.url).await.unwrap();
    for connection in [&mut anns, &mut superuser, &mut apps] {
        for asked in [
            "SELECT public.get_ai_usage_dashboard()::TEXT".to_owned(),
            "SELECT public.get_ai_cost_summary()::TEXT".to_owned(),
            format!("SELECT public.get_user_ai_usage('{ANN}')::TEXT"),
            format!("SELECT public.log_ai_usage('{ANN}')::TEXT"),
            format!("INSERT INTO tallyroll.tallyroll_log_entry (logs_for, user_id) VALUES ('everyone', '{ANN}') RETURNING id::TEXT"),
        ] {
            let got = try_rows(connection, &format!("SELECT bobs.try({})", quoted(&asked))).await.unwrap();
            assert_eq!(got, ["refused"], "{asked}");
        }
        let seen = try_rows(connection, "SELECT bobs.users()::TEXT").await.unwrap();
        assert!(seen == ["0"] || seen == ["1"], "{seen:?}");
    }
    assert_eq!(fixture.number(count).await, before);
    for sql in ["REFRESH MATERIALIZED VIEW bobs.seen", "REINDEX TABLE bobs.bait", "ANALYZE bobs.bait"] {
        superuser.execute(sql).await.unwrap();
    }
    assert!(fixture.number("SELECT COUNT(*) FROM bobs.seen").await <= 1);
    assert_eq!(fixture.rows("SELECT is_called FROM bobs.got").await, ["0"]);
    assert!(fixture.number("SELECT last_value FROM bobs.refused").await > 2);
    // A view on top of the way into the log, whose default says another.
    for sql in [
        "CREATE VIEW bobs.forged AS SELECT * FROM tallyroll.tallyroll_log_entry",
        "ALTER VIEW bobs.forged ALTER COLUMN logs_for SET DEFAULT 'everyone'",
        "GRANT INSERT ON bobs.forged TO PUBLIC",
    ] {
        bobs.execute(sql).await.unwrap();
    }
    let forge = format!("INSERT INTO bobs.forged (user_id) VALUES ('{ANN}') RETURNING id::TEXT");
    let forged = try_rows(&mut bobs, &forge).await;
    assert!(is_refused(&forged), "{forged:?}");
    fixture.execute(&format!("CREATE ROLE \"{plain}\" LOGIN")).await;
    let mut stranger = PgConnection::connect(&fixture.url.replace("postgres://postgres@", &format!("postgres://{plain}@"))).await.unwrap();
    let forged = try_rows(&mut stranger, &forge.replace(" RETURNING id::TEXT", "")).await;
    assert!(is_refused(&forged), "{forged:?}");
    stranger.close().await.unwrap();
    assert_eq!(fixture.number(count).await, before);
    // The writer of the application logs for everyone, also where it is a function of its own that does, for a user.
    fixture.execute(&format!("CREATE SCHEMA apps AUTHORIZATION \"{writer}\"")).await;
    for sql in [
        format!("CREATE FUNCTION apps.log() RETURNS UUID LANGUAGE sql SECURITY DEFINER AS $$ SELECT public.log_ai_usage('{ANN}') $$"),
        "GRANT USAGE ON SCHEMA apps TO PUBLIC".to_owned(),
    ] {
        apps.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    try_rows(&mut bobs, "SELECT apps.log()::TEXT").await.unwrap();
    // A user for itself.
    try_rows(&mut bobs, &format!("SELECT public.log_ai_usage('{BOB}')::TEXT")).await.unwrap();
    assert_eq!(fixture.number(count).await, before + 2);
    for connection in [anns, bobs, apps, superuser] {
        connection.close().await.unwrap();
    }
    drop_roles(&fixture, &[ann, bob, writer, plain, "authenticated".to_owned()]).await;
}

fn quoted(sql: &str) -> String {
    format!("'{}'", sql.replace('\'', "''"))
}
