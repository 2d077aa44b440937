//! The seeds' functions on PostgreSQL: what they answer, and (in the folder) to whom. Deviations from the seed stand beside the seed's own way.

mod attacks;
mod attacks_owners;
mod attacks_rights;
mod gateway;
mod owners;
mod planted;
mod planted_uses;
mod renamed;
mod roles;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use tokio::sync::Mutex;

use crate::support::{Engine, Fixture};
use crate::usage_dashboard::{AS_OF, filled};

/// Roles belong to the whole server: one test at a time makes them.
pub static ROLES: Mutex<()> = Mutex::const_new(());

const ANN: &str = "00000000-0000-4000-8000-000000000003";
const BOB: &str = "00000000-0000-4000-8000-000000000004";

async fn json(fixture: &Fixture, sql: &str) -> Value {
    serde_json::from_str(&fixture.rows(&format!("SELECT ({sql})::TEXT")).await[0]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_answer_what_the_commands_do() {
    let (fixture, _) = filled(Engine::Postgres).await;
    for (number, cost) in [(1, "0.25"), (2, "NULL")] {
        fixture
            .execute(&format!(
                "INSERT INTO usage_event (event_id, occurred_at, user_id, customer_name, input_tokens, output_tokens, cost_usd, latency_ms) \
                 VALUES ('e{number}', '2026-03-19T08:00:0{number}Z', '{ANN}', 'Acme', 7, 3, {cost}, 12)"
            ))
            .await;
    }
    let command = |arguments: &[&str]| -> Value {
        serde_json::from_str(&fixture.run_well(&[&["dashboard"], arguments, &["--as-of", AS_OF, "--json"]].concat())).unwrap()
    };
    // The same instants, with as many digits as either writes.
    let with_instants = |mut dashboard: Value| {
        for (list, key) in [("by_user", "last_request"), ("recent_requests", "created_at")] {
            for entry in dashboard.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let at: chrono::DateTime<chrono::Utc> = entry[key].as_str().unwrap().parse().unwrap();
                entry[key] = at.to_rfc3339().into();
            }
        }
        dashboard
    };
    for days in ["0", "7", "19", "30", "48", "90"] {
        let found = json(&fixture, &format!("tallyroll_usage_dashboard({days}, '2026-03-20')")).await;
        assert_eq!(with_instants(found), with_instants(command(&["--days", days])), "{days}");
        let found = json(&fixture, &format!("tallyroll_user_usage('{ANN}', {days}, '2026-03-20', 'UTC')")).await;
        assert_eq!(with_instants(found), with_instants(command(&["--user", ANN, "--usage", "--days", days])), "{days}");
    }
    assert_eq!(json(&fixture, "tallyroll_cost_summary('2026-03-20')").await, command(&["--costs"]));
    for (nanos, count, places, expected) in
        [("5000000", 1, 2, "0.00"), ("15000000", 1, 2, "0.02"), ("25000001", 1, 2, "0.03"), ("1", 0, 4, "0.0000"), ("NULL", 1, 2, "0.00")]
    {
        assert_eq!(fixture.rows(&format!("SELECT tallyroll_usd({nanos}, {count}, {places})::TEXT")).await, [expected], "{nanos} {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_of_today_is_read_from_the_cache() {
    let (fixture, _) = filled(Engine::Postgres).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream"]);
    let afresh = json(&fixture, "get_ai_usage_dashboard(7)").await;
    assert_eq!(json(&fixture, "tallyroll_usage_dashboard(7, tallyroll_today())").await, afresh);
    fixture.execute("UPDATE usage_dashboard SET content = '{\"kept\": true}' WHERE dashboard_key = 'admin:7'").await;
    assert_eq!(json(&fixture, "get_ai_usage_dashboard(7)").await, serde_json::json!({ "kept": true }));
    // Another span, and one kept yesterday, are computed.
    assert_eq!(json(&fixture, "get_ai_usage_dashboard(8)").await["summary"], afresh["summary"]);
    fixture.execute("UPDATE usage_dashboard SET last_calculated_at = last_calculated_at - INTERVAL '1 day'").await;
    assert_eq!(json(&fixture, "get_ai_usage_dashboard(7)").await, afresh);
    for days in ["-1", "NULL", "99999"] {
        let error = fixture.store.query(&format!("SELECT get_ai_usage_dashboard({days})"), &[]).await.unwrap_err();
        assert!(format!("{error:#}").contains("p_days"), "{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_logs_by_functions() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.execute(&format!("INSERT INTO users (id, email) VALUES ('{ANN}', 'ann@x')")).await;
    fixture.execute(&format!("SELECT log_ai_usage('{ANN}', p_input_tokens => 1000, p_output_tokens => 100, p_latency_ms => 5)")).await;
    fixture.execute(&format!("SELECT log_ai_usage(p_user_id => '{ANN}', p_status => 'error', p_input_tokens => NULL)")).await;
    let request = fixture.rows(&format!("SELECT track_chat_request('{ANN}', 'Make it', 's1', 'gpt-4', p_category => 'nft')")).await;
    let run = || fixture.run_well(&["run-job", "usage_daily", "--downstream"]);
    let events = "SELECT source, request_type, category, model, request_count, success_count, total_tokens, rating_sum FROM usage_daily ORDER BY 1, 6";
    run();
    assert_eq!(fixture.rows(events).await.len(), 1, "a pending request is not an event yet");
    fixture.execute(&format!("SELECT complete_chat_request('{}', 'completed', 'Made', 1500, 3, 2500)", request[0])).await;
    run();
    // Analytics that only sort the request leave its tokens to it.
    assert_eq!(
        fixture.rows(events).await,
        ["ai_usage_log|report|NULL|claude-sonnet-4-20250514|2|1|1100|0", "chat_requests|chat|nft|gpt-4|1|1|1500|0",]
    );
    // A rating that comes later changes nothing else.
    fixture.execute(&format!("SELECT complete_chat_request('{}', p_user_rating => 5)", request[0])).await;
    run();
    assert_eq!(fixture.rows(events).await[1], "chat_requests|chat|nft|gpt-4|1|1|1500|5");
    assert_eq!(fixture.rows("SELECT status, response, cost, duration FROM chat_requests").await, ["completed|Made|3|2500"]);
    let failed = fixture.rows(&format!("SELECT track_chat_request('{ANN}')")).await;
    fixture
        .execute(&format!(
            "SELECT complete_chat_request('{}', 'failed', p_tokens_input => 2000000000, p_tokens_output => 2000000000)",
            failed[0]
        ))
        .await;
    fixture.execute(&format!("SELECT complete_chat_request('{}', p_user_rating => 1)", failed[0])).await;
    let kept = "SELECT status, tokens_used, was_successful, user_rating FROM chat_requests JOIN request_analytics ON request_id = chat_requests.id";
    assert_eq!(fixture.rows(&format!("{kept} WHERE status = 'failed'")).await, ["failed|2147483647|0|1"]);
    for wrong in ["complete_chat_request(gen_random_uuid())".to_owned(), format!("complete_chat_request('{}', 'pending')", request[0])] {
        assert!(fixture.store.execute(&format!("SELECT {wrong}"), &[]).await.is_err(), "{wrong}");
    }
}

/// A login of its own, a member of `group`; what it may see is asked over a connection of its own.
async fn login(fixture: &Fixture, name: &str, group: &str) -> PgConnection {
    fixture.execute(&format!("CREATE ROLE \"{name}\" LOGIN IN ROLE {group}")).await;
    let mut connection = PgConnection::connect(&fixture.url.replace("postgres://postgres@", &format!("postgres://{name}@"))).await.unwrap();
    connection.execute("SET search_path = tallyroll, public").await.unwrap();
    connection
}

async fn try_rows(connection: &mut PgConnection, sql: &str) -> Result<Vec<String>, String> {
    let rows = connection.fetch_all(AssertSqlSafe(sql.to_owned())).await.map_err(|error| error.to_string())?;
    Ok(rows.iter().map(|row| row.get::<String, _>(0)).collect())
}

fn is_refused(result: &Result<Vec<String>, String>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.contains("permission denied") || error.contains("for admins") || error.contains("for that user"))
}

/// Says that the databases of this server may share the roles, as those of all tests do.
async fn share_roles(fixture: &Fixture) {
    fixture.execute("DO $$ BEGIN IF to_regrole('tallyroll_migrator') IS NULL THEN CREATE ROLE tallyroll_migrator; END IF; END $$").await;
    fixture.execute("COMMENT ON ROLE tallyroll_migrator IS 'shared by databases'").await;
}

async fn with_roles() -> Fixture {
    let (fixture, _) = filled(Engine::Postgres).await;
    share_roles(&fixture).await;
    let told = fixture.run_well(&["migrate", "--roles"]);
    assert!(told.contains("tallyroll_reader"), "{told}");
    // Again changes nothing and fails at nothing.
    fixture.run_well(&["migrate", "--roles"]);
    fixture.execute(&format!("INSERT INTO users (id, email) VALUES ('{ANN}', 'ann-{0}'), ('{BOB}', 'bob-{0}')", database(&fixture))).await;
    fixture
}

/// The database's name, to make the names of roles unique on the server.
fn database(fixture: &Fixture) -> String {
    fixture.url.split("/test_").nth(1).unwrap().split('?').next().unwrap()[..12].to_owned()
}

async fn drop_roles(fixture: &Fixture, names: &[String]) {
    for name in names {
        fixture.execute(&format!("DROP OWNED BY \"{name}\"")).await;
        fixture.execute(&format!("DROP ROLE \"{name}\"")).await;
    }
}

/// The seed splits a user at a rename; here a user is one, by its latest name.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_splits_nobody() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let set = |email: &'static str, name: &'static str| [("user_email", email), ("customer_id", "5"), ("customer_name", name)];
    fixture.log("2026-03-19T10:00:00Z", &set("'old@x'", "'Old'")).await;
    fixture.log("2026-03-20T10:00:00Z", &set("'new@x'", "'New'")).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", AS_OF]);
    let seeds = |id: &str, label: &str| {
        format!("SELECT {label}, COUNT(*) FROM ai_usage_log WHERE created_at >= '2026-02-18' GROUP BY {id}, {label} ORDER BY 1")
    };
    assert_eq!(fixture.rows(&seeds("user_id", "user_email")).await, ["new@x|1", "old@x|1"]);
    assert_eq!(fixture.rows(&seeds("customer_id", "customer_name")).await, ["New|1", "Old|1"]);
    let ours = json(&fixture, "tallyroll_usage_dashboard(30, '2026-03-20')").await;
    assert_eq!(ours["by_user"].as_array().unwrap().len(), 1);
    assert_eq!((&ours["by_user"][0]["user_email"], &ours["by_user"][0]["request_count"]), (&"new@x".into(), &2.into()));
    assert_eq!(ours["by_customer"].as_array().unwrap().len(), 1);
    assert_eq!((&ours["by_customer"][0]["customer_name"], &ours["by_customer"][0]["request_count"]), (&"New".into(), &2.into()));
}

/// The seed's 32-bit columns refuse what is more than two thousand million tokens; here every count has 64 bits.
#[tokio::test(flavor = "multi_thread")]
async fn counts_do_not_end_at_32_bits() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture
        .execute(
            "CREATE TABLE seeds_log (input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, \
             total_tokens INTEGER GENERATED ALWAYS AS (input_tokens + output_tokens) STORED)",
        )
        .await;
    let refused = fixture.store.execute("INSERT INTO seeds_log VALUES (600000000, 1600000000)", &[]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("out of range"), "{refused:#}");
    // One request past 32 bits (of no cost that NUMERIC(10, 6) could not hold), and a user's days that add up to more.
    fixture.execute("ALTER TABLE ai_usage_log DROP COLUMN output_cost_usd, DROP COLUMN total_cost_usd").await;
    fixture.execute("ALTER TABLE ai_usage_log ADD COLUMN output_cost_usd NUMERIC, ADD COLUMN total_cost_usd NUMERIC").await;
    fixture.log("2026-03-19T10:00:00Z", &[("input_tokens", "600000000"), ("output_tokens", "1600000000")]).await;
    fixture.log("2026-03-20T10:00:00Z", &[("input_tokens", "600000000"), ("output_tokens", "1600000000")]).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", AS_OF]);
    let ours = json(&fixture, "tallyroll_usage_dashboard(30, '2026-03-20')").await;
    assert_eq!(ours["summary"]["total_tokens"], 4_400_000_000_i64);
    assert_eq!(ours["by_user"][0]["total_tokens"], 4_400_000_000_i64);
    assert_eq!(fixture.rows("SELECT total_tokens_used FROM user_dashboard_data").await, ["4400000000"]);
}

/// The seed's days are those of whoever asks; here they are those of `reporting.timezone`.
#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_time_zone_moves_no_day() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.log("2026-03-20T02:00:00Z", &[]).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", AS_OF]);
    let mut session = PgConnection::connect(&fixture.url).await.unwrap();
    let mut seen = Vec::new();
    for zone in ["UTC", "America/Los_Angeles", "Asia/Kolkata"] {
        try_rows(&mut session, &format!("SET TIME ZONE '{zone}'")).await.unwrap();
        let seeds = try_rows(&mut session, "SELECT created_at::DATE::TEXT FROM ai_usage_log").await.unwrap();
        let ours = try_rows(&mut session, "SELECT tallyroll.tallyroll_usage_dashboard(30, '2026-03-20')->'daily_trend'->0->>'date'")
            .await
            .unwrap();
        seen.push(format!("{zone}: {} {}", seeds[0], ours[0]));
    }
    assert_eq!(seen, ["UTC: 2026-03-20 2026-03-20", "America/Los_Angeles: 2026-03-19 2026-03-20", "Asia/Kolkata: 2026-03-20 2026-03-20"]);
    session.close().await.unwrap();
}
