//! Which rows of which tables a source's events are made from, so that they can be archived.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::{ARCHIVE, Source};
use crate::failure::Failure;
use crate::sql_text::Numbered;
use crate::store::Store;
use crate::text_file;

/// Seconds of 1900 and 2200: between them no partition is left out.
const LONG: (i64, i64) = (-2_208_988_800, 7_258_118_400);

impl Source {
    /// The tables whose rows its events are made from, each with the statement that finds those of a window, in the order of the file:
    /// a table before those that it refers to. None where the file does not say.
    ///
    /// # Errors
    /// A parameter other than `:window_start` and `:window_end`.
    pub fn archived_tables(&self, store: &Store, start: DateTime<Utc>, end: DateTime<Utc>) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for name in self.statements.keys().filter_map(|name| name.strip_prefix(ARCHIVE)) {
            let sql = self.window_sql(store, &format!("{ARCHIVE}{name}"), start, end)?;
            found.push((text_file::line_of(&self.text, &format!("-- name: {ARCHIVE}{name}")), name.trim().to_owned(), sql));
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, table, sql)| (table, sql)).collect())
    }

    /// Checks that each of these statements only reads, gives its two columns, and is of a table that events are made from.
    pub(super) async fn check_archive(&self, store: &Store) -> Result<()> {
        let long = |seconds| DateTime::from_timestamp(seconds, 0).unwrap_or_default();
        let (start, end) = (long(LONG.0), long(LONG.1));
        let archived = self.archived_tables(store, start, end)?;
        for (table, sql) in &archived {
            let statement = Numbered { sql: sql.clone(), names: Vec::new(), line: 1 };
            let mut given = self.prove(store, &format!("{ARCHIVE}{table}"), statement).await?;
            given.sort_unstable();
            if given != ["event_id", "place"] {
                return Err(Failure::config(format!("The statement `{ARCHIVE}{table}` of `{}` gives {}", self.origin, given.join(", ")))
                    .hint(
                        "it gives two columns: `event_id`, of which event a row is, and `place`, where it stands: the `ctid` of PostgreSQL \
                         or the `rowid` of SQLite",
                    )
                    .into());
            }
        }
        if self.is_built_in || archived.is_empty() {
            return Ok(());
        }
        let read = store.tables_read(&self.events_sql(store, start, end)?, &[]).await.map_err(|error| self.explain(error))?;
        let Some((table, _)) = archived.iter().find(|(table, _)| !read.contains(table)) else { return Ok(()) };
        let origin = &self.origin;
        Err(Failure::config(format!("`{origin}` has a statement `{ARCHIVE}{table}`, and its events are not made from that table"))
            .hint(format!("`events` reads {}, by the names that the database has", read.into_iter().collect::<Vec<_>>().join(", ")))
            .into())
    }
}
