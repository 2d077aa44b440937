//! The rows of a billing month as a fold comes by them: digested, and where they will be written, spooled; and how many ledger rows
//! each month had.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use parquet::arrow::ArrowWriter;
use sha2::{Digest, Sha256};
use tempfile::SpooledTempFile;

use crate::seats::calendar::{BillingMonth, State, instant};
use crate::snapshot::manifest::PeakFacts;
use crate::snapshot::parquet_file;
use crate::snapshot::peak_row::{self, BATCH_ROWS, PeakBatch, PeakRow};
use crate::source::ledger::OrgLedger;

/// Bytes of a month that stay in memory; more go to a temporary file.
const SPOOL_BYTES: usize = 256 << 10;

/// The rows of one billing month on their way.
pub(super) struct Collector {
    pub(super) month: BillingMonth,
    pub(super) is_final: bool,
    pub(super) has_open: bool,
    pub(super) row_count: i64,
    pub(super) peak_seats: i64,
    pub(super) digest: Sha256,
    pub(super) spool: Option<Spool>,
}

/// A temporary Parquet file being written.
pub(super) struct Spool {
    pub(super) batch: PeakBatch,
    pub(super) writer: Option<ArrowWriter<SpooledTempFile>>,
}

impl Collector {
    pub(super) fn new(month: BillingMonth, is_final: bool, is_kept: bool) -> Result<Self> {
        let spool = if is_kept { Some(Spool { batch: PeakBatch::new(month)?, writer: None }) } else { None };
        Ok(Self { month, is_final, has_open: false, row_count: 0, peak_seats: 0, digest: Sha256::new(), spool })
    }

    pub(super) fn push(&mut self, row: &PeakRow<'_>) -> Result<()> {
        self.row_count += 1;
        self.peak_seats += row.month.peak_seats;
        self.has_open |= row.state == State::Open;
        // Labels of a closed month are those it was sealed with.
        row.digest(&mut self.digest, !self.is_final);
        self.spool.as_mut().map_or(Ok(()), |spool| spool.push(row))
    }

    pub(super) fn state(&self) -> State {
        match (self.is_final, self.has_open) {
            (true, _) => State::Final,
            (false, true) => State::Open,
            (false, false) => State::Provisional,
        }
    }
}

impl Spool {
    pub(super) fn push(&mut self, row: &PeakRow<'_>) -> Result<()> {
        self.batch.push(row);
        if self.batch.row_count() >= BATCH_ROWS { self.flush().map(|_| ()) } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<&mut ArrowWriter<SpooledTempFile>> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => parquet_file::writer(SpooledTempFile::new(SPOOL_BYTES), peak_row::schema())?,
        };
        let writer = self.writer.insert(writer);
        writer.write(&self.batch.finish()?).context("A temporary file cannot be written")?;
        Ok(writer)
    }

    pub(super) fn finish(mut self, facts: &PeakFacts) -> Result<SpooledTempFile> {
        self.flush()?;
        let writer = self.writer.context("A temporary file was not begun")?;
        parquet_file::finish(writer, &facts.to_footer()).context("A temporary file cannot be written")
    }
}

/// Ledger rows by the calendar month they occurred in, and the range of their ids.
#[derive(Default)]
pub(super) struct Histogram {
    pub(super) by_month: BTreeMap<i32, LedgerMonth>,
}

pub(super) struct LedgerMonth {
    pub(super) row_count: i64,
    pub(super) first_id: i64,
    pub(super) last_id: i64,
}

impl Histogram {
    pub(super) fn count(&mut self, org: &OrgLedger) -> Result<()> {
        for series in &org.series {
            let mut rest = series.rows.as_slice();
            while let Some(first) = rest.first() {
                let month = BillingMonth::of(instant(first.occurred_at)?.date_naive());
                let end = month.closes_at(0)?.timestamp_micros();
                let (inside, after) = rest.split_at(rest.partition_point(|row| row.occurred_at < end));
                let known =
                    self.by_month.entry(month.ordinal()).or_insert(LedgerMonth { row_count: 0, first_id: first.id, last_id: first.id });
                known.row_count += i64::try_from(inside.len())?;
                for row in inside {
                    known.first_id = known.first_id.min(row.id);
                    known.last_id = known.last_id.max(row.id);
                }
                rest = after;
            }
        }
        Ok(())
    }

    pub(super) fn ids_until(&self, ordinal: i32) -> Option<(i64, i64)> {
        let months = || self.by_month.range(..=ordinal).map(|(_, month)| month);
        Some((months().map(|month| month.first_id).min()?, months().map(|month| month.last_id).max()?))
    }
}
