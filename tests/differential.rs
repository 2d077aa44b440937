//! Random logs against plain SQL on PostgreSQL: whatever is inserted late, updated, deleted, renamed, unpriced, negative or
//! NaN, the tables equal what one statement over the raw log gives. SQLite is given the same log, row by row, and gives the same tables.

mod mirror;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tallyroll::clock::Clock;
use tallyroll::engine::report::Binding;
use tallyroll::engine::request::Request;
use tallyroll::run;
use tokio::sync::watch;

use self::mirror::Mirror;
use crate::support::{Engine, Fixture, context_of, repetitions};

const PRICES: &str = include_str!("fixtures/differential/prices.toml");
const ORACLE: &str = include_str!("fixtures/differential/oracle.sql");

/// Something that happens to the log between two runs.
#[derive(Debug, Clone)]
enum Change {
    Log(LoggedEvent),
    Chat(ChatRequest),
    Event(OwnEvent),
    Update(u8, i64),
    Move(u8, u32),
    Delete(u8),
    CompleteChats(bool),
    Rename(u8, u8),
}

#[derive(Debug, Clone)]
struct LoggedEvent {
    minute: u32,
    user: u8,
    email: Option<u8>,
    customer: Option<u8>,
    name: Option<u8>,
    model: Option<u8>,
    input: i64,
    output: i64,
    latency: Option<i64>,
    status: &'static str,
    /// None: the generated cost; otherwise what was logged.
    logged: Option<&'static str>,
}

/// An event in the source of our own, whose ids are any text.
#[derive(Debug, Clone)]
struct OwnEvent {
    minute: u32,
    user: String,
    name: Option<u8>,
    customer: Option<String>,
    model: Option<u8>,
    input: i64,
    output: i64,
    /// Of the input: cached, then written to the cache; of the output: reasoning. A negative one, or one past its whole, is bad.
    parts: [i64; 3],
    total: Option<i64>,
    cost: &'static str,
    status: &'static str,
    provider: Option<&'static str>,
    tier: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct ChatRequest {
    minute: u32,
    user: u8,
    model: u8,
    tokens: Option<i64>,
    cost: Option<i64>,
    duration: Option<i64>,
    status: &'static str,
    analytics: Vec<Analytics>,
}

fn tokens() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0_i64..5_000, 1 => -3_i64..0, 1 => 300_000_000_i64..400_000_000]
}

fn logged_event() -> impl Strategy<Value = LoggedEvent> {
    let who = (0_u32..MINUTES, 0_u8..5, prop::option::of(0_u8..3), prop::option::of(0_u8..4), prop::option::of(0_u8..3));
    let latency = prop::option::of(prop_oneof![9 => 0_i64..9_000, 1 => -5_i64..0]);
    let status = prop::sample::select(vec!["success", "success", "success", "error", "timeout"]);
    let logged = prop::option::of(prop::sample::select(vec!["NULL", "0.000000001", "0.5", "'NaN'", "-0.000000001", "12.345678901", "0"]));
    (who, prop::option::of(0_u8..4), tokens(), tokens(), latency, status, logged).prop_map(
        |((minute, user, email, customer, name), model, input, output, latency, status, logged)| LoggedEvent {
            minute,
            user,
            email,
            customer,
            name,
            model,
            input,
            output,
            latency,
            status,
            logged,
        },
    )
}

fn chat_request() -> impl Strategy<Value = ChatRequest> {
    let analytics =
        prop::collection::vec((0_u8..3, prop::option::of(tokens()), prop::option::of(tokens()), prop::option::of(1_i64..6)), 0..3);
    let numbers = (prop::option::of(tokens()), prop::option::of(-1_i64..50), prop::option::of(-1_i64..5_000));
    let status = prop::sample::select(vec!["completed", "completed", "failed", "pending"]);
    (0_u32..MINUTES, 0_u8..5, 0_u8..4, numbers, status, analytics).prop_map(
        |(minute, user, model, (tokens, cost, duration), status, analytics)| ChatRequest {
            minute,
            user,
            model,
            tokens,
            cost,
            duration,
            status,
            analytics,
        },
    )
}

/// Ids of any script and length, that may look like numbers, UUIDs, markup or SQL.
fn id() -> impl Strategy<Value = String> {
    let known = ["7", "07", "ann", "Ann", "команда", "部門", "a'b", "<b>", "%_", "00000000-0000-4000-8000-000000000001", " x "];
    prop_oneof![6 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => "[a-z😀é]{1,200}"]
}

fn own_event() -> impl Strategy<Value = OwnEvent> {
    let part = || prop_oneof![6 => Just(0_i64), 6 => 0_i64..1_500, 1 => -2_i64..0];
    let who = (0_u32..MINUTES, id(), prop::option::of(0_u8..3), prop::option::of(id()), prop::option::of(0_u8..4));
    let cost = prop::sample::select(vec!["NULL", "NULL", "0.000000001", "12.345678901", "'NaN'", "-0.5"]);
    let status = prop::sample::select(vec!["success", "success", "error", "odd"]);
    let provider = prop::option::of(prop::sample::select(vec!["azure", "groq", "openai"]));
    let tier = prop::option::of(prop::sample::select(vec!["batch", "Batch", "default", "standard", "flex", ""]));
    (who, tokens(), tokens(), [part(), part(), part()], prop::option::of(tokens()), (cost, provider, tier), status).prop_map(
        |((minute, user, name, customer, model), input, output, parts, total, (cost, provider, tier), status)| OwnEvent {
            minute,
            user,
            name,
            customer,
            model,
            input,
            output,
            parts,
            total,
            cost,
            status,
            provider,
            tier,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => logged_event().prop_map(Change::Log),
        3 => chat_request().prop_map(Change::Chat),
        5 => own_event().prop_map(Change::Event),
        2 => (any::<u8>(), tokens()).prop_map(|(row, tokens)| Change::Update(row, tokens)),
        1 => (any::<u8>(), 0_u32..MINUTES).prop_map(|(row, minute)| Change::Move(row, minute)),
        2 => any::<u8>().prop_map(Change::Delete),
        1 => any::<bool>().prop_map(Change::CompleteChats),
        1 => (0_u8..5, 0_u8..3).prop_map(|(user, email)| Change::Rename(user, email)),
    ]
}

/// Category, tokens in and out, rating.
type Analytics = (u8, Option<i64>, Option<i64>, Option<i64>);

/// The log covers four days around New York's clock change, to the minute and a microsecond before.
const MINUTES: u32 = 4 * 24 * 60;

fn at(minute: u32) -> String {
    format!("(TIMESTAMPTZ '2026-03-07 00:00:00Z' + {minute} * INTERVAL '1 minute' - INTERVAL '1 microsecond' * {})", minute % 2)
}

fn user(number: u8) -> String {
    format!("'00000000-0000-4000-8000-00000000000{number}'")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn null_or<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or("NULL".to_owned(), |value| value.to_string())
}

const MODELS: [&str; 4] = ["'half-nano'", "'gpt-4o'", "'dear'", "'unheard-of'"];

fn statements(change: &Change) -> Vec<String> {
    let nth = |table: &str, row: u8| {
        format!("(SELECT id FROM {table} ORDER BY id OFFSET {row} % GREATEST(1, (SELECT COUNT(*) FROM {table})) LIMIT 1)")
    };
    let nth_event = |row: u8| nth("usage_event", row).replace("SELECT id", "SELECT event_id").replace("BY id", "BY event_id");
    match change {
        Change::Log(event) => vec![format!(
            "INSERT INTO ai_usage_log (user_id, user_email, customer_id, customer_name, model_used, input_tokens, output_tokens, latency_ms, status, \
             cost_basis, logged_cost_usd, created_at) VALUES ({}, {}, {}, {}, {}, {}, {}, {}, '{}', '{}', {}, {})",
            user(event.user),
            null_or(event.email.map(|email| format!("'mail{email}@example.com'"))),
            null_or(event.customer),
            null_or(event.name.map(|name| format!("'Name {name}'"))),
            null_or(event.model.map(|model| MODELS[usize::from(model)])),
            event.input,
            event.output,
            null_or(event.latency),
            event.status,
            if event.logged.is_some() { "logged" } else { "generated" },
            event.logged.unwrap_or("NULL"),
            at(event.minute),
        )],
        Change::Chat(chat) => {
            let mut all = vec![format!(
                "INSERT INTO chat_requests (user_id, model, tokens_used, cost, duration, status, created_at) VALUES ({}, {}, {}, {}, {}, '{}', {})",
                user(chat.user),
                MODELS[usize::from(chat.model)],
                null_or(chat.tokens),
                null_or(chat.cost),
                null_or(chat.duration),
                chat.status,
                at(chat.minute),
            )];
            for (index, (category, input, output, rating)) in chat.analytics.iter().enumerate() {
                all.push(format!(
                    "INSERT INTO request_analytics (user_id, request_id, request_type, category, tokens_input, tokens_output, user_rating, created_at) \
                     SELECT user_id, id, 'type{category}', 'category{category}', {}, {}, {}, created_at + INTERVAL '{index} second' \
                     FROM chat_requests WHERE created_at = {} ORDER BY id LIMIT 1",
                    null_or(*input),
                    null_or(*output),
                    null_or(*rating),
                    at(chat.minute),
                ));
            }
            all
        }
        Change::Event(event) => vec![format!(
            "INSERT INTO usage_event (occurred_at, user_id, user_name, customer_id, model, input_tokens, output_tokens, cached_input_tokens, \
             cache_write_tokens, reasoning_tokens, total_tokens, cost_usd, status, provider, service_tier) \
             VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, '{}', {}, {})",
            at(event.minute),
            quoted(&event.user),
            null_or(event.name.map(|name| format!("'Name {name}'"))),
            null_or(event.customer.as_deref().map(quoted)),
            null_or(event.model.map(|model| MODELS[usize::from(model)])),
            event.input,
            event.output,
            event.parts[0],
            event.parts[1],
            event.parts[2],
            null_or(event.total),
            event.cost,
            event.status,
            null_or(event.provider.map(quoted)),
            null_or(event.tier.map(quoted)),
        )],
        Change::Update(row, tokens) => vec![
            format!("UPDATE ai_usage_log SET output_tokens = {tokens} WHERE id = {}", nth("ai_usage_log", *row)),
            format!("UPDATE usage_event SET output_tokens = {tokens}, cost_usd = NULL WHERE event_id = {}", nth_event(*row)),
        ],
        Change::Move(row, minute) => vec![
            format!("UPDATE ai_usage_log SET created_at = {} WHERE id = {}", at(*minute), nth("ai_usage_log", *row)),
            format!("UPDATE usage_event SET occurred_at = {} WHERE event_id = {}", at(*minute), nth_event(*row)),
        ],
        Change::Delete(row) => vec![
            format!("DELETE FROM usage_event WHERE event_id = {}", nth_event(*row)),
            format!("DELETE FROM ai_usage_log WHERE id = {}", nth("ai_usage_log", *row)),
            format!("DELETE FROM request_analytics WHERE id = {}", nth("request_analytics", *row)),
        ],
        Change::CompleteChats(failed) => {
            vec![format!("UPDATE chat_requests SET status = '{}' WHERE status = 'pending'", if *failed { "failed" } else { "completed" })]
        }
        Change::Rename(number, email) => vec![
            format!(
                "UPDATE ai_usage_log SET user_email = 'renamed{email}@example.com' WHERE user_id = {} AND input_tokens % 2 = 0",
                user(*number)
            ),
            format!("UPDATE users SET email = 'user{number}.{email}@example.com' WHERE id = {}", user(*number)),
        ],
    }
}

async fn campaign(timezone: &str, pricing: &str, failed: &str, seed: u8, cases: usize) {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.write(
        "tallyroll.toml",
        &format!("[reporting]\ntimezone = \"{timezone}\"\n[usage]\npricing = \"{pricing}\"\nfailed = \"{failed}\"\n[quarantine]\nmax_ratio = 1.0\n"),
    );
    fixture.write("prices.toml", PRICES);
    for number in 0..5 {
        fixture.execute(&format!("INSERT INTO users (id, email) VALUES ({}, 'user{number}@example.com')", user(number))).await;
    }
    let oracle = format!(
        "CREATE VIEW oracle AS {}",
        ORACLE
            .replace("{timezone}", timezone)
            .replace("{book_first}", if pricing == "log" { "FALSE" } else { "TRUE" })
            .replace("{failed_are_free}", if failed == "bill" { "FALSE" } else { "TRUE" })
    );
    fixture.execute(&oracle).await;

    let mut mirror = Mirror::of(&fixture).await;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let changes = prop::collection::vec(change(), 1..40);
    for case in 0..cases {
        let changes = changes.new_tree(&mut runner).unwrap().current();
        for statement in changes.iter().flat_map(statements) {
            fixture.execute(&statement).await;
        }
        write_tables(&fixture, case).await;
        for (table, statement) in comparisons() {
            let differences = fixture.rows(&statement).await;
            assert!(
                differences.is_empty(),
                "case {case} ({timezone}, {pricing}, {failed}), {table}:\n{}\nafter {changes:#?}",
                differences.join("\n")
            );
        }
        if case % repetitions(5, 1) == 0 {
            mirror.follow(&fixture).await;
            write_tables(&mirror.fixture, case).await;
            mirror.assert_same_tables(&fixture, &format!("case {case} ({timezone}, {pricing}, {failed}) after {changes:#?}")).await;
        }
    }
    println!("{cases} random cases in {timezone}, pricing {pricing}, failed {failed}: no difference");
}

/// Runs what is due, then what only force writes.
async fn write_tables(fixture: &Fixture, case: usize) {
    let (_keep, stop) = watch::channel(None);
    let context = context_of(fixture, Clock::system(), stop);
    let job = context.jobs.get("usage_daily").unwrap();
    let request = Request {
        // Some of the log is still to come.
        as_of: "2026-03-09T06:00:00Z".parse().unwrap(),
        downstream: true,
        // For days whose last row was deleted: they are written empty, as the oracle has them.
        force: true,
        ..Request::default()
    };
    let binding = Binding::default();
    let due_only = Request { force: false, ..request.clone() };
    // What is due by itself first; forcing alone would hide a change that was not found.
    for report in run::run(&context, job, &due_only, &binding).await.unwrap() {
        if let Some(failure) = report.failure {
            assert!(format!("{failure:#}").contains("raw rows"), "case {case}: {failure:#}");
        }
    }
    let kept = fixture.rows("SELECT window_start FROM job_window WHERE state = 'kept'").await;
    for day in kept {
        let from: chrono::NaiveDate = day.parse().unwrap();
        let forced = Request { from: Some(from), to: from.succ_opt(), ..request.clone() };
        let _ = run::run(&context, job, &forced, &binding).await.unwrap();
    }
}

const MEASURES: [&str; 25] = [
    "request_count",
    "success_count",
    "error_count",
    "unpriced_count",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "input_cost_nanos",
    "output_cost_nanos",
    "total_cost_nanos",
    "success_total_tokens",
    "success_cost_nanos",
    "success_latency_ms_sum",
    "success_latency_count",
    "latency_ms_max",
    "tool_turns",
    "rating_sum",
    "rating_count",
    "first_request_at",
    "last_request_at",
    "success_priced_count",
    "priced_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
];

/// For each table a statement that gives the rows on which it and the oracle differ.
fn comparisons() -> Vec<(&'static str, String)> {
    let folds: Vec<String> = MEASURES
        .iter()
        .map(|measure| match *measure {
            "latency_ms_max" | "last_request_at" => format!("MAX({measure})"),
            "first_request_at" => format!("MIN({measure})"),
            _ => format!("CAST(SUM({measure}) AS BIGINT)"),
        })
        .collect();
    let measures = MEASURES.join(", ");
    let differing = |ours: String, theirs: String| format!("(({ours}) EXCEPT ALL ({theirs})) UNION ALL (({theirs}) EXCEPT ALL ({ours}))");
    let grain = "usage_date, source, user_id, customer_id, request_type, category, model, user_email, customer_name";
    let mut all = vec![(
        "usage_daily",
        differing(format!("SELECT {grain}, {measures} FROM usage_daily"), format!("SELECT {grain}, {measures} FROM oracle")),
    )];
    for (table, date, expression) in [
        ("usage_daily_user", "usage_date", "usage_date"),
        ("usage_daily_customer", "usage_date", "usage_date"),
        ("usage_monthly_user", "usage_month", "CAST(date_trunc('month', usage_date) AS DATE)"),
        ("usage_monthly_customer", "usage_month", "CAST(date_trunc('month', usage_date) AS DATE)"),
    ] {
        let (key, label, unique, other) = if table.ends_with("user") {
            ("user_id", "user_email", "unique_customers", "customer_id")
        } else {
            ("customer_id", "customer_name", "unique_users", "user_id")
        };
        let ours = format!("SELECT {date}, {key}, {label}, {unique}, {measures} FROM {table}");
        let latest = format!("(array_agg({label} ORDER BY usage_date DESC) FILTER (WHERE {label} IS NOT NULL))[1]");
        let theirs =
            format!("SELECT {expression}, {key}, {latest}, COUNT(DISTINCT {other}), {} FROM oracle GROUP BY 1, {key}", folds.join(", "));
        all.push((table, differing(ours, theirs)));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn in_utc_with_the_logged_cost_first() {
    campaign("UTC", "log", "bill", 1, repetitions(50, 1_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_utc_with_the_price_book_first() {
    campaign("UTC", "price_book", "bill", 2, repetitions(50, 1_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_new_york_across_the_clock_change() {
    campaign("America/New_York", "log", "free", 3, repetitions(50, 1_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_kathmandu() {
    campaign("Asia/Kathmandu", "price_book", "free", 4, repetitions(50, 1_000)).await;
}
