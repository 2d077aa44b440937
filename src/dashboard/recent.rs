//! A user's latest requests of every source: by the sources' own SQL, bounded in time and number. What dashboards read of the raw log
//! (`docs/semantics.md` section 8).

use std::ops::Range;

use anyhow::Result;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::config::Config;
use crate::money::parse_usd_nanos;
use crate::project::Project;
use crate::source::{MAX_TEXT_BYTES, Source};
use crate::store::{Store, Tx, Value};

/// One request as it was logged.
#[derive(Debug, Clone)]
pub(crate) struct LoggedRequest {
    pub(crate) source: String,
    pub(crate) id: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) customer_name: Option<String>,
    pub(crate) request_type: Option<String>,
    pub(crate) category: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) input_tokens: Option<i64>,
    pub(crate) output_tokens: Option<i64>,
    pub(crate) total_tokens: Option<i64>,
    /// The logged cost; none where the writer knew none, or what it wrote is no amount.
    pub(crate) cost_nanos: Option<i64>,
    pub(crate) latency_ms: Option<i64>,
    pub(crate) status: Option<String>,
}

/// The user's latest `limit` requests of `[within.start, within.end)`, the latest first.
pub(crate) async fn requests(
    project: &Project,
    config: &Config,
    store: &Store,
    tx: &mut Tx,
    user: &str,
    within: Range<DateTime<Utc>>,
    limit: usize,
) -> Result<Vec<LoggedRequest>> {
    let mut requests = Vec::new();
    for name in &config.usage.sources {
        let source = Source::load(project, name, store.engine())?;
        let events = source.events_sql(store, within.start, within.end)?;
        let columns = tx.columns_of(&events).await.map_err(|error| source.explain(error))?;
        let Some(user) = user_as(user, columns.get("user_id")) else { continue };
        let is_usd = columns.contains_key("total_cost_usd");
        let cost = if is_usd { "total_cost_usd" } else { "total_cost_nanos" };
        let sql = format!(
            "SELECT CAST(event_id AS TEXT) AS event_id, occurred_at, substr(customer_name, 1, {MAX_TEXT_BYTES}) AS customer_name, \
             substr(request_type, 1, {MAX_TEXT_BYTES}) AS request_type, substr(category, 1, {MAX_TEXT_BYTES}) AS category, \
             substr(model, 1, {MAX_TEXT_BYTES}) AS model, input_tokens, output_tokens, total_tokens, CAST({cost} AS TEXT) AS cost, latency_ms, \
             substr(status, 1, {MAX_TEXT_BYTES}) AS status FROM (\n{events}\n) AS events \
             WHERE user_id = $1 ORDER BY occurred_at DESC, events.event_id DESC LIMIT {limit}"
        );
        for row in tx.read(&sql, &[user]).await.map_err(|error| source.explain(error))? {
            let cost = row.opt_text("cost")?;
            requests.push(LoggedRequest {
                source: name.clone(),
                id: row.text("event_id")?,
                created_at: row.instant("occurred_at")?,
                customer_name: row.opt_text("customer_name")?,
                request_type: row.opt_text("request_type")?,
                category: row.opt_text("category")?,
                model: row.opt_text("model")?,
                input_tokens: row.opt_int("input_tokens")?,
                output_tokens: row.opt_int("output_tokens")?,
                total_tokens: match row.get("total_tokens")? {
                    Value::Int(total) => Some(*total),
                    Value::Null => row
                        .opt_int("input_tokens")?
                        .zip(row.opt_int("output_tokens")?)
                        .and_then(|(input, output)| input.checked_add(output)),
                    // In SQLite a sum that does not fit is a float.
                    _ => None,
                },
                cost_nanos: cost.and_then(|cost| if is_usd { parse_usd_nanos(&cost).ok() } else { cost.parse().ok() }),
                latency_ms: row.opt_int("latency_ms")?,
                status: row.opt_text("status")?,
            });
        }
    }
    requests.sort_by(|left, right| (right.created_at, &right.id).cmp(&(left.created_at, &left.id)));
    requests.truncate(limit);
    Ok(requests)
}

/// A user's id, which is text, as a source's column of this type holds it; `None` where it cannot hold it.
fn user_as(user: &str, type_name: Option<&String>) -> Option<Value> {
    match type_name.map(String::as_str) {
        // Spelt as the summaries spell it: `07` is not 7.
        Some("UUID") => Uuid::try_parse(user).ok().filter(|id| id.to_string() == user).map(Value::from),
        Some("INT2" | "INT4" | "INT8") => user.parse::<i64>().ok().filter(|id| id.to_string() == user).map(Value::from),
        _ => Some(user.into()),
    }
}
