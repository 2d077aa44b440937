//! Recording seats, as applications do it: functions in PostgreSQL; in SQLite tables of the same names, whose triggers do the work.

use anyhow::Result;
use uuid::Uuid;

use super::Tx;

impl Tx {
    /// Counts the seat assignments of an org and appends what changed to the seat ledger.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_seat_change(&mut self, org: &str, reason: &str) -> Result<()> {
        let sql =
            self.dialect().pick("SELECT record_seat_change($1, $2)", "INSERT INTO record_seat_change (org_id, reason) VALUES ($1, $2)");
        self.execute(sql, &[org.into(), reason.into()]).await?;
        Ok(())
    }

    /// Gives users of a namespace a seat type.
    ///
    /// # Errors
    /// What the database says.
    pub async fn upsert_seat_assignment(
        &mut self,
        namespace: i64,
        users: &[i64],
        seat_type: &str,
        organization: Option<i64>,
    ) -> Result<()> {
        // All in one call on PostgreSQL, all before the count on SQLite: no count in between stands in the ledger.
        let sql = self.dialect().pick(
            "SELECT upsert_seat_assignment($1, string_to_array($2, ',')::BIGINT[], \
             array_fill($3::TEXT, ARRAY[cardinality(string_to_array($2, ','))]), CAST($4 AS BIGINT))",
            "INSERT INTO upsert_seat_assignment (namespace_id, user_id, seat_type, organization_id) \
             SELECT $1, value, $3, $4 FROM json_each('[' || $2 || ']')",
        );
        let users = users.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        self.execute(sql, &[namespace.into(), users.into(), seat_type.into(), organization.into()]).await?;
        Ok(())
    }

    /// Notes that a user used an AI feature; the first use takes a seat.
    ///
    /// # Errors
    /// What the database says.
    pub async fn record_ai_seat_usage(&mut self, user: Uuid, org: &str, event_type: &str, description: &str) -> Result<()> {
        let sql = self.dialect().pick(
            "SELECT record_ai_seat_usage($1, $2, $3, $4)",
            "INSERT INTO record_ai_seat_usage (user_id, org_id, event_type, event_description) VALUES ($1, $2, $3, $4)",
        );
        self.execute(sql, &[user.into(), org.into(), event_type.into(), description.into()]).await?;
        Ok(())
    }

    /// Rows of the seat ledger came with ids of their own: the next row gets a larger one. SQLite sees to that by itself.
    ///
    /// # Errors
    /// What the database says.
    pub async fn pass_ledger_ids(&mut self) -> Result<()> {
        if let Self::Postgres(_) = self {
            self.query("SELECT tallyroll.tallyroll_pass_ledger_ids() AS last_id", &[]).await?;
        }
        Ok(())
    }
}
