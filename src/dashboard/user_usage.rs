//! One user's usage of the last days: keys of the usage-tracking seed's `get_user_ai_usage`.

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use super::number::{Usd, average, cost, usd};
use super::read::span;
use super::recent::{self, LoggedRequest};
use crate::config::Config;
use crate::project::Project;
use crate::store::{Row, Store};
use crate::window::start_of_day;

/// Computed on demand: a user's days are few rows.
#[derive(Debug, Serialize)]
pub struct UserUsage {
    pub summary: UserSummary,
    /// The latest first.
    pub recent_requests: Vec<UserRequest>,
    pub daily_usage: Vec<UserDay>,
}

#[derive(Debug, Serialize)]
pub struct UserSummary {
    pub total_requests: i64,
    pub total_tokens: i64,
    pub total_cost_usd: Option<Usd>,
    /// Over successful requests.
    pub avg_tokens_per_request: i64,
}

#[derive(Debug, Serialize)]
pub struct UserRequest {
    pub id: String,
    pub customer_name: Option<String>,
    pub request_type: Option<String>,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub total_tokens: Option<i64>,
    /// As it was logged.
    pub cost: Option<Usd>,
    pub latency_ms: Option<i64>,
    pub status: Option<String>,
    pub created_at: DateTime<Utc>,
}

#[derive(Debug, Serialize)]
pub struct UserDay {
    pub date: NaiveDate,
    pub requests: i64,
    pub tokens: i64,
    pub cost: Option<Usd>,
}

/// Requests that are listed.
const LISTED: usize = 50;

impl UserUsage {
    /// Computes the usage of `user` over today and the `days` days before it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn compute(project: &Project, config: &Config, store: &Store, user: &str, days: u64, as_of: DateTime<Utc>) -> Result<Self> {
        let timezone = config.reporting.timezone;
        let (from, to) = span(days, timezone, as_of)?;
        let sql = "SELECT day.usage_date AS usage_date, usage.request_count AS request_count, usage.total_tokens AS total_tokens, \
             usage.total_cost_nanos AS total_cost_nanos, usage.success_count AS success_count, \
             usage.success_total_tokens AS success_total_tokens \
             FROM usage_daily_total AS day \
             JOIN usage_daily_user AS usage ON usage.usage_date = day.usage_date AND usage.user_id = $1 \
             WHERE day.usage_date >= $2 AND day.usage_date < $3 ORDER BY day.usage_date";
        let mut tx = store.begin_read().await?;
        let rows = tx.query(sql, &[user.into(), from.into(), to.into()]).await?;
        let known = rows.iter().filter_map(|row| row.opt_int("total_cost_nanos").transpose()).collect::<Result<Vec<_>>>()?;
        let total_nanos = (!known.is_empty()).then(|| known.iter().sum());
        let sum = |column: &str| rows.iter().map(|row| row.int(column)).sum::<Result<i64>>();
        let day = |row: &Row| -> Result<UserDay> {
            Ok(UserDay {
                date: row.date("usage_date")?,
                requests: row.int("request_count")?,
                tokens: row.int("total_tokens")?,
                cost: cost(row.opt_int("total_cost_nanos")?, row.int("request_count")?, 4)?,
            })
        };
        let within = start_of_day(from, timezone)?..start_of_day(to, timezone)?;
        let requests = recent::requests(project, config, store, &mut tx, user, within, LISTED).await?;
        Ok(Self {
            summary: UserSummary {
                total_requests: sum("request_count")?,
                total_tokens: sum("total_tokens")?,
                total_cost_usd: cost(total_nanos, sum("request_count")?, 4)?,
                avg_tokens_per_request: average(sum("success_total_tokens")?, sum("success_count")?)?.unwrap_or(0),
            },
            recent_requests: requests.into_iter().map(shown).collect::<Result<_>>()?,
            daily_usage: rows.iter().map(day).collect::<Result<_>>()?,
        })
    }
}

fn shown(request: LoggedRequest) -> Result<UserRequest> {
    Ok(UserRequest {
        id: request.id,
        customer_name: request.customer_name,
        request_type: request.request_type,
        input_tokens: request.input_tokens,
        output_tokens: request.output_tokens,
        total_tokens: request.total_tokens,
        cost: request.cost_nanos.map(|cost| usd(cost, 1, 6)).transpose()?,
        latency_ms: request.latency_ms,
        status: request.status,
        created_at: request.created_at,
    })
}
