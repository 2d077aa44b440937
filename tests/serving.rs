//! `run-due` and `serve` as processes: metrics, signals, kills, several at once.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use tallyroll::serve::{App, Auth, connections, router};
use tokio::sync::watch;

use crate::on_both_databases;
use crate::render::METRICS;
use crate::support::schedules::Hands;
use crate::support::{Engine, Finished, Fixture, context_of, repetitions};

on_both_databases!(
    a_killed_run_is_taken_over,
    a_run_past_its_timeout_is_cut_off_and_keeps_nobody,
    run_due_runs_what_is_due_and_writes_metrics,
    serve_runs_schedules_and_stops_gracefully,
);

/// A job that takes long, in a project whose schedule fires every minute.
fn slow_project(fixture: &Fixture, engine: Engine) {
    fixture.write(
        "jobs/slow.toml",
        "description = \"Takes its time\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"n\"]\nwindow = \"all\"\n",
    );
    let sql = if engine == Engine::Postgres {
        "-- Takes a minute.\nSELECT CAST(1 AS BIGINT) AS n, CAST(:as_of AS TEXT) AS at FROM (SELECT pg_sleep(60)) AS slept\n"
    } else {
        "-- Takes long.\nWITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 400000000)\nSELECT MAX(n) AS n, :as_of AS at FROM counted\n"
    };
    fixture.write("sql/slow.sql", sql);
    fixture.write("schedules.toml", "[slow]\ncron = \"* * * * *\"\ntimeout = \"5m\"\ncatch_up = \"all\"\n");
    fixture.write("tallyroll.toml", "[engine]\nlock_lease_seconds = 2\n");
}

/// Waits until `count` rows are found, for a while.
async fn until(fixture: &Fixture, what: &str, sql: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while fixture.rows(sql).await.is_empty() {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_killed_run_is_taken_over(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    fixture.run_well(&["run-job", "usage_daily"]);
    slow_project(&fixture, engine);
    let mut victim = fixture.command(&["run-due"]).spawn().unwrap();
    until(&fixture, "the run", "SELECT 1 FROM job_run WHERE job = 'slow' AND state = 'running'").await;
    victim.kill().unwrap();
    victim.wait().unwrap();
    // From now on it is quick.
    fixture.write("sql/slow.sql", "-- Quick.\nSELECT CAST(1 AS BIGINT) AS n, CAST(:as_of AS TEXT) AS at\n");
    fixture.run_well(&["run-due"]);
    let slots = fixture
        .rows("SELECT scheduled_for, state, attempt FROM schedule_state WHERE job = 'slow' AND state <> 'first_seen' ORDER BY 1")
        .await;
    assert!(slots[0].ends_with("|success|2"), "{slots:?}");
    assert_eq!(fixture.rows("SELECT COUNT(*) FROM slow").await, ["1"]);
    let runs = fixture.rows("SELECT state, attempt, \"trigger\" FROM job_run WHERE job = 'slow' ORDER BY started_at").await;
    assert_eq!(runs[..2], ["interrupted|1|schedule", "success|2|schedule"], "{runs:?}");
}

async fn a_run_past_its_timeout_is_cut_off_and_keeps_nobody(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    fixture.run_well(&["run-job", "usage_daily"]);
    slow_project(&fixture, engine);
    fixture.write("schedules.toml", "[slow]\ncron = \"* * * * *\"\ntimeout = \"1s\"\n");
    fixture.write("tallyroll.toml", "[metrics]\ntextfile = \"tallyroll.prom\"\n");
    let ended = fixture.run(&["run-due"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let history = "SELECT state, error_class, error_text FROM job_run WHERE job = 'slow'";
    assert_eq!(fixture.rows(history).await, ["failed|timeout|It ran longer than its timeout of 1s"]);
    assert!(fixture.rows("SELECT state FROM schedule_state WHERE job = 'slow'").await.contains(&"failed".to_owned()));
    let text = std::fs::read_to_string(fixture.path().join("tallyroll.prom")).unwrap();
    assert!(text.contains("tallyroll_job_last_run_success{job=\"slow\"} 0.0"), "{text}");
    // Its statement has ended, or ends in seconds: a run by hand waits for nothing else.
    fixture.write("sql/slow.sql", "-- Quick.\nSELECT CAST(1 AS BIGINT) AS n, CAST(:as_of AS TEXT) AS at\n");
    let started = Instant::now();
    fixture.run_well(&["run-job", "slow"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

async fn run_due_runs_what_is_due_and_writes_metrics(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    // A path that was meant for something else costs nothing.
    fixture.write("tallyroll.toml", "[metrics]\ntextfile = \"tallyroll.toml\"\n");
    fixture.run_well(&["run-job", "usage_daily_total"]);
    assert!(std::fs::read_to_string(fixture.path().join("tallyroll.toml")).unwrap().starts_with("[metrics]"));
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"* * * * *\"\ndownstream = true\n");
    fixture.write("tallyroll.toml", "[metrics]\ntextfile = \"tallyroll.prom\"\n");
    let told = fixture.run_well(&["run-due"]);
    assert!(told.starts_with("usage_daily 20") && told.contains(": ran"), "{told}");
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily_total").await, 1);
    let text = std::fs::read_to_string(fixture.path().join("tallyroll.prom")).unwrap();
    for line in [
        "tallyroll_job_last_run_rows_in{job=\"usage_daily\"} 1.0",
        "tallyroll_job_last_run_success{job=\"usage_daily\"} 1.0",
        "tallyroll_job_runs{job=\"usage_daily\",state=\"success\"} 1.0",
        "tallyroll_job_windows_due{job=\"usage_daily\"} 0.0",
        "tallyroll_job_running{job=\"usage_daily\"} 0.0",
        "tallyroll_job_next_run_timestamp_seconds{job=\"usage_daily\"} ",
        "tallyroll_source_watermark_age_seconds{source=\"ai_usage_log\"} ",
        "tallyroll_quarantined_events 0.0",
        "tallyroll_build_info{version=\"",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // The run's log lines are kept with its record.
    let log = fixture.rows("SELECT log FROM job_run WHERE job = 'usage_daily'").await;
    assert!(log[0].contains("Window written window=2026-03-10") && log[0].contains("Run ended"), "{log:?}");
    let again = fixture.run_well(&["run-due", "--json"]);
    // Within the same minute nothing is due; past it the slot runs and finds nothing.
    assert!(again.is_empty() || again.contains("\"fate\":\"ran\""), "{again}");
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"61 * * * *\"\n");
    assert_eq!(fixture.run(&["run-due"]).code, Some(78));
}

/// The text that a path of a server on this machine answers, with its status.
async fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let answer = reqwest::get(format!("http://{address}{path}")).await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

async fn serve_runs_schedules_and_stops_gracefully(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"* * * * *\"\n");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let refused = fixture.run(&["serve", "--bind", "0.0.0.0:0"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    let server = fixture.command(&["serve", "--bind", &address]).spawn().unwrap();
    until(&fixture, "the slot", "SELECT 1 FROM schedule_state WHERE state = 'success'").await;
    assert_eq!(get(&address, "/healthz").await, Some((200, "ok\n".to_owned())));
    assert_eq!(get(&address, "/readyz").await, Some((200, "ok\n".to_owned())));
    let (status, metrics) = get(&address, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    // Those that alerts and dashboard ask for, with these labels, and no others.
    let found: BTreeSet<&str> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    // The name of a counter's lines has a word more than its type.
    assert_eq!(found, METRICS.iter().map(|(name, _)| name.trim_end_matches("_total")).collect());
    for (name, labels) in METRICS {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(labels.iter().all(|label| line.contains(&format!("{label}=\""))) && line.contains('{') != labels.is_empty(), "{line}");
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 1);

    let pid = rustix::process::Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = Finished::of(&server.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fixture.rows("SELECT 1 FROM job_run WHERE state = 'running'").await.len(), 0);
}

/// A scheduler that has been silent for two minutes is not well.
#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_stopped_is_red() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    let hands = Hands::at("2026-03-10T10:00:00Z");
    let (_keep, stop) = watch::channel(None);
    let context = context_of(&fixture, hands.clock(), stop);
    let app = App {
        heartbeat_micros: Arc::new(AtomicI64::new(context.clock.now().timestamp_micros())),
        context,
        schedules: BTreeMap::new(),
        auth: Auth::new("a token for this test", true),
        starter: Arc::new(|_, _| anyhow::bail!("nothing is started")),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (_end, answers_may_end) = watch::channel(false);
    tokio::spawn(connections::answer(listener, router(Arc::new(app)), 10, answers_may_end));
    for (at, status) in [("10:00:00", 200), ("10:02:00", 200), ("10:02:01", 503), ("10:09:00", 503)] {
        hands.set(&format!("2026-03-10T{at}Z"));
        assert_eq!(get(&address, "/healthz").await.unwrap().0, status, "{at}");
    }
}

/// Two `serve`, one of them on what looks like another machine and killed at work, and three `run-due` once in a while.
#[tokio::test(flavor = "multi_thread")]
async fn many_schedulers_run_each_slot_once_also_when_one_is_killed() {
    let whole_minutes = repetitions(0, 5);
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.write(
        "jobs/slow.toml",
        "description = \"Takes a little\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"usage_date\"]\nwindow = \"day\"\n",
    );
    fixture.write(
        "sql/slow.sql",
        "-- Counts a day, slowly.\nSELECT :window_start AS usage_date, CAST(SUM(request_count) AS BIGINT) AS request_count\n\
         FROM usage_daily, (SELECT pg_sleep(2)) AS slept\nWHERE usage_date >= :window_start AND usage_date < :window_end\n",
    );
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"* * * * *\"\ndownstream = true\ncatch_up = \"all\"\noverlap = \"queue\"\nretries = { max = 5, backoff = \"1s\" }\n");
    fixture.write("tallyroll.toml", "[engine]\nlock_lease_seconds = 4\n");
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;

    let start = Instant::now();
    let elsewhere = format!("hostname elsewhere; exec {} serve --bind 127.0.0.1:0", env!("CARGO_BIN_EXE_tallyroll"));
    let serve_elsewhere = || {
        let mut command = std::process::Command::new("unshare");
        command
            .args(["--uts", "sh", "-c", &elsewhere])
            .current_dir(fixture.path())
            .env("DATABASE_URL", &fixture.url)
            .env("RUST_LOG", "error");
        Killed(command.stdout(std::process::Stdio::null()).spawn().unwrap())
    };
    let mut victim = serve_elsewhere();
    until(&fixture, "the victim at work", "SELECT 1 FROM job_run WHERE job = 'slow' AND state = 'running' AND host = 'elsewhere'").await;
    victim.0.kill().unwrap();
    victim.0.wait().unwrap();
    let _another = serve_elsewhere();
    let mut server = Killed(fixture.command(&["serve", "--bind", "127.0.0.1:0"]).spawn().unwrap());
    let mut logged = 1;
    loop {
        let passers: Vec<Child> = (0..3).map(|_| fixture.command(&["run-due"]).spawn().unwrap()).collect();
        for passer in passers {
            let ended = Finished::of(&passer.wait_with_output().unwrap());
            assert_eq!(ended.code, Some(0), "{ended:?}");
        }
        // The log goes on meanwhile, of yesterday and of today.
        fixture.log(&format!("2026-03-1{}T10:00:00.000000Z", logged % 2), &[]).await;
        logged += 1;
        let is_over = start.elapsed() >= Duration::from_mins(u64::try_from(whole_minutes).unwrap());
        let taken_over = fixture.rows("SELECT 1 FROM schedule_state WHERE state = 'success' AND attempt > 1").await;
        if is_over && !taken_over.is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_mins(u64::try_from(whole_minutes).unwrap() + 2), "the killed slot was not taken over");
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.0.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    server.0.wait().unwrap();
    fixture.run_well(&["run-due"]);
    fixture.run_well(&["run-job", "usage_daily", "--downstream"]);

    let slots = fixture
        .rows("SELECT scheduled_for, state, attempt FROM schedule_state WHERE job = 'usage_daily' AND state <> 'first_seen' ORDER BY 1")
        .await;
    println!("{} slots: {slots:?}", slots.len());
    assert!(slots.len() > whole_minutes, "{slots:?}");
    assert!(slots.iter().all(|slot| slot.contains("|success|")), "{slots:?}");
    assert_eq!(slots.iter().filter(|slot| !slot.ends_with("|1")).count(), 1, "{slots:?}");
    // Minute after minute, none left out.
    let minutes: Vec<i64> = slots
        .iter()
        .map(|slot| slot.split('|').next().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp() / 60)
        .collect();
    assert!(minutes.windows(2).all(|pair| pair[1] == pair[0] + 1), "{slots:?}");
    // No try of a slot was made twice; a second try is of the slot that was taken over.
    let twice = "SELECT scheduled_for, attempt FROM job_run WHERE job = 'usage_daily' AND \"trigger\" = 'schedule' GROUP BY 1, 2 HAVING COUNT(*) > 1";
    assert_eq!(fixture.rows(twice).await, Vec::<String>::new());
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily").await, logged);
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM slow").await, logged);
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
