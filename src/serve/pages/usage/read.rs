//! The usage of a span of days, from the daily summaries, and from the monthly ones for whole months.

use anyhow::Result;
use chrono::{Datelike, NaiveDate};

use super::span::Span;
use super::top::{CUSTOMERS, LISTED, TopLine, USERS, top};
use crate::store::{Row, Store, Tx};
use crate::window::first_of_month;

/// Sums over requests. The cost is none if no request has a known one.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    pub(super) request_count: i128,
    pub(super) success_count: i128,
    pub(super) error_count: i128,
    pub(super) unpriced_count: i128,
    pub(super) input_tokens: i128,
    pub(super) output_tokens: i128,
    pub(super) total_tokens: i128,
    pub(super) cost_nanos: Option<i128>,
    pub(super) success_latency_ms_sum: i128,
    pub(super) success_latency_count: i128,
}

/// The sums of one period of the chart.
#[derive(Debug, Clone)]
pub(super) struct Period {
    pub(super) first_date: NaiveDate,
    pub(super) sums: Sums,
}

/// A request type with a model.
#[derive(Debug)]
pub(super) struct TypeLine {
    pub(super) request_type: String,
    pub(super) model: Option<String>,
    pub(super) sums: Sums,
}

/// What a page of usage shows.
#[derive(Debug)]
pub(super) struct Usage {
    /// Every day that has requests.
    pub(super) days: Vec<Period>,
    pub(super) types: Vec<TypeLine>,
    pub(super) customers: Vec<TopLine>,
    pub(super) users: Vec<TopLine>,
}

const SUMS: [&str; 10] = [
    "request_count",
    "success_count",
    "error_count",
    "unpriced_count",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "total_cost_nanos",
    "success_latency_ms_sum",
    "success_latency_count",
];

/// Reads a span; `search` looks for a name or an id.
pub(super) async fn usage(store: &Store, span: Span, search: Option<&str>) -> Result<Usage> {
    let mut tx = store.begin_read().await?;
    Ok(Usage {
        days: days(&mut tx, span).await?,
        types: types(&mut tx, span).await?,
        customers: top(&mut tx, &CUSTOMERS, span, search).await?,
        users: top(&mut tx, &USERS, span, search).await?,
    })
}

async fn days(tx: &mut Tx, span: Span) -> Result<Vec<Period>> {
    let sql = format!(
        "SELECT usage_date, {} FROM usage_daily_total WHERE usage_date >= $1 AND usage_date <= $2 ORDER BY usage_date",
        SUMS.join(", ")
    );
    let rows = tx.query(&sql, &[span.from.into(), span.to.into()]).await?;
    rows.iter().map(|row| Ok(Period { first_date: row.date("usage_date")?, sums: sums(row)? })).collect()
}

async fn types(tx: &mut Tx, span: Span) -> Result<Vec<TypeLine>> {
    let measures = SUMS.map(|measure| format!("CAST(SUM({measure}) AS BIGINT) AS {measure}")).join(", ");
    let sql = format!(
        "SELECT request_type, model, {measures} FROM usage_daily_type WHERE usage_date >= $1 AND usage_date <= $2 \
         GROUP BY request_type, model ORDER BY COALESCE(SUM(total_cost_nanos), 0) DESC, request_type, model LIMIT {LISTED}"
    );
    let rows = tx.query(&sql, &[span.from.into(), span.to.into()]).await?;
    let line = |row: &Row| Ok(TypeLine { request_type: row.text("request_type")?, model: row.opt_text("model")?, sums: sums(row)? });
    rows.iter().map(line).collect()
}

fn sums(row: &Row) -> Result<Sums> {
    let int = |column: &str| row.int(column).map(i128::from);
    Ok(Sums {
        request_count: int("request_count")?,
        success_count: int("success_count")?,
        error_count: int("error_count")?,
        unpriced_count: int("unpriced_count")?,
        input_tokens: int("input_tokens")?,
        output_tokens: int("output_tokens")?,
        total_tokens: int("total_tokens")?,
        cost_nanos: row.opt_int("total_cost_nanos")?.map(i128::from),
        success_latency_ms_sum: int("success_latency_ms_sum")?,
        success_latency_count: int("success_latency_count")?,
    })
}

impl Usage {
    pub(super) fn total(&self) -> Sums {
        let mut total = Sums::default();
        self.days.iter().for_each(|day| total.add(&day.sums));
        total
    }
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.request_count += other.request_count;
        self.success_count += other.success_count;
        self.error_count += other.error_count;
        self.unpriced_count += other.unpriced_count;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.total_tokens += other.total_tokens;
        self.cost_nanos = match (self.cost_nanos, other.cost_nanos) {
            (None, None) => None,
            (left, right) => Some(left.unwrap_or(0) + right.unwrap_or(0)),
        };
        self.success_latency_ms_sum += other.success_latency_ms_sum;
        self.success_latency_count += other.success_latency_count;
    }

    /// Milliseconds of a successful request, rounded half-even; none if none was logged.
    pub(super) fn latency_ms(&self) -> Option<i128> {
        (self.success_latency_count > 0).then(|| crate::money::div_half_even(self.success_latency_ms_sum, self.success_latency_count))
    }
}

/// The first day of the period of a day.
pub(super) fn period_of(day: NaiveDate, by: &str) -> NaiveDate {
    match by {
        "week" => day.checked_sub_days(chrono::Days::new(day.weekday().num_days_from_monday().into())).unwrap_or(day),
        "month" => first_of_month(day),
        _ => day,
    }
}

/// Every period of a span, also those without requests.
pub(super) fn periods(days: &[Period], span: Span, by: &str) -> Vec<Period> {
    let mut periods: Vec<Period> = Vec::new();
    for day in span.from.iter_days().take_while(|day| *day <= span.to) {
        let first_date = period_of(day, by);
        if periods.last().is_none_or(|last| last.first_date != first_date) {
            periods.push(Period { first_date, sums: Sums::default() });
        }
    }
    for day in days {
        let first_date = period_of(day.first_date, by);
        if let Ok(index) = periods.binary_search_by_key(&first_date, |period| period.first_date) {
            periods[index].sums.add(&day.sums);
        }
    }
    periods
}
