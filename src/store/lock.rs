//! One run of a job at a time: a row in `job_lock`, fenced.
//!
//! Each holder gets a larger fence than the one before, and a window is committed only under the newest. So a run that was
//! paused, taken for dead and resumed writes nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use rustix::process::{Pid, test_kill_process};

use super::runs::{self, NewRun, Running};
use super::{Store, Tx, format_instant};
use crate::abort;
use crate::clock::Clock;
use crate::failure::{Failure, Kind};
use crate::sql_text::quote_identifier;

/// The right to write a job's windows, until another run takes over.
#[derive(Debug, Clone)]
pub struct JobLock {
    job: String,
    run_id: String,
    fence: i64,
    /// Until the last clone is gone, however the run ends, this process is at work on it.
    _held: Arc<Held>,
}

/// How long a waiting run sleeps between two tries.
const POLL: Duration = Duration::from_millis(250);

impl JobLock {
    /// Takes the lock and writes the run's record, in one transaction.
    ///
    /// A holder is passed over when it has ended, when its process is gone from this host, or when it has shown no sign of
    /// life for `lease`.
    ///
    /// # Errors
    /// [`Failure`] of kind try-again that names the holder, when it still works after `wait`; what `check_stop` says meanwhile.
    pub async fn acquire(
        store: &Store,
        clock: &Clock,
        run: &NewRun,
        lease: TimeDelta,
        wait: Duration,
        check_stop: impl Fn() -> Result<()>,
    ) -> Result<Self> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            check_stop()?;
            match Self::try_acquire(store, clock, run, lease).await? {
                Ok(lock) => return Ok(lock),
                Err(holder) if tokio::time::Instant::now() >= deadline => {
                    return Err(Failure::new(Kind::Locked, format!("Job `{}` is locked by {holder}", run.job))
                        .hint("wait for it with `--lock-wait SECONDS`, or run this command again later")
                        .into());
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn try_acquire(store: &Store, clock: &Clock, run: &NewRun, lease: TimeDelta) -> Result<Result<Self, String>> {
        let now = clock.now();
        let mut tx = store.begin().await?;
        tx.execute("INSERT INTO job_lock (job, fence) VALUES ($1, 0) ON CONFLICT DO NOTHING", &[run.job.as_str().into()]).await?;
        let for_update = store.pick("FOR UPDATE", "");
        let sql = format!("SELECT run_id, fence, acquired_at FROM job_lock WHERE job = $1 {for_update}");
        let rows = tx.query(&sql, &[run.job.as_str().into()]).await?;
        let Some(row) = rows.first() else { return Err(Failure::try_again("The lock's row is gone").into()) };
        let fence = row.int("fence")? + 1;
        if let Some(holder_id) = row.opt_text("run_id")? {
            let since = row.opt_instant("acquired_at")?.map(format_instant).unwrap_or_default();
            if let Some(holder) = runs::running(&mut tx, &holder_id).await? {
                if is_alive(&holder, &holder_id, now, lease) {
                    return Ok(Err(shown(&holder, &holder_id, &since)));
                }
                runs::interrupt(&mut tx, &holder_id, now, &format!("Its process ended or fell silent; run {} took over", run.run_id))
                    .await?;
                tracing::warn!(job = run.job, taken_over = holder_id, "A run that ended without saying so is taken over");
                abort::point("lock_taken_over");
            }
        }
        runs::insert_run(&mut tx, run, now).await?;
        let parameters = [run.job.as_str().into(), run.run_id.as_str().into(), fence.into(), now.into()];
        tx.execute("UPDATE job_lock SET run_id = $2, fence = $3, acquired_at = $4 WHERE job = $1", &parameters).await?;
        // Before the commit: from then on other tasks of this process look whether the run is one of theirs.
        let held = Arc::new(Held::new(&run.run_id));
        abort::point("lock_before_commit");
        tx.commit().await?;
        abort::point("lock_acquired");
        Ok(Ok(Self { job: run.job.clone(), run_id: run.run_id.clone(), fence, _held: held }))
    }

    /// Proves that this run still holds the lock, and keeps it so until `tx` ends. The last statement before a commit.
    ///
    /// # Errors
    /// [`Failure`] of kind try-again when another run took over.
    pub async fn assert_held(&self, store: &Store, tx: &mut Tx) -> Result<()> {
        let for_share = store.pick("FOR SHARE", "");
        let sql = format!("SELECT fence FROM job_lock WHERE job = $1 AND fence = $2 {for_share}");
        if tx.query(&sql, &[self.job.as_str().into(), self.fence.into()]).await?.is_empty() {
            return Err(Failure::try_again(format!("Run {} lost the lock of job `{}` and writes nothing", self.run_id, self.job))
                .hint("another run took over after this one had shown no sign of life for `engine.lock_lease_seconds`")
                .into());
        }
        Ok(())
    }

    /// Proves at this moment, outside of a transaction, that this run still holds the lock: before a file is published.
    ///
    /// # Errors
    /// As [`Self::assert_held`].
    pub async fn check(&self, store: &Store) -> Result<()> {
        let mut tx = store.begin().await?;
        self.assert_held(store, &mut tx).await
    }

    /// Gives the lock back, unless another run has taken it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn release(&self, store: &Store) -> Result<()> {
        let sql = "UPDATE job_lock SET run_id = NULL WHERE job = $1 AND fence = $2";
        store.execute(sql, &[self.job.as_str().into(), self.fence.into()]).await?;
        Ok(())
    }
}

impl Tx {
    /// Keeps others from writing a table until the transaction ends; SQLite has one writer at a time anyway.
    ///
    /// # Errors
    /// What the database says.
    pub async fn lock_table(&mut self, table: &str) -> Result<()> {
        if let Self::Postgres(_) = self {
            self.execute(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", quote_identifier(table)), &[]).await?;
        }
        Ok(())
    }

    /// Waits until nobody else does what is called so, and keeps others from it until the transaction ends. On SQLite one writes at a
    /// time anyway.
    ///
    /// # Errors
    /// What the database says.
    pub async fn wait_for_others_who(&mut self, what: &str) -> Result<()> {
        if let Self::Postgres(_) = self {
            self.query("SELECT pg_advisory_xact_lock(hashtextextended('tallyroll ' || $1, 0))::TEXT", &[what.into()]).await?;
        }
        Ok(())
    }

    /// Gives up waiting for what another transaction holds after so many seconds, with an error of kind try-again.
    ///
    /// # Errors
    /// What the database says.
    pub async fn wait_at_most(&mut self, seconds: u32) -> Result<()> {
        if let Self::Postgres(_) = self {
            self.execute(&format!("SET LOCAL lock_timeout = '{seconds}s'"), &[]).await?;
        }
        Ok(())
    }
}

/// Who works on a job.
#[derive(Debug)]
pub struct Holder {
    pub run_id: String,
    /// The run, its process and since when, in words.
    pub shown: String,
}

/// Who works on a job now, if anyone does.
///
/// # Errors
/// What the database says.
pub async fn holder(store: &Store, clock: &Clock, job: &str, lease_seconds: u32) -> Result<Option<Holder>> {
    let mut tx = store.begin_read().await?;
    let rows = tx.query("SELECT run_id, acquired_at FROM job_lock WHERE job = $1 AND run_id IS NOT NULL", &[job.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let run_id = row.text("run_id")?;
    let since = row.opt_instant("acquired_at")?.map(format_instant).unwrap_or_default();
    let running = runs::running(&mut tx, &run_id).await?;
    let lease = TimeDelta::seconds(lease_seconds.into());
    let alive = running.filter(|running| is_alive(running, &run_id, clock.now(), lease));
    Ok(alive.map(|running| Holder { shown: shown(&running, &run_id, &since), run_id }))
}

fn is_alive(holder: &Running, run_id: &str, now: DateTime<Utc>, lease: TimeDelta) -> bool {
    now - holder.heartbeat_at < lease && !is_gone(holder, run_id)
}

fn shown(holder: &Running, run_id: &str, since: &str) -> String {
    format!("run {run_id} (process {} on {}) since {since}", holder.pid, holder.host)
}

/// Runs of this process that hold a lock.
static HELD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

#[derive(Debug)]
struct Held(String);

impl Held {
    fn new(run_id: &str) -> Self {
        if let Ok(mut held) = HELD.lock() {
            held.insert(run_id.to_owned());
        }
        Self(run_id.to_owned())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Ok(mut held) = HELD.lock() {
            held.remove(&self.0);
        }
    }
}

/// Whether the process of a run on this host is no more. Of other hosts only the lease tells.
fn is_gone(holder: &Running, run_id: &str) -> bool {
    // A container's first process has the same number each time: a record of our own number that is not our own is a dead
    // namesake's.
    if holder.host == runs::host() && i64::from(std::process::id()) == holder.pid {
        return HELD.lock().is_ok_and(|held| !held.contains(run_id));
    }
    is_process_gone(&holder.host, holder.pid)
}

/// Whether a process is known to be no more: of those on this host the system tells, of others nobody.
pub(crate) fn is_process_gone(host: &str, pid: i64) -> bool {
    if host != runs::host() {
        return false;
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid).is_err_and(|error| error == rustix::io::Errno::SRCH))
}
