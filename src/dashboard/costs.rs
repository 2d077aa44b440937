//! What was spent today, this week, this month and ever: keys of the usage-tracking seed's `get_ai_cost_summary`.

use anyhow::Result;
use chrono::{DateTime, Datelike, Days, Months, NaiveDate, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use super::number::{Usd, cost};
use super::read::{one, sums};
use crate::store::Tx;
use crate::window::{day_of, end_of_time, first_of_month, next_day};

/// Days, ISO weeks (from Monday) and months are those of `reporting.timezone`. A cost is none where no request has a known one.
#[derive(Debug, Serialize)]
pub struct CostSummary {
    pub today: Option<Usd>,
    pub yesterday: Option<Usd>,
    pub this_week: Option<Usd>,
    pub this_month: Option<Usd>,
    pub last_month: Option<Usd>,
    pub all_time: Option<Usd>,
    pub requests_today: i64,
    pub requests_this_month: i64,
}

impl CostSummary {
    /// Computes the summary from `usage_daily_total`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn compute(tx: &mut Tx, timezone: Tz, as_of: DateTime<Utc>) -> Result<Self> {
        let today = day_of(as_of, timezone)?;
        let (tomorrow, month) = (next_day(today)?, first_of_month(today));
        let monday = today - Days::new(today.weekday().num_days_from_monday().into());
        let (cost_today, requests_today) = between(tx, today, tomorrow).await?;
        let (cost_this_month, requests_this_month) = between(tx, month, month + Months::new(1)).await?;
        Ok(Self {
            today: cost_today,
            yesterday: between(tx, today - Days::new(1), today).await?.0,
            this_week: between(tx, monday, monday + Days::new(7)).await?.0,
            this_month: cost_this_month,
            last_month: between(tx, month - Months::new(1), month).await?.0,
            all_time: between(tx, NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or_default(), end_of_time()).await?.0,
            requests_today,
            requests_this_month,
        })
    }
}

/// Cost in USD and requests of the days `[from, to)`.
async fn between(tx: &mut Tx, from: NaiveDate, to: NaiveDate) -> Result<(Option<Usd>, i64)> {
    let sql = format!(
        "SELECT {} FROM usage_daily_total WHERE usage_date >= $1 AND usage_date < $2",
        sums(&["request_count", "total_cost_nanos"])
    );
    let row = one(tx, &sql, &[from.into(), to.into()]).await?;
    let request_count = row.int("request_count")?;
    Ok((cost(row.opt_int("total_cost_nanos")?, request_count, 2)?, request_count))
}
