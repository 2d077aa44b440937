//! Ids are text, whatever type and script a source has them in.

use serde_json::json;

use crate::custom_job::source_of_calls;
use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(an_id_stays_what_it_is, a_dashboard_is_of_users_with_a_uuid, accounts_of_any_id_are_many,);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-03-02T00:00:00Z"];
const UUID: &str = "00000000-0000-4000-8000-000000000001";

/// A source of texts, and one of numbers.
async fn with_calls(engine: Engine, calls: &[(&str, Option<&str>, i64)]) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.execute("CREATE TABLE calls (number INTEGER, at TEXT, who TEXT, customer TEXT, customer_number INTEGER, tokens INTEGER)").await;
    for (number, (who, customer, customer_number)) in calls.iter().enumerate() {
        let sql = format!("INSERT INTO calls VALUES ({number}, '2026-03-01T10:00:00.000000Z', $1, $2, {customer_number}, 1)");
        fixture.store.execute(&sql, &[(*who).into(), (*customer).into()]).await.unwrap();
    }
    for (source, customer) in [("texts", "customer"), ("numbers", "customer_number")] {
        fixture.write(&format!("sql/sources/{source}.{}.sql", fixture.store.engine()), &source_of_calls(&fixture, customer));
    }
    fixture.write(
        "tallyroll.toml",
        "[quarantine]\nmax_ratio = 0.5\n[usage]\nsources = [\"texts\", \"numbers\"]\nchange_tracking = \"lookback\"\n",
    );
    fixture
}

/// Numbers with leading zeros, letters of either case, other scripts, quotes, blanks and the longest text are each an id of its own.
async fn an_id_stays_what_it_is(engine: Engine) {
    let long = "é".repeat(500);
    let ids = [
        "7",
        "07",
        "7.0",
        "-7",
        "a",
        "A",
        "ａ",
        "Ωmega 🦀",
        "o'brien",
        "\" OR 1=1",
        " x",
        "x",
        "日本",
        &long,
        UUID,
        "123456789012345678901234567890",
    ];
    let calls: Vec<(&str, Option<&str>, i64)> = ids.iter().zip(0..).map(|(id, number)| (*id, Some(*id), number)).collect();
    let fixture = with_calls(engine, &[&calls[..], &[("x", Some(""), 3), ("x", None, 3)]].concat()).await;
    fixture.run_well(RUN);
    for table in ["usage_daily_customer", "usage_monthly_customer"] {
        let found = fixture.rows(&format!("SELECT customer_id FROM {table} WHERE customer_id IS NOT NULL")).await;
        // As numbers, 7 is the same customer as the text.
        let mut expected: Vec<String> = ids.iter().map(|id| (*id).to_owned()).chain((0..16).map(|number| number.to_string())).collect();
        let mut found = found;
        expected.sort();
        expected.dedup();
        found.sort();
        assert_eq!(found, expected, "{table}");
        // An empty text is no customer, as NULL is.
        let date = if table.contains("daily") { "usage_date" } else { "usage_month" };
        let none = format!("SELECT request_count FROM {table} WHERE customer_id IS NULL ORDER BY {date}");
        assert_eq!(fixture.rows(&none).await, ["2"], "{table}");
    }
    let mut users = fixture.rows("SELECT user_id FROM usage_monthly_user").await;
    users.sort();
    let mut expected: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    expected.sort();
    assert_eq!(users, expected);
    assert_eq!(fixture.rows("SELECT request_count FROM usage_monthly_user WHERE user_id = '07'").await, ["2"]);
    for id in ids {
        let usage: serde_json::Value = serde_json::from_str(&fixture.run_well(&[
            "dashboard",
            &format!("--user={id}"),
            "--usage",
            "--json",
            "--as-of",
            "2026-03-02T00:00:00Z",
        ]))
        .unwrap();
        let expected = if id == "x" { 6 } else { 2 };
        assert_eq!(usage["summary"]["total_requests"], json!(expected), "{id}");
        assert_eq!(usage["recent_requests"].as_array().unwrap().len(), expected, "{id}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&fixture.run_well(&["dashboard", "--json", "--as-of", "2026-03-02T00:00:00Z"])).unwrap();
    let listed: Vec<&serde_json::Value> = dashboard["by_customer"].as_array().unwrap().iter().map(|one| &one["customer_id"]).collect();
    for expected in [json!(7), json!("07"), json!(-7), json!("7.0"), json!("123456789012345678901234567890")] {
        assert!(listed.contains(&&expected) || listed.len() == 25, "{expected} in {listed:?}");
    }
    assert!(listed.contains(&&json!("07")) && listed.contains(&&json!(-7)), "{listed:?}");
    fixture.run_well(&["reconcile"]);
    fixture.run_well(&["verify"]);
    // A user whose rows are refused as before: none at all.
    fixture.execute("UPDATE calls SET who = '' WHERE number = 0").await;
    fixture.run_well(&["run-job", "usage_daily", "--force", "--as-of", "2026-03-02T00:00:00Z"]);
    assert_eq!(fixture.rows("SELECT DISTINCT reason FROM quarantined_event").await, ["no_user"]);
}

/// The seed's table of dashboards keeps users as UUIDs.
async fn a_dashboard_is_of_users_with_a_uuid(engine: Engine) {
    let fixture = with_calls(engine, &[(UUID, None, 1), ("alice", None, 1), ("00000000-0000-4000-8000-00000000000G", None, 1)]).await;
    fixture.run_well(RUN);
    assert_eq!(fixture.rows("SELECT CAST(user_id AS TEXT), total_requests FROM user_dashboard_data").await, [format!("{UUID}|2")]);
    fixture.run_well(&["dashboard", "--user", UUID, "--refresh", "--as-of", "2026-03-02T00:00:00Z"]);
    let refused = fixture.run(&["dashboard", "--user", "alice"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("`alice` has no dashboard") && refused.stderr.contains("--usage"), "{}", refused.stderr);
    fixture.run_well(&["reconcile"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_whole_numbers_gives_the_same_rows_on_either_database() {
    let mut results = Vec::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::new(engine).await;
        for (customer, name) in [("7", "'seven'"), ("10", "'ten'"), ("-1", "NULL"), ("NULL", "'nobody'")] {
            fixture.log("2026-03-01T10:00:00.000000Z", &[("customer_id", customer), ("customer_name", name)]).await;
        }
        fixture.run_well(RUN);
        let rows = "SELECT customer_id, customer_name, request_count FROM usage_monthly_customer ORDER BY customer_id";
        results.push(fixture.rows(rows).await);
        results.last_mut().unwrap().sort();
    }
    assert_eq!(results[0], ["-1|NULL|1", "10|ten|1", "7|seven|1", "NULL|NULL|1"]);
    assert_eq!(results[0], results[1]);
}

/// A database of the release before: every id stays, no row is computed again, and rights and policies hold.
#[tokio::test(flavor = "multi_thread")]
async fn results_of_the_release_before_are_taken_over() {
    let fixture = Fixture::of_before(20_261_126_000_700).await;
    let measures = "request_count, success_count, error_count, unpriced_count, input_tokens, output_tokens, total_tokens, success_total_tokens, \
         success_latency_ms_sum, success_latency_count, tool_turns, rating_sum, rating_count, first_request_at, last_request_at";
    let values = "1, 1, 0, 0, 1, 1, 2, 2, 0, 0, 0, 0, 0, '2026-03-01T10:00:00Z', '2026-03-01T10:00:00Z'";
    for sql in [
        "CREATE ROLE text_ids_before".to_owned(),
        format!(
            "INSERT INTO tallyroll.usage_daily (usage_date, source, user_id, customer_id, request_type, {measures}) \
             SELECT '2026-03-01', 'ai_usage_log', '{UUID}', NULLIF(n, 3), 'report', {values} FROM generate_series(1, 3) AS n"
        ),
        format!("INSERT INTO tallyroll.usage_daily_user (usage_date, user_id, unique_customers, {measures}) VALUES ('2026-03-01', '{UUID}', 2, {values})"),
        format!("INSERT INTO tallyroll.usage_monthly_user (usage_month, user_id, unique_customers, {measures}) VALUES ('2026-03-01', '{UUID}', 2, {values})"),
        format!("INSERT INTO tallyroll.usage_monthly_customer (usage_month, customer_id, unique_users, {measures}) VALUES ('2026-03-01', 2, 1, {values})"),
        "GRANT SELECT ON public.ai_usage_summary, tallyroll.usage_requests_by_category TO text_ids_before".to_owned(),
        "ALTER TABLE tallyroll.usage_daily_user ENABLE ROW LEVEL SECURITY".to_owned(),
        "CREATE POLICY tallyroll_read_own ON tallyroll.usage_daily_user FOR SELECT USING (user_id = (SELECT tallyroll.tallyroll_current_user_id()))"
            .to_owned(),
        "INSERT INTO tallyroll.quarantined_event (source, event_id, usage_date, occurred_at, reason, payload, first_seen_at, run_id) \
         VALUES ('calls', '1', '2026-03-02', '2026-03-02T10:00:00Z', 'user_not_uuid', '{}', now(), 'r')"
            .to_owned(),
        "INSERT INTO tallyroll.job_window (job, window_start, window_end, state, timezone, rows_in, rows_out, quarantined_count, write_count) \
         SELECT job, day, CASE job WHEN 'usage_daily' THEN day + 1 ELSE (day + INTERVAL '1 month')::DATE END, 'done', 'UTC', 1, 1, 0, 1 \
         FROM (VALUES ('usage_daily', DATE '2026-03-01'), ('usage_daily', '2026-03-02'), ('usage_monthly_customer', '2026-03-01'), \
             ('usage_monthly_user', '2026-03-01')) AS known (job, day)"
            .to_owned(),
    ] {
        fixture.execute(&sql).await;
    }
    fixture.run_well(&["migrate"]);
    let customers = "SELECT customer_id FROM usage_daily ORDER BY customer_id";
    assert_eq!(fixture.rows(customers).await, ["1", "2", "NULL"]);
    assert_eq!(fixture.rows("SELECT customer_id FROM usage_monthly_customer").await, ["2"]);
    for table in ["usage_daily", "usage_daily_user", "usage_monthly_user", "ai_usage_summary"] {
        let types = format!("SELECT DISTINCT user_id, pg_typeof(user_id)::TEXT FROM {table}");
        assert_eq!(fixture.rows(&types).await, [format!("{UUID}|text")], "{table}");
    }
    let may_read = "SELECT has_table_privilege('text_ids_before', 'public.ai_usage_summary', 'SELECT') \
         AND has_table_privilege('text_ids_before', 'tallyroll.usage_requests_by_category', 'SELECT')";
    assert_eq!(fixture.rows(may_read).await, ["1"]);
    let policies = "SELECT COUNT(*) FROM pg_policy WHERE polname = 'tallyroll_read_own' AND pg_get_expr(polqual, polrelid) LIKE '%::text%'";
    assert_eq!(fixture.rows(policies).await, ["1"]);
    // Only what is another by its text, or was kept out because it was none, is computed again.
    let due = "SELECT job, window_start FROM job_window WHERE state = 'due' ORDER BY job, window_start";
    assert_eq!(fixture.rows(due).await, ["usage_daily|2026-03-02", "usage_monthly_customer|2026-03-01"]);
    for sql in ["DROP OWNED BY text_ids_before", "DROP ROLE text_ids_before"] {
        fixture.execute(sql).await;
    }
}

/// Accounts whose id is no UUID have no dashboard, and many accounts are no matter: each is found by an index.
async fn accounts_of_any_id_are_many(engine: Engine) {
    let fixture = with_calls(engine, &[(UUID, None, 1), ("alice", None, 1)]).await;
    let (series, id) = match engine {
        Engine::Postgres => {
            ("SELECT n FROM generate_series(1, 20000) AS n", "CAST('00000000-0000-4000-8001-' || lpad(n::TEXT, 12, '0') AS UUID)")
        }
        Engine::Sqlite => (
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 20000) SELECT n FROM s",
            "'00000000-0000-4000-8001-' || substr('000000000000' || n, -12)",
        ),
    };
    fixture.execute(&format!("INSERT INTO users (id, email) SELECT {id}, 'user' || n FROM ({series}) AS numbers")).await;
    if engine == Engine::Sqlite {
        fixture.execute("INSERT INTO users (id, email) VALUES ('alice', 'alice@x')").await;
    }
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM user_dashboard_data").await, 20_001);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM user_dashboard_data WHERE requests_this_month > 0").await, 1);
    fixture.run_well(&["reconcile"]);
    let took = fixture.number("SELECT duration_ms FROM job_run WHERE job = 'user_dashboard'").await;
    println!("user_dashboard of 20,001 users on {engine:?}: {took} ms");
    assert_eq!(fixture.number("SELECT CAST(SUM(total_requests) AS BIGINT) FROM user_dashboard_data").await, 2);
}
