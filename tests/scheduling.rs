//! Schedules: which slots run, once each, whatever fails, hangs or sleeps.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tallyroll::failure::{Failure, Kind};
use tallyroll::scheduler::Scheduler;
use tokio::sync::watch;

use crate::on_both_databases;
use crate::support::schedules::{Calls, Hands, instant, noting, scheduler, schedules};
use crate::support::{Engine, Fixture, context_of, repetitions};

on_both_databases!(
    after_downtime_catch_up_decides,
    a_clock_that_goes_back_runs_nothing_again,
    while_a_run_is_at_work_slots_are_skipped_or_queue,
    a_job_that_somebody_runs_by_hand_is_passed_over_or_waited_for,
    several_schedulers_run_each_slot_once,
    a_run_that_panics_hangs_or_fails_stops_nobody,
    the_webhook_is_told_once_of_each_change,
    a_stopped_run_is_taken_over_at_once,
    a_slot_that_every_scheduler_dies_of_is_given_up_and_told,
    history_is_forgotten_but_for_what_was_billed,
);

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
    // A machine whose clock was years ahead has left a slot: the others go on.
    fixture
        .execute(
            "INSERT INTO schedule_state (job, scheduled_for, state, attempt, claimed_at, finished_at) VALUES \
             ('usage_daily', '2036-01-01T00:00:00.000000Z', 'success', 1, '2036-01-01T00:00:00.000000Z', '2036-01-01T00:00:00.000000Z')",
        )
        .await;
    hands.set("2026-03-10T10:30:05Z");
    scheduler.tick().await.unwrap();
    scheduler.finish().await;
    assert_eq!(minutes(&calls).last().unwrap(), "10T10:30");
}

async fn a_job_that_somebody_runs_by_hand_is_passed_over_or_waited_for(engine: Engine) {
    for (overlap, state) in [("skip", "skipped"), ("queue", "failed")] {
        let fixture = Fixture::new(engine).await;
        let hands = Hands::at("2026-03-10T10:00:01Z");
        let waits: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let noted = Arc::clone(&waits);
        let runner = noting(&Calls::default(), move |call| {
            noted.lock().unwrap().push(call.lock_wait);
            async { Err(Failure::new(Kind::Locked, "Job `usage_daily` is locked by run x").into()) }
        });
        let settings = format!("cron = \"0 10 * * *\"\noverlap = \"{overlap}\"\ntimeout = \"7m\"");
        let (scheduler, _keep) = scheduler(&fixture, &hands, &settings, runner);
        scheduler.tick().await.unwrap();
        scheduler.finish().await;
        assert!(fixture.rows(STATES).await[0].ends_with(state), "{overlap}");
        let expected = if overlap == "skip" { Duration::ZERO } else { Duration::from_mins(7) };
        assert_eq!(*waits.lock().unwrap(), [expected]);
    }
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
            // It goes on failing ten minutes later: told again after an hour only.
            "Tallyroll: job usage_daily failed: a check does not hold",
            "Tallyroll: job usage_daily works again",
            // Nothing ran for two hours; whoever came back first tells.
            "Tallyroll: job usage_daily is overdue: its slot of 2026-03-10T12:40:00.000000Z is not done",
        ]
    );
}

async fn a_stopped_run_is_taken_over_at_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let hands = Hands::at("2026-03-10T10:00:01Z");
    let calls = Calls::default();
    let (keep, stop) = watch::channel(None);
    let runner = noting(&calls, |mut call| async move {
        call.stop.wait_for(Option::is_some).await?;
        Err(Failure::new(Kind::Interrupted(15), "it was asked to stop").into())
    });
    let stopping = Arc::new(Scheduler::new(context_of(&fixture, hands.clock(), stop), schedules("cron = \"* * * * *\""), runner));
    stopping.tick().await.unwrap();
    while calls.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    keep.send_replace(Some(15));
    stopping.finish().await;
    let (next, _keep) = scheduler(&fixture, &hands, "cron = \"* * * * *\"", noting(&calls, |_| async { Ok(()) }));
    next.tick().await.unwrap();
    next.finish().await;
    let noted: Vec<_> = calls.lock().unwrap().iter().map(|(slot, attempt)| (slot.format("%H:%M").to_string(), *attempt)).collect();
    // A try that was asked to stop does not count.
    assert_eq!(noted, [("10:00".to_owned(), 1), ("10:00".to_owned(), 1)]);
    assert!(fixture.rows(STATES).await[0].ends_with("|success"));
}

async fn a_slot_that_every_scheduler_dies_of_is_given_up_and_told(engine: Engine) {
    let (url, told) = receiver(Vec::new()).await;
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", &format!("[notify]\nwebhook_url = \"{url}\"\n"));
    for (minute, tried) in [("00", 2), ("01", 3)] {
        fixture
            .execute(&format!(
                "INSERT INTO schedule_state (job, scheduled_for, state, attempt, claimed_at, claim_id, heartbeat_at, host, pid) VALUES \
                 ('usage_daily', '2026-03-10T10:{minute}:00.000000Z', 'running', {tried}, '2026-03-10T10:{minute}:00.000000Z', 'dead', \
                 '2026-03-10T10:{minute}:00.000000Z', 'elsewhere', 1)"
            ))
            .await;
    }
    let hands = Hands::at("2026-03-10T10:02:30Z");
    let calls = Calls::default();
    let (scheduler, _keep) = scheduler(&fixture, &hands, "cron = \"0 10 * * *\"", noting(&calls, |_| async { Ok(()) }));
    scheduler.tick().await.unwrap();
    scheduler.finish().await;
    // Without retries a slot is begun three times at most.
    assert_eq!(*calls.lock().unwrap(), [(instant("2026-03-10T10:00:00Z"), 3)]);
    assert_eq!(fixture.rows(STATES).await, ["2026-03-10T10:00:00.000000Z|success", "2026-03-10T10:01:00.000000Z|failed"]);
    let texts: Vec<String> = told.lock().unwrap().iter().map(|body| body["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts, ["Tallyroll: job usage_daily failed after 3 tries: The process at work on it ended 3 times"]);
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
