//! Which rows of which tables a source's events are made from, so that they can be archived.

use std::collections::BTreeSet;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::{ARCHIVE, Source};
use crate::failure::Failure;
use crate::sql_text::Numbered;
use crate::store::{Store, Tx};
use crate::text_file;

/// From 1900 to 2200: no partition is left out.
fn long() -> (DateTime<Utc>, DateTime<Utc>) {
    let instant = |seconds| DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    (instant(-2_208_988_800), instant(7_258_118_400))
}

impl Source {
    /// The tables that its events are made from, as the database names them.
    ///
    /// # Errors
    /// What the database says against `events`.
    pub async fn tables_read(&self, store: &Store) -> Result<BTreeSet<String>> {
        let (start, end) = long();
        store.tables_read(&self.events_sql(store, start, end)?, &[]).await.map_err(|error| self.explain(error))
    }

    /// Why its rows cannot go one day after the other, if they cannot: a row is of two events, of which one may be of another day, or an event
    /// has no row. Of the whole log, as far as it is in the tables; our own files are known to be right.
    ///
    /// # Errors
    /// What the database says.
    pub async fn entangled(&self, store: &Store, tx: &mut Tx) -> Result<Option<String>> {
        let (start, end) = long();
        let tables = self.archived_tables(store, start, end)?;
        if self.is_built_in || tables.is_empty() {
            return Ok(None);
        }
        for (table, sql) in &tables {
            let twice = format!("SELECT COUNT(*) AS count FROM (\n{sql}\n) AS row GROUP BY place HAVING COUNT(*) > 1 LIMIT 1");
            if !tx.query(&twice, &[]).await.map_err(|error| self.explain(error))?.is_empty() {
                return Ok(Some(format!("`archive {table}` gives a row of that table for more than one event")));
            }
        }
        let id = tx.pick("event_id::TEXT", "CAST(event_id AS TEXT)");
        let rows: Vec<String> = tables.iter().map(|(_, sql)| format!("SELECT {id} AS id FROM (\n{sql}\n) AS row")).collect();
        let without = format!(
            "SELECT {id} AS id FROM (\n{}\n) AS event EXCEPT SELECT id FROM (\n{}\n) AS row LIMIT 1",
            self.events_sql(store, start, end)?,
            rows.join("\nUNION ALL\n")
        );
        let found = tx.query(&without, &[]).await.map_err(|error| self.explain(error))?;
        let event_id = found.first().map(|row| row.opt_text("id")).transpose()?;
        Ok(event_id.map(|id| format!("no `archive` statement gives a row of the event `{}`", id.unwrap_or_default())))
    }

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
        let (start, end) = long();
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
        let read = self.tables_read(store).await?;
        let Some((table, _)) = archived.iter().find(|(table, _)| !read.contains(table)) else { return Ok(()) };
        let origin = &self.origin;
        Err(Failure::config(format!("`{origin}` has a statement `{ARCHIVE}{table}`, and its events are not made from that table"))
            .hint(format!("`events` reads {}, by the names that the database has", read.into_iter().collect::<Vec<_>>().join(", ")))
            .into())
    }
}
