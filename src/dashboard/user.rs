//! A user's dashboard, from the cache that the job `user_dashboard` keeps; only the list of recent requests reads the raw log.
//!
//! Keys: the seed's `GET /api/user/dashboard`. Rule: `docs/semantics.md` section 8.

use anyhow::Result;
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::recent::{self, LoggedRequest};
use crate::config::Config;
use crate::failure::Failure;
use crate::jobs::Jobs;
use crate::operator::sql::SqlSelect;
use crate::project::Project;
use crate::store::{Row, Store, Value};
use crate::window::day_of;

/// What a user's dashboard shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserDashboard {
    pub user: Account,
    pub metrics: Metrics,
    pub limits: Limits,
    pub performance: Performance,
    /// The latest first.
    pub recent_requests: Vec<RecentRequest>,
    pub requests_by_category: serde_json::Value,
    /// Requests of each of the last days, oldest first; days without any are left out.
    pub daily_usage: Vec<DayUsage>,
    pub last_calculated_at: DateTime<Utc>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub id: String,
    pub email: Option<String>,
    pub plan: String,
    pub requests_used: i64,
    pub requests_limit: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    pub total_requests: i64,
    pub total_tokens_used: i64,
    /// Cents.
    pub total_cost: i64,
    /// Milliseconds, over successful requests.
    pub average_response_time: i64,
    pub requests_this_month: i64,
    pub requests_today: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    pub monthly_used: i64,
    pub monthly_limit: i64,
    pub daily_used: i64,
    /// None: no daily limit.
    pub daily_limit: Option<i64>,
    pub can_make_request: bool,
    pub plan_name: String,
    /// None: the plan says none.
    pub max_tokens_per_request: Option<i64>,
    /// As the plan has them; null where none is in force.
    pub features: serde_json::Value,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Performance {
    pub average_response_time: i64,
    /// From 0 to 1.
    pub success_rate: f64,
    pub average_rating: Option<f64>,
    pub total_requests: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentRequest {
    pub id: String,
    pub source: String,
    pub request_type: Option<String>,
    pub category: Option<String>,
    pub model: Option<String>,
    pub total_tokens: Option<i64>,
    pub latency_ms: Option<i64>,
    pub status: Option<String>,
    pub created_at: DateTime<Utc>,
}

#[derive(Debug, Serialize)]
pub struct DayUsage {
    pub date: NaiveDate,
    pub requests: i64,
}

/// The id of a user who can have a dashboard.
///
/// # Errors
/// [`Failure`] of kind usage for one that is no UUID.
pub fn parse_user(id: &str) -> Result<Uuid> {
    let no_uuid = |_| {
        Failure::usage(format!("User `{id}` has no dashboard"))
            .hint("dashboards are of users whose id is a UUID, as in `users`; `dashboard --user ID --usage` shows anybody's days and costs")
    };
    Ok(Uuid::try_parse(id).map_err(no_uuid)?)
}

/// Computes the dashboard of one user afresh, by the SQL of the job `user_dashboard`: the seed's `POST /api/user/dashboard`.
///
/// # Errors
/// What the database says, or a job or SQL file that does not fit it.
pub async fn refresh(project: &Project, config: &Config, store: &Store, user: Uuid, as_of: DateTime<Utc>) -> Result<()> {
    let jobs = Jobs::load(project)?;
    let job = jobs.get("user_dashboard")?;
    let select = SqlSelect::load(project, store, &jobs, job, config.reporting.timezone).await?;
    select.write_one(store, job, "user_id", user, as_of).await
}

/// Requests that the list of recent ones holds, and how far back it looks.
const RECENT_REQUESTS: usize = 10;
const RECENT_DAYS: i64 = 90;

impl UserDashboard {
    /// Reads the dashboard of a user; `days` is how many days, today included, `daily_usage` covers.
    ///
    /// # Errors
    /// [`Failure`] of kind usage for a user that has none.
    pub async fn read(project: &Project, config: &Config, store: &Store, user: Uuid, days: u64, now: DateTime<Utc>) -> Result<Self> {
        let user_id = Value::from(user);
        let within = now - TimeDelta::days(RECENT_DAYS)..now + TimeDelta::days(1);
        let sql = "SELECT total_requests, total_tokens_used, total_cost, average_response_time, success_rate, average_rating, \
             CAST(requests_by_category AS TEXT) AS requests_by_category, requests_this_month, requests_today, plan_name, monthly_used, \
             monthly_limit, daily_used, daily_limit, can_make_request, max_tokens_per_request, CAST(features AS TEXT) AS features, last_calculated_at, users.email AS email \
             FROM user_dashboard_data AS dashboard LEFT JOIN users ON users.id = dashboard.user_id WHERE dashboard.user_id = $1";
        let mut tx = store.begin_read().await?;
        let rows = tx.query(sql, std::slice::from_ref(&user_id)).await?;
        let Some(row) = rows.first() else {
            return Err(Failure::usage(format!("User `{user}` has no dashboard"))
                .hint("`tallyroll run-job usage_daily --downstream` makes one for everyone who made a request or has an account")
                .into());
        };
        let today = day_of(now, config.reporting.timezone)?;
        let first = today - Days::new(days.saturating_sub(1));
        let sql = "SELECT day.usage_date AS usage_date, usage.request_count AS request_count FROM usage_daily_total AS day \
             JOIN usage_daily_user AS usage ON usage.usage_date = day.usage_date AND usage.user_id = $1 \
             WHERE day.usage_date >= $2 ORDER BY day.usage_date";
        let daily = tx.query(sql, &[user.to_string().into(), first.into()]).await?;
        let day = |row: &Row| Ok(DayUsage { date: row.date("usage_date")?, requests: row.int("request_count")? });
        let plan = row.text("plan_name")?;
        let (total_requests, average_response_time) = (row.int("total_requests")?, row.int("average_response_time")?);
        let (monthly_used, monthly_limit) = (row.int("monthly_used")?, row.int("monthly_limit")?);
        Ok(Self {
            user: Account {
                id: user.to_string(),
                email: row.opt_text("email")?,
                plan: plan.clone(),
                requests_used: monthly_used,
                requests_limit: monthly_limit,
            },
            metrics: Metrics {
                total_requests,
                total_tokens_used: row.int("total_tokens_used")?,
                total_cost: row.int("total_cost")?,
                average_response_time,
                requests_this_month: row.int("requests_this_month")?,
                requests_today: row.int("requests_today")?,
            },
            limits: Limits {
                monthly_used,
                monthly_limit,
                daily_used: row.int("daily_used")?,
                daily_limit: row.opt_int("daily_limit")?,
                can_make_request: row.int("can_make_request")? != 0,
                plan_name: plan,
                max_tokens_per_request: row.opt_int("max_tokens_per_request")?,
                features: features_of(row.opt_text("features")?),
            },
            performance: Performance {
                average_response_time,
                success_rate: number(row, "success_rate")?.unwrap_or_default(),
                average_rating: number(row, "average_rating")?,
                total_requests,
            },
            recent_requests: recent::requests(project, config, store, &mut tx, &user.to_string(), within, RECENT_REQUESTS)
                .await?
                .into_iter()
                .map(shown)
                .collect(),
            requests_by_category: serde_json::from_str(&row.opt_text("requests_by_category")?.unwrap_or_else(|| "{}".to_owned()))?,
            daily_usage: daily.iter().map(day).collect::<Result<_>>()?,
            last_calculated_at: row.instant("last_calculated_at")?,
        })
    }
}

fn shown(request: LoggedRequest) -> RecentRequest {
    RecentRequest {
        id: request.id,
        source: request.source,
        request_type: request.request_type,
        category: request.category,
        model: request.model,
        total_tokens: request.total_tokens,
        latency_ms: request.latency_ms,
        status: request.status,
        created_at: request.created_at,
    }
}

/// JSON as the plan's writer left it; what is none is shown as the text that it is.
fn features_of(text: Option<String>) -> serde_json::Value {
    text.map_or(serde_json::Value::Null, |text| serde_json::from_str(&text).unwrap_or_else(|_| text.into()))
}

fn number(row: &Row, column: &str) -> Result<Option<f64>> {
    Ok(row.opt_text(column)?.map(|text| text.parse()).transpose()?)
}
