//! Recording over HTTP (`docs/interface.md`, "HTTP"): each event once, whatever is sent twice or cut off; nothing with the pages' token.

use std::collections::BTreeSet;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::on_both_databases;
use crate::support::site::{Answer, Site, TOKEN, WRITER_TOKEN};
use crate::support::{Engine, Fixture, repetitions};

on_both_databases!(
    events_are_recorded_once,
    each_event_has_its_answer,
    all_or_none_where_that_is_asked_for,
    hostile_bodies_are_refused,
    a_chat_request_is_begun_and_completed,
    cut_connections_lose_and_double_nothing,
);

const NOW: &str = "2026-04-06T00:00:00Z";

async fn writer(fixture: &Fixture) -> Site {
    Site::new(fixture, TOKEN, NOW).await.with(&[("authorization", &format!("Bearer {WRITER_TOKEN}"))])
}

async fn post(site: &Site, body: &Value) -> Answer {
    site.post("/api/usage-events", "application/json", &body.to_string()).await
}

fn statuses(answer: &Answer) -> Vec<u64> {
    answer.json()["events"].as_array().unwrap().iter().map(|event| event["status"].as_u64().unwrap()).collect()
}

async fn events_are_recorded_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = writer(&fixture).await;
    // Four fields are enough; what is not given is as in the table.
    let one = post(&site, &json!({ "user_id": "ann", "model": "gpt-4o", "input_tokens": 1000, "output_tokens": 100 })).await;
    assert_eq!(one.status, 200, "{}", one.text());
    let id = one.json()["events"][0]["event_id"].as_str().unwrap().to_owned();
    let read =
        "SELECT source_name, event_id, occurred_at, user_id, model, input_tokens, output_tokens, status, request_type FROM usage_event";
    assert_eq!(fixture.rows(read).await, [format!("application|{id}|2026-04-06T00:00:00.000000Z|ann|gpt-4o|1000|100|success|request")]);
    // Every field, a cost to its last digit.
    let cost = "123456789.123456789";
    let all = format!(
        r#"{{"source_name": "gateway", "event_id": "é/1", "occurred_at": "2026-03-10T10:00:00.123456+01:00", "user_id": "команда", "user_name": "A",
        "customer_id": "7", "customer_name": "Acme", "request_type": "chat", "category": "c", "provider": "openai", "model": "o3", "service_tier": "flex",
        "status": "error", "input_tokens": 10, "cached_input_tokens": 4, "cache_write_tokens": 2, "output_tokens": 5, "reasoning_tokens": 3,
        "total_tokens": 15, "cost_usd": {cost}, "latency_ms": 250, "tool_turns": 1, "rating": 5, "tags": {{"team": ["a", 1]}}}}"#
    );
    let compact = all.lines().map(str::trim).collect::<String>();
    let lines = format!("{compact}\n\n{compact}\n");
    let answer = site.post("/api/usage-events", "application/x-ndjson; charset=utf-8", &lines).await;
    assert_eq!((answer.status, statuses(&answer)), (200, vec![200, 200]), "{}", answer.text());
    assert_eq!((&answer.json()["recorded_count"], &answer.json()["known_count"]), (&json!(1), &json!(1)));
    let column = fixture.store.pick("CAST(cost_usd AS TEXT)", "cost_nanos");
    let read = format!("SELECT occurred_at, {column} AS cost, latency_ms FROM usage_event WHERE source_name = 'gateway'");
    let stored = fixture.store.pick(cost, "123456789123456789");
    assert_eq!(fixture.rows(&read).await, [format!("2026-03-10T09:00:00.123456Z|{stored}|250")]);
    // A retry without ids is known by its key, in whatever order its answer was lost.
    let batch =
        json!([{ "user_id": "bob", "input_tokens": 1, "output_tokens": 1 }, { "user_id": "bob", "input_tokens": 1, "output_tokens": 1 }]);
    let keyed = site.with(&[("authorization", &format!("Bearer {WRITER_TOKEN}")), ("idempotency-key", "batch 7")]);
    let counts = |answer: &Answer| (answer.status, answer.json()["recorded_count"].clone(), answer.json()["known_count"].clone());
    assert_eq!(counts(&post(&keyed, &batch).await), (200, json!(2), json!(0)));
    assert_eq!(counts(&post(&keyed, &batch).await), (200, json!(0), json!(2)));
    // Without a key each is another event.
    assert_eq!(counts(&post(&site, &batch).await), (200, json!(2), json!(0)));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event WHERE user_id = 'bob'").await, 4);
    // An event's instant under its other name counts, and one that is null is not given.
    for (id, instant) in [("old", json!("2026-03-10T10:00:00Z")), ("none", json!(null)), ("empty", json!(""))] {
        let name = if id == "old" { "created_at" } else { "occurred_at" };
        let event = json!({ "id": id, "event_id": "", name: instant, "user_id": "cy", "input_tokens": 1, "output_tokens": 1 });
        assert_eq!(counts(&post(&site, &event).await), (200, json!(1), json!(0)), "{id}");
        let later = Site::new(&fixture, TOKEN, "2026-04-07T00:00:00Z").await.with(&[("authorization", &format!("Bearer {WRITER_TOKEN}"))]);
        assert_eq!(counts(&post(&later, &event).await), (200, json!(0), json!(1)), "{id}");
    }
    let read = "SELECT event_id, occurred_at FROM usage_event WHERE user_id = 'cy' ORDER BY event_id";
    let now = "2026-04-06T00:00:00.000000Z";
    assert_eq!(fixture.rows(read).await, [format!("empty|{now}"), format!("none|{now}"), "old|2026-03-10T10:00:00.000000Z".to_owned()]);
    fixture.execute("DELETE FROM usage_event WHERE user_id = 'cy'").await;
    // The same key for something else is a mistake.
    let other = json!([{ "user_id": "bob", "input_tokens": 2, "output_tokens": 1 }]);
    assert_eq!(statuses(&post(&keyed, &other).await), [409]);
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-10T00:00:00Z"]);
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily").await, 6);
}

async fn each_event_has_its_answer(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = writer(&fixture).await;
    let event = |id: &str, tokens: i64| json!({ "event_id": id, "user_id": "ann", "occurred_at": "2026-03-10", "input_tokens": tokens });
    assert_eq!(post(&site, &event("a", 1)).await.status, 200);
    let batch = json!([
        event("a", 1),
        event("a", 2),
        event("b", 1),
        event("b", 1),
        event("b", 2),
        { "event_id": "c", "input_tokens": 1 },
        { "event_id": "d", "user_id": "ann", "input_token": 1 },
        { "event_id": "e", "user_id": "ann", "input_tokens": 1, "cached_input_tokens": 2 },
        { "event_id": "f", "user_id": "ann", "occurred_at": "1812-01-01" },
        7,
    ]);
    let answer = post(&site, &batch).await;
    assert_eq!((answer.status, statuses(&answer)), (207, vec![200, 409, 200, 200, 409, 422, 422, 422, 422, 422]), "{}", answer.text());
    let why: Vec<String> = answer.json()["events"].as_array().unwrap().iter().map(|event| event["error"].to_string()).collect();
    for (index, part) in [
        (1, "another event has this id"),
        (5, "`user_id` is empty"),
        (6, "did you mean `input_tokens`?"),
        (7, "a part of the input"),
        (8, "earliest_date"),
        (9, "not a JSON object"),
    ] {
        assert!(why[index].contains(part), "{index}: {}", why[index]);
    }
    assert_eq!((&answer.json()["recorded_count"], &answer.json()["known_count"]), (&json!(1), &json!(2)));
    assert_eq!(fixture.rows("SELECT event_id, input_tokens FROM usage_event ORDER BY event_id").await, ["a|1", "b|1"]);
    // One by itself has a status of its own.
    assert_eq!(post(&site, &event("a", 3)).await.status, 409);
    assert_eq!(post(&site, &json!({ "event_id": "x" })).await.status, 422);
    // The pages' token records nothing, and the writers' opens nothing.
    for (token, path, expected) in [(TOKEN, "/api/usage-events", 401), (WRITER_TOKEN, "/api/usage", 401), (WRITER_TOKEN, "/metrics", 401)] {
        let site = site.with(&[("authorization", &format!("Bearer {token}"))]);
        let method = if path == "/api/usage-events" { Method::POST } else { Method::GET };
        assert_eq!(site.send(method, path, "application/json", "{}").await.status, expected, "{path}");
    }
    let browser = Site::new(&fixture, TOKEN, NOW).await.log_in().await;
    assert_eq!(post(&browser, &event("z", 1)).await.status, 401);
    // Being on this machine is not enough, and without a token of its own nothing is recorded.
    assert_eq!(post(&Site::new(&fixture, "", NOW).await.with(&[]), &event("z", 1)).await.status, 401);
    let off = Site::without_writers(&fixture, NOW).await.with(&[("authorization", &format!("Bearer {WRITER_TOKEN}"))]);
    let refused = post(&off, &event("z", 1)).await;
    assert!(refused.status == 403 && refused.text().contains("WRITER_TOKEN_FILE"), "{}", refused.text());
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 2);
}

async fn all_or_none_where_that_is_asked_for(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = writer(&fixture).await;
    let event = |id: &str, tokens: i64| json!({ "event_id": id, "user_id": "ann", "occurred_at": "2026-03-10", "input_tokens": tokens });
    let atomic = async |batch: Value| site.post("/api/usage-events?atomic=1", "application/json", &batch.to_string()).await;
    let good = atomic(json!([event("a", 1), event("b", 1)])).await;
    assert_eq!((good.status, statuses(&good)), (200, vec![200, 200]));
    let bad = atomic(json!([event("c", 1), { "event_id": "d" }])).await;
    assert_eq!((bad.status, statuses(&bad)), (422, vec![424, 422]));
    let taken = atomic(json!([event("c", 1), event("a", 2)])).await;
    assert_eq!((taken.status, statuses(&taken), taken.json()["recorded_count"].clone()), (409, vec![424, 409], json!(0)));
    assert_eq!(fixture.rows("SELECT event_id FROM usage_event ORDER BY event_id").await, ["a", "b"]);
    assert_eq!(site.post("/api/usage-events?atomic=yes", "application/json", "[]").await.status, 400);
}

async fn hostile_bodies_are_refused(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let site = writer(&fixture).await;
    let many = |count: usize| format!("[{}]", vec![r#"{"user_id":"ann"}"#; count].join(","));
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (kind, body, expected) in [
        ("application/json", "", 400),
        ("application/json", "[]", 400),
        ("application/json", "[{\"user_id\":\"ann\"}", 400),
        ("application/json", "{\"user_id\":\"ann\"} trailing", 400),
        ("application/json", &deep, 207),
        ("application/json", "null", 422),
        ("application/json", "{\"user_id\":\"a\\u0000b\"}", 422),
        ("application/json", "{\"user_id\":\"\\ud800\"}", 422),
        ("application/json", "{\"user_id\":\"ann\",\"input_tokens\":1e30}", 422),
        ("application/json", "{\"user_id\":\"ann\",\"input_tokens\":9223372036854775808}", 422),
        ("application/json", "{\"user_id\":\"ann\",\"cost_usd\":1e300}", 422),
        ("application/json", "{\"user_id\":\"ann\",\"cost_usd\":\"NaN\"}", 422),
        ("application/json", "{\"user_id\":\"ann\",\"import_id\":\"x\"}", 422),
        ("application/json", "{\"user_id\":\"ann\",\"ingest_seq\":1}", 422),
        ("application/json", "{\"user_id\":\"ann\",\"source_name\":\"a/b\"}", 422),
        ("application/json", "{\"user_id\":\"ann\",\"occurred_at\":\"12026-01-01T00:00:00Z\"}", 422),
        ("application/x-ndjson", "\n\n", 400),
        ("text/plain", "{\"user_id\":\"ann\"}", 415),
        ("", "", 415),
    ] {
        let answer = site.post("/api/usage-events", kind, body).await;
        assert_eq!(answer.status, expected, "{kind} {}: {}", &body[..body.len().min(80)], answer.text());
    }
    let long = json!({ "user_id": "x".repeat(1_001) });
    assert_eq!(post(&site, &long).await.status, 422);
    assert_eq!(site.post("/api/usage-events", "application/json", &many(10_001)).await.status, 413);
    assert_eq!(site.post("/api/usage-events", "application/json", &" ".repeat((16 << 20) + 1)).await.status, 413);
    // What would take long to read is refused soon: elements and lines without end, and names.
    assert_eq!(site.post("/api/usage-events", "application/json", &format!("[1{}]", ",1".repeat(8_000_000))).await.status, 413);
    assert_eq!(site.post("/api/usage-events", "application/x-ndjson", &"1\n".repeat(8_000_000)).await.status, 413);
    let named = format!("{{\"user_id\":\"ann\",\"{}\":1}}", "n".repeat(15 << 20));
    let refused = site.post("/api/usage-events", "application/json", &named).await;
    assert!(refused.status == 422 && refused.body.len() < 1_000, "{}", refused.body.len());
    let tracked = site.post("/api/chat/track", "application/json", &named).await;
    assert!(tracked.status == 422 && tracked.body.len() < 1_000, "{}", tracked.body.len());
    for key in ["", &"k".repeat(256)] {
        let keyed = site.with(&[("authorization", &format!("Bearer {WRITER_TOKEN}")), ("idempotency-key", key)]);
        assert_eq!(post(&keyed, &json!({ "user_id": "ann" })).await.status, 400);
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 0);
    // A stranger's body is not waited for, however large it says to be.
    let address = site.url.trim_start_matches("http://");
    let mut stranger = TcpStream::connect(address).await.unwrap();
    let head = "POST /api/usage-events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong\r\ncontent-length: 16000000\r\n\r\n";
    stranger.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(std::time::Duration::from_secs(8), stranger.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    let full = site.post("/api/usage-events", "application/json", &many(10_000)).await;
    assert_eq!((full.status, fixture.number("SELECT COUNT(*) FROM usage_event").await), (200, 10_000));
}

const ANN: &str = "00000000-0000-4000-8000-000000000001";

async fn a_chat_request_is_begun_and_completed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.execute(&format!("INSERT INTO users (id, email) VALUES ('{ANN}', 'ann@x')")).await;
    let site = writer(&fixture).await;
    let track = async |method: Method, body: Value| site.send(method, "/api/chat/track", "application/json", &body.to_string()).await;
    let begun = track(
        Method::POST,
        json!({ "userId": ANN, "prompt": "Create an NFT contract", "sessionId": "session-123", "model": "gpt-4", "requestType": "code_generation",
            "category": "nft", "complexity": "high" }),
    )
    .await;
    assert_eq!((begun.status, begun.json()["status"].clone()), (201, json!("pending")), "{}", begun.text());
    let id = begun.json()["requestId"].as_str().unwrap().to_owned();
    let done = json!({ "requestId": id, "status": "completed", "response": "Generated", "cost": 3, "duration": 2500, "tokensInput": 1000, "tokensOutput": 500 });
    let answer = track(Method::PUT, done).await;
    assert_eq!((answer.status, answer.json()["status"].clone()), (200, json!("completed")), "{}", answer.text());
    // What is known only later is added.
    assert_eq!(track(Method::PUT, json!({ "requestId": id, "userRating": 5 })).await.status, 200);
    let read = "SELECT session_id, prompt, response, model, tokens_used, cost, duration, status FROM chat_requests";
    assert_eq!(fixture.rows(read).await, ["session-123|Create an NFT contract|Generated|gpt-4|1500|3|2500|completed"]);
    let read = "SELECT request_type, category, complexity, response_time, tokens_input, tokens_output, user_rating FROM request_analytics";
    assert_eq!(fixture.rows(read).await, ["code_generation|nft|high|2500|1000|500|5"]);
    // Failed, of a total alone.
    let begun = track(Method::POST, json!({ "userId": ANN })).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    let failed = begun.json()["requestId"].clone();
    let answer = track(Method::PUT, json!({ "requestId": failed, "status": "failed", "tokensUsed": 7, "errorMessage": "no" })).await;
    assert_eq!(answer.json()["status"], "failed", "{}", answer.text());
    fixture.run_well(&["run-job", "usage_daily", "--downstream"]);
    let read = "SELECT request_type, request_count, success_count, error_count, total_tokens, total_cost_nanos, rating_sum FROM usage_daily ORDER BY request_type";
    assert_eq!(fixture.rows(read).await, ["chat|1|0|1|7|NULL|0", "code_generation|1|1|0|1500|30000000|5"]);
    let nobody = "00000000-0000-4000-8000-00000000dead";
    for (method, body, expected) in [
        (Method::POST, json!({ "userId": nobody }), 422),
        (Method::POST, json!({ "userId": "ann" }), 422),
        (Method::POST, json!({}), 422),
        (Method::POST, json!({ "userId": ANN, "plan": "pro" }), 422),
        (Method::POST, json!({ "userId": ANN, "model": "m".repeat(1_001) }), 422),
        (Method::POST, json!({ "userId": ANN, "prompt": "a\u{0}b" }), 422),
        (Method::PUT, json!({ "requestId": nobody }), 404),
        (Method::PUT, json!({ "requestId": id, "status": "pending" }), 422),
        (Method::PUT, json!({ "requestId": id, "tokensUsed": -1 }), 422),
        (Method::PUT, json!({ "requestId": id, "tokensUsed": 4_000_000_000_i64 }), 422),
        (Method::PUT, json!({ "requestId": id, "userRating": 6 }), 422),
    ] {
        let answer = track(method, body.clone()).await;
        assert_eq!(answer.status, expected, "{body}: {}", answer.text());
    }
    assert_eq!(site.send(Method::PUT, "/api/chat/track", "application/json", "{").await.status, 400);
    assert_eq!(site.with(&[]).send(Method::PUT, "/api/chat/track", "application/json", "{}").await.status, 401);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM chat_requests").await, 2);
}

/// Clients that send in pieces, hang up before, while or after they are answered, and send again until they have read a 200.
async fn cut_connections_lose_and_double_nothing(engine: Engine) {
    const CLIENTS: usize = 8;
    const EVENTS: usize = 100;
    let fixture = Fixture::new(engine).await;
    let site = Arc::new(writer(&fixture).await);
    let requests = repetitions(40, 1_000);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let address = site.url.trim_start_matches("http://").to_owned();
        clients.spawn(async move {
            let (mut cut_count, mut random) = (0, 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(client as u64 + 1));
            let mut draw = move |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            for request in (client..requests).step_by(CLIENTS) {
                // Half know their events by ids of their own, half by the request's key.
                let event = |index: usize| match request % 2 {
                    0 => json!({ "event_id": format!("{request}-{index}"), "user_id": "ann", "input_tokens": 1, "output_tokens": 1 }),
                    _ => json!({ "user_id": "ann", "input_tokens": 1, "output_tokens": 1 }),
                };
                let body = Value::Array((0..EVENTS).map(event).collect()).to_string();
                let text = format!(
                    "POST /api/usage-events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {WRITER_TOKEN}\r\ncontent-type: application/json\r\n\
                     idempotency-key: request {request}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                loop {
                    let mut stream = TcpStream::connect(&address).await.unwrap();
                    if draw(2) == 0 {
                        cut_count += 1;
                        // In the middle of it, or once all of it is on its way.
                        let sent = if draw(2) == 0 { usize::try_from(draw(text.len() as u64)).unwrap() } else { text.len() };
                        let _ = stream.write_all(&text.as_bytes()[..sent]).await;
                        tokio::time::sleep(std::time::Duration::from_millis(draw(60))).await;
                        continue;
                    }
                    let mut answer = String::new();
                    if stream.write_all(text.as_bytes()).await.is_ok() && stream.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200") {
                        break;
                    }
                }
            }
            cut_count
        });
    }
    let mut cut_count = 0;
    while let Some(cut) = clients.join_next().await {
        cut_count += cut.unwrap();
    }
    assert!(cut_count > requests / 4, "{cut_count}");
    let expected = i64::try_from(requests * EVENTS).unwrap();
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, expected);
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-10T00:00:00Z"]);
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily").await, expected);
    println!("{engine:?}: {requests} requests of {EVENTS} events by {CLIENTS} clients, {cut_count} connections cut: every event once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writers_token_is_checked_as_the_other_is() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    for (settings, expected) in [
        ("writer_token = \"guess me\"", "`serve.writer_token` has a space"),
        ("writer_token = \"0123456789abcde\"", "fewer than 32 characters"),
        (&format!("token = \"{TOKEN}\"\nwriter_token = \"{TOKEN}\""), "is the same as `serve.token`"),
    ] {
        fixture.write("tallyroll.toml", &format!("[serve]\n{settings}\n"));
        for command in [&["check"][..], &["serve", "--bind", "127.0.0.1:0"]] {
            let finished = fixture.run(command);
            assert!(finished.code == Some(78) && finished.stderr.contains(expected), "{finished:?}");
            let given: BTreeSet<&str> = settings.split('"').collect();
            assert!(!given.iter().any(|text| text.len() > 6 && !text.contains("token") && finished.stderr.contains(text)), "{finished:?}");
        }
    }
    fixture.write("tallyroll.toml", &format!("[serve]\nwriter_token = \"{WRITER_TOKEN}\"\n"));
    let shown = fixture.run_well(&["check", "--show"]);
    assert!(shown.contains("serve.writer_token") && !shown.contains(WRITER_TOKEN), "{shown}");
}

/// Two requests that hold the same events, each in its own order, wait for one another in one order.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_opposite_orders_do_not_block_each_other() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let site = writer(&fixture).await;
    for round in 0..10 {
        let mut events: Vec<Value> = (0..300)
            .map(|event| json!({ "event_id": format!("{round}/{event}"), "occurred_at": NOW, "user_id": "ann", "input_tokens": 1, "output_tokens": 1 }))
            .collect();
        let forwards = Value::from(events.clone()).to_string();
        events.reverse();
        let backwards = Value::from(events).to_string();
        let (one, other) = tokio::join!(
            site.post("/api/usage-events?atomic=1", "application/json", &forwards),
            site.post("/api/usage-events?atomic=1", "application/json", &backwards)
        );
        assert_eq!((one.status, other.status), (200, 200), "{} {}", one.text(), other.text());
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 3_000);
}

/// Whoever has recorded an id and does not commit keeps a request waiting for ten seconds, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_does_not_wait_for_ever_for_an_id_that_another_transaction_holds() {
    let fixture = Fixture::new(Engine::Postgres).await;
    let site = writer(&fixture).await;
    let mut other = fixture.store.begin().await.unwrap();
    let held = "INSERT INTO usage_event (source_name, event_id, user_id) VALUES ('application', 'held', 'eve')";
    other.execute(held, &[]).await.unwrap();
    let event = json!({ "event_id": "held", "occurred_at": NOW, "user_id": "ann", "input_tokens": 1, "output_tokens": 1 });
    let answer = tokio::time::timeout(std::time::Duration::from_secs(30), post(&site, &event)).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    drop(other);
    assert_eq!(post(&site, &event).await.status, 200);
    assert_eq!(fixture.rows("SELECT user_id FROM usage_event").await, ["ann"]);
}
