//! The admin's dashboard: usage and cost of the last days, by user, customer, day and request type.
//!
//! Keys and meaning: the usage-tracking seed's `get_ai_usage_dashboard`, `docs/semantics.md` section 8. Computed from the daily
//! tables; the job `usage_dashboard` keeps it. PostgreSQL's functions of the same names compute the same for applications.

use anyhow::Result;
use chrono::{DateTime, Months, NaiveDate, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::costly::{CustomerUsage, UserUsage, by_customer, by_user};
use super::costs::CostSummary;
use super::number::{Usd, average, cost, cost_of_each};
use super::read::{one, span, success_cost, sums};
use crate::abort;
use crate::config::Config;
use crate::store::{Row, Store, Tx, Value};
use crate::window::{day_of, first_of_month};

#[derive(Debug, Serialize)]
pub struct UsageDashboard {
    pub summary: Summary,
    pub costs: Costs,
    pub by_user: Vec<UserUsage>,
    pub by_customer: Vec<CustomerUsage>,
    pub daily_trend: Vec<DayUsage>,
    pub by_request_type: Vec<TypeUsage>,
    pub current_month: MonthUsage,
    pub previous_month: MonthUsage,
}

/// Averages are over successful requests: of cost over those whose cost is known, latency over those that logged one.
///
/// A cost is none where there are requests and none has a known one.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub total_requests: i64,
    pub successful_requests: i64,
    pub failed_requests: i64,
    pub total_input_tokens: i64,
    pub total_output_tokens: i64,
    pub total_tokens: i64,
    pub total_cost_usd: Option<Usd>,
    pub avg_tokens_per_request: i64,
    pub avg_cost_per_request: Option<Usd>,
    /// Over successful requests that logged one; none without any.
    pub avg_latency_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
pub struct Costs {
    pub input_cost_usd: Option<Usd>,
    pub output_cost_usd: Option<Usd>,
    pub total_cost_usd: Option<Usd>,
    pub cost_per_1k_tokens: Option<Usd>,
}

#[derive(Debug, Serialize)]
pub struct DayUsage {
    pub date: NaiveDate,
    pub requests: i64,
    pub tokens: i64,
    pub cost: Option<Usd>,
    pub unique_users: i64,
}

#[derive(Debug, Serialize)]
pub struct TypeUsage {
    pub request_type: String,
    pub count: i64,
    pub tokens: i64,
    pub cost: Option<Usd>,
    /// Over successful requests that logged one; none without any.
    pub avg_latency: Option<i64>,
}

#[derive(Debug, Serialize)]
pub struct MonthUsage {
    pub requests: i64,
    pub tokens: i64,
    pub cost_usd: Option<Usd>,
}

impl UsageDashboard {
    /// Computes the dashboard of today and the `days` days before it, whole days of `timezone`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn compute(tx: &mut Tx, days: u64, timezone: Tz, as_of: DateTime<Utc>) -> Result<Self> {
        let (from, to) = span(days, timezone, as_of)?;
        let range: [Value; 2] = [from.into(), to.into()];
        let measures = sums(&[
            "request_count",
            "success_count",
            "error_count",
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "input_cost_nanos",
            "output_cost_nanos",
            "total_cost_nanos",
            "success_total_tokens",
            "success_cost_nanos",
            "success_latency_ms_sum",
            "success_latency_count",
            "success_priced_count",
            "priced_tokens",
        ]);
        let total =
            one(tx, &format!("SELECT {measures} FROM usage_daily_total WHERE usage_date >= $1 AND usage_date < $2"), &range).await?;
        let int = |column: &str| total.int(column);
        let (request_count, success_count, total_tokens) = (int("request_count")?, int("success_count")?, int("total_tokens")?);
        let known = |column: &str| total.opt_int(column);
        let total_nanos = known("total_cost_nanos")?;
        let summary = Summary {
            total_requests: request_count,
            successful_requests: success_count,
            failed_requests: int("error_count")?,
            total_input_tokens: int("input_tokens")?,
            total_output_tokens: int("output_tokens")?,
            total_tokens,
            total_cost_usd: cost(total_nanos, request_count, 2)?,
            avg_tokens_per_request: average(int("success_total_tokens")?, success_count)?.unwrap_or(0),
            avg_cost_per_request: success_cost(&total, 4)?,
            avg_latency_ms: average(int("success_latency_ms_sum")?, int("success_latency_count")?)?,
        };
        let costs = Costs {
            input_cost_usd: cost(known("input_cost_nanos")?, request_count, 2)?,
            output_cost_usd: cost(known("output_cost_nanos")?, request_count, 2)?,
            total_cost_usd: cost(total_nanos, request_count, 2)?,
            cost_per_1k_tokens: cost_of_each(i128::from(total_nanos.unwrap_or(0)) * 1_000, int("priced_tokens")?, total_tokens, 4)?,
        };
        let this_month = first_of_month(day_of(as_of, timezone)?);
        Ok(Self {
            summary,
            costs,
            by_user: by_user(tx, from, to).await?,
            by_customer: by_customer(tx, &range).await?,
            daily_trend: daily_trend(tx, &range).await?,
            by_request_type: by_request_type(tx, &range).await?,
            current_month: month(tx, this_month).await?,
            previous_month: month(tx, this_month - Months::new(1)).await?,
        })
    }
}

/// What the kept dashboards follow from beside the summaries: the day, and which spans are kept.
///
/// # Errors
/// Only at the end of the calendar.
pub fn follows_from(config: &Config, as_of: DateTime<Utc>) -> Result<String> {
    Ok(format!("as of {} for {:?} days", day_of(as_of, config.reporting.timezone)?, config.dashboard.days))
}

/// Replaces the kept dashboards, one for each of `dashboard.days` under the key `admin:<days>`, and the cost summary under
/// `cost_summary`; how many there are.
///
/// # Errors
/// As [`UsageDashboard::compute`].
pub async fn write(store: &Store, tx: &mut Tx, config: &Config, as_of: DateTime<Utc>) -> Result<i64> {
    let costs = CostSummary::compute(tx, config.reporting.timezone, as_of).await?;
    let mut rows = vec![("cost_summary".to_owned(), serde_json::to_string(&costs)?)];
    for days in &config.dashboard.days {
        let dashboard = UsageDashboard::compute(tx, (*days).into(), config.reporting.timezone, as_of).await?;
        rows.push((format!("admin:{days}"), serde_json::to_string(&dashboard)?));
    }
    tx.execute("DELETE FROM usage_dashboard", &[]).await?;
    abort::point("dashboards_deleted");
    let content = store.dialect().json("$2");
    let sql = format!("INSERT INTO usage_dashboard (dashboard_key, content, last_calculated_at) VALUES ($1, {content}, $3)");
    for (key, text) in &rows {
        tx.execute(&sql, &[key.as_str().into(), text.as_str().into(), as_of.into()]).await?;
    }
    abort::point("dashboards_written");
    Ok(i64::try_from(rows.len())?)
}

async fn daily_trend(tx: &mut Tx, range: &[Value]) -> Result<Vec<DayUsage>> {
    let sql = "SELECT usage_date, request_count, total_tokens, total_cost_nanos, unique_users \
         FROM usage_daily_total WHERE usage_date >= $1 AND usage_date < $2 ORDER BY usage_date";
    let day = |row: &Row| -> Result<DayUsage> {
        Ok(DayUsage {
            date: row.date("usage_date")?,
            requests: row.int("request_count")?,
            tokens: row.int("total_tokens")?,
            cost: cost(row.opt_int("total_cost_nanos")?, row.int("request_count")?, 4)?,
            unique_users: row.int("unique_users")?,
        })
    };
    tx.query(sql, range).await?.iter().map(day).collect()
}

async fn by_request_type(tx: &mut Tx, range: &[Value]) -> Result<Vec<TypeUsage>> {
    let sql = format!(
        "SELECT request_type, {} FROM usage_daily_type WHERE usage_date >= $1 AND usage_date < $2 \
         GROUP BY request_type ORDER BY SUM(request_count) DESC, request_type",
        sums(&["request_count", "total_tokens", "total_cost_nanos", "success_latency_ms_sum", "success_latency_count"])
    );
    let kind = |row: &Row| -> Result<TypeUsage> {
        Ok(TypeUsage {
            request_type: row.text("request_type")?,
            count: row.int("request_count")?,
            tokens: row.int("total_tokens")?,
            cost: cost(row.opt_int("total_cost_nanos")?, row.int("request_count")?, 4)?,
            avg_latency: average(row.int("success_latency_ms_sum")?, row.int("success_latency_count")?)?,
        })
    };
    tx.query(&sql, range).await?.iter().map(kind).collect()
}

async fn month(tx: &mut Tx, month: NaiveDate) -> Result<MonthUsage> {
    let measures = sums(&["request_count", "total_tokens", "total_cost_nanos"]);
    let sql = format!("SELECT {measures} FROM usage_daily_total WHERE usage_date >= $1 AND usage_date < $2");
    let row = one(tx, &sql, &[month.into(), (month + Months::new(1)).into()]).await?;
    Ok(MonthUsage {
        requests: row.int("request_count")?,
        tokens: row.int("total_tokens")?,
        cost_usd: cost(row.opt_int("total_cost_nanos")?, row.int("request_count")?, 2)?,
    })
}
