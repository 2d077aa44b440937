//! The source of our own (`docs/semantics.md` section 3): what an application inserts with four columns is counted, tracked and bounded.

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    four_columns_are_an_event,
    parts_of_tokens_are_summed_everywhere,
    a_part_that_exceeds_its_whole_is_set_aside,
    changes_are_found,
    the_same_id_of_two_sources_is_two_events,
    texts_are_bounded,
    results_of_the_release_before_stay,
);

const RUN: [&str; 5] = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];

/// An instant in a column of this engine.
fn at(engine: Engine, text: &str) -> String {
    match engine {
        Engine::Postgres => format!("TIMESTAMPTZ '{text}'"),
        Engine::Sqlite => format!("'{text}'"),
    }
}

async fn event(fixture: &Fixture, instant: &str, columns: &str, values: &str) {
    let engine = if fixture.url.starts_with("postgres") { Engine::Postgres } else { Engine::Sqlite };
    let at = at(engine, instant);
    fixture.execute(&format!("INSERT INTO usage_event (occurred_at, user_id, {columns}) VALUES ({at}, 'ann', {values})")).await;
}

async fn four_columns_are_an_event(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.execute("INSERT INTO usage_event (user_id, model, input_tokens, output_tokens) VALUES ('ann', 'gpt-4o', 1000, 100)").await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream"]);
    let read = "SELECT source, user_id, request_type, model, request_count, success_count, input_tokens, output_tokens, total_tokens, \
         unpriced_count, cached_input_tokens FROM usage_daily";
    assert_eq!(fixture.rows(read).await, ["usage_event|ann|request|gpt-4o|1|1|1000|100|1100|1|0"]);
    assert_eq!(fixture.rows("SELECT user_id, request_count FROM usage_monthly_user").await, ["ann|1"]);
    let usage: serde_json::Value = serde_json::from_str(&fixture.run_well(&["dashboard", "--user", "ann", "--usage", "--json"])).unwrap();
    assert_eq!(usage["recent_requests"].as_array().unwrap().len(), 1, "{usage}");
    assert_eq!(usage["recent_requests"][0]["input_tokens"], 1000);
    fixture.run_well(&["reconcile"]);
}

async fn parts_of_tokens_are_summed_everywhere(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let columns = "customer_id, model, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens";
    event(&fixture, "2026-03-10T10:00:00.000000Z", columns, "'acme', 'm', 1000, 600, 300, 200, 150").await;
    event(&fixture, "2026-03-11T10:00:00.000000Z", columns, "'acme', 'm', 10, 10, 0, 2, 2").await;
    fixture.log("2026-03-11T11:00:00.000000Z", &[]).await;
    fixture.run_well(&RUN);
    for table in [
        "usage_daily",
        "usage_daily_user",
        "usage_daily_customer",
        "usage_daily_total",
        "usage_daily_type",
        "usage_monthly_user",
        "usage_monthly_customer",
    ] {
        let read = format!("SELECT SUM(cached_input_tokens), SUM(cache_write_tokens), SUM(reasoning_tokens) FROM {table}");
        assert_eq!(fixture.rows(&read).await, ["610|300|152"], "{table}");
    }
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
    // Made from the table, the rows are the same.
    let monthly = fixture.rows("SELECT * FROM usage_monthly_customer ORDER BY 1, 2").await;
    fixture.run_well(&["run-job", "usage_monthly_customer", "--force", "--as-of", "2026-04-15T00:00:00Z"]);
    assert_eq!(fixture.rows("SELECT * FROM usage_monthly_customer ORDER BY 1, 2").await, monthly);
    // Somebody takes cached tokens out of a summary by hand.
    fixture.execute("UPDATE usage_monthly_customer SET cached_input_tokens = 0 WHERE customer_id = 'acme'").await;
    let found = fixture.run(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
    assert_eq!(found.code, Some(65), "{found:?}");
}

async fn a_part_that_exceeds_its_whole_is_set_aside(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 1.0\n");
    let columns = "input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens";
    for values in ["10, 11, 0, 0, 0", "10, 6, 5, 0, 0", "10, 0, 0, 5, 6", "10, -1, 0, 0, 0", "10, 5, 5, 5, 5"] {
        event(&fixture, "2026-03-10T10:00:00.000000Z", columns, values).await;
    }
    fixture.run_well(&RUN);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 1);
    let reasons = "SELECT reason, COUNT(*) FROM quarantined_event GROUP BY reason ORDER BY reason";
    assert_eq!(fixture.rows(reasons).await, ["negative_tokens|1", "tokens_not_nested|3"]);
}

async fn changes_are_found(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for (day, id) in [("10", "a"), ("11", "b"), ("12", "c")] {
        event(&fixture, &format!("2026-03-{day}T10:00:00.000000Z"), "event_id, input_tokens", &format!("'{id}', 1")).await;
    }
    fixture.run_well(&RUN);
    let count = "SELECT usage_date, SUM(input_tokens) FROM usage_daily GROUP BY usage_date ORDER BY usage_date";
    assert_eq!(fixture.rows(count).await, ["2026-03-10|1", "2026-03-11|1", "2026-03-12|1"]);
    // Late, changed, moved, put back.
    event(&fixture, "2026-03-10T09:00:00.000000Z", "event_id, input_tokens", "'d', 4").await;
    fixture.execute("UPDATE usage_event SET input_tokens = 7 WHERE event_id = 'b'").await;
    fixture
        .execute(&format!("UPDATE usage_event SET occurred_at = {} WHERE event_id = 'c'", at(engine, "2026-03-11T23:00:00.000000Z")))
        .await;
    event(&fixture, "2026-03-12T11:00:00.000000Z", "event_id, input_tokens", "'e', 2").await;
    fixture.run_well(&RUN);
    assert_eq!(fixture.rows(count).await, ["2026-03-10|5", "2026-03-11|8", "2026-03-12|2"]);
    assert_eq!(fixture.run_well(&["run-job", "usage_daily", "--dry-run", "--as-of", "2026-04-15T00:00:00Z"]).matches("2026-03").count(), 0);
    fixture.execute("DELETE FROM usage_event WHERE event_id = 'd'").await;
    fixture.run_well(&RUN);
    assert_eq!(fixture.rows(count).await, ["2026-03-10|1", "2026-03-11|8", "2026-03-12|2"]);
}

async fn the_same_id_of_two_sources_is_two_events(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for source in ["one", "two"] {
        event(&fixture, "2026-03-10T10:00:00.000000Z", "source_name, event_id", &format!("'{source}', 'x'")).await;
    }
    fixture.run_well(&RUN);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 2);
    let again = "INSERT INTO usage_event (source_name, event_id, user_id) VALUES ('one', 'x', 'ann')";
    assert!(fixture.store.execute(again, &[]).await.is_err());
}

async fn texts_are_bounded(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for (column, bytes) in [("source_name", 100), ("event_id", 800), ("model", 1_000), ("user_name", 1_000), ("service_tier", 1_000)] {
        let insert = |length: usize| format!("INSERT INTO usage_event (user_id, {column}) VALUES ('ann', '{}')", "x".repeat(length));
        fixture.execute(&insert(bytes)).await;
        assert!(fixture.store.execute(&insert(bytes + 1), &[]).await.is_err(), "{column}");
    }
    // Else `a/b` and `c` would be shown as `a` and `b/c` are.
    assert!(fixture.store.execute("INSERT INTO usage_event (user_id, source_name) VALUES ('ann', 'a/b')", &[]).await.is_err());
    let tags = |length: usize| format!("INSERT INTO usage_event (user_id, tags) VALUES ('ann', '\"{}\"')", "x".repeat(length));
    fixture.execute(&tags(9_000)).await;
    assert!(fixture.store.execute(&tags(10_001), &[]).await.is_err());
    fixture.run_well(&["run-job", "usage_daily"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0);
}

/// The definitions that the release before kept.
const BEFORE: [(&str, &str); 8] = [
    ("usage_daily", "5ad6a95d83980232df224cc396254ce5 EVENTS"),
    ("usage_daily_customer", "5bea106de5c3fb15968461fad6136c06 0abcfee5c1dbf3830b8067b38b5c3f8d"),
    ("usage_daily_total", "fb63befd2217e3d83a9cd0670e47f76a 538a89d09e630df7ae9ccdc2d674fbc2"),
    ("usage_daily_type", "da4202a393fee636c7d17ce97bd9d6bb 92980bd93c65bf8cac485798b43690b6"),
    ("usage_daily_user", "6f7d16cf0976491fe7f248614d54d086 7a09f935a42564845ef961f78b924b4a"),
    ("usage_monthly_customer", "30d5a8385fa12c95e1eae2fba097e1e7 91c3cb8d022148461cbbd97daa6f133d"),
    ("usage_monthly_user", "e5483657d04db114d6f5b56ece3aebef 02c3d9101c3a7ce9263ce19f6de4d99e"),
    ("user_dashboard", "f2ffdec910b44730b7f93c19c32c4118 147e77312386bf52d0fc389078794689"),
];
const EVENTS_OF_POSTGRES: &str = "2322cd10599337bdb1fe927e8feb5b29";
const EVENTS_OF_SQLITE: &str = "c50913af1a83f4a286d25241f27df970";

/// A database of the release before, whose windows were written without this source: none is due, and its measures are found as 0.
async fn results_of_the_release_before_stay(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for day in 10..13 {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[("customer_id", "7")]).await;
    }
    fixture.write("tallyroll.toml", "[usage]\nsources = [\"ai_usage_log\", \"chat_requests\"]\n");
    fixture.run_well(&RUN);
    // As that release wrote it, and the migration marks it.
    for (job, definition) in BEFORE {
        let definition = definition.replace("EVENTS", if engine == Engine::Postgres { EVENTS_OF_POSTGRES } else { EVENTS_OF_SQLITE });
        fixture.execute(&format!("UPDATE job_window SET definition = 'v1 {definition}' WHERE job = '{job}'")).await;
    }
    fixture.execute("UPDATE job_window SET input_fingerprint = 'v1 8a1c18d04edef5058521e43064d9eef6' WHERE job = 'usage_daily'").await;
    fixture.write("tallyroll.toml", "");
    let planned = fixture.run_well(&["run-job", "usage_daily", "--downstream", "--dry-run", "--as-of", "2026-04-15T00:00:00Z"]);
    assert!(!planned.contains("2026-03"), "{planned}");
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
    // A day of the new source alone, and nothing else.
    event(&fixture, "2026-03-11T12:00:00.000000Z", "input_tokens", "5").await;
    let planned = fixture.run_well(&["run-job", "usage_daily", "--dry-run", "--as-of", "2026-04-15T00:00:00Z"]);
    assert!(planned.contains("2026-03-11") && !planned.contains("2026-03-10"), "{planned}");
    fixture.run_well(&RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM job_window WHERE job = 'usage_daily' AND definition LIKE 'v1 %'").await, 2);
    // Another definition than either is seen.
    fixture.execute("UPDATE job_window SET definition = 'v1 x y' WHERE job = 'usage_daily_user'").await;
    let planned = fixture.run_well(&["run-job", "usage_daily_user", "--dry-run", "--as-of", "2026-04-15T00:00:00Z"]);
    assert!(planned.contains("2026-03-10"), "{planned}");
}
