//! A few rows of the ledger and of the subscriptions, for pages: bounded however many there are.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::{ReadSubscription, SeatSource, explain, statement};
use crate::seats::LedgerRow;
use crate::store::{Row, Tx, Value};

impl SeatSource {
    /// Subscriptions by id as of `now`, from the `skip`th on; `search` is looked for in id, org and plan.
    ///
    /// # Errors
    /// As [`SeatSource::subscriptions`].
    pub async fn some_subscriptions(
        &self,
        tx: &mut Tx,
        search: Option<&str>,
        (skip, limit): (i64, i64),
        now: DateTime<Utc>,
    ) -> Result<Vec<ReadSubscription>> {
        let mut parameters: Vec<Value> = vec![limit.into(), skip.into()];
        let filter = match search {
            None => String::new(),
            Some(search) => {
                parameters.push(search.into());
                let (find, needle) = tx.pick(("strpos", "lower(CAST($3 AS TEXT))"), ("instr", "lower($3)"));
                let found = |column: &str| format!("{find}(lower({column}), {needle}) > 0");
                format!("WHERE {} OR {} OR {}", found("id"), found("org_id"), found("plan"))
            }
        };
        self.read_subscriptions(tx, &format!("{filter} ORDER BY id LIMIT $1 OFFSET $2"), &parameters, now).await
    }

    /// The latest counts of one org and seat type in `[from, until]`, at most `limit`, in order; and the one in force before them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn latest_counts(
        &self,
        tx: &mut Tx,
        org_and_type: (&str, &str),
        within: (DateTime<Utc>, DateTime<Utc>),
        limit: i64,
    ) -> Result<Vec<LedgerRow>> {
        let collate = tx.dialect().collate();
        let select = format!(
            "SELECT occurred_at, id, seats FROM ({}) AS ledger WHERE org_id{collate} = $1 AND seat_type{collate} = $2",
            statement(&self.ledger)
        );
        let order = "ORDER BY occurred_at DESC, id DESC LIMIT";
        let (org_id, seat_type) = org_and_type;
        let mut read = async |sql: String, parameters: &[Value]| -> Result<Vec<LedgerRow>> {
            let rows = tx.read(&sql, parameters).await.map_err(|error| explain(error, &self.ledger))?;
            rows.iter().map(ledger_row).collect()
        };
        let parameters = [org_id.into(), seat_type.into(), within.0.into(), within.1.into(), limit.into()];
        let mut counts = read(format!("{select} AND occurred_at >= $3 AND occurred_at <= $4 {order} $5"), &parameters).await?;
        let before = counts.last().map(|row| (row.occurred_at, row.id));
        // Where the limit cut some off, the row before is one of them.
        let at = before.and_then(|(at, _)| DateTime::from_timestamp_micros(at)).filter(|_| counts.len() as u64 >= limit.unsigned_abs());
        let (at, id) = at.map_or((within.0, i64::MIN), |at| (at, before.map_or(i64::MIN, |(_, id)| id)));
        let parameters = [org_id.into(), seat_type.into(), at.into(), id.into()];
        counts.extend(read(format!("{select} AND (occurred_at, id) < ($3, $4) {order} 1"), &parameters).await?);
        counts.reverse();
        Ok(counts)
    }

    /// How many rows one org and seat type have up to `until`, counted up to `limit`.
    ///
    /// # Errors
    /// What the database says.
    pub async fn count_rows(&self, tx: &mut Tx, org_id: &str, seat_type: &str, until: DateTime<Utc>, limit: i64) -> Result<i64> {
        let collate = tx.dialect().collate();
        let sql = format!(
            "SELECT COUNT(*) AS row_count FROM (SELECT id FROM ({}) AS ledger \
             WHERE org_id{collate} = $1 AND seat_type{collate} = $2 AND occurred_at <= $3 LIMIT $4) AS counted",
            statement(&self.ledger)
        );
        let parameters = [org_id.into(), seat_type.into(), until.into(), limit.into()];
        let rows = tx.read(&sql, &parameters).await.map_err(|error| explain(error, &self.ledger))?;
        rows.first().map_or(Ok(0), |row| row.int("row_count"))
    }
}

fn ledger_row(row: &Row) -> Result<LedgerRow> {
    Ok(LedgerRow { occurred_at: row.instant("occurred_at")?.timestamp_micros(), id: row.int("id")?, seats: row.int("seats")? })
}
