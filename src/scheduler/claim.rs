//! Slots in `schedule_state`: each is claimed by one scheduler, kept by a heartbeat, and taken over when that falls silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::slot::{FIRST_LOOK, Fate};
use super::supervise::SlotOutcome;
use crate::abort;
use crate::run::{BeatGuard, Context};
use crate::schedule::Schedule;
use crate::store::lock::is_process_gone;
use crate::store::runs::host;
use crate::store::{Tx, Value};

/// What is known of a job's slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The newest slot that was ever decided over.
    pub latest: Option<DateTime<Utc>>,
    /// Whether a scheduler is at work on one.
    pub is_busy: bool,
    pub last_finished_at: Option<DateTime<Utc>>,
}

/// Slots of one job that this process runs, in order.
#[derive(Debug, Clone)]
pub struct Claim {
    pub job: String,
    pub claim_id: String,
    /// Each with the number of its next try: 1, or more after a take-over.
    pub slots: Vec<(DateTime<Utc>, i64)>,
}

/// Times that a slot is begun again after the scheduler at work on it died, beyond its retries.
const MOST_DEATHS: i64 = 2;

/// A clock that was ahead may have left slots of the future. Those within this count, so that a small step back runs nothing
/// again; farther ones are passed by.
const FUTURE_COUNTS: TimeDelta = TimeDelta::days(1);

/// What is known of a job's slots now. One seen for the first time gets a mark, from which on its slots count.
pub(super) async fn known(context: &Context, job: &str, now: DateTime<Utc>) -> Result<Known> {
    let sql = "SELECT \
         (SELECT MAX(scheduled_for) FROM schedule_state WHERE job = $1 AND scheduled_for <= $2) AS latest, \
         (SELECT COUNT(*) FROM schedule_state WHERE job = $1 AND state = 'running') AS running_count, \
         (SELECT finished_at FROM schedule_state WHERE job = $1 AND finished_at IS NOT NULL ORDER BY scheduled_for DESC LIMIT 1) AS finished_at";
    let rows = context.store.query(sql, &[job.into(), (now + FUTURE_COUNTS).into()]).await?;
    let row = rows.first();
    let latest = row.map(|row| row.opt_instant("latest")).transpose()?.flatten();
    let Some(latest) = latest else {
        let mark = now - FIRST_LOOK;
        let sql = "INSERT INTO schedule_state (job, scheduled_for, state, claimed_at, finished_at) VALUES ($1, $2, 'first_seen', $3, $3) \
             ON CONFLICT DO NOTHING";
        context.store.execute(sql, &[job.into(), mark.into(), now.into()]).await?;
        return Ok(Known { latest: Some(mark), ..Known::default() });
    };
    Ok(Known {
        latest: Some(latest),
        is_busy: row.is_some_and(|row| row.int("running_count").is_ok_and(|count| count > 0)),
        last_finished_at: row.map(|row| row.opt_instant("finished_at")).transpose()?.flatten(),
    })
}

/// Writes down what becomes of the slots; those to be run are claimed. Of several schedulers, the one that is first gets all.
pub(super) async fn take(
    context: &Context,
    job: &str,
    slots: &[(DateTime<Utc>, Fate)],
    now: DateTime<Utc>,
) -> Result<(Option<Claim>, Vec<(DateTime<Utc>, Fate)>)> {
    if slots.is_empty() {
        return Ok((None, Vec::new()));
    }
    let mut claim = Claim { job: job.to_owned(), claim_id: Uuid::now_v7().to_string(), slots: Vec::new() };
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
    let sql = "INSERT INTO schedule_state (job, scheduled_for, state, attempt, claimed_at, finished_at, claim_id, heartbeat_at, host, pid) \
         VALUES ($1, $2, $3, 0, $4, $5, $6, $4, $7, $8) ON CONFLICT DO NOTHING";
    let finished_at = (fate != Fate::Run).then_some(now);
    let parameters = [
        claim.job.as_str().into(),
        slot.into(),
        fate.state().into(),
        now.into(),
        finished_at.into(),
        claim.claim_id.as_str().into(),
        host().into(),
        i64::from(std::process::id()).into(),
    ];
    Ok(tx.execute(sql, &parameters).await? == 1)
}

/// Slots that were taken over: those to run, and those given up because every scheduler at work on them died.
#[derive(Debug)]
pub(super) struct TakenOver {
    pub(super) claim: Claim,
    pub(super) given_up: Vec<(DateTime<Utc>, i64)>,
}

/// Takes over the slots of a claim whose scheduler has died or fallen silent for the lease, all at once; none of `mine`.
pub(super) async fn take_over(
    context: &Context,
    job: &str,
    schedule: &Schedule,
    mine: &BTreeSet<String>,
    now: DateTime<Utc>,
) -> Result<Option<TakenOver>> {
    let sql = "SELECT claim_id, host, pid, MAX(heartbeat_at) AS heartbeat_at FROM schedule_state \
         WHERE job = $1 AND state = 'running' GROUP BY claim_id, host, pid ORDER BY MIN(scheduled_for)";
    let lease = TimeDelta::seconds(context.config.engine.lock_lease_seconds.into());
    for row in context.store.query(sql, &[job.into()]).await? {
        let (old_id, heartbeat_at) = (row.text("claim_id")?, row.instant("heartbeat_at")?);
        let is_gone = now - heartbeat_at >= lease || is_process_gone(&row.text("host")?, row.int("pid")?);
        if !is_gone || mine.contains(&old_id) {
            continue;
        }
        let mut claim = Claim { job: job.to_owned(), claim_id: Uuid::now_v7().to_string(), slots: Vec::new() };
        // One statement: of several schedulers that find it, one gets all slots.
        let sql = "UPDATE schedule_state SET claim_id = $3, heartbeat_at = $4, host = $5, pid = $6 \
             WHERE job = $1 AND claim_id = $2 AND state = 'running'";
        let parameters: [Value; 6] = [
            job.into(),
            old_id.as_str().into(),
            claim.claim_id.as_str().into(),
            now.into(),
            host().into(),
            i64::from(std::process::id()).into(),
        ];
        if context.store.execute(sql, &parameters).await? == 0 {
            continue;
        }
        abort::point("slots_taken_over");
        let sql = "SELECT scheduled_for, attempt FROM schedule_state WHERE claim_id = $1 AND state = 'running' ORDER BY scheduled_for";
        let mut given_up = Vec::new();
        for row in context.store.query(sql, &[claim.claim_id.as_str().into()]).await? {
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

/// Notes that a try of a slot begins; false where another scheduler has taken it over.
pub(super) async fn begin(context: &Context, claim: &Claim, slot: DateTime<Utc>, attempt: i64) -> Result<bool> {
    let sql = "UPDATE schedule_state SET attempt = $4 WHERE job = $1 AND scheduled_for = $2 AND claim_id = $3 AND state = 'running'";
    let parameters = [claim.job.as_str().into(), slot.into(), claim.claim_id.as_str().into(), attempt.into()];
    let is_ours = context.store.execute(sql, &parameters).await? == 1;
    abort::point("slot_begun");
    Ok(is_ours)
}

/// Leaves what a claim has not ended to be taken over at once. `interrupted` is the slot whose try does not count.
pub(super) async fn release(context: &Context, claim: &Claim, interrupted: Option<DateTime<Utc>>) -> Result<()> {
    if let Some(slot) = interrupted {
        let sql = "UPDATE schedule_state SET attempt = attempt - 1 WHERE claim_id = $1 AND scheduled_for = $2 AND state = 'running'";
        context.store.execute(sql, &[claim.claim_id.as_str().into(), slot.into()]).await?;
    }
    let sql = "UPDATE schedule_state SET heartbeat_at = $2 WHERE claim_id = $1 AND state = 'running'";
    context.store.execute(sql, &[claim.claim_id.as_str().into(), DateTime::<Utc>::default().into()]).await?;
    Ok(())
}

/// Shows, four times in a lease and until the guard is dropped, that somebody is at work on the claim.
pub(super) fn beat(context: &Arc<Context>, claim: &Claim) -> BeatGuard {
    let (context, claim_id) = (Arc::clone(context), claim.claim_id.clone());
    let period = Duration::from_secs(context.config.engine.lock_lease_seconds.into()) / 4;
    BeatGuard::new(&tokio::spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            let sql = "UPDATE schedule_state SET heartbeat_at = $2 WHERE claim_id = $1 AND state = 'running'";
            if let Err(error) = context.store.execute(sql, &[claim_id.as_str().into(), context.clock.now().into()]).await {
                tracing::warn!(error = format!("{error:#}"), "The slot's heartbeat could not be written");
            }
        }
    }))
}

/// Writes down what came of a slot; false where another scheduler has taken it over.
pub(super) async fn finish(
    context: &Context,
    claim: &Claim,
    slot: DateTime<Utc>,
    outcome: &SlotOutcome,
    now: DateTime<Utc>,
) -> Result<bool> {
    let sql = "UPDATE schedule_state SET state = $4, finished_at = $5, run_id = $6, error_text = $7 \
         WHERE job = $1 AND scheduled_for = $2 AND claim_id = $3 AND state = 'running'";
    let parameters: [Value; 7] = [
        claim.job.as_str().into(),
        slot.into(),
        claim.claim_id.as_str().into(),
        outcome.state.into(),
        now.into(),
        outcome.run_id.clone().into(),
        outcome.error_text.clone().into(),
    ];
    abort::point("slot_before_finish");
    let is_ours = context.store.execute(sql, &parameters).await? == 1;
    abort::point("slot_finished");
    Ok(is_ours)
}

/// How the newest slot before this one ended that did.
pub(super) async fn last_ended(context: &Context, job: &str, slot: DateTime<Utc>) -> Result<Option<String>> {
    let sql = "SELECT state FROM schedule_state WHERE job = $1 AND scheduled_for < $2 AND state IN ('success', 'failed') \
         ORDER BY scheduled_for DESC LIMIT 1";
    context.store.query(sql, &[job.into(), slot.into()]).await?.first().map(|row| row.text("state")).transpose()
}

/// Whether a notice is this process's to send.
pub(super) async fn notice(context: &Context, job: &str, slot: DateTime<Utc>, kind: &str) -> Result<bool> {
    let sql = "INSERT INTO schedule_notice (job, scheduled_for, kind, noticed_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    let parameters = [job.into(), slot.into(), kind.into(), context.clock.now().into()];
    Ok(context.store.execute(sql, &parameters).await? == 1)
}

/// Whether a notice of this kind was told of the job since.
pub(super) async fn is_told_since(context: &Context, job: &str, kind: &str, since: DateTime<Utc>) -> Result<bool> {
    let sql = "SELECT 1 AS told FROM schedule_notice WHERE job = $1 AND kind = $2 AND noticed_at > $3";
    Ok(!context.store.query(sql, &[job.into(), kind.into(), since.into()]).await?.is_empty())
}

/// Whether it was told since the last success that the job is overdue.
pub(super) async fn is_overdue_told(context: &Context, job: &str) -> Result<bool> {
    let sql = "SELECT 1 AS told FROM schedule_notice WHERE job = $1 AND kind = 'overdue' AND scheduled_for > COALESCE( \
         (SELECT MAX(scheduled_for) FROM schedule_state WHERE job = $1 AND state = 'success'), $2)";
    Ok(!context.store.query(sql, &[job.into(), DateTime::<Utc>::default().into()]).await?.is_empty())
}

/// Deletes runs, slots and notices from before `cutoff`, but for what went well of `billing_jobs` and the newest slot of each job.
pub(super) async fn forget(context: &Context, billing_jobs: &[String], cutoff: DateTime<Utc>) -> Result<()> {
    let kept: Vec<String> = billing_jobs.iter().map(|job| format!("'{}'", job.replace('\'', "''"))).collect();
    let kept = if kept.is_empty() { "''".to_owned() } else { kept.join(", ") };
    for sql in [
        format!("DELETE FROM job_run WHERE started_at < $1 AND state <> 'running' AND NOT (state = 'success' AND job IN ({kept}))"),
        "DELETE FROM schedule_state WHERE scheduled_for < $1 AND state <> 'running' AND scheduled_for < ( \
         SELECT MAX(newest.scheduled_for) FROM schedule_state AS newest WHERE newest.job = schedule_state.job)"
            .to_owned(),
        "DELETE FROM schedule_notice WHERE scheduled_for < $1".to_owned(),
    ] {
        context.store.execute(&sql, &[cutoff.into()]).await?;
        abort::point("history_tidied");
    }
    Ok(())
}
