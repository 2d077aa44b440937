//! One run of a job at a time, and nothing from a run that lost its lock.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tallyroll::clock::Clock;
use tallyroll::failure;
use tallyroll::store::lock::JobLock;
use tallyroll::store::runs::{NewRun, Origin};

use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(
    the_second_of_two_runs_exits_75_and_names_the_holder,
    a_run_waits_for_the_lock_as_long_as_it_is_told,
    a_lock_that_was_taken_over_writes_nothing,
    a_late_commit_is_counted_by_the_next_run,
);

const RUN: &[&str] = &["run-job", "usage_daily", "--as-of", "2026-04-15T00:00:00Z"];

fn run_of(id: &str, job: &str, as_of: DateTime<Utc>) -> NewRun {
    NewRun { run_id: id.to_owned(), job: job.to_owned(), parent_run_id: None, origin: Origin::default(), request: "{}".to_owned(), as_of }
}

async fn lock(fixture: &Fixture, clock: &Clock, id: &str) -> anyhow::Result<JobLock> {
    let run = run_of(id, "usage_daily", clock.now());
    JobLock::acquire(&fixture.store, clock, &run, TimeDelta::seconds(60), Duration::ZERO, || Ok(())).await
}

async fn the_second_of_two_runs_exits_75_and_names_the_holder(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    let held = lock(&fixture, &Clock::system(), "run-of-the-test").await.unwrap();
    let second = fixture.run(RUN);
    assert_eq!(second.code, Some(75), "{second:?}");
    let holder = format!("Job `usage_daily` is locked by run run-of-the-test (process {} on ", std::process::id());
    assert!(second.stderr.contains(&holder) && second.stderr.contains(" since 20"), "{}", second.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
    held.release(&fixture.store).await.unwrap();
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 1);
}

async fn a_run_waits_for_the_lock_as_long_as_it_is_told(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    let held = lock(&fixture, &Clock::system(), "run-of-the-test").await.unwrap();
    let waiting = fixture.command(&[RUN, &["--lock-wait", "60"]].concat()).spawn().unwrap();
    let refused = fixture.run(&[RUN, &["--lock-wait", "1"]].concat());
    assert_eq!(refused.code, Some(75), "{refused:?}");
    held.release(&fixture.store).await.unwrap();
    assert_eq!(Finished::of(&waiting.wait_with_output().unwrap()).code, Some(0));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 1);
}

/// A paused run, as the database sees it: no heartbeat for longer than the lease.
async fn a_lock_that_was_taken_over_writes_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let start = Utc::now();
    let paused = lock(&fixture, &Clock::new(move || start), "paused").await.unwrap();
    let same_process = lock(&fixture, &Clock::new(move || start), "same process").await.unwrap_err();
    assert_eq!(failure::exit_code(&same_process), 75, "{same_process:#}");
    fixture.execute(&format!("UPDATE job_run SET pid = {} WHERE run_id = 'paused'", std::os::unix::process::parent_id())).await;
    let early = lock(&fixture, &Clock::new(move || start + TimeDelta::seconds(59)), "early").await.unwrap_err();
    assert_eq!(failure::exit_code(&early), 75, "{early:#}");
    let taker = lock(&fixture, &Clock::new(move || start + TimeDelta::seconds(60)), "taker").await.unwrap();
    assert_eq!(fixture.rows("SELECT state FROM job_run WHERE run_id = 'paused'").await, ["interrupted"]);

    let mut tx = fixture.store.begin().await.unwrap();
    let lost = paused.assert_held(&fixture.store, &mut tx).await.unwrap_err();
    assert!(lost.to_string().contains("lost the lock of job `usage_daily` and writes nothing"), "{lost}");
    drop(tx);
    // Nor does it give away what it no longer has.
    paused.release(&fixture.store).await.unwrap();
    let mut tx = fixture.store.begin().await.unwrap();
    taker.assert_held(&fixture.store, &mut tx).await.unwrap();
}

/// The same with real processes: SIGSTOP, takeover, SIGCONT.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_process_that_resumes_writes_nothing() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.write("tallyroll.toml", "[engine]\nlock_lease_seconds = 2\n");
    for day in 1..=28 {
        for hour in 0..5 {
            fixture.log(&format!("2026-02-{day:02}T{hour:02}:00:00.000000Z"), &[]).await;
        }
    }
    // The trigger makes each window slow, so that the pause falls between the first and the last.
    fixture.execute("CREATE FUNCTION slow() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END'").await;
    fixture.execute("CREATE TRIGGER slow AFTER INSERT ON usage_daily FOR EACH STATEMENT EXECUTE FUNCTION slow()").await;
    fixture.accept_triggers().await;
    let first = fixture.command(RUN).spawn().unwrap();
    let pid = rustix_pid(first.id());
    let deadline = Instant::now() + Duration::from_secs(30);
    while fixture.number("SELECT COUNT(*) FROM job_window WHERE state = 'done'").await < 3 {
        assert!(Instant::now() < deadline, "the first run did not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let second = fixture.run(&[RUN, &["--lock-wait", "60"]].concat());
    assert_eq!(second.code, Some(0), "{second:?}");
    let after = (fixture.results().await, fixture.rows("SELECT * FROM job_window ORDER BY window_start").await);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let first = Finished::of(&first.wait_with_output().unwrap());
    assert_eq!(first.code, Some(75), "{first:?}");
    assert_eq!(after, (fixture.results().await, fixture.rows("SELECT * FROM job_window ORDER BY window_start").await));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 28);
    assert_eq!(fixture.rows("SELECT state FROM job_run ORDER BY started_at").await, ["interrupted", "success"]);
}

fn rustix_pid(id: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

async fn a_late_commit_is_counted_by_the_next_run(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    let count = "SELECT SUM(request_count) FROM usage_daily";
    if engine == Engine::Sqlite {
        // One writer at a time: what commits late is numbered late.
        fixture.log("2026-03-01T11:00:00.000000Z", &[]).await;
    } else {
        // This row's transaction begins, and gets its id, before the next run, and commits after it.
        let mut open = fixture.store.begin().await.unwrap();
        let insert = "INSERT INTO ai_usage_log (user_id, input_tokens, created_at) VALUES ('00000000-0000-4000-8000-000000000001', 1, $1)";
        let at: DateTime<Utc> = "2026-03-01T11:00:00Z".parse().unwrap();
        open.execute(insert, &[at.into()]).await.unwrap();
        fixture.log("2026-03-02T10:00:00.000000Z", &[]).await;
        fixture.run_well(RUN);
        assert_eq!(fixture.number(count).await, 2, "rows that are committed wait for nobody's open transaction");
        open.commit().await.unwrap();
        assert_eq!(fixture.written(RUN), ["usage_daily 2026-03-01"]);
        assert_eq!(fixture.number(count).await, 3);
        return;
    }
    fixture.run_well(RUN);
    assert_eq!(fixture.number(count).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_asks_for_a_rebuild() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    fixture.execute("UPDATE usage_watermark SET position = '99999999999:99999999999:'").await;
    let stopped = fixture.run(RUN);
    assert_eq!(stopped.code, Some(78), "{stopped:?}");
    assert!(stopped.stderr.contains("it is a restored copy") && stopped.stderr.contains("--rebuild --downstream"), "{}", stopped.stderr);
    fixture.run_well(&["run-job", "usage_daily", "--rebuild", "--downstream"]);
    fixture.log("2026-03-02T10:00:00.000000Z", &[]).await;
    assert_eq!(fixture.written(RUN), ["usage_daily 2026-03-02"]);
}
