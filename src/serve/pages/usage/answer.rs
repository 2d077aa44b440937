//! `/api/usage`: the same as the page, as JSON.

use chrono::NaiveDate;
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::value::RawValue;

use super::read::{self, Sums, Usage};
use super::span::Span;
use super::top::TopLine;
use crate::serve::html::usd_json;

/// The answer to a program.
#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    span: Span,
    timezone: &'static str,
    by: &'static str,
    totals: SumsLine,
    periods: Vec<PeriodLine>,
    request_types: Vec<TypesLine>,
    customers: Vec<TopLine>,
    users: Vec<TopLine>,
}

impl Answer {
    pub(super) fn new(span: Span, by: &'static str, timezone: Tz, usage: Usage) -> Self {
        let periods = read::periods(&usage.days, span, by);
        Self {
            span,
            timezone: timezone.name(),
            by,
            totals: (&usage.total()).into(),
            periods: periods.iter().map(|period| PeriodLine { first_date: period.first_date, sums: (&period.sums).into() }).collect(),
            request_types: usage
                .types
                .into_iter()
                .map(|line| TypesLine { sums: (&line.sums).into(), request_type: line.request_type, model: line.model })
                .collect(),
            customers: usage.customers,
            users: usage.users,
        }
    }
}

#[derive(Serialize)]
struct SumsLine {
    request_count: i128,
    success_count: i128,
    error_count: i128,
    unpriced_count: i128,
    input_tokens: i128,
    output_tokens: i128,
    total_tokens: i128,
    total_cost_usd: Option<Box<RawValue>>,
    avg_latency_ms: Option<i128>,
}

#[derive(Serialize)]
struct PeriodLine {
    first_date: NaiveDate,
    #[serde(flatten)]
    sums: SumsLine,
}

#[derive(Serialize)]
struct TypesLine {
    request_type: String,
    model: Option<String>,
    #[serde(flatten)]
    sums: SumsLine,
}

impl From<&Sums> for SumsLine {
    fn from(sums: &Sums) -> Self {
        Self {
            request_count: sums.request_count,
            success_count: sums.success_count,
            error_count: sums.error_count,
            unpriced_count: sums.unpriced_count,
            input_tokens: sums.input_tokens,
            output_tokens: sums.output_tokens,
            total_tokens: sums.total_tokens,
            total_cost_usd: usd_json(sums.cost_nanos),
            avg_latency_ms: sums.latency_ms(),
        }
    }
}
