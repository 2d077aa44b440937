//! Who has an AI seat, and what they used it for last: the page's and the command's list.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::store::{Row, Tx, Value};

/// A user who has an AI seat.
#[derive(Debug, Serialize)]
pub struct AiSeat {
    pub user_id: String,
    pub email: Option<String>,
    /// The org that the seat counts for; none where it was taken before seats had one.
    pub org_id: Option<String>,
    pub first_used_at: DateTime<Utc>,
    pub last_used_at: DateTime<Utc>,
    pub last_event_type: String,
    pub last_event_description: String,
}

/// Letters of a description that a list holds.
const DESCRIPTION_CHARS: usize = 500;

impl AiSeat {
    /// The seats, of one org where named, from the `skip`th on, those used last first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn read(tx: &mut Tx, org: Option<&str>, skip: i64, limit: i64) -> Result<Vec<Self>> {
        let mut parameters: Vec<Value> = vec![limit.into(), skip.into()];
        parameters.extend(org.map(Value::from));
        let filter = if org.is_some() { format!("WHERE seat.org_id{} = $3", tx.dialect().collate()) } else { String::new() };
        // The seed's own table has an enum for the type.
        let sql = format!(
            "SELECT CAST(seat.user_id AS TEXT) AS user_id, users.email AS email, seat.org_id AS org_id, seat.first_used_at AS first_used_at, \
                 seat.last_used_at AS last_used_at, CAST(seat.last_event_type AS TEXT) AS last_event_type, \
                 substr(seat.last_event_description, 1, {DESCRIPTION_CHARS}) AS last_event_description \
             FROM ai_seat_state AS seat LEFT JOIN users ON users.id = seat.user_id {filter} \
             ORDER BY seat.last_used_at DESC, seat.user_id LIMIT $1 OFFSET $2"
        );
        let seat = |row: &Row| {
            Ok(Self {
                user_id: row.text("user_id")?,
                email: row.opt_text("email")?,
                org_id: row.opt_text("org_id")?,
                first_used_at: row.instant("first_used_at")?,
                last_used_at: row.instant("last_used_at")?,
                last_event_type: row.text("last_event_type")?,
                last_event_description: row.text("last_event_description")?,
            })
        };
        tx.query(&sql, &parameters).await?.iter().map(seat).collect()
    }

    /// How long ago it was used, in whole days.
    #[must_use]
    pub fn days_ago(&self, now: DateTime<Utc>) -> i64 {
        (now - self.last_used_at).num_days().max(0)
    }
}
