//! Processes beside each other: two that migrate, two schedulers that disagree, one that is paused while it schedules.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{RUN, fill};
use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture, repetitions};

on_both_databases!(migrated_twice_at_once_and_killed_midway, schedulers_that_disagree, a_scheduler_that_is_paused_past_its_lease);

async fn migrated_twice_at_once_and_killed_midway(engine: Engine) {
    for round in 0..repetitions(4, 30) {
        let fixture = Fixture::empty(engine).await;
        let started = Instant::now();
        let mut children: Vec<_> = (0..3).map(|_| fixture.command(&["migrate"]).spawn().unwrap()).collect();
        tokio::time::sleep(Duration::from_millis(30 * u64::try_from(round).unwrap() + 20)).await;
        children[0].kill().unwrap();
        children[0].wait().unwrap();
        for child in children.drain(1..) {
            let finished = Finished::of(&child.wait_with_output().unwrap());
            // One of them may find what the killed one, or the other, is at.
            assert!(matches!(finished.code, Some(0 | 75)), "round {round}: {finished:?}");
        }
        assert!(started.elapsed() < Duration::from_mins(1), "they waited for each other");
        fixture.run_well(&["migrate"]);
        fixture.run_well(&["check"]);
        fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
        fixture.run_well(RUN);
    }
}

/// Two project folders over one database: the same job at other times, and a job that the other does not know.
async fn schedulers_that_disagree(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fill(&fixture, engine).await;
    fixture.run_well(RUN);
    let database = match engine {
        Engine::Postgres => fixture.url.clone(),
        Engine::Sqlite => format!("sqlite://{}", fixture.path().join("tallyroll.db").display()),
    };
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"* * * * *\"\n\n[usage_daily_type]\ncron = \"* * * * *\"\n");
    fixture.write("other/schedules.toml", "[usage_daily]\ncron = \"*/2 * * * *\"\n\n[usage_daily_user]\ncron = \"* * * * *\"\n");
    let run_due = |folder: &str| {
        let mut command = fixture.command(&["-C", folder, "run-due"]);
        command.env("DATABASE_URL", &database).spawn().unwrap()
    };
    for _ in 0..3 {
        for child in [run_due("."), run_due("other"), run_due("."), run_due("other")] {
            let finished = Finished::of(&child.wait_with_output().unwrap());
            assert_eq!(finished.code, Some(0), "{finished:?}");
        }
    }
    let slots = fixture
        .rows("SELECT job, COUNT(*), COUNT(DISTINCT scheduled_for) FROM schedule_state WHERE state = 'success' GROUP BY job ORDER BY job")
        .await;
    assert_eq!(slots.len(), 3, "{slots:?}");
    for slot in &slots {
        let parts: Vec<_> = slot.split('|').collect();
        assert!(parts[1] == parts[2], "a slot ran twice: {slots:?}");
    }
    assert!(fixture.rows("SELECT job FROM schedule_state WHERE state = 'failed'").await.is_empty());
}

async fn a_scheduler_that_is_paused_past_its_lease(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fill(&fixture, engine).await;
    fixture.write("tallyroll.toml", "[engine]\nlock_lease_seconds = 2\n\n[serve]\nbind = \"127.0.0.1:0\"\n");
    fixture.write("schedules.toml", "[usage_daily]\ncron = \"* * * * *\"\ndownstream = true\ncatch_up = \"all\"\ntimeout = \"5m\"\n");
    // Slow enough to be paused at work.
    let slow = match engine {
        Engine::Postgres => {
            fixture
                .execute(
                    "CREATE FUNCTION public.slow() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END'",
                )
                .await;
            "CREATE TRIGGER slow AFTER INSERT ON usage_daily FOR EACH STATEMENT EXECUTE FUNCTION public.slow()"
        }
        Engine::Sqlite => {
            "CREATE TRIGGER slow AFTER INSERT ON usage_daily BEGIN \
             SELECT MAX(n) FROM (WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 30000) SELECT n FROM counted); END"
        }
    };
    fixture.execute(slow).await;
    fixture.accept_triggers().await;
    let paused = fixture.command(&["serve"]).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(paused.id()).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(90);
    while fixture.number("SELECT COUNT(*) FROM job_window WHERE job = 'usage_daily' AND state = 'done'").await < 2 {
        assert!(Instant::now() < deadline, "the slot did not begin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kill_process(pid, Signal::STOP).unwrap();
    // Its run's lock and its slot's claim are of a process that is there, and silent. One that was paused inside a transaction keeps
    // all of an SQLite file from everybody, who say so.
    let deadline = Instant::now() + Duration::from_mins(2);
    let mut is_locked = false;
    while !is_locked && fixture.rows("SELECT 1 FROM schedule_state WHERE job = 'usage_daily' AND state = 'success'").await.is_empty() {
        assert!(Instant::now() < deadline, "nobody took the slot over");
        let taken = fixture.run(&["run-due"]);
        is_locked = engine == Engine::Sqlite && taken.code == Some(75);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let slots = "SELECT scheduled_for, state, attempt, run_id FROM schedule_state WHERE state = 'success' ORDER BY scheduled_for";
    let (slots_before, results_before) = (fixture.rows(slots).await, fixture.results().await);
    kill_process(pid, Signal::CONT).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    kill_process(pid, Signal::TERM).unwrap();
    let ended = Finished::of(&paused.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let slots_after = fixture.rows(slots).await;
    assert_eq!(slots_before, slots_after[..slots_before.len()], "the paused scheduler changed a slot that was taken over");
    assert!(is_locked || results_before == fixture.results().await, "the paused scheduler wrote");
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily").await, 600);
}
