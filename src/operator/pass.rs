//! One pass: while a day's groups are in memory, its daily rollups are written with it, and the months keep them for theirs.
//!
//! Whatever cannot be made so is left due, and made from the table in its turn.

use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, anyhow};
use arrow::array::RecordBatch;
use chrono::{DateTime, NaiveDate, Utc};
use tokio::sync::OnceCell;

use super::rollup::months::Months;
use super::rollup::shape::Shape;
use super::rollup::{Rollup, from_table};
use super::usage_rollup::Rollup as Day;
use crate::abort;
use crate::engine::blocking::blocking;
use crate::engine::env::Context;
use crate::engine::report::{Binding, JobReport};
use crate::engine::request::{Planned, Request};
use crate::engine::stop::{check_stop, takes_nothing_more};
use crate::engine::under_way::UnderWay;
use crate::engine::upstream::fingerprint_of_write;
use crate::failure::Failure;
use crate::fold::folder::Folder;
use crate::job::{Job, OperatorKind};
use crate::store::Tx;
use crate::store::windows::Written;
use crate::window::{Window, WindowKind};

/// What a run of `usage_daily` and all that reads it makes in one pass.
pub struct Pass {
    context: Arc<Context>,
    root: Job,
    request: Request,
    binding: Binding,
    root_id: String,
    /// Daily rollups, begun with the first window that is written.
    daily: OnceCell<Vec<Carried>>,
    months: Arc<Mutex<Months>>,
    /// Held by who reads a month from its table.
    reads_month: tokio::sync::Mutex<()>,
}

/// A daily rollup that is written with what it reads.
struct Carried {
    under_way: Arc<UnderWay>,
    rollup: Arc<Rollup>,
    shape: Shape,
    /// Whether it was given up, or went on by itself.
    is_over: AtomicBool,
}

/// The rows of a daily rollup for one window.
pub struct CarriedRows {
    /// Which of the rollups.
    index: usize,
    batch: RecordBatch,
}

/// A rollup could not be written, which is no fault of what it reads.
#[derive(Debug, thiserror::Error)]
#[error("The rollup could not be written in one pass")]
pub struct CarryFailed(usize);

impl Pass {
    pub fn new(context: &Arc<Context>, root: &Job, request: &Request, binding: &Binding, root_id: &str) -> Arc<Self> {
        let monthly = rollups_of(context, root).filter(|job| job.window == WindowKind::Month);
        let shapes: Vec<Shape> = monthly.filter_map(|job| Shape::of(job, root).ok()).collect();
        Arc::new(Self {
            context: Arc::clone(context),
            root: root.clone(),
            request: request.for_downstream(),
            binding: binding.clone(),
            root_id: root_id.to_owned(),
            daily: OnceCell::new(),
            months: Arc::new(Mutex::new(Months::new(&shapes))),
            reads_month: tokio::sync::Mutex::default(),
        })
    }

    /// Begins the daily rollups; one that cannot be begun now, because another run is at work on it or its files do not fit, is left
    /// to its turn.
    async fn begin(&self) -> Result<Vec<Carried>> {
        let mut begun: Vec<Carried> = Vec::new();
        for job in rollups_of(&self.context, &self.root).filter(|job| job.window == WindowKind::Day) {
            match self.begin_one(job).await {
                Ok(carried) => begun.extend(carried),
                // A full disk, a lost connection, a signal: what was begun comes to no turn.
                Err(error) if takes_nothing_more(&error) => {
                    for carried in &begun {
                        // The first error says more.
                        let _ = self.end_one(carried).await;
                    }
                    return Err(error);
                }
                Err(error) => tracing::info!(job = job.name, error = format!("{error:#}"), "The rollup is left to its turn"),
            }
        }
        Ok(begun)
    }

    async fn begin_one(&self, job: &Job) -> Result<Option<Carried>> {
        let context = &self.context;
        let rollup = Rollup::load(&context.store, &context.jobs, job, context.config.reporting.timezone).await?;
        let Some(shape) = rollup.shape.clone() else { return Ok(None) };
        rollup.select.ensure_table(&context.store, job).await?;
        let at_once = Binding { lock_wait: std::time::Duration::ZERO, ..self.binding.clone() };
        let definition = rollup.select.definition(job);
        let under_way = UnderWay::begin(context, job, definition, &self.request, &at_once, Some(self.root_id.clone())).await?;
        Ok(Some(Carried { under_way: Arc::new(under_way), rollup: Arc::new(rollup), shape, is_over: AtomicBool::new(false) }))
    }

    /// The rows of each daily rollup for a day. A rollup whose rows cannot be told is left out.
    ///
    /// # Errors
    /// Where the rollups cannot be begun because the database takes nothing more.
    pub async fn rows_of(&self, window: Window, day: &Arc<Day>) -> Result<Vec<CarriedRows>> {
        let carried = self.daily.get_or_try_init(|| self.begin()).await?;
        let shapes: Vec<(usize, Shape)> = carried
            .iter()
            .enumerate()
            .filter(|(_, carried)| !carried.is_over.load(Ordering::Relaxed))
            .map(|(index, carried)| (index, carried.shape.clone()))
            .collect();
        let day = Arc::clone(day);
        Ok(blocking(move || fold(&shapes, &day, window.start_date)).await.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "The rollups are left to their turns");
            Vec::new()
        }))
    }

    /// Replaces the rows of the daily rollups for a window, in the transaction that replaced the day's own.
    ///
    /// # Errors
    /// [`CarryFailed`] for a rollup that could not be written.
    pub async fn write(
        &self,
        tx: &mut Tx,
        rows: &[CarriedRows],
        window: Window,
        read: &Written,
        write_count: i64,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let Written { rows_out: rows_in, content, .. } = read;
        for CarriedRows { index, batch } in rows {
            let carried = self.daily.get().and_then(|daily| daily.get(*index)).context("A rollup is gone")?;
            let written = Written {
                rows_in: *rows_in,
                rows_out: i64::try_from(batch.num_rows())?,
                quarantined_count: 0,
                input_fingerprint: fingerprint_of_write(&self.root, window, write_count),
                content: content.clone(),
            };
            self.write_one(tx, carried, window, batch, &written, now).await.context(CarryFailed(*index))?;
        }
        abort::point("pass_written");
        Ok(())
    }

    async fn write_one(
        &self,
        tx: &mut Tx,
        carried: &Carried,
        window: Window,
        batch: &RecordBatch,
        written: &Written,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let Carried { under_way, rollup, .. } = carried;
        let (job, timezone) = (&under_way.job, self.context.config.reporting.timezone.name());
        rollup.select.replace(tx, job, window, batch, self.request.as_of).await?;
        tx.record_window(under_way.writer(timezone), window, written, now).await?;
        // Lost to another run, it ends this rollup's run and not its day's.
        under_way.lock.assert_held(&self.context.store, tx).await.map_err(|lost| anyhow!("{lost:#}"))
    }

    /// Leaves a rollup to its turn.
    pub fn give_up(&self, failed: &CarryFailed, rows: &mut Vec<CarriedRows>) {
        rows.retain(|rows| rows.index != failed.0);
        if let Some(carried) = self.daily.get().and_then(|daily| daily.get(failed.0)) {
            carried.is_over.store(true, Ordering::Relaxed);
        }
    }

    /// A day was committed with these rollups: its months take it in.
    pub async fn committed(&self, rows: Vec<CarriedRows>, window: Window, write_count: i64, day: Arc<Day>) {
        for CarriedRows { index, batch } in rows {
            let Some(carried) = self.daily.get().and_then(|daily| daily.get(index)) else { continue };
            let (rows_in, rows_out) = (day.groups.len().try_into(), batch.num_rows().try_into());
            let written = Written { rows_in: rows_in.unwrap_or_default(), rows_out: rows_out.unwrap_or_default(), ..Written::default() };
            carried.under_way.planned(&[Planned { window, reason: format!("written with {}", self.root.name) }]);
            carried.under_way.written(&written);
        }
        let months = Arc::clone(&self.months);
        let taken = blocking(move || match months.lock() {
            Ok(mut months) => months.take(window.start_date, write_count, &day),
            Err(_) => Ok(()),
        });
        if let Err(error) = taken.await {
            tracing::warn!(error = format!("{error:#}"), "The month is left to be read from its days");
        }
    }

    /// What was begun of a job, to be finished in its turn.
    pub fn take(&self, job: &Job) -> Option<(Arc<UnderWay>, Arc<Rollup>)> {
        let carried = self.daily.get()?.iter().find(|carried| carried.under_way.job.name == job.name)?;
        carried.is_over.store(true, Ordering::Relaxed);
        (!carried.under_way.is_ended()).then(|| (Arc::clone(&carried.under_way), Arc::clone(&carried.rollup)))
    }

    /// The rows of a month, and what they come to: from memory where its days were all written in this run and are so still, else from
    /// the table, which is read once for all monthly rollups. `None` where the database is to make them.
    ///
    /// # Errors
    /// What the database says; a sum that does not fit 64 bits.
    pub async fn month(&self, tx: &mut Tx, shape: &Shape, window: Window, row_count: i64) -> Result<Option<(RecordBatch, String)>> {
        let days = tx.windows_near(&self.root.name, window).await?;
        let days: BTreeMap<NaiveDate, i64> = days
            .into_iter()
            .filter(|(day, state)| window.contains(day) && state.write_count > 0)
            .map(|(day, state)| (day.start_date, state.write_count))
            .collect();
        let _reads_alone = self.reads_month.lock().await;
        let mut rows = self.month_in_memory(shape, window, &days).await?;
        if rows.is_none() {
            let level = self.months.lock().map(|months| months.level().to_vec()).unwrap_or_default();
            if let Some(folded) = from_table::read(tx, &shape.reads, &level, window, row_count).await? {
                if let Ok(mut months) = self.months.lock() {
                    months.put(window, days.clone(), folded);
                }
                rows = self.month_in_memory(shape, window, &days).await?;
            }
        }
        Ok(rows)
    }

    async fn month_in_memory(
        &self,
        shape: &Shape,
        window: Window,
        days: &BTreeMap<NaiveDate, i64>,
    ) -> Result<Option<(RecordBatch, String)>> {
        let (months, shape, days) = (Arc::clone(&self.months), shape.clone(), days.clone());
        blocking(move || match months.lock() {
            Ok(months) => months.rows(&shape, window, &days),
            Err(_) => Ok(None),
        })
        .await
    }

    /// Ends what was begun and did not come to its turn, because the run ended before.
    ///
    /// # Errors
    /// What the database says.
    pub async fn end_early(&self) -> Result<Vec<JobReport>> {
        let mut reports = Vec::new();
        for carried in self.daily.get().into_iter().flatten().filter(|carried| !carried.under_way.is_ended()) {
            reports.push(self.end_one(carried).await?);
        }
        Ok(reports)
    }

    async fn end_one(&self, carried: &Carried) -> Result<JobReport> {
        let ended = check_stop(&self.context.stop).err().unwrap_or_else(|| {
            Failure::try_again(format!("The run of `{}`, with which it was written, ended early", self.root.name)).into()
        });
        carried.under_way.end(&self.context, Some(ended)).await
    }
}

/// The rollups that read what `root` writes.
fn rollups_of<'a>(context: &'a Context, root: &'a Job) -> impl Iterator<Item = &'a Job> {
    context.jobs.iter().filter(|job| job.operator == OperatorKind::Rollup && job.reads == [root.writes.as_str()])
}

fn fold(shapes: &[(usize, Shape)], day: &Day, start_date: NaiveDate) -> Result<Vec<CarriedRows>> {
    // Rollups of the same keys and unique counts share a first fold.
    let mut folders: BTreeMap<Vec<&'static str>, Folder> = BTreeMap::new();
    let mut rows = Vec::new();
    for (index, shape) in shapes {
        let level = shape.level();
        let folder = match folders.entry(level.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let mut folder = Folder::new(&level)?;
                folder.take(&day.groups, |_, code| code);
                vacant.insert(folder)
            }
        };
        match shape.batch(folder, &day.codes, &day.sums, start_date) {
            Ok(batch) => rows.push(CarriedRows { index: *index, batch }),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "A rollup could not be folded in memory"),
        }
    }
    Ok(rows)
}
