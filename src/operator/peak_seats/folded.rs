//! What the ledger says of every billing month, as one fold found it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::sync::Mutex;

use anyhow::{Context, Result};
use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use tempfile::SpooledTempFile;
use uuid::Uuid;

use crate::engine::request::Request;
use crate::failure::Failure;
use crate::seats::calendar::{BillingMonth, State};
use crate::snapshot::manifest::PeakFacts;
use crate::snapshot::{parquet_file, peak_row};
use crate::source::ledger::BadSubscription;
use crate::store::format_instant;
use crate::store::windows::{WindowRecord, WindowState};
use crate::window::Window;

/// How a sealed month is marked in `job_window.input_fingerprint`.
pub(super) const SEALED_MARK: &str = "final ";

/// What every billing month says as of one instant.
#[derive(Debug)]
pub struct Folded {
    pub as_of: DateTime<Utc>,
    /// The months in which subscription months end, and those that were written before.
    pub months: BTreeMap<Window, FoldedMonth>,
    /// Months that are sealed already.
    pub sealed: BTreeSet<Window>,
    /// The first month that had more ledger rows when it was written, and how many: rows that are gone.
    pub vanished: Option<(Window, i64)>,
    /// Subscriptions that cannot be billed: what was sealed of them stays as it is.
    pub isolated: Vec<BadSubscription>,
    pub(super) files: BTreeMap<Window, Mutex<SpooledTempFile>>,
    pub(super) made_from: MadeFrom,
    pub(super) project_id: Uuid,
}

/// What a fold was made for: it serves only a plan that sees the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MadeFrom {
    pub(super) as_of: DateTime<Utc>,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
    is_forced: bool,
    pub(super) windows: BTreeMap<Window, (i64, WindowState)>,
}

impl MadeFrom {
    pub(super) fn new(states: &BTreeMap<Window, WindowRecord>, request: &Request) -> Self {
        let windows = states.iter().map(|(window, state)| (*window, (state.write_count, state.state))).collect();
        Self { as_of: request.as_of, from: request.from, to: request.to, is_forced: request.force || request.rebuild, windows }
    }

    pub(super) fn is_asked_for(&self, window: Window) -> bool {
        let end = self.to.unwrap_or(NaiveDate::MAX);
        self.from.is_some_and(|from| window.end_date > from && window.start_date < end)
    }
}

/// One billing month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldedMonth {
    pub state: State,
    pub row_count: i64,
    /// The sum of the peaks, of every seat type.
    pub peak_seats: i64,
    /// Rows of the whole ledger that occurred in this calendar month.
    pub ledger_rows: i64,
    /// The smallest and largest id of ledger rows that occurred before the month's end.
    pub ledger_ids: Option<(i64, i64)>,
    /// SHA-256 over the month's rows.
    pub digest: String,
}

impl FoldedMonth {
    /// What `job_window` keeps of it: another one makes the month due.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        if self.state == State::Final { format!("{SEALED_MARK}{}", self.digest) } else { self.digest.clone() }
    }
}

impl Folded {
    /// # Errors
    /// When the fold does not know the window.
    pub fn month(&self, window: Window) -> Result<&FoldedMonth> {
        self.months.get(&window).with_context(|| format!("Billing month {window} was not folded"))
    }

    #[must_use]
    pub fn as_of_micros(&self) -> i64 {
        self.as_of.timestamp_micros()
    }

    /// Whether the window had ended at `as_of`: then no later `as_of` changes what it says.
    #[must_use]
    pub fn has_ended(&self, window: Window) -> bool {
        self.as_of.date_naive() >= window.end_date
    }

    pub(super) fn is_asked_for(&self, window: Window) -> bool {
        self.made_from.is_asked_for(window)
    }

    /// The ids of what could not be billed.
    pub(super) fn isolated_ids(&self) -> BTreeSet<String> {
        self.isolated.iter().map(|bad| bad.id.clone()).collect()
    }

    pub(super) fn is_from(&self, made_from: &MadeFrom) -> bool {
        self.made_from == *made_from
    }

    pub(super) fn is_collected(&self, window: Window) -> bool {
        self.files.contains_key(&window) || self.months.get(&window).is_some_and(|month| month.row_count == 0)
    }

    /// A month's rows as the file that is published where no revision is there yet.
    ///
    /// # Errors
    /// When the temporary file cannot be read; [`Failure`] of kind try-again where the month's rows were not collected.
    pub fn file(&self, window: Window) -> Result<Bytes> {
        let month = self.month(window)?;
        if month.row_count == 0 {
            let facts = facts(BillingMonth::of(window.start_date), month, self.as_of, self.project_id);
            return parquet_file::write(peak_row::schema(), &[], &facts.to_footer());
        }
        let Some(file) = self.files.get(&window) else {
            // The first look had found it as it should be: the storage lists other files now.
            return Err(Failure::try_again(format!("What the storage holds of {window} changed while it was being looked at"))
                .hint("this command can be repeated as it is")
                .into());
        };
        let mut file = file.lock().map_err(|_| anyhow::anyhow!("A reader of the rows of {window} died"))?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes).context("A temporary file cannot be read back")?;
        Ok(bytes.into())
    }
}

pub(super) fn facts(month: BillingMonth, folded: &FoldedMonth, as_of: DateTime<Utc>, project_id: Uuid) -> PeakFacts {
    PeakFacts {
        billing_month: month.to_string(),
        revision: i32::from(folded.state == State::Final),
        state: folded.state.name(),
        as_of: format_instant(as_of),
        input_fingerprint: folded.digest.clone(),
        ledger_ids: folded.ledger_ids,
        project_id,
    }
}
