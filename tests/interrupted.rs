//! Killed anywhere, run again: the same tables as an undisturbed run.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture, repetitions};

on_both_databases!(killed_at_random_moments, a_signal_ends_a_run_between_windows);

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];
const REBUILD: &[&str] = &["run-job", "usage_daily", "--downstream", "--rebuild", "--as-of", "2026-04-15T00:00:00Z"];

async fn filled(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    for day in 1..=28 {
        for hour in 0..20 {
            let user = format!("'00000000-0000-4000-8000-{:012}'", (day * hour) % 9);
            let customer = ((day + hour) % 5).to_string();
            fixture.log(&format!("2026-02-{day:02}T{hour:02}:00:00.000000Z"), &[("user_id", &user), ("customer_id", &customer)]).await;
        }
    }
    fixture
}

async fn killed_at_random_moments(engine: Engine) {
    let fixture = filled(engine).await;
    let start = Instant::now();
    fixture.run_well(RUN);
    let whole_run = start.elapsed();
    let undisturbed = fixture.results().await;
    let mut landed = 0;
    let count = repetitions(8, 50);
    for repetition in 0..count {
        let mut child = fixture.command(REBUILD).spawn().unwrap();
        // Spread over the run by the golden ratio: no two moments alike, the same in every test run.
        #[allow(clippy::cast_precision_loss, reason = "a moment")]
        let moment = (repetition as f64 * 0.618_034 + 0.05).fract();
        tokio::time::sleep(whole_run.mul_f64(moment * 1.1)).await;
        child.kill().unwrap();
        landed += u32::from(!child.wait().unwrap().success());
        fixture.run_well(RUN);
        let results = fixture.results().await;
        assert_eq!(undisturbed.len(), results.len(), "kill {repetition}");
        for (expected, actual) in undisturbed.iter().zip(&results) {
            assert_eq!(expected, actual, "kill {repetition}");
        }
    }
    println!("{landed} of {count} kills hit a run at work");
    assert!(landed > 0, "no kill hit a run");
}

async fn a_signal_ends_a_run_between_windows(engine: Engine) {
    let fixture = filled(engine).await;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let child = fixture.command(REBUILD).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while fixture.rows("SELECT state FROM job_run WHERE state = 'running' AND windows_planned >= 0").await.is_empty() {
            assert!(Instant::now() < deadline, "the run did not start");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
        let ended = Finished::of(&child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains("Interrupted; nothing is half-written"), "{}", ended.stderr);
        let last = "SELECT state, error_class FROM job_run ORDER BY started_at DESC, run_id DESC LIMIT 1";
        assert_eq!(fixture.rows(last).await, ["interrupted|interrupted"]);
    }
    fixture.run_well(RUN);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily_user").await, 28 * 20);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_monthly_user").await, 28 * 20);
}
