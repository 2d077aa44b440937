//! Slots in `schedule_state`: each is claimed by one scheduler, kept by a heartbeat, and taken over when the heartbeat stops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::slot::{FIRST_LOOK, Fate, Known, SlotOutcome, SlotState};
use crate::abort;
use crate::engine::env::Context;
use crate::engine::heartbeat::BeatGuard;
use crate::schedule::Schedule;
use crate::sql_text::embedded;
use crate::store::lock::is_process_gone;
use crate::store::runs::host;
use crate::store::{Tx, Value};

/// Slots of one job that this process runs, in order.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) job: String,
    pub(super) id: String,
    /// Each with the number of its next try: 1, or more after a take-over.
    pub(super) slots: Vec<(DateTime<Utc>, i64)>,
}

const SQL: &str = include_str!("../../sql/scheduler.sql");
const KNOWN: &str = embedded(SQL, "known");
const FIRST_SEEN: &str = embedded(SQL, "first_seen");
const INSERT: &str = embedded(SQL, "insert");
const CLAIMS: &str = embedded(SQL, "claims");
const TAKE_OVER: &str = embedded(SQL, "take_over");
const SLOTS_OF: &str = embedded(SQL, "slots_of");
const BEGIN: &str = embedded(SQL, "begin");
const UNCOUNT_ATTEMPT: &str = embedded(SQL, "uncount_attempt");
const BEAT: &str = embedded(SQL, "beat");
const FINISH: &str = embedded(SQL, "finish");
const LAST_ENDED: &str = embedded(SQL, "last_ended");
const NOTICE: &str = embedded(SQL, "notice");
const TOLD_SINCE: &str = embedded(SQL, "told_since");
const OVERDUE_TOLD: &str = embedded(SQL, "overdue_told");
const FORGET_SLOTS: &str = embedded(SQL, "forget_slots");
const FORGET_NOTICES: &str = embedded(SQL, "forget_notices");

/// How often a slot is begun again because the scheduler at work on it died, in addition to its retries.
const MOST_DEATHS: i64 = 2;

/// A clock that was ahead may have left slots in the future. Those within this time count, so that nothing runs again after a small
/// step back; later ones are ignored.
const FUTURE_COUNTS: TimeDelta = TimeDelta::days(1);

/// What is known of a job's slots now. A job seen for the first time gets a mark; its slots count from there.
pub(super) async fn known(context: &Context, job: &str, now: DateTime<Utc>) -> Result<Known> {
    let rows = context.store.query(KNOWN, &[job.into(), (now + FUTURE_COUNTS).into()]).await?;
    let row = rows.first();
    let latest = row.map(|row| row.opt_instant("latest")).transpose()?.flatten();
    let Some(latest) = latest else {
        let mark = now - FIRST_LOOK;
        context.store.execute(FIRST_SEEN, &[job.into(), mark.into(), now.into()]).await?;
        return Ok(Known { latest: Some(mark), ..Known::default() });
    };
    Ok(Known {
        latest: Some(latest),
        is_busy: row.is_some_and(|row| row.int("running_count").is_ok_and(|count| count > 0)),
        last_finished_at: row.map(|row| row.opt_instant("finished_at")).transpose()?.flatten(),
    })
}

/// Records what happens to the slots, and claims those that are to run. Of several schedulers, the first one gets them all.
pub(super) async fn take(
    context: &Context,
    job: &str,
    slots: &[(DateTime<Utc>, Fate)],
    now: DateTime<Utc>,
) -> Result<(Option<Claim>, Vec<(DateTime<Utc>, Fate)>)> {
    if slots.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut claim = Claim { job: job.to_owned(), id: Uuid::now_v7().to_string(), slots: Vec::new() };
    let mut passed_over = Vec::new();
    let mut tx = context.store.begin().await?;
    for (slot, fate) in slots {
        let runs = *fate == Fate::Run;
        if insert(&mut tx, &claim, *slot, *fate, now).await? {
            if runs { claim.slots.push((*slot, 1)) } else { passed_over.push((*slot, *fate)) }
        }
    }
    abort::point("slots_before_commit");
    tx.commit().await?;
    abort::point("slots_claimed");
    Ok((Some(claim).filter(|claim| !claim.slots.is_empty()), passed_over))
}

async fn insert(tx: &mut Tx, claim: &Claim, slot: DateTime<Utc>, fate: Fate, now: DateTime<Utc>) -> Result<bool> {
    let finished_at = (fate != Fate::Run).then_some(now);
    let parameters = [
        claim.job.as_str().into(),
        slot.into(),
        fate.state().name().into(),
        now.into(),
        finished_at.into(),
        claim.id.as_str().into(),
        host().into(),
        i64::from(std::process::id()).into(),
    ];
    Ok(tx.execute(INSERT, &parameters).await? == 1)
}

/// Slots that were taken over: those to run, and those that are given up because every scheduler at work on them died.
#[derive(Debug)]
pub(super) struct TakenOver {
    pub(super) claim: Claim,
    pub(super) given_up: Vec<(DateTime<Utc>, i64)>,
}

/// Takes over all slots of a claim whose scheduler has died, or has been silent for the lease; never one of `mine`.
pub(super) async fn take_over(
    context: &Context,
    job: &str,
    schedule: &Schedule,
    mine: &BTreeSet<String>,
    now: DateTime<Utc>,
) -> Result<Option<TakenOver>> {
    let lease = TimeDelta::seconds(context.config.engine.lock_lease_seconds.into());
    for row in context.store.query(CLAIMS, &[job.into()]).await? {
        let (old_id, heartbeat_at) = (row.text("claim_id")?, row.instant("heartbeat_at")?);
        let is_gone = now - heartbeat_at >= lease || is_process_gone(&row.text("host")?, row.int("pid")?);
        if !is_gone || mine.contains(&old_id) {
            continue;
        }
        let mut claim = Claim { job: job.to_owned(), id: Uuid::now_v7().to_string(), slots: Vec::new() };
        let parameters: [Value; 6] =
            [job.into(), old_id.as_str().into(), claim.id.as_str().into(), now.into(), host().into(), i64::from(std::process::id()).into()];
        if context.store.execute(TAKE_OVER, &parameters).await? == 0 {
            continue;
        }
        abort::point("slots_taken_over");
        let mut given_up = Vec::new();
        for row in context.store.query(SLOTS_OF, &[claim.id.as_str().into()]).await? {
            let (slot, tried) = (row.instant("scheduled_for")?, row.int("attempt")?);
            if tried > i64::from(schedule.settings.retries.max) + MOST_DEATHS {
                given_up.push((slot, tried));
            } else {
                claim.slots.push((slot, tried + 1));
            }
        }
        tracing::warn!(job, slots = claim.slots.len(), "Slots whose scheduler ended without saying so are taken over");
        return Ok(Some(TakenOver { claim, given_up }));
    }
    Ok(None)
}

/// Records that a try of a slot begins; false if another scheduler has taken it over.
pub(super) async fn begin(context: &Context, claim: &Claim, slot: DateTime<Utc>, attempt: i64) -> Result<bool> {
    let parameters = [claim.job.as_str().into(), slot.into(), claim.id.as_str().into(), attempt.into()];
    let is_ours = context.store.execute(BEGIN, &parameters).await? == 1;
    abort::point("slot_begun");
    Ok(is_ours)
}

/// Lets others take over at once what a claim has not finished. `interrupted` is the slot whose try does not count.
pub(super) async fn release(context: &Context, claim: &Claim, interrupted: Option<DateTime<Utc>>) -> Result<()> {
    if let Some(slot) = interrupted {
        context.store.execute(UNCOUNT_ATTEMPT, &[claim.id.as_str().into(), slot.into()]).await?;
    }
    context.store.execute(BEAT, &[claim.id.as_str().into(), DateTime::<Utc>::default().into()]).await?;
    Ok(())
}

/// Shows that somebody is at work on the claim, four times per lease, until the guard is dropped.
pub(super) fn beat(context: &Arc<Context>, claim: &Claim) -> BeatGuard {
    let (context, claim_id) = (Arc::clone(context), claim.id.clone());
    let period = Duration::from_secs(context.config.engine.lock_lease_seconds.into()) / 4;
    BeatGuard::new(&tokio::spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            if let Err(error) = context.store.execute(BEAT, &[claim_id.as_str().into(), context.clock.now().into()]).await {
                tracing::warn!(error = format!("{error:#}"), "The slot's heartbeat could not be written");
            }
        }
    }))
}

/// Records what came of a slot; false if another scheduler has taken it over.
pub(super) async fn finish(
    context: &Context,
    claim: &Claim,
    slot: DateTime<Utc>,
    outcome: &SlotOutcome,
    now: DateTime<Utc>,
) -> Result<bool> {
    let parameters: [Value; 7] = [
        claim.job.as_str().into(),
        slot.into(),
        claim.id.as_str().into(),
        outcome.state.name().into(),
        now.into(),
        outcome.run_id.clone().into(),
        outcome.error_text.clone().into(),
    ];
    abort::point("slot_before_finish");
    let is_ours = context.store.execute(FINISH, &parameters).await? == 1;
    abort::point("slot_finished");
    Ok(is_ours)
}

/// The state of the newest slot before this one that succeeded or failed.
pub(super) async fn last_ended(context: &Context, job: &str, slot: DateTime<Utc>) -> Result<Option<SlotState>> {
    let rows = context.store.query(LAST_ENDED, &[job.into(), slot.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(SlotState::named(&row.text("state")?))
}

/// Records a notice; true if this process is the one to send it.
pub(super) async fn notice(context: &Context, job: &str, slot: DateTime<Utc>, kind: &str) -> Result<bool> {
    let parameters = [job.into(), slot.into(), kind.into(), context.clock.now().into()];
    Ok(context.store.execute(NOTICE, &parameters).await? == 1)
}

/// Whether a notice of this kind was sent for the job since then.
pub(super) async fn is_told_since(context: &Context, job: &str, kind: &str, since: DateTime<Utc>) -> Result<bool> {
    Ok(!context.store.query(TOLD_SINCE, &[job.into(), kind.into(), since.into()]).await?.is_empty())
}

/// Whether a notice that the job is overdue was sent since its last success.
pub(super) async fn is_overdue_told(context: &Context, job: &str) -> Result<bool> {
    Ok(!context.store.query(OVERDUE_TOLD, &[job.into(), DateTime::<Utc>::default().into()]).await?.is_empty())
}

/// Deletes runs, slots and notices from before `cutoff`, except the successful runs of `billing_jobs` and the newest slot of each job.
pub(super) async fn forget(context: &Context, billing_jobs: &[String], cutoff: DateTime<Utc>) -> Result<()> {
    let kept: Vec<String> = billing_jobs.iter().map(|job| format!("'{}'", job.replace('\'', "''"))).collect();
    let kept = if kept.is_empty() { "''".to_owned() } else { kept.join(", ") };
    let forget_runs =
        format!("DELETE FROM job_run WHERE started_at < $1 AND state <> 'running' AND NOT (state = 'success' AND job IN ({kept}))");
    for sql in [forget_runs.as_str(), FORGET_SLOTS, FORGET_NOTICES] {
        context.store.execute(sql, &[cutoff.into()]).await?;
        abort::point("history_tidied");
    }
    Ok(())
}
