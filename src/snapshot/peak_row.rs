//! The row of `peak_seats`, in Rust and in Arrow (`docs/interface.md`, "Parquet for finance").

pub mod read;

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use sha2::{Digest, Sha256};

use crate::seats::calendar::{BillingMonth, State};
use crate::seats::{MonthPeak, overage};

/// One subscription month of one seat type.
#[derive(Debug, Clone, PartialEq)]
pub struct PeakRow<'a> {
    pub subscription_id: Cow<'a, str>,
    pub org_id: Cow<'a, str>,
    pub license_id: Option<Cow<'a, str>>,
    pub plan: Option<Cow<'a, str>>,
    pub seat_type: Cow<'a, str>,
    pub month: MonthPeak,
    pub committed_seats: Option<i64>,
    pub state: State,
    pub as_of: i64,
    pub entry: Entry<'a>,
}

/// Where a row stands in the journal of its billing month.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    /// The revision that holds it; 0 while it is not sealed.
    pub revision: i32,
    pub is_correction: bool,
    /// The difference to the revisions before; in `current/`, where a row stands once, the whole.
    pub peak_seats_delta: i64,
    pub overage_seats_delta: Option<i64>,
    pub correction_reason: Option<Cow<'a, str>>,
}

/// What a row is found by: subscription, seat type, month number.
pub type Key = (String, String, i32);

impl PeakRow<'_> {
    #[must_use]
    pub fn overage_seats(&self) -> Option<i64> {
        overage(self.month.peak_seats, self.committed_seats)
    }

    #[must_use]
    pub fn key(&self) -> Key {
        (self.subscription_id.clone().into_owned(), self.seat_type.clone().into_owned(), self.month.period.number)
    }

    /// The row with its texts its own.
    #[must_use]
    pub fn into_owned(self) -> PeakRow<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        PeakRow {
            subscription_id: own(self.subscription_id),
            org_id: own(self.org_id),
            license_id: self.license_id.map(own),
            plan: self.plan.map(own),
            seat_type: own(self.seat_type),
            month: self.month,
            committed_seats: self.committed_seats,
            state: self.state,
            as_of: self.as_of,
            entry: Entry {
                revision: self.entry.revision,
                is_correction: self.entry.is_correction,
                peak_seats_delta: self.entry.peak_seats_delta,
                overage_seats_delta: self.entry.overage_seats_delta,
                correction_reason: self.entry.correction_reason.map(own),
            },
        }
    }

    /// Whether the ledger says the same of both: all but what stands in the subscription, state and journal.
    #[must_use]
    pub fn has_same_facts(&self, other: &PeakRow<'_>) -> bool {
        (&self.org_id, &self.month) == (&other.org_id, &other.month)
    }

    /// What the subscription says: it is sealed with the month.
    #[must_use]
    pub fn agreement(&self) -> (Option<&str>, Option<&str>, Option<i64>) {
        (self.plan.as_deref(), self.license_id.as_deref(), self.committed_seats)
    }

    /// Adds what the ledger says to a digest; with `and_labels`, also what the subscription says, and the state.
    pub fn digest(&self, digest: &mut Sha256, and_labels: bool) {
        let mut bytes = Vec::with_capacity(256);
        let mut text = |text: &str| {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        text(&self.subscription_id);
        text(&self.org_id);
        text(&self.seat_type);
        if and_labels {
            for label in [&self.license_id, &self.plan] {
                text(label.as_deref().unwrap_or("\u{0}"));
            }
            text(self.state.name());
        }
        let month = &self.month;
        text(month.coverage.name());
        let none = i64::MIN;
        for number in [
            month.period.number.into(),
            month.period.start,
            month.period.end,
            month.peak_seats,
            month.peak_at.unwrap_or(none),
            month.peak_event_id.unwrap_or(none),
            month.peak_carried_in.into(),
            month.seconds_at_peak,
            month.opening_seats.unwrap_or(none),
            month.closing_seats.unwrap_or(none),
            month.min_seats.unwrap_or(none),
            month.avg_seats_micros.unwrap_or(none),
            month.ledger_rows,
            month.term_peak_seats,
            if and_labels { self.committed_seats.unwrap_or(none) } else { none },
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        digest.update(&bytes);
    }
}

/// The file's columns, in their fixed order.
#[must_use]
pub fn schema() -> SchemaRef {
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = [
        ("billing_month", DataType::Utf8, false),
        ("subscription_id", DataType::Utf8, false),
        ("org_id", DataType::Utf8, false),
        ("license_id", DataType::Utf8, true),
        ("plan", DataType::Utf8, true),
        ("seat_type", DataType::Utf8, false),
        ("month_number", DataType::Int32, false),
        ("period_start", instant(), false),
        ("period_end", instant(), false),
        ("period_last_date", DataType::Date32, false),
        ("coverage", DataType::Utf8, false),
        ("state", DataType::Utf8, false),
        ("revision", DataType::Int32, false),
        ("entry", DataType::Utf8, false),
        ("peak_seats", DataType::Int64, false),
        ("peak_at", instant(), true),
        ("peak_event_id", DataType::Int64, true),
        ("peak_carried_in", DataType::Boolean, false),
        ("seconds_at_peak", DataType::Int64, false),
        ("opening_seats", DataType::Int64, true),
        ("closing_seats", DataType::Int64, true),
        ("min_seats", DataType::Int64, true),
        ("avg_seats", DataType::Decimal128(18, 6), true),
        ("committed_seats", DataType::Int64, true),
        ("overage_seats", DataType::Int64, true),
        ("term_number", DataType::Int32, false),
        ("term_peak_seats", DataType::Int64, false),
        ("ledger_rows", DataType::Int64, false),
        ("peak_seats_delta", DataType::Int64, false),
        ("overage_seats_delta", DataType::Int64, true),
        ("correction_reason", DataType::Utf8, true),
        ("as_of", instant(), false),
    ];
    Arc::new(Schema::new(columns.map(|(name, data_type, nullable)| Field::new(name, data_type, nullable)).to_vec()))
}

/// Rows of a batch that is written.
pub const BATCH_ROWS: usize = 1_024;

/// Collects rows of one billing month into a batch.
pub struct PeakBatch {
    billing_month: String,
    row_count: usize,
    texts: [StringBuilder; 10],
    ints: [Int32Builder; 3],
    longs: [Int64Builder; 12],
    instants: [TimestampMicrosecondBuilder; 4],
    last_date: Date32Builder,
    carried_in: BooleanBuilder,
    avg_seats: Decimal128Builder,
}

impl PeakBatch {
    /// # Errors
    /// Never: the decimal's precision is right.
    pub fn new(billing_month: BillingMonth) -> Result<Self> {
        Ok(Self {
            billing_month: billing_month.to_string(),
            row_count: 0,
            texts: Default::default(),
            ints: Default::default(),
            longs: Default::default(),
            instants: std::array::from_fn(|_| TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            last_date: Date32Builder::new(),
            carried_in: BooleanBuilder::new(),
            avg_seats: Decimal128Builder::new().with_precision_and_scale(18, 6)?,
        })
    }

    #[must_use]
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// Appends a row, column by column in the schema's order of each type.
    pub fn push(&mut self, row: &PeakRow<'_>) {
        let month = &row.month;
        let texts = [
            Some(self.billing_month.as_str()),
            Some(&row.subscription_id),
            Some(&row.org_id),
            row.license_id.as_deref(),
            row.plan.as_deref(),
            Some(&row.seat_type),
            Some(month.coverage.name()),
            Some(row.state.name()),
            Some(if row.entry.is_correction { "correction" } else { "original" }),
            row.entry.correction_reason.as_deref(),
        ];
        for (builder, text) in self.texts.iter_mut().zip(texts) {
            builder.append_option(text);
        }
        for (builder, number) in self.ints.iter_mut().zip([month.period.number, row.entry.revision, month.term_number]) {
            builder.append_value(number);
        }
        let longs = [
            Some(month.peak_seats),
            month.peak_event_id,
            Some(month.seconds_at_peak),
            month.opening_seats,
            month.closing_seats,
            month.min_seats,
            row.committed_seats,
            row.overage_seats(),
            Some(month.term_peak_seats),
            Some(month.ledger_rows),
            Some(row.entry.peak_seats_delta),
            row.entry.overage_seats_delta,
        ];
        for (builder, number) in self.longs.iter_mut().zip(longs) {
            builder.append_option(number);
        }
        for (builder, at) in
            self.instants.iter_mut().zip([Some(month.period.start), Some(month.period.end), month.peak_at, Some(row.as_of)])
        {
            builder.append_option(at);
        }
        self.last_date.append_value(days_since_epoch(month.period.end - 1));
        self.carried_in.append_value(month.peak_carried_in);
        self.avg_seats.append_option(month.avg_seats_micros.map(i128::from));
        self.row_count += 1;
    }

    /// The rows so far; the next ones go to a new batch.
    ///
    /// # Errors
    /// When Arrow finds the columns unfit, which the schema rules out.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        self.row_count = 0;
        let mut texts = self.texts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let mut ints = self.ints.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let mut longs = self.longs.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let mut instants = self.instants.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef);
        let schema = schema();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let column = match field.data_type() {
                DataType::Utf8 => texts.next(),
                DataType::Int32 => ints.next(),
                DataType::Int64 => longs.next(),
                DataType::Timestamp(..) => instants.next(),
                DataType::Date32 => Some(Arc::new(self.last_date.finish()) as ArrayRef),
                DataType::Boolean => Some(Arc::new(self.carried_in.finish()) as ArrayRef),
                _ => Some(Arc::new(self.avg_seats.finish()) as ArrayRef),
            };
            columns.push(column.context("The schema has a column that no builder fills")?);
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

fn days_since_epoch(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(86_400_000_000)).unwrap_or(i32::MAX)
}
