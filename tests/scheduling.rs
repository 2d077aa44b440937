//! Schedules: which slots run, once each, whatever fails, hangs, dies or sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use tallyroll::clock::Clock;
use tallyroll::failure::Failure;
use tallyroll::job::Jobs;
use tallyroll::project::Project;
use tallyroll::schedule::{self, Schedule};
use tallyroll::scheduler::claim::Known;
use tallyroll::scheduler::slot::{Fate, decide};
use tallyroll::scheduler::{Call, Runner, Scheduler};
use tokio::sync::watch;

use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture, context_of, repetitions};

on_both_databases!(
    after_downtime_catch_up_decides,
    a_clock_that_goes_back_runs_nothing_again,
    while_a_run_is_at_work_slots_are_skipped_or_queue,
    several_schedulers_run_each_slot_once,
    a_run_that_panics_hangs_or_fails_stops_nobody,
    the_webhook_is_told_once_of_each_change,
    a_killed_run_is_taken_over,
    a_stopped_run_is_taken_over_at_once,
    history_is_forgotten_but_for_what_was_billed,
    run_due_runs_what_is_due_and_writes_metrics,
    serve_runs_schedules_and_stops_gracefully,
);

/// A schedule of `usage_daily`; the settings that it does not name are none.
fn schedules(settings: &str) -> BTreeMap<String, Schedule> {
    let dir = tempfile::tempdir().unwrap();
    let project = Project::new(dir.path());
    std::fs::write(dir.path().join("schedules.toml"), format!("[usage_daily]\n{settings}\n")).unwrap();
    let (schedules, problems) = schedule::read(&project, &Jobs::load(&project).unwrap()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    schedules
}

/// A clock that a test sets.
#[derive(Clone)]
struct Hands(Arc<AtomicI64>);

impl Hands {
    fn at(text: &str) -> Self {
        Self(Arc::new(AtomicI64::new(instant(text).timestamp_micros())))
    }

    fn set(&self, text: &str) {
        self.0.store(instant(text).timestamp_micros(), Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let micros = Arc::clone(&self.0);
        Clock::new(move || DateTime::from_timestamp_micros(micros.load(Ordering::SeqCst)).unwrap())
    }
}

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Calls that a runner got, in order.
type Calls = Arc<Mutex<Vec<(DateTime<Utc>, i64)>>>;

/// A runner that notes each call and does what `act` says.
fn noting<F, R>(calls: &Calls, act: F) -> Runner
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let calls = Arc::clone(calls);
    let act = Arc::new(act);
    Arc::new(move |call: Call| {
        calls.lock().unwrap().push((call.origin.scheduled_for.unwrap(), call.origin.attempt));
        let act = Arc::clone(&act);
        Box::pin(async move { act(call).await.map(|()| Vec::new()) })
    })
}

/// A scheduler over the fixture's database, with a clock of its own, and what keeps its process from being asked to stop.
fn scheduler(fixture: &Fixture, hands: &Hands, settings: &str, runner: Runner) -> (Arc<Scheduler>, watch::Sender<Option<i32>>) {
    let (keep, stop) = watch::channel(None);
    (Arc::new(Scheduler::new(context_of(fixture, hands.clock(), stop), schedules(settings), runner)), keep)
}

fn minutes(calls: &Calls) -> Vec<String> {
    calls.lock().unwrap().iter().map(|(slot, _)| slot.format("%dT%H:%M").to_string()).collect()
}

const STATES: &str = "SELECT scheduled_for, state FROM schedule_state WHERE state <> 'first_seen' ORDER BY scheduled_for";

async fn after_downtime_catch_up_decides(engine: Engine) {
    for (catch_up, expected) in [
        ("latest", vec!["10T10:00", "13T10:00"]),
        ("all", vec!["10T10:00", "11T10:00", "12T10:00", "13T10:00"]),
        ("none", vec!["10T10:00"]),
    ] {
        let fixture = Fixture::new(engine).await;
        let hands = Hands::at("2026-03-10T10:00:20Z");
        let calls = Calls::default();
        let settings = format!("cron = \"0 10 * * *\"\ncatch_up = \"{catch_up}\"");
        let (scheduler, _keep) = scheduler(&fixture, &hands, &settings, noting(&calls, |_| async { Ok(()) }));
        scheduler.tick().await.unwrap();
        scheduler.finish().await;
        // Three days nothing runs.
        hands.set("2026-03-13T15:30:00Z");
        let ticked = scheduler.tick().await.unwrap();
        scheduler.finish().await;
        assert_eq!(minutes(&calls), expected, "{catch_up}");
        let missed = 4 - expected.len();
        assert_eq!(ticked.passed_over.len(), missed, "{catch_up} {ticked:?}");
        assert_eq!(fixture.rows(STATES).await.len(), 4);
        // Neither again, nor a slot less the next day.
        scheduler.tick().await.unwrap();
        hands.set("2026-03-14T10:00:01Z");
        scheduler.tick().await.unwrap();
        scheduler.finish().await;
        assert_eq!(minutes(&calls).len(), expected.len() + 1, "{catch_up}");
        assert_eq!(minutes(&calls).last().unwrap(), "14T10:00");
    }
}

async fn a_clock_that_goes_back_runs_nothing_again(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let hands = Hands::at("2026-03-10T10:00:20Z");
    let calls = Calls::default();
    let (scheduler, _keep) = scheduler(&fixture, &hands, "cron = \"*/15 * * * *\"", noting(&calls, |_| async { Ok(()) }));
    for at in ["2026-03-10T10:00:20Z", "2026-03-10T09:00:20Z", "2026-03-10T09:45:00Z", "2026-03-10T10:00:40Z", "2026-03-10T10:15:00Z"] {
        hands.set(at);
        scheduler.tick().await.unwrap();
        scheduler.finish().await;
    }
    assert_eq!(minutes(&calls), ["10T10:00", "10T10:15"]);
}

async fn while_a_run_is_at_work_slots_are_skipped_or_queue(engine: Engine) {
    for (overlap, expected, states) in
        [("skip", vec!["10T10:00", "10T10:02"], "success skipped success"), ("queue", vec!["10T10:00", "10T10:01"], "success success")]
    {
        let fixture = Fixture::new(engine).await;
        // The test's clock is faster than hearts beat.
        fixture.write("tallyroll.toml", "[engine]\nlock_lease_seconds = 3600\n");
        let hands = Hands::at("2026-03-10T10:00:01Z");
        let calls = Calls::default();
        let (go, gone) = watch::channel(false);
        let runner = noting(&calls, move |_| {
            let mut gone = gone.clone();
            async move {
                gone.wait_for(|gone| *gone).await?;
                Ok(())
            }
        });
        let settings = format!("cron = \"* * * * *\"\noverlap = \"{overlap}\"\ncatch_up = \"none\"");
        let (scheduler, _keep) = scheduler(&fixture, &hands, &settings, runner);
        scheduler.tick().await.unwrap();
        hands.set("2026-03-10T10:01:01Z");
        scheduler.tick().await.unwrap();
        go.send_replace(true);
        scheduler.finish().await;
        if overlap == "skip" {
            hands.set("2026-03-10T10:02:01Z");
        }
        scheduler.tick().await.unwrap();
        scheduler.finish().await;
        assert_eq!(minutes(&calls), expected, "{overlap}");
        let found: Vec<String> = fixture.rows(STATES).await.iter().map(|row| row.split('|').nth(1).unwrap().to_owned()).collect();
        assert_eq!(found.join(" "), states, "{overlap}");
    }
}

async fn several_schedulers_run_each_slot_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let calls = Calls::default();
    let hands = Hands::at("2026-03-10T10:00:00Z");
    let mut schedulers = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..6 {
        let settings = "cron = \"* * * * *\"\njitter = \"20s\"\ncatch_up = \"all\"";
        let (one, keep) = scheduler(&fixture, &hands, settings, noting(&calls, |_| async { Ok(()) }));
        schedulers.push(one);
        kept.push(keep);
    }
    let rounds = repetitions(40, 400);
    let start = instant("2026-03-10T10:00:00Z");
    for round in 0..rounds {
        let now = start + TimeDelta::seconds(20 * i64::try_from(round).unwrap());
        hands.set(&now.to_rfc3339());
        let ticks = schedulers.iter().map(Scheduler::tick);
        for ticked in futures_util::future::join_all(ticks).await {
            ticked.unwrap();
        }
        for scheduler in &schedulers {
            scheduler.finish().await;
        }
    }
    let mut slots: Vec<DateTime<Utc>> = calls.lock().unwrap().iter().map(|(slot, _)| *slot).collect();
    slots.sort_unstable();
    let unique: BTreeSet<_> = slots.iter().copied().collect();
    assert_eq!(slots.len(), unique.len(), "a slot ran twice: {slots:?}");
    // Every minute from the first on, but for one that still waits for its jitter.
    let last = *slots.last().unwrap();
    let expected = usize::try_from((last - start).num_minutes()).unwrap() + 1;
    assert_eq!(slots.len(), expected, "{slots:?}");
    assert!(expected + 1 >= rounds / 3, "{expected}");
}

async fn a_run_that_panics_hangs_or_fails_stops_nobody(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let hands = Hands::at("2026-03-10T10:00:01Z");
    let calls = Calls::default();
    let runner = noting(&calls, |call| async move {
        let minute = call.origin.scheduled_for.unwrap().format("%M").to_string();
        match (minute.as_str(), call.origin.attempt) {
            ("00", _) => panic!("the job lost its head"),
            ("01", _) => {
                // Deaf to the wish that it end.
                std::future::pending::<()>().await;
                Ok(())
            }
            ("02", 1 | 2) => Err(Failure::try_again("the connection was lost").into()),
            ("03", _) => Err(Failure::bad_data("no try will help").into()),
            ("04", _) => Err(Failure::try_again("it is always away").into()),
            _ => Ok(()),
        }
    });
    let settings = "cron = \"* * * * *\"\ntimeout = \"1s\"\nretries = { max = 2, backoff = \"0s\" }";
    let (scheduler, _keep) = scheduler(&fixture, &hands, settings, runner);
    for minute in 0..6 {
        hands.set(&format!("2026-03-10T10:0{minute}:01Z"));
        let started = Instant::now();
        scheduler.tick().await.unwrap();
        let all_well = scheduler.finish().await;
        assert_eq!(all_well, [2, 5].contains(&minute), "minute {minute}");
        assert!(started.elapsed() < Duration::from_mins(1));
    }
    let history = fixture
        .rows("SELECT state, attempt, COALESCE(error_text, '-') FROM schedule_state WHERE state <> 'first_seen' ORDER BY scheduled_for")
        .await;
    assert_eq!(
        history,
        [
            "failed|1|It panicked: the job lost its head",
            "failed|1|It ran longer than its timeout of 1s",
            "success|3|-",
            "failed|1|no try will help",
            "failed|3|it is always away",
            "success|1|-",
        ]
    );
    assert_eq!(calls.lock().unwrap().len(), 1 + 1 + 3 + 1 + 3 + 1);
}

/// A receiver that answers as `answers` say, then 200, and what it was told.
async fn receiver(answers: Vec<u16>) -> (String, Arc<Mutex<Vec<serde_json::Value>>>) {
    let told: Arc<Mutex<Vec<serde_json::Value>>> = Arc::default();
    let (count, kept) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&told));
    let app = axum::Router::new().route(
        "/hook/{secret}",
        axum::routing::post(move |axum::Json(body): axum::Json<serde_json::Value>| {
            let (count, kept, answers) = (Arc::clone(&count), Arc::clone(&kept), answers.clone());
            async move {
                let answer = answers.get(count.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(200);
                if answer == 200 {
                    kept.lock().unwrap().push(body);
                }
                axum::http::StatusCode::from_u16(answer).unwrap()
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    (format!("http://{address}/hook/s3cret"), told)
}

async fn the_webhook_is_told_once_of_each_change(engine: Engine) {
    // The first answer is a failure that may pass.
    let (url, told) = receiver(vec![503]).await;
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", &format!("[notify]\nwebhook_url = \"{url}\"\n"));
    let hands = Hands::at("2026-03-10T10:00:01Z");
    let calls = Calls::default();
    let runner = noting(&calls, |call| async move {
        if call.origin.scheduled_for.unwrap() < instant("2026-03-10T10:20:00Z") {
            Err(Failure::bad_data("a check does not hold").into())
        } else {
            Ok(())
        }
    });
    let settings = "cron = \"*/10 * * * *\"\ntimeout = \"1m\"\ncatch_up = \"latest\"";
    let (one, _keep_one) = scheduler(&fixture, &hands, settings, Arc::clone(&runner));
    let (two, _keep_two) = scheduler(&fixture, &hands, settings, runner);
    for at in ["10:00:01", "10:10:01", "10:20:01", "10:30:01", "12:47:00", "12:47:05", "12:50:01"] {
        hands.set(&format!("2026-03-10T{at}Z"));
        for scheduler in [&one, &two] {
            scheduler.tick().await.unwrap();
            scheduler.finish().await;
        }
    }
    let texts: Vec<String> = told.lock().unwrap().iter().map(|body| body["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        texts,
        [
            "Tallyroll: job usage_daily failed: a check does not hold",
            "Tallyroll: job usage_daily failed: a check does not hold",
            "Tallyroll: job usage_daily works again",
            // Nothing ran for two hours; whoever came back first tells.
            "Tallyroll: job usage_daily is overdue: its slot of 2026-03-10T12:40:00.000000Z is not done",
        ]
    );
}

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

async fn a_stopped_run_is_taken_over_at_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let hands = Hands::at("2026-03-10T10:00:01Z");
    let calls = Calls::default();
    let (keep, stop) = watch::channel(None);
    let runner = noting(&calls, |mut call| async move {
        call.stop.wait_for(Option::is_some).await?;
        Err(Failure::new(tallyroll::failure::Kind::Interrupted(15), "it was asked to stop").into())
    });
    let stopping = Arc::new(Scheduler::new(context_of(&fixture, hands.clock(), stop), schedules("cron = \"* * * * *\""), runner));
    stopping.tick().await.unwrap();
    keep.send_replace(Some(15));
    stopping.finish().await;
    let (next, _keep) = scheduler(&fixture, &hands, "cron = \"* * * * *\"", noting(&calls, |_| async { Ok(()) }));
    next.tick().await.unwrap();
    next.finish().await;
    let noted: Vec<_> = calls.lock().unwrap().iter().map(|(slot, attempt)| (slot.format("%H:%M").to_string(), *attempt)).collect();
    assert_eq!(noted, [("10:00".to_owned(), 1), ("10:00".to_owned(), 2)]);
    assert!(fixture.rows(STATES).await[0].ends_with("|success"));
}

async fn history_is_forgotten_but_for_what_was_billed(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[history]\nkeep_days = 30\n");
    for (id, job, state, day) in [
        ("a", "usage_daily", "success", "01-05"),
        ("b", "peak_seats", "success", "01-05"),
        ("c", "peak_seats", "failed", "01-05"),
        ("d", "usage_daily", "failed", "03-05"),
    ] {
        let at = format!("2026-{day}T10:00:00.000000Z");
        fixture
            .execute(&format!(
                "INSERT INTO job_run (run_id, job, \"trigger\", attempt, state, request, as_of, started_at, heartbeat_at, finished_at, windows_planned, \
                 windows_done, rows_in, rows_out, quarantined_count, host, pid, version) \
                 VALUES ('{id}', '{job}', 'schedule', 1, '{state}', '{{}}', '{at}', '{at}', '{at}', '{at}', 0, 0, 0, 0, 0, 'h', 1, 'v')"
            ))
            .await;
        fixture
            .execute(&format!(
                "INSERT INTO schedule_state (job, scheduled_for, state, attempt, claimed_at) VALUES ('{job}', '2026-{day}T1{}:00:00.000000Z', '{state}', 1, '{at}')",
                id.as_bytes()[0] - b'a'
            ))
            .await;
    }
    let hands = Hands::at("2026-03-10T10:00:01Z");
    let (scheduler, _keep) = scheduler(&fixture, &hands, "cron = \"* * * * *\"", noting(&Calls::default(), |_| async { Ok(()) }));
    scheduler.tick().await.unwrap();
    scheduler.finish().await;
    assert_eq!(fixture.rows("SELECT run_id FROM job_run ORDER BY 1").await, ["b", "d"]);
    // The newest slot of each job stays, so that it is not seen for the first time again.
    assert_eq!(fixture.rows("SELECT job FROM schedule_state WHERE scheduled_for < '2026-02-01T00:00:00.000000Z'").await, ["peak_seats"]);
}

async fn run_due_runs_what_is_due_and_writes_metrics(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
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
    assert!(metrics.contains("tallyroll_scheduler_heartbeat_timestamp_seconds "), "{metrics}");
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 1);

    let pid = rustix::process::Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = Finished::of(&server.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(143), "{ended:?}");
    assert_eq!(fixture.rows("SELECT 1 FROM job_run WHERE state = 'running'").await.len(), 0);
}

/// Zones whose clocks change in 2026, by an hour or half of one, at midnight, 1, 2 or 3 o'clock, south and north.
const ZONES: [&str; 20] = [
    "Europe/London",
    "Europe/Paris",
    "Europe/Helsinki",
    "Europe/Lisbon",
    "Atlantic/Azores",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Anchorage",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "America/Asuncion",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Jerusalem",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
];

/// The days of 2026 and 2027 on which a zone's clock changes.
fn changes(zone: Tz) -> Vec<NaiveDate> {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    let start = instant("2026-01-01T00:00:00Z");
    (0..2 * 365 * 24)
        .map(|hour| start + TimeDelta::hours(hour))
        .filter(|at| offset(*at) != offset(*at + TimeDelta::hours(1)))
        .map(|at| (at + TimeDelta::hours(1)).with_timezone(&zone).date_naive())
        .collect()
}

#[test]
fn every_civil_slot_around_a_clock_change_runs_exactly_once() {
    let mut change_count = 0;
    for name in ZONES {
        let zone: Tz = name.parse().unwrap();
        let days = changes(zone);
        assert!(days.len() >= 2 || name == "America/Asuncion", "{name} {days:?}");
        change_count += days.len();
        for day in days {
            for time in ["0 0", "15 0", "30 0", "0 1", "30 1", "45 1", "0 2", "15 2", "30 2", "0 3", "30 3", "0 12"] {
                let schedules = schedules(&format!("cron = \"{time} * * *\"\ntimezone = \"{name}\"\njitter = \"40s\"\ncatch_up = \"all\""));
                let schedule = &schedules["usage_daily"];
                let start = Utc.from_utc_datetime(&(day - chrono::Days::new(3)).and_hms_opt(12, 0, 0).unwrap());
                let mut known = Known { latest: Some(start), ..Known::default() };
                let mut ran: BTreeMap<NaiveDate, usize> = BTreeMap::new();
                // A tick every 47 minutes for six days.
                for step in 0..6 * 24 * 60 / 47 {
                    let now = start + TimeDelta::minutes(47 * step);
                    for (slot, fate) in decide("usage_daily", schedule, &known, now).slots {
                        assert_eq!(fate, Fate::Run);
                        known.latest = Some(slot);
                        *ran.entry(slot.with_timezone(&zone).date_naive()).or_default() += 1;
                    }
                }
                // The days that lie whole between the ends.
                for offset in 0..=3 {
                    let date = day - chrono::Days::new(1) + chrono::Days::new(offset);
                    assert_eq!(ran.get(&date), Some(&1), "{name}, `{time}`, {date}: {ran:?}");
                }
            }
        }
    }
    assert!(change_count >= 70, "{change_count}");
}

#[test]
fn a_line_that_fires_every_so_often_fires_as_often_as_time_passes() {
    let schedules = schedules("cron = \"*/15 * * * *\"\ntimezone = \"America/New_York\"");
    let slots = schedules["usage_daily"].slots(instant("2026-11-01T04:00:00Z"), instant("2026-11-01T08:00:00Z"));
    assert_eq!(slots.len(), 16);
    assert!(slots.windows(2).all(|pair| pair[1] - pair[0] == TimeDelta::minutes(15)), "{slots:?}");
}
