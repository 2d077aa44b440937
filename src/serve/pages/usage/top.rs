//! The customers and the users that cost most in a span, exact, without reading every row of its days.
//!
//! Whole months are read from the monthly table. There are so many users that single days are read only for some candidates: a user
//! costs no more in the span than in all months that it touches, so most users who are not among the first by that bound cannot be listed.

use anyhow::Result;
use serde::Serialize;
use serde_json::value::RawValue;

use super::span::{Piece, Span, pieces};
use crate::serve::html::usd_json;
use crate::store::{Row, Tx, Value};
use crate::window::first_of_month;

/// A customer or a user among those that cost most.
#[derive(Debug, Serialize)]
pub(super) struct TopLine {
    /// None: requests without a customer.
    pub(super) id: Option<String>,
    pub(super) label: Option<String>,
    pub(super) request_count: i64,
    pub(super) total_tokens: i64,
    #[serde(skip)]
    pub(super) cost_nanos: Option<i128>,
    pub(super) total_cost_usd: Option<Box<RawValue>>,
}

/// Two tables of the same sums, by day and by month.
pub(super) struct Grain {
    daily: &'static str,
    monthly: &'static str,
    id: &'static str,
    label: &'static str,
    /// Whether there are so many that candidates are tried first.
    is_large: bool,
}

pub(super) const CUSTOMERS: Grain =
    Grain { daily: "usage_daily_customer", monthly: "usage_monthly_customer", id: "customer_id", label: "customer_name", is_large: false };
pub(super) const USERS: Grain =
    Grain { daily: "usage_daily_user", monthly: "usage_monthly_user", id: "user_id", label: "user_email", is_large: true };

/// Customers, users and request types that are listed: those that cost most.
pub(super) const LISTED: usize = 100;

/// How many users are tried before all are read.
const CANDIDATES: usize = 400;

/// Those that cost most, with their latest names; `search` looks for a name or an id.
pub(super) async fn top(tx: &mut Tx, grain: &Grain, span: Span, search: Option<&str>) -> Result<Vec<TopLine>> {
    let Some(known) = known(tx, grain).await? else { return Ok(Vec::new()) };
    let pieces = pieces(span, known)?;
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    if grain.is_large && pieces.iter().any(|piece| !piece.is_monthly) {
        let (candidates, bound) = candidates(tx, grain, span, search).await?;
        let lines = sums(tx, grain, span, &pieces, Among::Candidates(&candidates)).await?;
        // If this holds, nobody else can cost more than the last one that is listed.
        let last = lines.get(LISTED - 1).map(|line| line.cost_nanos.unwrap_or(0));
        if bound.is_none_or(|bound| last.is_some_and(|last| last >= bound)) {
            return Ok(lines);
        }
    }
    sums(tx, grain, span, &pieces, Among::All(search)).await
}

/// The first and the last day that the daily table has rows of.
async fn known(tx: &mut Tx, grain: &Grain) -> Result<Option<Span>> {
    let daily = grain.daily;
    let sql = format!("SELECT (SELECT MIN(usage_date) FROM {daily}) AS first_date, (SELECT MAX(usage_date) FROM {daily}) AS last_date");
    let rows = tx.query(&sql, &[]).await?;
    let Some(row) = rows.first().filter(|row| row.values.first() != Some(&Value::Null)) else { return Ok(None) };
    Ok(Some(Span { from: row.date("first_date")?, to: row.date("last_date")? }))
}

/// The parameters of a statement, numbered as they come.
struct Parameters(Vec<Value>);

impl Parameters {
    /// Begins with the months that a span touches: `usage_month` lies in `$1..=$2`.
    fn of(span: Span) -> Self {
        Self(vec![first_of_month(span.from).into(), span.to.into()])
    }

    fn bind(&mut self, value: Value) -> String {
        self.0.push(value);
        format!("${}", self.0.len())
    }

    fn list(&mut self, values: impl Iterator<Item = Value>) -> String {
        values.map(|value| self.bind(value)).collect::<Vec<_>>().join(", ")
    }

    /// Only those whose name in the span contains a text, or whose id it is.
    fn search(&mut self, tx: &Tx, grain: &Grain, search: Option<&str>) -> String {
        let Grain { monthly, id, label, .. } = grain;
        let Some(search) = search else { return String::new() };
        let needle = self.bind(search.into());
        let (needle, find) = (tx.dialect().lower(&needle), tx.dialect().position());
        format!(
            "AND {id} IN (SELECT {id} FROM {monthly} WHERE usage_month >= $1 AND usage_month <= $2 \
             AND ({find}(lower({label}), {needle}) > 0 OR CAST({id} AS TEXT) = {needle}))"
        )
    }
}

/// Whose rows are summed.
enum Among<'a> {
    All(Option<&'a str>),
    Candidates(&'a [Value]),
}

/// The first ones by the cost of all months that the span touches, and the cost of the next one, if there is one.
async fn candidates(tx: &mut Tx, grain: &Grain, span: Span, search: Option<&str>) -> Result<(Vec<Value>, Option<i128>)> {
    let Grain { monthly, id, .. } = grain;
    let mut parameters = Parameters::of(span);
    let filter = parameters.search(tx, grain, search);
    let sql = format!(
        "SELECT {id}, CAST(COALESCE(SUM(total_cost_nanos), 0) AS BIGINT) AS bound_nanos FROM {monthly} \
         WHERE usage_month >= $1 AND usage_month <= $2 {filter} GROUP BY {id} ORDER BY bound_nanos DESC, {id} LIMIT {}",
        CANDIDATES + 1
    );
    let rows = tx.query(&sql, &parameters.0).await?;
    let bound = rows.get(CANDIDATES).map(|row| row.int("bound_nanos").map(i128::from)).transpose()?;
    let ids = rows.iter().take(CANDIDATES).map(|row| row.get(id).cloned()).collect::<Result<_>>()?;
    Ok((ids, bound))
}

async fn sums(tx: &mut Tx, grain: &Grain, span: Span, pieces: &[Piece], among: Among<'_>) -> Result<Vec<TopLine>> {
    let Grain { daily, monthly, id, label, .. } = grain;
    let mut parameters = Parameters::of(span);
    let filter = match among {
        Among::Candidates([]) => return Ok(Vec::new()),
        Among::Candidates(ids) => format!("AND {id} IN ({})", parameters.list(ids.iter().cloned())),
        Among::All(search) => parameters.search(tx, grain, search),
    };
    let mut selects = Vec::new();
    for piece in pieces {
        let sign = if piece.is_taken_off { "-" } else { "" };
        let (table, rows) = match (&among, piece.is_monthly) {
            // Day by day, so that each candidate's row is found by its key.
            (Among::Candidates(_), false) => {
                let days = piece.from.iter_days().take_while(|day| *day < piece.to);
                (daily, format!("usage_date IN ({})", parameters.list(days.map(Value::from))))
            }
            (_, is_monthly) => {
                let (from, to) = (parameters.bind(piece.from.into()), parameters.bind(piece.to.into()));
                let (table, column) = if is_monthly { (monthly, "usage_month") } else { (daily, "usage_date") };
                (table, format!("{column} >= {from} AND {column} < {to}"))
            }
        };
        selects.push(format!(
            "SELECT {id}, {sign}request_count AS request_count, {sign}unpriced_count AS unpriced_count, {sign}total_tokens AS total_tokens, \
             {sign}total_cost_nanos AS total_cost_nanos FROM {table} WHERE {rows} {filter}"
        ));
    }
    let sql = format!(
        "WITH listed AS ( \
             SELECT {id}, CAST(SUM(request_count) AS BIGINT) AS request_count, CAST(SUM(unpriced_count) AS BIGINT) AS unpriced_count, \
                 CAST(SUM(total_tokens) AS BIGINT) AS total_tokens, CAST(COALESCE(SUM(total_cost_nanos), 0) AS BIGINT) AS total_cost_nanos \
             FROM ({}) AS pieces GROUP BY {id} HAVING SUM(request_count) > 0 \
             ORDER BY COALESCE(SUM(total_cost_nanos), 0) DESC, {id} LIMIT {LISTED} \
         ) \
         SELECT {id}, request_count, unpriced_count, total_tokens, total_cost_nanos, ( \
                 SELECT {label} FROM {monthly} AS named WHERE named.{id} = listed.{id} AND named.{label} IS NOT NULL \
                     AND named.usage_month >= $1 AND named.usage_month <= $2 ORDER BY named.usage_month DESC LIMIT 1 \
             ) AS label \
         FROM listed ORDER BY total_cost_nanos DESC, {id}",
        selects.join(" UNION ALL ")
    );
    let line = |row: &Row| -> Result<TopLine> {
        let request_count = row.int("request_count")?;
        // A cost that no request has is unknown, not 0.
        let cost_nanos = (row.int("unpriced_count")? < request_count).then_some(i128::from(row.int("total_cost_nanos")?));
        Ok(TopLine {
            id: row.opt_text(id)?,
            label: row.opt_text("label")?,
            request_count,
            total_tokens: row.int("total_tokens")?,
            cost_nanos,
            total_cost_usd: usd_json(cost_nanos),
        })
    };
    tx.query(&sql, &parameters.0).await?.iter().map(line).collect()
}
