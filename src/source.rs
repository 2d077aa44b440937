//! Sources: tables that hold raw usage events, each mapped by one SQL file to the event's fields
//! (`docs/semantics.md` section 3), read as Arrow batches.

mod archived_tables;
mod batch;
mod copy_binary;
mod event;
pub mod ledger;
mod postgres;
pub mod result_table;
pub mod rows;
mod sqlite;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::failure::{self, Failure};
use crate::project::Project;
use crate::sql_text::{self, Numbered};
use crate::store::{Store, Tx, reading};
use crate::text_file;

pub use batch::{MAX_TEXT_BYTES, kept_event_id};
pub use event::{BAD_COST, BAD_NUMBER, BAD_TEXT, EventColumns, EventId, EventIds, lake_schema, not_nested};

/// One mapped table.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    /// The SQL file, as an error should name it.
    pub origin: String,
    text: String,
    pub is_built_in: bool,
    statements: BTreeMap<String, String>,
    is_postgres: bool,
}

/// Rows of the raw log whose `occurred_at` lies in `[:window_start, :window_end)`, as event fields.
const EVENTS: &str = "events";
/// The source of our own.
pub const USAGE_EVENT: &str = "usage_event";

/// Quarters of an hour (`slot_start`) in which rows lie that came after the position `:seen`, and those marked by triggers.
const CHANGED: &str = "changed";
/// How far the table has been written (`position`), and whether that is less far than `:seen` (`is_behind`).
const POSITION: &str = "position";
/// The earliest `occurred_at` at or after `:from`, NULL when there is none.
const NEXT_EVENT: &str = "next_event";

/// Where the rows of a table stand (`place`) that the events of `[:window_start, :window_end)` are made from, and of which event each is
/// (`event_id`); the table's name follows.
const ARCHIVE: &str = "archive ";

/// Batches read ahead of their use, per window.
const BATCHES_AHEAD: usize = 2;

impl Source {
    /// Loads `sql/sources/<name>.<engine>.sql` from the project folder, or built in.
    ///
    /// # Errors
    /// [`Failure`] of kind config when there is none, or a statement is missing in it.
    pub fn load(project: &Project, name: &str, engine: &str) -> Result<Self> {
        let path = format!("sql/sources/{name}.{engine}.sql");
        let Some(file) = project.read_first(std::slice::from_ref(&path))? else {
            let failure =
                Failure::config(format!("There is no source `{name}`: neither `{}` nor a built-in one", project.dir.join(&path).display()));
            let known = ["ai_usage_log", "chat_requests", USAGE_EVENT];
            return Err(match failure::nearest(name, known) {
                Some(nearest) => failure.hint(format!("did you mean `{nearest}` in `usage.sources`?")),
                None => failure.hint("write that file; `tallyroll init` writes the built-in ones as examples"),
            }
            .into());
        };
        let source = Self {
            name: name.to_owned(),
            is_built_in: file.is_built_in,
            origin: file.origin,
            statements: sql_text::statements(&file.text),
            text: file.text,
            is_postgres: engine == "postgres",
        };
        let needed = [EVENTS, CHANGED, POSITION, NEXT_EVENT];
        for name in needed {
            source.statement(name)?;
        }
        if let Some(unknown) = source.statements.keys().find(|name| !needed.contains(&name.as_str()) && !name.starts_with(ARCHIVE)) {
            let failure = Failure::config(format!("`{}` has a statement `-- name: {unknown}`, which no source has", source.origin));
            return Err(failure
                .hint("a source has `events`, `changed`, `position`, `next_event`, and an `archive TABLE` for each table")
                .into());
        }
        Ok(source)
    }

    fn statement(&self, name: &str) -> Result<&str> {
        self.statements.get(name).map(String::as_str).ok_or_else(|| {
            Failure::config(format!("`{}` lacks the statement `-- name: {name}`", self.origin))
                .hint("`tallyroll init` writes the built-in sources as examples")
                .into()
        })
    }

    /// The statement that finds changed quarters of an hour, with `$1 = seen`.
    ///
    /// # Errors
    /// A parameter other than this.
    pub fn changed_sql(&self) -> Result<Numbered> {
        sql_text::number_typed_parameters(self.statement(CHANGED)?, &["seen"], |_| Some("TEXT"))
    }

    /// The statement that tells how far the table has been written, with `$1 = seen`, if it takes a parameter.
    ///
    /// # Errors
    /// A parameter other than this.
    pub fn position_sql(&self) -> Result<Numbered> {
        sql_text::number_typed_parameters(self.statement(POSITION)?, &["seen"], |_| Some("TEXT"))
    }

    /// The statement that finds the next event, with `$1 = from`.
    ///
    /// # Errors
    /// A parameter other than this.
    pub fn next_event_sql(&self) -> Result<Numbered> {
        sql_text::number_typed_parameters(self.statement(NEXT_EVENT)?, &["from"], |_| self.is_postgres.then_some("TIMESTAMPTZ"))
    }

    /// The instant of the next event of the table.
    ///
    /// # Errors
    /// What the database says.
    pub async fn next_event(&self, tx: &mut Tx, from: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        let rows = tx.query(&self.next_event_sql()?.sql, &[from.into()]).await.map_err(|error| self.explain(error))?;
        Ok(rows.first().map(|row| row.opt_instant("occurred_at")).transpose()?.flatten())
    }

    /// The events statement with the window written into it.
    ///
    /// # Errors
    /// A parameter other than `:window_start` and `:window_end`.
    pub fn events_sql(&self, store: &Store, start: DateTime<Utc>, end: DateTime<Utc>) -> Result<String> {
        self.window_sql(store, EVENTS, start, end)
    }

    fn window_sql(&self, store: &Store, statement: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Result<String> {
        sql_text::replace_parameters(self.statement(statement)?, &["window_start", "window_end"], |name| {
            let text = crate::store::format_instant(if name == "window_start" { start } else { end });
            store.pick(format!("TIMESTAMPTZ '{text}'"), format!("'{text}'"))
        })
    }

    /// What says which events there are: the events statement.
    ///
    /// # Errors
    /// When there is none.
    pub fn definition(&self) -> Result<&str> {
        self.statement(EVENTS)
    }

    /// Checks that each statement only reads and that the events statement gives every field of an event.
    ///
    /// # Errors
    /// [`Failure`] of kind config: of [`Store::prove_select`], or one that lists the missing columns, with the file.
    pub async fn check(&self, store: &Store) -> Result<()> {
        let epoch = DateTime::<Utc>::default();
        let events = Numbered { sql: self.events_sql(store, epoch, epoch)?, names: Vec::new(), line: 1 };
        event::require_fields(&self.prove(store, EVENTS, events).await?, &self.origin)?;
        for (name, statement) in [(CHANGED, self.changed_sql()?), (POSITION, self.position_sql()?), (NEXT_EVENT, self.next_event_sql()?)] {
            self.prove(store, name, statement).await?;
        }
        self.check_archive(store).await
    }

    /// Fails where it reads the table that another source is called by: its events would be counted twice. Our own files do not.
    ///
    /// # Errors
    /// [`Failure`] of kind config that names both; what the database says.
    pub async fn refuse_tables_of_others(&self, store: &Store, names: &[String]) -> Result<()> {
        if self.is_built_in {
            return Ok(());
        }
        let epoch = DateTime::<Utc>::default();
        let read = store.tables_read(&self.events_sql(store, epoch, epoch)?, &[]).await.map_err(|error| self.explain(error))?;
        match names.iter().find(|name| **name != self.name && read.contains(*name)) {
            None => Ok(()),
            Some(other) => Err(Failure::config(format!(
                "`{}` reads `{other}`, which is a source of its own: its events would be counted twice",
                self.origin
            ))
            .hint(format!("read another table, or take `{other}` or `{}` out of `usage.sources`", self.name))
            .into()),
        }
    }

    async fn prove(&self, store: &Store, name: &str, statement: Numbered) -> Result<Vec<String>> {
        let statement = Numbered { line: text_file::line_of(&self.text, self.statement(name)?), ..statement };
        let given = store.columns_given(&statement, self.is_built_in).await;
        given.with_context(|| format!("The statement `{name}` does not fit the database")).map_err(|error| self.explain(error))
    }

    /// Reads the events of `[start, end)` in batches of at most `batch_rows` rows; a few are read ahead.
    ///
    /// The last item may be an error; after it nothing comes.
    pub fn read(&self, store: &Store, start: DateTime<Utc>, end: DateTime<Utc>, batch_rows: usize) -> Batches {
        self.read_as(store, self.events_sql(store, start, end), None, batch_rows)
    }

    /// As [`Self::read`], as of a snapshot ([`rows::snapshot`]) and a user's events together, in their order.
    pub fn read_by_user(
        &self,
        store: &Store,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        snapshot: Option<String>,
        batch_rows: usize,
    ) -> Batches {
        let sql = self.events_sql(store, start, end);
        let sql = sql.map(|sql| format!("SELECT event.* FROM (\n{sql}\n) AS event ORDER BY user_id, occurred_at, event_id"));
        self.read_as(store, sql, snapshot, batch_rows)
    }

    fn read_as(&self, store: &Store, sql: Result<String>, snapshot: Option<String>, batch_rows: usize) -> Batches {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let (source, store) = (self.clone(), store.clone());
        let reader = tokio::spawn(async move {
            let result = match sql {
                Ok(sql) => match &store {
                    Store::Postgres { pool, .. } => {
                        postgres::read(pool, &sql, snapshot.as_deref(), &source.origin, batch_rows, &sender).await
                    }
                    Store::Sqlite { file, .. } => sqlite::read(file, sql, &source.origin, batch_rows, &sender).await,
                },
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                // A receiver that is gone wants no error either.
                let _ = sender.send(Err(source.explain(error))).await;
            }
        });
        Batches { receiver, reader: Some(reader) }
    }

    /// Names the SQL file in what the database says of it.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        reading::only_reads(error).context(format!("Failed to read source `{}` with `{}`", self.name, self.origin))
    }
}

/// Batches being read, a few ahead.
#[derive(Debug)]
pub struct Batches {
    receiver: mpsc::Receiver<Result<RecordBatch>>,
    reader: Option<JoinHandle<()>>,
}

impl Batches {
    /// Batches that a thread hands over, which may block; it is told whether they are still taken, and its error comes last.
    pub fn of_thread(read: impl FnOnce(&dyn Fn(RecordBatch) -> bool) -> Result<()> + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let reader = tokio::task::spawn_blocking(move || {
            if let Err(error) = read(&|batch| sender.blocking_send(Ok(batch)).is_ok()) {
                // A receiver that is gone wants no error either.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self { receiver, reader: Some(reader) }
    }

    /// The next batch; `None` only after the reader has come to the end, never because it died.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        if let Some(batch) = self.receiver.recv().await {
            return Some(batch);
        }
        let reader = self.reader.take()?;
        reader.await.err().map(|error| Err(anyhow::Error::new(error).context("The reader of the log died")))
    }
}
