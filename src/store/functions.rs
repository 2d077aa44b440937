//! The functions of PostgreSQL, from `sql/functions/`: made anew by each `migrate`, so that none is ever of another version.
//!
//! `{app}` in a file is the application's schema. Everything else is qualified: the functions run with a search path on which
//! nobody but the server's owner can create anything.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::Store;
use super::classify::{classify, refused};
use crate::failure::Failure;
use crate::fingerprint;
use crate::sql_text::quote_identifier;

/// In this order: a function comes after those that it calls.
const FILES: [(&str, &str); 11] = [
    ("sql/functions/application.sql", include_str!("../../sql/functions/application.sql")),
    ("sql/functions/change_tracking.sql", include_str!("../../sql/functions/change_tracking.sql")),
    ("sql/functions/seat_recording.sql", include_str!("../../sql/functions/seat_recording.sql")),
    ("sql/functions/who_asks.sql", include_str!("../../sql/functions/who_asks.sql")),
    ("sql/functions/figures.sql", include_str!("../../sql/functions/figures.sql")),
    ("sql/functions/latest_requests.sql", include_str!("../../sql/functions/latest_requests.sql")),
    ("sql/functions/dashboards.sql", include_str!("../../sql/functions/dashboards.sql")),
    ("sql/functions/logging.sql", include_str!("../../sql/functions/logging.sql")),
    ("sql/functions/chat.sql", include_str!("../../sql/functions/chat.sql")),
    ("sql/functions/result_tables.sql", include_str!("../../sql/functions/result_tables.sql")),
    ("sql/functions/rights.sql", include_str!("../../sql/functions/rights.sql")),
];

/// One `migrate` at a time replaces functions: two would stop each other. No row is read, so row-level security is no matter.
const BEGIN: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = '10s'; SET LOCAL row_security = on; \
     SELECT pg_advisory_xact_lock(8241560137722291)";

const REMEMBER: &str = "INSERT INTO tallyroll.tallyroll_setting (name, value) VALUES ('functions', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// Makes all functions anew, all or none.
///
/// # Errors
/// [`Failure`] of kind config where the tables or the rights do not fit.
pub(super) async fn create(connection: &mut PgConnection, application_schema: &str, location: &str) -> Result<()> {
    let schema = quote_identifier(application_schema);
    let mut tx = connection.begin().await.map_err(classify)?;
    sqlx::raw_sql(BEGIN).execute(&mut *tx).await.map_err(classify)?;
    for (file, text) in FILES {
        let sql = text.replace("{app}", &schema);
        let made = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await;
        made.map_err(|error| refused(error, &format!("`{file}`"), location))?;
    }
    sqlx::query(REMEMBER).bind(digest(application_schema)).execute(&mut *tx).await.map_err(classify)?;
    tx.commit().await.map_err(classify)
}

/// Says which text the functions have, the name of the application's schema in it.
fn digest(application_schema: &str) -> String {
    fingerprint::of([application_schema].into_iter().chain(FILES.map(|(_, text)| text)))
}

impl Store {
    /// Whether the functions of this version are there, for the application's schema as it is called now; SQLite has none.
    ///
    /// # Errors
    /// As [`Self::application_schema`].
    pub(super) async fn has_functions(&self) -> Result<bool> {
        if let Self::Sqlite { .. } = self {
            return Ok(true);
        }
        let rows = self.query("SELECT value FROM tallyroll.tallyroll_setting WHERE name = 'functions'", &[]).await?;
        let digest = digest(&self.application_schema().await?);
        Ok(rows.first().is_some_and(|row| row.text("value").is_ok_and(|made| made == digest)))
    }

    /// The schema that the application's tables are in: where the history of migrations is; before there is one, where the session creates.
    ///
    /// # Errors
    /// [`Failure`] of kind config where there is none.
    pub(super) async fn application_schema(&self) -> Result<String> {
        let rows = self.query("SELECT pg_catalog.current_setting('tallyroll.application_schema') AS name", &[]).await?;
        let name = rows.first().map_or_else(|| Ok(String::new()), |row| row.text("name"))?;
        if name.is_empty() {
            return Err(Failure::config(format!("The schema of the application's tables is not there at `{}`", self.location()))
                .hint(
                    "before the first `migrate`, the session's `search_path` must begin with it; afterwards it is the one with \
                     `tallyroll_migration`, a table of the owner of schema `tallyroll`, and there must be one such",
                )
                .into());
        }
        if name.contains(['\'', '$', '\\']) {
            return Err(Failure::config(format!("The schema `{name}` has a name that functions cannot be written for"))
                .hint("rename it to one without quotation marks, backslashes and dollar signs")
                .into());
        }
        Ok(name)
    }
}
