//! Others that come between: between a look and what follows from it, between a claim and its work.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use tallyroll::failure::{Failure, Kind};
use tokio::sync::watch;

use crate::on_both_databases;
use crate::support::schedules::{Calls, Hands, noting, scheduler};
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(a_scheduler_that_lost_its_slots_begins_and_ends_none,);

const RUN: &[&str] = &["run-job", "usage_daily", "--as-of", "2026-04-15T00:00:00Z"];

async fn has_calls(calls: &Calls, count: usize) {
    while calls.lock().unwrap().len() < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Its process was paused for longer than the lease, say: another one has the slots by now.
async fn a_scheduler_that_lost_its_slots_begins_and_ends_none(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let first_seen = "'2026-03-10T09:59:00.000000Z'";
    fixture
        .execute(&format!(
            "INSERT INTO schedule_state (job, scheduled_for, state, claimed_at, finished_at) \
             VALUES ('usage_daily', {first_seen}, 'first_seen', {first_seen}, {first_seen})"
        ))
        .await;
    let hands = Hands::at("2026-03-10T10:01:01Z");
    let settings = "cron = \"* * * * *\"\ncatch_up = \"all\"";
    let (go, gone) = watch::channel([false; 2]);
    let of = |calls: &Calls, index: usize, fails: bool| {
        let gone = gone.clone();
        noting(calls, move |_| {
            let mut gone = gone.clone();
            async move {
                gone.wait_for(|gone| gone[index]).await?;
                if fails { Err(Failure::new(Kind::BadData, "it failed").into()) } else { Ok(()) }
            }
        })
    };
    let (paused_calls, other_calls) = (Calls::default(), Calls::default());
    let (paused, _keep) = scheduler(&fixture, &hands, settings, of(&paused_calls, 0, true));
    let (other, _keep_other) = scheduler(&fixture, &hands, settings, of(&other_calls, 1, false));
    paused.tick().await.unwrap();
    has_calls(&paused_calls, 1).await;
    hands.set("2026-03-10T10:03:01Z");
    other.tick().await.unwrap();
    has_calls(&other_calls, 1).await;
    // The first one goes on while the other is at work.
    go.send_replace([true, false]);
    paused.finish().await;
    let two = "SELECT scheduled_for, state FROM schedule_state WHERE state <> 'first_seen' ORDER BY scheduled_for LIMIT 2";
    let slots = |state: &str| ["00", "01"].map(|minute| format!("2026-03-10T10:{minute}:00.000000Z|{state}"));
    assert_eq!(fixture.rows(two).await, slots("running"));
    go.send_replace([true, true]);
    other.finish().await;
    assert_eq!(fixture.rows(two).await, slots("success"));
    assert_eq!(paused_calls.lock().unwrap().len(), 1);
}

/// A change whose transaction ends between a run's look and its commit is not in the plan, and its mark must stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_comes_after_the_look_stays() {
    let fixture = Fixture::new(Engine::Postgres).await;
    for day in ["01", "02"] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[("customer_id", day)]).await;
    }
    fixture.run_well(RUN);
    fixture.log("2026-03-01T11:00:00.000000Z", &[]).await;
    // The run is held where it has looked, and is about to note how far.
    let mut holder = PgConnection::connect(&fixture.url).await.unwrap();
    holder.execute(sqlx::raw_sql("BEGIN; LOCK TABLE tallyroll.usage_watermark IN EXCLUSIVE MODE")).await.unwrap();
    let running = fixture.command(RUN).spawn().unwrap();
    let waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'tallyroll.usage_watermark'::REGCLASS";
    while fixture.rows(waits).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.execute("UPDATE ai_usage_log SET input_tokens = 7 WHERE customer_id = 2").await;
    holder.execute(sqlx::raw_sql("COMMIT")).await.unwrap();
    let ran = Finished::of(&running.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(fixture.written(RUN), ["usage_daily 2026-03-02"]);
    assert_eq!(fixture.number("SELECT input_tokens FROM usage_daily WHERE usage_date = '2026-03-02'").await, 7);
    holder.close().await.unwrap();
}
