//! The months of one subscription, folded afresh from the ledger: the seat-usage report, and what stands behind one peak.

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::failure::{self, Failure};
use crate::seats::calendar::{BillingMonth, instant, subscription_months};
use crate::seats::{LedgerRow, MonthPeak, Subscription, TOTAL, peaks};
use crate::source::ledger::{ReadRow, SeatSource};
use crate::store::Tx;

/// A subscription with its months of one seat type.
#[derive(Debug)]
pub struct SubscriptionMonths {
    pub subscription: Subscription,
    pub seat_type: String,
    /// The ledger rows of that type, in order.
    pub rows: Vec<ReadRow>,
    pub months: Vec<MonthPeak>,
}

/// The seat-usage report for reconciliation of an offline licence; keys and meaning are the seat-usage seed's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeatReport {
    pub license_id: Option<String>,
    pub start_date: String,
    /// Months that have ended.
    pub months: Vec<ReportMonth>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportMonth {
    pub month_number: i32,
    pub window_start: String,
    pub window_end: String,
    /// 0 where `coverage` is `none`: the ledger does not know.
    pub peak_provisioned: i64,
    pub peak_at: Option<String>,
    pub coverage: &'static str,
}

/// What the tables of the last run say of a month.
#[derive(Debug, Serialize)]
pub struct Billed {
    pub state: String,
    pub revision: i64,
    pub peak_seats: i64,
}

impl SubscriptionMonths {
    /// Reads a subscription and its org's ledger, and folds them as of `as_of`.
    ///
    /// # Errors
    /// [`Failure`] of kind usage for a subscription or a seat type that there is not.
    pub async fn read(tx: &mut Tx, source: &SeatSource, id: &str, seat_type: &str, as_of: DateTime<Utc>) -> Result<Self> {
        let Some(read) = source.subscription(tx, id, as_of).await? else {
            let (known, _) = source.subscriptions(tx, as_of).await?;
            let nearest = failure::did_you_mean(id, known.iter().map(|subscription| subscription.id.as_str()));
            return Err(Failure::usage(format!("There is no subscription `{id}`{nearest}"))
                .hint("`tallyroll import subscriptions` takes them in; the table is `subscription`")
                .into());
        };
        let subscription = read.map_err(|bad| bad.failure())?;
        let rows = source.rows_of_org(tx, &subscription.org_id, seat_type, as_of).await?;
        if rows.is_empty() && seat_type != TOTAL {
            let known = source.types_of_org(tx, &subscription.org_id).await?;
            let failure = Failure::usage(format!("The ledger of org `{}` has no seat type `{seat_type}`", subscription.org_id));
            return Err(match failure::nearest(seat_type, known.iter().map(String::as_str)) {
                Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")).into(),
                None => failure.into(),
            });
        }
        let counts: Vec<LedgerRow> =
            rows.iter().map(|row| LedgerRow { occurred_at: row.occurred_at.timestamp_micros(), id: row.id, seats: row.seats }).collect();
        let periods = subscription_months(subscription.start_at, subscription.end_at, as_of.timestamp_micros())?;
        let months = peaks(&counts, &periods, as_of.timestamp_micros())?;
        Ok(Self { subscription, seat_type: seat_type.to_owned(), rows, months })
    }

    /// What was committed, which is seats of the whole org.
    #[must_use]
    pub fn committed_seats(&self) -> Option<i64> {
        self.subscription.committed_seats.filter(|_| self.seat_type == TOTAL)
    }

    /// The month of that number.
    ///
    /// # Errors
    /// [`Failure`] of kind usage when there is none yet.
    pub fn month(&self, number: i32) -> Result<&MonthPeak> {
        self.months.iter().find(|month| month.period.number == number).ok_or_else(|| {
            let failure = Failure::usage(format!("Subscription `{}` has no month {number}", self.subscription.id));
            match self.months.len() {
                0 => failure.hint("it has not begun"),
                count => failure.hint(format!("its months are 1 to {count}")),
            }
            .into()
        })
    }

    /// The rows behind a month: the one carried in, and those inside.
    #[must_use]
    pub fn rows_behind(&self, month: &MonthPeak) -> &[ReadRow] {
        let before = |at: i64| self.rows.partition_point(|row| row.occurred_at.timestamp_micros() < at);
        let (first, end) = (before(month.period.start), before(month.period.end));
        &self.rows[first.saturating_sub(1)..end]
    }

    /// What was written of a month, if it was.
    ///
    /// # Errors
    /// What the database says.
    pub async fn billed(&self, tx: &mut Tx, month: &MonthPeak) -> Result<Option<Billed>> {
        let sql = "SELECT state, revision, peak_seats FROM peak_seats \
             WHERE billing_month = $1 AND subscription_id = $2 AND seat_type = $3 AND month_number = $4";
        let parameters = [
            Self::billing_month(month)?.to_string().into(),
            self.subscription.id.as_str().into(),
            self.seat_type.as_str().into(),
            i64::from(month.period.number).into(),
        ];
        let rows = tx.query(sql, &parameters).await?;
        let billed = |row: &crate::store::Row| {
            Ok(Billed { state: row.text("state")?, revision: row.int("revision")?, peak_seats: row.int("peak_seats")? })
        };
        rows.first().map(billed).transpose()
    }

    /// The billing month that a month belongs to.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn billing_month(month: &MonthPeak) -> Result<BillingMonth> {
        Ok(BillingMonth::of(month.period.last_date()?))
    }

    /// The report of the months that have ended at `as_of`.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn report(&self, as_of: DateTime<Utc>) -> Result<SeatReport> {
        let completed = self.months.iter().filter(|month| month.period.end <= as_of.timestamp_micros());
        let months = completed
            .map(|month| {
                Ok(ReportMonth {
                    month_number: month.period.number,
                    window_start: shown(month.period.start)?,
                    window_end: shown(month.period.end)?,
                    peak_provisioned: month.peak_seats,
                    peak_at: month.peak_at.map(shown).transpose()?,
                    coverage: month.coverage.name(),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let license_id = self.subscription.license_id.clone();
        Ok(SeatReport { license_id, start_date: shown(self.subscription.start_at)?, months })
    }
}

/// An instant as the seed's JSON has it, with milliseconds; with microseconds where they matter.
fn shown(micros: i64) -> Result<String> {
    let format = if micros % 1_000 == 0 { SecondsFormat::Millis } else { SecondsFormat::Micros };
    Ok(instant(micros)?.to_rfc3339_opts(format, true))
}
