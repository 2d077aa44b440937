//! Operators: how a job turns one window's input into its rows. What a run knows of them is here: `load`, `due`, `expected_rows`, `write`.

pub mod content;
mod derived;
pub mod pass;
pub mod peak_seats;
pub mod rollup;
pub mod sql;
mod usage_dashboard;
pub mod usage_rollup;

use std::sync::Arc;

use anyhow::{Result, bail};
use chrono::NaiveDate;

use self::pass::Pass;
use self::peak_seats::PeakSeats;
use self::rollup::Rollup;
use self::sql::SqlSelect;
use self::usage_rollup::UsageRollup;
use crate::config::Config;
use crate::engine::due::{Definition, DueWindows, Look};
use crate::engine::env::Context;
use crate::engine::upstream::upstream_of_window;
use crate::engine::work::Work;
use crate::failure::Failure;
use crate::fingerprint;
use crate::job::{Job, OperatorKind};
use crate::jobs::Jobs;
use crate::lake::Lake;
use crate::measure::{self, MEASURES};
use crate::project::Project;
use crate::snapshot::storage::Storage;
use crate::source::ledger::SeatSource;
use crate::source::{Source, USAGE_EVENT};
use crate::store::windows::{WindowRecord, Written};
use crate::store::{Store, Tx};
use crate::window::{Window, WindowKind};

/// A job's operator, its files loaded and checked.
#[derive(Debug, Clone)]
pub enum Operator {
    UsageRollup(Arc<UsageRollup>),
    Rollup(Arc<Rollup>),
    Sql(Arc<SqlSelect>),
    PeakSeats(Arc<PeakSeats>),
    Reconcile,
    Archive,
    UsageDashboard,
}

/// What is due, and what else the look found.
#[derive(Debug, Default)]
pub struct Due {
    pub windows: DueWindows,
    /// How far each source was looked at.
    pub positions: Vec<(String, String)>,
    pub found: Found,
}

/// What a look found that a second look, and the writing, start from.
#[derive(Debug, Clone, Default)]
pub enum Found {
    #[default]
    Nothing,
    Seats(Arc<peak_seats::FoundLedger>),
}

impl Found {
    /// What was found of the seat ledger.
    ///
    /// # Errors
    /// When nobody looked at it.
    pub fn seats(&self) -> Result<&Arc<peak_seats::FoundLedger>> {
        match self {
            Self::Seats(found) => Ok(found),
            Self::Nothing => bail!("The ledger was not folded"),
        }
    }

    /// Why the look left something out that no window shows, if it did.
    #[must_use]
    pub fn left_out(&self) -> Option<Failure> {
        if let Self::Seats(found) = self { found.left_out() } else { None }
    }
}

impl Operator {
    /// Which windows are due, or are those that are asked for; `before` is what an earlier look found.
    ///
    /// # Errors
    /// What database and storage say; [`Failure`] of kind config where the database is a restored one.
    pub async fn due(&self, look: &mut Look<'_>, before: &Found) -> Result<Due> {
        if let Self::PeakSeats(peak_seats) = self {
            let (windows, found) = peak_seats.due(look, before.seats().ok()).await?;
            return Ok(Due { windows, found: Found::Seats(found), ..Due::default() });
        }
        if let Some(windows) = look.asked_for()? {
            return Ok(Due { windows, ..Due::default() });
        }
        let windows = match self {
            Self::UsageRollup(rollup) => {
                let (windows, positions) = rollup.due(look).await?;
                return Ok(Due { windows, positions, ..Due::default() });
            }
            Self::Rollup(rollup) => derived::due_of_select(look, &rollup.select).await?,
            Self::Sql(select) => derived::due_of_select(look, select).await?,
            Self::UsageDashboard => usage_dashboard::due(look).await?,
            // It looks at everything each time it runs.
            Self::Reconcile | Self::Archive | Self::PeakSeats(_) => {
                let all = Window::containing(WindowKind::All, NaiveDate::default())?;
                DueWindows::from([(all, "checked at every run".to_owned())])
            }
        };
        Ok(Due { windows, ..Due::default() })
    }

    /// The rows that the writing of a window would read.
    ///
    /// # Errors
    /// What the database says.
    pub async fn expected_rows(&self, context: &Context, tx: &mut Tx, job: &Job, found: &Found, window: Window) -> Result<i64> {
        match self {
            Self::PeakSeats(_) => Ok(found.seats()?.folded.month(window)?.ledger_rows),
            Self::UsageRollup(rollup) => rollup.count_events(&context.store, tx, window).await,
            _ => Ok(upstream_of_window(context, tx, job, window, &[]).await?.1),
        }
    }

    /// Writes a window whole, in one transaction. Reconciliation and the archive look at other jobs and so stand above them: `run` makes them.
    ///
    /// # Errors
    /// What database and storage say; [`Failure`] of kind bad-data where the rows are not as they must be.
    pub async fn write(
        &self,
        work: &Work,
        found: &Found,
        pass: Option<&Arc<Pass>>,
        window: Window,
        before: Option<&WindowRecord>,
    ) -> Result<Written> {
        match self {
            Self::UsageRollup(rollup) => usage_rollup::write::write(rollup, work, pass, window, before).await,
            Self::Rollup(rollup) => derived::write(work, &rollup.select, rollup.shape.as_ref(), pass, window).await,
            Self::Sql(select) => derived::write(work, select, None, None, window).await,
            Self::PeakSeats(peak_seats) => peak_seats.write(work, found.seats()?, window, before).await,
            Self::UsageDashboard => usage_dashboard::write(work, window).await,
            Self::Reconcile | Self::Archive => bail!("It is no operator of windows"),
        }
    }

    /// What its results are made by.
    ///
    /// # Errors
    /// When a source lacks its statement.
    pub fn definitions(&self, job: &Job) -> Result<Definition> {
        Ok(Definition { now: self.definition(job)?, first: self.first_definition(job)? })
    }

    /// What its results are made by: a digest of the job's file and one of its SQL, with a space between.
    ///
    /// # Errors
    /// When a source lacks its statement.
    pub fn definition(&self, job: &Job) -> Result<String> {
        let sql = match self {
            Self::UsageRollup(rollup) => {
                let sources = rollup.sources.iter().map(Source::definition).collect::<Result<Vec<_>>>()?;
                fingerprint::of(sources.into_iter().chain(MEASURES.iter().map(|measure| measure.name)))
            }
            _ => match self.select() {
                Some(select) => return Ok(select.definition(job)),
                None => fingerprint::of(Vec::<String>::new()),
            },
        };
        Ok(format!("{} {sql}", job.definition()))
    }

    /// What [`Self::definition`] was before there were the source `usage_event` and its measures. What was made by it is what would be
    /// made now: of other sources those measures are 0, and a new source's days are found by themselves.
    ///
    /// # Errors
    /// As [`Self::definition`].
    fn first_definition(&self, job: &Job) -> Result<String> {
        let sql = match self {
            Self::UsageRollup(rollup) => {
                let sources = rollup.first_sources().map(Source::definition).collect::<Result<Vec<_>>>()?;
                fingerprint::of(sources.into_iter().chain(measure::first_ones().map(|measure| measure.name)))
            }
            Self::Rollup(rollup) => fingerprint::of(std::iter::once(rollup.first_select.as_str()).chain(rollup.select.texts().skip(1))),
            _ => return self.definition(job),
        };
        let mut job = job.clone();
        job.reads.retain(|table| table != USAGE_EVENT);
        Ok(format!("{} {sql}", job.definition()))
    }

    /// The SELECT of a summary.
    #[must_use]
    pub fn select(&self) -> Option<&SqlSelect> {
        match self {
            Self::Rollup(rollup) => Some(&rollup.select),
            Self::Sql(select) => Some(select),
            _ => None,
        }
    }
}

/// Loads a job's SQL and settings and checks them against the database.
///
/// # Errors
/// [`Failure`] of kind config.
pub async fn load(project: &Project, config: &Config, store: &Store, storage: &Storage, jobs: &Jobs, job: &Job) -> Result<Operator> {
    match job.operator {
        OperatorKind::Reconcile => Ok(Operator::Reconcile),
        OperatorKind::Archive => Ok(Operator::Archive),
        OperatorKind::UsageDashboard => Ok(Operator::UsageDashboard),
        OperatorKind::PeakSeats => {
            let source = SeatSource::load(project, store.engine())?;
            source.check(store).await?;
            Ok(Operator::PeakSeats(Arc::new(PeakSeats { source, storage: storage.clone(), grace_hours: config.billing.grace_hours })))
        }
        OperatorKind::UsageRollup => {
            let mut sources = Vec::new();
            for name in &config.usage.sources {
                let source = Source::load(project, name, store.engine())?;
                source.check(store).await?;
                source.refuse_tables_of_others(store, &config.usage.sources).await?;
                sources.push(source);
            }
            Ok(Operator::UsageRollup(Arc::new(UsageRollup {
                sources,
                cost_rules: config.usage.cost_rules(),
                prices: config.price_book(project)?,
                timezone: config.reporting.timezone,
                earliest_date: config.usage.earliest_date,
                max_quarantined_ratio: config.quarantine.max_ratio,
                batch_rows: usize::try_from(config.engine.batch_rows)?,
                seen_ids: None,
                lake: Lake::open(project, config, storage)?,
            })))
        }
        OperatorKind::Sql => Ok(Operator::Sql(Arc::new(SqlSelect::load(project, store, jobs, job, config.reporting.timezone).await?))),
        OperatorKind::Rollup => Ok(Operator::Rollup(Arc::new(Rollup::load(store, jobs, job, config.reporting.timezone).await?))),
    }
}
