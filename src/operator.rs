//! Operators: how a job turns one window's input into its rows.

pub mod content;
pub mod peak_seats;
pub mod rollup;
pub mod sql;
pub mod usage_rollup;
pub mod window_rows;

use std::sync::Arc;

use anyhow::Result;

use self::peak_seats::PeakSeats;
use self::rollup::Rollup;
use self::sql::SqlSelect;
use self::usage_rollup::UsageRollup;
use crate::config::Config;
use crate::failure::Failure;
use crate::fingerprint;
use crate::job::{Job, OperatorKind};
use crate::jobs::Jobs;
use crate::measure::{self, MEASURES};
use crate::project::Project;
use crate::snapshot::storage::Storage;
use crate::source::ledger::SeatSource;
use crate::source::{Source, USAGE_EVENT};
use crate::store::Store;

/// A job's operator, its files loaded and checked.
#[derive(Debug, Clone)]
pub enum Operator {
    UsageRollup(Arc<UsageRollup>),
    Rollup(Arc<Rollup>),
    Sql(Arc<SqlSelect>),
    PeakSeats(Arc<PeakSeats>),
    Reconcile,
    UsageDashboard,
}

impl Operator {
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
            _ => fingerprint::of(self.select().into_iter().flat_map(SqlSelect::texts)),
        };
        Ok(format!("{} {sql}", job.definition()))
    }

    /// What [`Self::definition`] was before there were the source `usage_event` and its measures. What was made by it is what would be
    /// made now: of other sources those measures are 0, and a new source's days are found by themselves.
    ///
    /// # Errors
    /// As [`Self::definition`].
    pub fn first_definition(&self, job: &Job) -> Result<String> {
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

    /// Why its last plan left something out that no window shows, if it did.
    #[must_use]
    pub fn left_out(&self) -> Option<Failure> {
        if let Self::PeakSeats(peak_seats) = self { peak_seats.left_out() } else { None }
    }
}

/// Loads a job's SQL and settings and checks them against the database.
///
/// # Errors
/// [`Failure`] of kind config.
pub async fn load(project: &Project, config: &Config, store: &Store, storage: &Storage, jobs: &Jobs, job: &Job) -> Result<Operator> {
    match job.operator {
        OperatorKind::Reconcile => Ok(Operator::Reconcile),
        OperatorKind::UsageDashboard => Ok(Operator::UsageDashboard),
        OperatorKind::PeakSeats => {
            let source = SeatSource::load(project, store.engine())?;
            source.check(store).await?;
            Ok(Operator::PeakSeats(Arc::new(PeakSeats::new(source, storage.clone(), config.billing.grace_hours))))
        }
        OperatorKind::UsageRollup => {
            let mut sources = Vec::new();
            for name in &config.usage.sources {
                let source = Source::load(project, name, store.engine())?;
                source.check(store).await?;
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
            })))
        }
        OperatorKind::Sql => Ok(Operator::Sql(Arc::new(SqlSelect::load(project, store, jobs, job, config.reporting.timezone).await?))),
        OperatorKind::Rollup => Ok(Operator::Rollup(Arc::new(Rollup::load(store, jobs, job, config.reporting.timezone).await?))),
    }
}
