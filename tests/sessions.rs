//! Tokens, sessions and asked runs of `serve` as processes: several replicas, many at once, proxies.

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::future::join_all;
use reqwest::{Client, redirect};
use serde_json::Value;
use tallyroll::store::format_instant;

use crate::on_both_databases;
use crate::support::site::{TOKEN, csrf_of};
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(a_session_that_was_logged_out_of_is_known_nowhere, many_posts_start_one_run);

/// A server that does not outlive the test.
struct Server {
    child: Child,
    url: String,
    client: Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    async fn start(fixture: &Fixture, token: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut command = fixture.command(&["serve", "--bind", &address]);
        command.env("TALLYROLL__SERVE__TOKEN", token).env("RUST_LOG", "warn").stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let client = Client::builder().redirect(redirect::Policy::none()).no_proxy().build().unwrap();
        let server = Self { child, url: format!("http://{address}"), client };
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.client.get(format!("{}/healthz", server.url)).send().await.is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    /// Status and text of a path, asked for with a header.
    async fn get(&self, path: &str, header: (&str, &str)) -> (u16, String) {
        let answer = self.client.get(format!("{}{path}", self.url)).header(header.0, header.1).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn post(&self, path: &str, header: (&str, &str), form: &str) -> reqwest::Response {
        let post = self.client.post(format!("{}{path}", self.url)).header("content-type", "application/x-www-form-urlencoded");
        post.header(header.0, header.1).body(form.to_owned()).send().await.unwrap()
    }

    /// The cookie of a new session.
    async fn log_in(&self) -> String {
        let answer = self.post("/login", ("accept", "*/*"), &format!("token={TOKEN}")).await;
        answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }
}

async fn a_session_that_was_logged_out_of_is_known_nowhere(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("schedules.toml", "");
    let (one, other) = (Server::start(&fixture, TOKEN).await, Server::start(&fixture, TOKEN).await);
    let (stolen, kept) = (one.log_in().await, other.log_in().await);
    for server in [&one, &other] {
        assert_eq!(server.get("/runs", ("cookie", &stolen)).await.0, 200);
    }
    let csrf = csrf_of(&one.get("/runs", ("cookie", &stolen)).await.1);
    let out = one.post("/logout", ("cookie", &stolen), &format!("csrf={csrf}")).await;
    assert_eq!(out.status(), 303);
    for server in [&one, &other] {
        assert_eq!(server.get("/runs", ("cookie", &stolen)).await.0, 303, "the stolen cookie is worth nothing");
        assert_eq!(server.get("/api/runs", ("cookie", &stolen)).await.0, 401);
        let csrf = format!("csrf={csrf}");
        assert_eq!(server.post("/jobs/usage_daily/run", ("cookie", &stolen), &csrf).await.status(), 401);
        assert_eq!(server.get("/runs", ("cookie", &kept)).await.0, 200, "another session goes on");
    }
    // What is kept of it is no cookie, and is forgotten once the session would have ended.
    let kept_rows = fixture.rows("SELECT session_digest, ends_at FROM session_revoked").await;
    assert!(kept_rows.len() == 1 && !stolen.contains(kept_rows[0].split('|').next().unwrap()), "{kept_rows:?}");
    fixture.execute("UPDATE session_revoked SET ends_at = '2026-01-01T00:00:00.000000Z'").await;
    let csrf = csrf_of(&one.get("/runs", ("cookie", &kept)).await.1);
    assert_eq!(other.post("/logout", ("cookie", &kept), &format!("csrf={csrf}")).await.status(), 303);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM session_revoked").await, 1);

    // Where the database cannot be asked, no session counts, and none is said to have ended.
    let last = one.log_in().await;
    let csrf = csrf_of(&one.get("/runs", ("cookie", &last)).await.1);
    fixture.execute("ALTER TABLE session_revoked RENAME TO session_revoked_elsewhere").await;
    assert_eq!(one.get("/api/openapi.json", ("cookie", &last)).await.0, 500);
    assert!(one.post("/logout", ("cookie", &last), &format!("csrf={csrf}")).await.status().is_server_error());
    assert_eq!(one.get("/api/openapi.json", ("authorization", &format!("Bearer {TOKEN}"))).await.0, 200);
}

async fn many_posts_start_one_run(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    fixture.run_well(&["run-job", "usage_daily"]);
    fixture.write("schedules.toml", "");
    for name in ["job_a", "job_b", "job_c", "job_d", "job_e"] {
        fixture.write(
            &format!("jobs/{name}.toml"),
            "description = \"Has one row\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"n\"]\nwindow = \"all\"\n",
        );
        fixture.write(&format!("sql/{name}.sql"), "-- One row.\nSELECT CAST(1 AS BIGINT) AS n\n");
    }
    let server = Server::start(&fixture, TOKEN).await;
    let bearer = format!("Bearer {TOKEN}");
    let run = |job: &'static str| {
        let (server, bearer) = (&server, &bearer);
        async move {
            let answer = server.post(&format!("/api/jobs/{job}/run"), ("authorization", bearer), "").await;
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    // No run gets past its lock before the test lets it.
    let mut held = fixture.store.begin().await.unwrap();
    held.execute(fixture.store.pick("LOCK TABLE job_lock IN SHARE MODE", "SELECT 1"), &[]).await.unwrap();
    let answers = join_all((0..150).map(|_| run("job_a"))).await;
    let started: Vec<&Value> = answers.iter().filter(|(status, _)| *status == 202).map(|(_, body)| &body["run_id"]).collect();
    assert_eq!(started.len(), 1, "one run starts");
    for (status, body) in &answers {
        assert_eq!(&body["run_id"], started[0], "{status} {body}");
        assert!([202, 409].contains(status) && (*status == 202 || body["error"]["message"].is_string()), "{status} {body}");
    }
    // A person is led to the run that is at work.
    let cookie = server.log_in().await;
    let csrf = csrf_of(&server.get("/jobs/job_a/run", ("cookie", &cookie)).await.1);
    let page = server.post("/jobs/job_a/run", ("cookie", &cookie), &format!("csrf={csrf}")).await;
    assert_eq!(page.status(), 409);
    let page = page.text().await.unwrap();
    assert!(page.contains(&format!("href=\"/runs/{}", started[0].as_str().unwrap())), "{page}");
    if engine == Engine::Postgres {
        let connections = fixture
            .number("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tallyroll'")
            .await;
        assert!(connections <= 3 * 7, "{connections} connections: those of the test, of the page, of one run");
    }
    // Few jobs at once.
    let others = join_all(["job_b", "job_c", "job_d", "job_e"].map(run)).await;
    assert_eq!(others.iter().filter(|(status, _)| *status == 202).count(), 3, "{others:?}");
    assert_eq!(others.iter().filter(|(status, _)| *status == 429).count(), 1, "{others:?}");

    drop(held);
    let deadline = Instant::now() + Duration::from_mins(2);
    while fixture.number("SELECT COUNT(*) FROM job_run WHERE job LIKE 'job%' AND state = 'success'").await < 4 {
        assert!(Instant::now() < deadline, "the runs did not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM job_run WHERE job = 'job_a'").await, 1);

    // One that is at work on another machine is in the way as well, and one that fell silent is not.
    let now = format_instant(Utc::now());
    fixture
        .execute(&format!(
            "INSERT INTO job_run (run_id, job, \"trigger\", attempt, state, request, as_of, started_at, heartbeat_at, windows_planned, windows_done, \
             rows_in, rows_out, quarantined_count, host, pid, version) VALUES ('elsewhere', 'job_a', 'manual', 1, 'running', '{{}}', '{now}', '{now}', \
             '{now}', 0, 0, 0, 0, 0, 'another', 1, '0')"
        ))
        .await;
    fixture.execute("UPDATE job_lock SET run_id = 'elsewhere' WHERE job = 'job_a'").await;
    let (status, body) = run("job_a").await;
    assert_eq!((status, body["run_id"].as_str()), (409, Some("elsewhere")));
    fixture.execute("UPDATE job_run SET heartbeat_at = '2026-01-01T00:00:00.000000Z' WHERE run_id = 'elsewhere'").await;
    assert_eq!(run("job_a").await.0, 202);
}

/// A token that is too short or plain starts no server and passes no check; it is never shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_weak_token_is_refused() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    for token in
        ["guess me", "0123456789abcdef", "sixteen-is-short", &"a".repeat(64), &"hunter2-".repeat(8), "abcdefghijklmnopqrstuvwxyz0123456789"]
    {
        for arguments in [&["serve", "--bind", "127.0.0.1:0"][..], &["check"]] {
            let mut command = fixture.command(arguments);
            command.env("TALLYROLL__SERVE__TOKEN", token);
            let mut child = command.spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status.code();
                }
                if Instant::now() > deadline {
                    child.kill().unwrap();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let told = Finished::of(&child.wait_with_output().unwrap());
            assert_eq!(ended, Some(78), "{token} {arguments:?}: {told:?}");
            assert!(told.stderr.contains("openssl rand -hex 32") && !told.stderr.contains(token), "{told:?}");
        }
    }
}

/// Wrong tokens are told of in the log and counted, at either door; what was tried is not told.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_logged_and_counted() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.write("schedules.toml", "");
    let mut server = Server::start(&fixture, TOKEN).await;
    let statuses = join_all((0..60).map(|number| {
        let server = &server;
        async move {
            let tried = format!("canary-{number}");
            if number % 2 == 0 {
                server.get("/api/jobs", ("authorization", &format!("Bearer {tried}"))).await.0
            } else {
                server.post("/login", ("accept", "*/*"), &format!("token={tried}")).await.status().as_u16()
            }
        }
    }))
    .await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 20, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 40, "{statuses:?}");
    // The one who has the right token is not in their queue.
    let asked = Instant::now();
    let (status, metrics) = server.get("/metrics", ("authorization", &format!("Bearer {TOKEN}"))).await;
    assert!(status == 200 && asked.elapsed() < Duration::from_secs(2), "{status} in {:?}", asked.elapsed());
    assert!(metrics.contains("\ntallyroll_wrong_tokens_total 60\n"), "{metrics}");
    assert!(!server.log_in().await.is_empty());
    server.child.kill().unwrap();
    let mut log = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("wrong token") && log.contains("127.0.0.1") && log.matches("wrong token").count() <= 20, "{log}");
    assert!(!log.contains("canary") && !log.contains(TOKEN), "{log}");
}

/// Without a token pages are for this machine alone: a proxy that rewrites `Host` gives itself away by what it adds.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_needs_a_token() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.write("schedules.toml", "");
    let open = Server::start(&fixture, "").await;
    assert_eq!(open.get("/api/jobs", ("accept", "*/*")).await.0, 200);
    for header in ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "x-forwarded-proto", "Via", "X-Real-IP"] {
        for path in ["/", "/runs", "/api/jobs", "/metrics"] {
            let (status, text) = open.get(path, (header, "1.1 proxy")).await;
            assert_eq!(status, 403, "{header} {path}");
            assert!(text.contains("no token is set") && text.contains("TALLYROLL__SERVE__TOKEN_FILE"), "{text}");
        }
        assert_eq!(open.get("/healthz", (header, "1.1 proxy")).await.0, 200, "{header}");
    }
    let behind = Server::start(&fixture, TOKEN).await;
    let answer = behind.client.get(format!("{}/api/jobs", behind.url)).bearer_auth(TOKEN).header("X-Forwarded-For", "10.0.0.1");
    assert_eq!(answer.send().await.unwrap().status(), 200);
}
