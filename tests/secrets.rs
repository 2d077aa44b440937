//! A canary stands in for each secret, in each form that a person gives it in. Whatever is run, with the loudest log: nothing that is
//! printed, stored, sent or served holds it.

use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Request};
use axum::http::{StatusCode, Uri};
use axum::routing::post;
use tallyroll::engine::env::Context;
use tallyroll::scheduler::Scheduler;
use tallyroll::scheduler::runner::runner;
use tokio::sync::watch;

use crate::on_both_databases;
use crate::support::schedules::{Hands, schedules};
use crate::support::seats::tree;
use crate::support::site::Site;
use crate::support::{Engine, Finished, Fixture, config_of, context_of, postgres_url};

on_both_databases!(secrets_are_in_no_table_file_page_or_message);

pub const CANARY: &str = "CaNaRy7Zq";

/// As a token, long enough to be one.
const TOKEN: &str = "CaNaRy7Zq-7f3a9c1e5b2d8046f1c7a9e3b05d6284";

/// Every command that reads the settings, and most that open the database.
const COMMANDS: [&[&str]; 11] = [
    &["check", "--show"],
    &["check", "--show", "--json"],
    &["status"],
    &["run-job", "usage_daily"],
    &["run-due"],
    &["verify"],
    &["reconcile"],
    &["export", "--to", "exported"],
    &["migrate"],
    &["list-jobs"],
    &["serve", "--bind", "127.0.0.1:0"],
];

/// Fails where the canary, or it in capitals or small letters, is in a text.
fn clean(what: &str, text: &str) {
    let (lower, canary) = (text.to_lowercase(), CANARY.to_lowercase());
    if let Some(at) = lower.find(&canary) {
        let around: String = String::from_utf8_lossy(&lower.as_bytes()[at.saturating_sub(200)..(at + 60).min(lower.len())]).into_owned();
        panic!("{what} holds the secret: …{around}…");
    }
}

/// Runs a command with a loud log; the canary is the password of the environment too.
pub async fn run_loudly(fixture: &Fixture, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = fixture.command(arguments);
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1").env("PGPASSWORD", CANARY).envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let finished = Finished::of(&output);
    clean(&format!("stdout of {arguments:?} with {environment:?}"), &finished.stdout);
    clean(&format!("stderr of {arguments:?} with {environment:?}"), &finished.stderr);
    finished
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_password_is_printed_in_no_form() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    let server = postgres_url();
    let there = ["postgres://postgres@localhost/postgres?", "postgres:///?"].iter().fold(server.clone(), |url, form| url.replace(form, ""));
    let connecting = [
        "postgres://app:CANARY@127.0.0.1:1/db".to_owned(),
        "postgres://app@127.0.0.1:1/db?password=CANARY".to_owned(),
        "postgres://127.0.0.1:1/db?user=app&password=CANARY&sslpassword=CANARY&sslmode=prefer".to_owned(),
        "postgresql://app:x%40CANARY%2F@127.0.0.1:1/db".to_owned(),
        "postgres://app:x@CANARY@127.0.0.1:1/db".to_owned(),
        "postgres://app%3ACANARY@127.0.0.1:1/db".to_owned(),
        "postgres://app@127.0.0.1:1/db&password=CANARY".to_owned(),
        "postgres://app@127.0.0.1:1/db?sslkey=-----BEGIN%20CANARY&sslcert=CANARY".to_owned(),
        "postgres:///db?host=/nowhere&user=app&password=CANARY".to_owned(),
        // The server is there and refuses; it names what it refuses.
        format!("postgres://nobody_here@localhost/postgres?{there}&password=CANARY"),
        format!("postgres://postgres@localhost/none;password=CANARY?{there}"),
        format!("postgres://postgres;password=CANARY@localhost/postgres?{there}"),
    ];
    for (index, url) in connecting.iter().enumerate() {
        let url = url.replace("CANARY", CANARY);
        // All commands in the plain form, in the one that the audit found, and where a server refuses.
        let commands = if [0, 1, 9, 10].contains(&index) { &COMMANDS[..] } else { &COMMANDS[..4] };
        let environment = [("DATABASE_URL", url.as_str())];
        let runs = commands.iter().map(|arguments| run_loudly(&fixture, arguments, &environment));
        let runs = commands.iter().zip(futures_util::future::join_all(runs).await);
        for (arguments, finished) in runs.filter(|(arguments, _)| arguments[0] != "export" && arguments[0] != "list-jobs") {
            assert!(matches!(finished.code, Some(75 | 78)), "{arguments:?} {finished:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_parse_is_not_printed() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    fixture.write("secret", &format!("-----BEGIN SOMETHING ELSE-----\n{CANARY}\n"));
    std::fs::write(fixture.path().join("binary"), [b"postgres://a:", CANARY.as_bytes(), &[0xff, 0xfe][..]].concat()).unwrap();
    let urls = [
        "host=127.0.0.1 user=app password=CANARY",
        "app:CANARY@127.0.0.1/db",
        "CANARY",
        "postgres:app:CANARY@127.0.0.1/db",
        "postgres://app:x/CANARY@127.0.0.1/db",
        "postgres://app:12/CANARY@127.0.0.1/db",
        "postgres://app:12?CANARY@127.0.0.1/db",
        "postgres://app:12#CANARY@127.0.0.1/db",
        "postgres://app:CANARY@one:1,two:2/db",
        "postgres://app@127.0.0.1:1/db?sslmode=CANARY",
        "postgres://app@127.0.0.1:1/db?port=CANARY",
        "postgres://app@127.0.0.1:1/db password=CANARY",
        "mysql://app:CANARY@127.0.0.1/db",
        "sqlite://app:CANARY@127.0.0.1/db",
        "sqlite://db?key=CANARY",
    ];
    let status: &[&str] = &["status"];
    for url in urls.map(|url| url.replace("CANARY", CANARY)) {
        for arguments in [status, &["check", "--show"], &["--database-url", &url, "run-job", "usage_daily"]] {
            let finished = run_loudly(&fixture, arguments, &[("DATABASE_URL", &url)]).await;
            assert_eq!(finished.code, Some(78), "{url} {finished:?}");
        }
        fixture.write("url", &url);
        run_loudly(&fixture, status, &[("DATABASE_URL_FILE", "url")]).await;
        fixture.write("tallyroll.toml", &format!("[database]\nurl = '{url}'\n"));
        let mut command = fixture.command(status);
        let finished = Finished::of(&command.env_remove("DATABASE_URL").env("RUST_LOG", "trace").output().unwrap());
        clean(&url, &format!("{finished:?}"));
        std::fs::remove_file(fixture.path().join("tallyroll.toml")).unwrap();
    }
    for environment in [
        ("DATABASE_URL_FILE", "secret"),
        ("DATABASE_URL_FILE", "binary"),
        ("DATABASE_URL_FILE", CANARY),
        ("TALLYROLL__SERVE__TOKEN_FILE", CANARY),
        ("TALLYROLL__DATABASE", CANARY),
        ("TALLYROLL__OUTPUT__URL", "s3://AKIA:CaNaRy7Zq@bucket/prefix"),
        ("TALLYROLL__OUTPUT__URL", "s3://AKIA/CaNaRy7Zq@bucket"),
        ("TALLYROLL__OUTPUT__URL", "https://AKIA:CaNaRy7Zq@bucket.example"),
        ("TALLYROLL__OUTPUT__URL", "AKIA:CaNaRy7Zq@bucket/prefix"),
        ("TALLYROLL__USAGE__PRICE_BOOK", "secret"),
    ] {
        for arguments in [&["check", "--show"][..], &["run-job", "peak_seats"], &["serve"]] {
            let finished = run_loudly(&fixture, arguments, &[environment]).await;
            assert_eq!(finished.code, Some(78), "{environment:?} {arguments:?} {finished:?}");
        }
    }
    for file in [
        "[serve]\ntoken = \"CANARY\n",
        "[serve]\ntoken = CANARY\n",
        "[serve]\ntoken = [\"CANARY\"]\n",
        "[database]\nurl = { password = \"CANARY\" }\n",
        "[notify]\nwebhook_url = [\"https://hooks.example/CANARY\"]\n",
        "database = \"postgres://app:CANARY@127.0.0.1/db\"\n",
        "[output]\nurl = \"s3://AKIA:CANARY@bucket\"\n",
    ] {
        fixture.write("tallyroll.toml", &file.replace("CANARY", CANARY));
        let finished = run_loudly(&fixture, &["check", "--show"], &[]).await;
        assert_eq!(finished.code, Some(78), "{file} {finished:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_licence_is_not_printed() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    for arguments in
        [&["genpkey", "-algorithm", "ed25519", "-out", "key.pem"][..], &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]]
    {
        assert!(std::process::Command::new("openssl").args(arguments).current_dir(fixture.path()).status().unwrap().success());
    }
    let sig = "A".repeat(77);
    for licence in [
        CANARY.to_owned(),
        format!("vendor_ee_{CANARY}"),
        format!("{{\"id\":\"a\",\"expiryDate\":\"2027-01-01\",\"seats\":\"{CANARY}\",\"sig\":\"x\"}}"),
        format!("{{\"id\":\"a\",\"expiryDate\":[\"{CANARY}\"],\"sig\":\"x\"}}"),
        format!("{{\"id\":\"a\",\"expiryDate\":\"2027-01-01\",\"sig\":\"{CANARY}{sig}\"}}"),
        format!("{{\"id\":\"a\",\"expiryDate\":\"2027-01-01\",\"sig\":\"!{CANARY}\"}}"),
    ] {
        fixture.write("licence", &licence);
        for file in ["licence", CANARY] {
            run_loudly(&fixture, &["license", "verify", "licence", "--public-key", "public.pem"], &[]).await;
            let mut command = fixture.command(&["license", "verify", file, "--public-key", "public.pem"]);
            let finished = Finished::of(&command.output().unwrap());
            assert!(matches!(finished.code, Some(65 | 2)), "{finished:?}");
            clean("`license verify`", &finished.stderr);
            let mut command = fixture.command(&["import", "subscriptions", "--license", file, "--public-key", "public.pem", "--org", "1"]);
            clean("`import subscriptions`", &format!("{:?}", Finished::of(&command.output().unwrap())));
        }
    }
}

/// A receiver for webhooks that answers as the last part of the path says, and a bucket that refuses everything.
async fn receiver() -> (String, Arc<Mutex<Vec<String>>>) {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&told);
    let hook = post(move |Path((_, answer)): Path<(String, u16)>, body: String| {
        kept.lock().unwrap().push(body);
        async move { StatusCode::from_u16(answer).unwrap() }
    });
    // It says what it was asked, as some do to explain a signature that does not fit.
    let refuse = |uri: Uri, request: Request| async move {
        let asked = format!("{uri} {:?}", request.headers());
        (StatusCode::FORBIDDEN, format!("<Error><Code>SignatureDoesNotMatch</Code><Message>{asked}</Message></Error>"))
    };
    let app = Router::new().route("/hook/{secret}/{answer}", hook).fallback(refuse);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    (format!("http://{address}"), told)
}

async fn secrets_are_in_no_table_file_page_or_message(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    fixture.three_subscriptions().await;
    let (url, told) = receiver().await;
    // A value of the database that panicked in its reader.
    let infinity = if engine == Engine::Postgres { "SELECT DATE 'infinity' AS usage_date" } else { "SELECT 'infinity' AS usage_date" };
    fixture.write(
        "jobs/broken.toml",
        &format!("description = \"b\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"n\"]\nwindow = \"all\"\n[checks]\nnone = \"{infinity}\"\n"),
    );
    fixture.write("sql/broken.sql", "-- One row.\nSELECT CAST(1 AS BIGINT) AS n\n");
    fixture.write("schedules.toml", "[peak_seats]\ncron = \"* * * * *\"\n[broken]\ncron = \"* * * * *\"\n");
    let settings = |answer: u16| {
        format!(
            "[serve]\ntoken = \"{TOKEN}\"\n[notify]\nwebhook_url = \"{url}/hook/{CANARY}/{answer}\"\n[output]\nurl = \"s3://bucket/prefix\"\n\
             [metrics]\ntextfile = \"tallyroll.prom\"\n"
        )
    };
    let bucket = |endpoint: &'static str| {
        [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", CANARY),
            ("AWS_SESSION_TOKEN", CANARY),
            ("AWS_REGION", "us-east-1"),
        ]
    };
    let refusing: &'static str = url.clone().leak();
    fixture.write("tallyroll.toml", &settings(404));
    run_loudly(&fixture, &["run-job", "usage_daily", "--downstream"], &bucket(refusing)).await;
    let failed = run_loudly(&fixture, &["run-due"], &bucket(refusing)).await;
    assert_ne!(failed.code, Some(0), "{failed:?}");
    assert!(!told.lock().unwrap().is_empty(), "{failed:?}");
    for endpoint in [refusing, "http://127.0.0.1:1"] {
        let more: [&[&str]; 2] = [&["run-job", "peak_seats"], &["run-job", "broken", "--force"]];
        let commands = COMMANDS.into_iter().filter(|arguments| arguments[0] != "serve").chain(more);
        let runs = commands.map(|arguments| async { run_loudly(&fixture, arguments, &bucket(endpoint)).await });
        futures_util::future::join_all(runs.collect::<Vec<_>>()).await;
    }
    let refused = run_loudly(&fixture, &["run-job", "peak_seats"], &bucket("http://AKIA:CaNaRy7Zq@127.0.0.1:1")).await;
    assert!(refused.code == Some(78) && refused.stderr.contains("AWS_ENDPOINT_URL"), "{refused:?}");
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "CaNaRy7Zq:9000"),
        ("AWS_ENDPOINT_URL", "http://[CaNaRy7Zq"),
        ("AWS_ENDPOINT_URL", ""),
        ("AWS_SECRET_ACCESS_KEY", "CaNaRy7Zq\n"),
        ("AWS_REGION", "us CaNaRy7Zq"),
    ] {
        let settings: Vec<_> =
            bucket(refusing).into_iter().map(|setting| if setting.0 == name { (name, value) } else { setting }).collect();
        for arguments in [&["check"][..], &["verify"]] {
            let refused = run_loudly(&fixture, arguments, &settings).await;
            assert!(refused.code == Some(78) && refused.stderr.contains(name), "{value:?} {refused:?}");
        }
    }
    fail_to_connect(&fixture, &settings(200)).await;
    look_at_everything(&fixture, &told).await;
    serve_loudly(&fixture, &bucket(refusing)).await;
}

/// A scheduled run whose own connections cannot be opened, as when the server is full: its error is stored and sent.
async fn fail_to_connect(fixture: &Fixture, settings: &str) {
    fixture.write("tallyroll.toml", settings);
    let hands = Hands::at("2026-03-11T10:00:01Z");
    let (_keep, stop) = watch::channel(None);
    let base = context_of(fixture, hands.clock(), stop.clone());
    let context = Arc::new(Context {
        config: config_of(&base.project, &format!("postgres://runner@127.0.0.1:1/app?password={CANARY}")),
        project: base.project.clone(),
        store: base.store.clone(),
        storage: base.storage.clone(),
        jobs: base.jobs.clone(),
        clock: hands.clock(),
        stop,
        observe: Box::new(|_| {}),
    });
    let scheduler = Arc::new(Scheduler::new(Arc::clone(&context), schedules("cron = \"* * * * *\""), runner(&context)));
    scheduler.tick().await.unwrap();
    scheduler.finish().await;
    let errors = fixture.rows("SELECT error_text FROM schedule_state WHERE job = 'usage_daily' AND state = 'failed'").await;
    assert!(errors[0].contains("cannot be reached") && errors[0].contains("runner@127.0.0.1:1/app"), "{errors:?}");
}

async fn look_at_everything(fixture: &Fixture, told: &Arc<Mutex<Vec<String>>>) {
    let told = told.lock().unwrap().join("\n");
    assert!(told.contains("cannot be reached") && told.contains("peak_seats"), "{told}");
    assert!(told.contains("It answered 403, SignatureDoesNotMatch"), "{told}");
    clean("the webhook", &told);
    let tables = fixture.store.pick(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables \
         WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
        "SELECT name FROM sqlite_master WHERE type = 'table'",
    );
    let tables = fixture.rows(tables).await;
    assert!(tables.len() > 20, "{tables:?}");
    for table in tables {
        let columns = fixture.store.table_columns(&table).await.unwrap_or_default();
        let quoted: Vec<String> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
        let row = fixture.store.pick("CAST(line.* AS TEXT)".to_owned(), quoted.join(", "));
        clean(&table, &fixture.rows(&format!("SELECT {row} FROM {table} AS line")).await.join("\n"));
    }
    for (path, bytes) in tree(fixture.path()) {
        if path != "tallyroll.toml" {
            clean(&path, &String::from_utf8_lossy(&bytes));
        }
    }
    let site = Site::new(fixture, TOKEN, "2026-03-11T10:01:00Z").await;
    let mut paths =
        ["/", "/runs", "/usage", "/seats", "/seats/a", "/metrics", "/login", "/api/jobs", "/api/runs", "/api/seats", "/nothing"]
            .map(str::to_owned)
            .to_vec();
    paths.extend(fixture.rows("SELECT run_id FROM job_run").await.into_iter().map(|run_id| format!("/runs/{run_id}")));
    for path in paths {
        let answer = site.get(&path).await;
        clean(&path, &format!("{:?}{}", answer.headers, answer.text()));
    }
}

/// `serve` as a process, asked with a right and a wrong token, until it is told to stop.
async fn serve_loudly(fixture: &Fixture, environment: &[(&str, &str)]) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = fixture.command(&["serve", "--bind", &free.to_string()]);
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1").envs(environment.iter().copied());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("Listening"), "{first}");
    let pid = rustix::process::Pid::from_child(&child);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for token in [TOKEN, "CaNaRy7Zq-wrong"] {
        for path in ["/", "/metrics", "/api/jobs", "/runs?job=x"] {
            let answer = client.get(format!("http://{free}{path}")).bearer_auth(token).send().await.unwrap();
            clean(path, &answer.text().await.unwrap());
        }
        let form = format!("token={token}&next=%2F");
        let answer = client.post(format!("http://{free}/login")).header("content-type", "application/x-www-form-urlencoded").body(form);
        clean("/login", &answer.send().await.unwrap().text().await.unwrap());
    }
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = ended.await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("DEBUG"), "{stderr}");
    clean("the log of `serve`", &stderr);
}
