//! The users and the customers that cost most.

use anyhow::Result;
use chrono::{DateTime, Months, NaiveDate, Utc};
use serde::Serialize;

use super::number::{Usd, cost};
use super::read::{success_cost, sums};
use crate::store::{Row, Tx, Value};
use crate::window::first_of_month;

#[derive(Debug, Serialize)]
pub struct UserUsage {
    pub user_id: String,
    pub user_email: String,
    pub request_count: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub total_tokens: i64,
    pub total_cost: Option<Usd>,
    pub avg_cost_per_request: Option<Usd>,
    pub last_request: DateTime<Utc>,
}

#[derive(Debug, Serialize)]
pub struct CustomerUsage {
    /// A number, as the seed has it, where the id is a whole one of at most 18 digits.
    pub customer_id: serde_json::Value,
    pub customer_name: String,
    pub request_count: i64,
    pub total_tokens: i64,
    pub total_cost: Option<Usd>,
    pub unique_users: i64,
}

/// Users and customers that are listed: those that cost most.
const LISTED: i64 = 25;

pub(super) async fn by_user(tx: &mut Tx, from: NaiveDate, to: NaiveDate) -> Result<Vec<UserUsage>> {
    // Months that lie whole in the span are read as such, one row in place of thirty.
    let month = first_of_month(from);
    let whole_from = if month == from { month } else { month + Months::new(1) }.min(to);
    let whole_to = first_of_month(to).max(whole_from);
    // First who is listed, then what is shown of those, by their keys.
    let sql = format!(
        "WITH cost AS ( \
             SELECT user_id, total_cost_nanos FROM usage_monthly_user WHERE usage_month >= $3 AND usage_month < $4 \
             UNION ALL \
             SELECT user_id, total_cost_nanos FROM usage_daily_user WHERE usage_date >= $1 AND usage_date < $3 \
             UNION ALL \
             SELECT user_id, total_cost_nanos FROM usage_daily_user WHERE usage_date >= $4 AND usage_date < $2 \
         ), listed AS ( \
             SELECT user_id FROM cost GROUP BY user_id ORDER BY COALESCE(SUM(total_cost_nanos), 0) DESC, user_id LIMIT {LISTED} \
         ) \
         SELECT listed.user_id AS user_id, substr(MAX(CAST(usage.usage_date AS TEXT) || user_email), 11) AS user_email, {}, \
             MAX(usage.last_request_at) AS last_request_at \
         FROM listed \
         JOIN usage_daily_total AS day ON day.usage_date >= $1 AND day.usage_date < $2 \
         JOIN usage_daily_user AS usage ON usage.usage_date = day.usage_date AND usage.user_id = listed.user_id \
         GROUP BY listed.user_id ORDER BY COALESCE(SUM(usage.total_cost_nanos), 0) DESC, listed.user_id",
        sums(&[
            "usage.request_count",
            "usage.success_count",
            "usage.success_priced_count",
            "usage.input_tokens",
            "usage.output_tokens",
            "usage.total_tokens",
            "usage.total_cost_nanos",
            "usage.success_cost_nanos"
        ])
        .replace("AS usage.", "AS ")
    );
    let user = |row: &Row| -> Result<UserUsage> {
        let request_count = row.int("request_count")?;
        Ok(UserUsage {
            user_id: row.text("user_id")?,
            user_email: row.opt_text("user_email")?.unwrap_or_else(|| "Unknown".to_owned()),
            request_count,
            input_tokens: row.int("input_tokens")?,
            output_tokens: row.int("output_tokens")?,
            total_tokens: row.int("total_tokens")?,
            total_cost: cost(row.opt_int("total_cost_nanos")?, request_count, 4)?,
            avg_cost_per_request: success_cost(row, 6)?,
            last_request: row.instant("last_request_at")?,
        })
    };
    let range = [from.into(), to.into(), whole_from.into(), whole_to.into()];
    tx.query(&sql, &range).await?.iter().map(user).collect()
}

pub(super) async fn by_customer(tx: &mut Tx, range: &[Value]) -> Result<Vec<CustomerUsage>> {
    // Unique users are counted for those listed only, by their days: across days they do not add up.
    let sql = format!(
        "WITH listed AS ( \
             SELECT customer_id, substr(MAX(CAST(usage_date AS TEXT) || customer_name), 11) AS customer_name, {} \
             FROM usage_daily_customer WHERE usage_date >= $1 AND usage_date < $2 AND customer_id IS NOT NULL \
             GROUP BY customer_id ORDER BY COALESCE(SUM(total_cost_nanos), 0) DESC, customer_id LIMIT {LISTED} \
         ), users AS ( \
             SELECT listed.customer_id AS customer_id, COUNT(DISTINCT usage.user_id) AS unique_users \
             FROM listed \
             JOIN usage_daily_total AS day ON day.usage_date >= $1 AND day.usage_date < $2 \
             JOIN usage_daily AS usage ON usage.usage_date = day.usage_date AND usage.customer_id = listed.customer_id \
             GROUP BY listed.customer_id \
         ) \
         SELECT listed.customer_id AS customer_id, customer_name, request_count, total_tokens, total_cost_nanos, unique_users \
         FROM listed JOIN users ON users.customer_id = listed.customer_id ORDER BY COALESCE(total_cost_nanos, 0) DESC, listed.customer_id",
        sums(&["request_count", "total_tokens", "total_cost_nanos"])
    );
    let customer = |row: &Row| -> Result<CustomerUsage> {
        Ok(CustomerUsage {
            customer_id: number_or_text(&row.text("customer_id")?),
            customer_name: row.opt_text("customer_name")?.unwrap_or_else(|| "Unknown".to_owned()),
            request_count: row.int("request_count")?,
            total_tokens: row.int("total_tokens")?,
            total_cost: cost(row.opt_int("total_cost_nanos")?, row.int("request_count")?, 4)?,
            unique_users: row.int("unique_users")?,
        })
    };
    tx.query(&sql, range).await?.iter().map(customer).collect()
}

fn number_or_text(id: &str) -> serde_json::Value {
    let is_plain = |number: &i64| number.to_string() == id && id.trim_start_matches('-').len() <= 18;
    id.parse::<i64>().ok().filter(is_plain).map_or_else(|| id.into(), Into::into)
}
