//! The database: the only module that knows there are two of them.
//!
//! SQL is written once, with `$1`, `$2`, … for parameters, wherever both databases understand it; [`Store::pick`] chooses
//! where they differ.

pub mod bulk;
mod functions;
pub mod lock;
mod migrate;
mod postgres;
pub mod reading;
mod sqlite;
pub mod state;
mod superuser;
pub(crate) mod url;
pub mod value;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{Postgres, Sqlite, Transaction};

pub use migrate::{Migrated, own_tables};
pub use value::{Row, Value, format_instant};

use self::url::DatabaseUrl;
use crate::config::Config;
use crate::failure::Failure;
use crate::project::Project;

/// A pool of connections to one of the two databases.
#[derive(Debug, Clone)]
pub enum Store {
    Postgres { pool: PgPool, shown_url: String },
    Sqlite { pool: SqlitePool, file: PathBuf, is_cut_off: Arc<AtomicBool> },
}

/// A transaction; dropped without [`Tx::commit`], it leaves nothing.
#[derive(Debug)]
pub enum Tx {
    Postgres(Transaction<'static, Postgres>),
    Sqlite(Transaction<'static, Sqlite>),
}

/// Whether [`Store::open`] may make a database that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    IfMissing,
    Never,
}

/// Connections beside those of the windows: the lock, its heartbeat, the run's record.
const SPARE_CONNECTIONS: u32 = 3;

const READ_ONLY: &str = "The database is read-only";

impl Store {
    /// Opens the database that `database.url` names.
    ///
    /// # Errors
    /// [`Failure`] of kind config or try-again; see the two databases' `connect`.
    pub async fn open(project: &Project, config: &Config, create: Create) -> Result<Self> {
        let connections = config.engine.windows_at_once * 2 + SPARE_CONNECTIONS;
        let text = config.database.url.expose_secret();
        let parsed = url::parse(text)
            .map_err(|not_url| Failure::config(format!("`database.url` ({}) {}", url::hidden(text), not_url.reason)).hint(not_url.hint))?;
        match parsed {
            DatabaseUrl::Postgres(url) => {
                let pool = postgres::connect(&url, connections).await?;
                Ok(Self::Postgres { pool, shown_url: url.shown })
            }
            DatabaseUrl::Sqlite(path) => {
                let file = project.dir.join(path);
                let is_cut_off = Arc::default();
                let pool = sqlite::connect(&file, create == Create::IfMissing, connections, &is_cut_off).await?;
                Ok(Self::Sqlite { pool, file, is_cut_off })
            }
        }
    }

    /// The name of the database in file names: `sql/<stem>.<engine>.sql`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.pick("postgres", "sqlite")
    }

    /// Where it is, without any password.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::Postgres { shown_url, .. } => shown_url.clone(),
            Self::Sqlite { file, .. } => file.display().to_string(),
        }
    }

    /// The value for this database.
    pub fn pick<T>(&self, postgres: T, sqlite: T) -> T {
        match self {
            Self::Postgres { .. } => postgres,
            Self::Sqlite { .. } => sqlite,
        }
    }

    /// The rows of one statement.
    ///
    /// # Errors
    /// What the database says, with a kind and the next step where they are known ([`classify`]).
    pub async fn query(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        match self {
            Self::Postgres { pool, .. } => postgres::query(pool, sql, parameters).await,
            Self::Sqlite { pool, .. } => sqlite::query(pool, sql, parameters).await,
        }
        .map_err(classify)
    }

    /// Runs one statement; how many rows it changed.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn execute(&self, sql: &str, parameters: &[Value]) -> Result<u64> {
        match self {
            Self::Postgres { pool, .. } => postgres::execute(pool, sql, parameters).await,
            Self::Sqlite { pool, .. } => sqlite::execute(pool, sql, parameters).await,
        }
        .map_err(classify)
    }

    /// Begins a transaction that may write. On SQLite it is the only one until it ends.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn begin(&self) -> Result<Tx> {
        match self {
            Self::Postgres { pool, .. } => pool.begin().await.map(Tx::Postgres),
            Self::Sqlite { pool, .. } => pool.begin_with("BEGIN IMMEDIATE").await.map(Tx::Sqlite),
        }
        .map_err(classify)
    }

    /// Begins a transaction that may write and whose statements all see one snapshot.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn begin_snapshot(&self) -> Result<Tx> {
        match self {
            Self::Postgres { pool, .. } => {
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.map(Tx::Postgres).map_err(classify)
            }
            Self::Sqlite { .. } => self.begin().await,
        }
    }

    /// Begins a transaction that only reads, all of it from one snapshot, and keeps no writer waiting.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn begin_read(&self) -> Result<Tx> {
        match self {
            Self::Postgres { pool, .. } => pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map(Tx::Postgres),
            Self::Sqlite { pool, .. } => pool.begin().await.map(Tx::Sqlite),
        }
        .map_err(classify)
    }

    /// The columns of a table, or none when there is no such table.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn table_columns(&self, table: &str) -> Result<Vec<String>> {
        let (sql, name) = if let Self::Postgres { .. } = self { postgres_columns(table) } else { sqlite_columns(table) };
        self.query(sql, &[name]).await?.iter().map(|row| row.text("name")).collect()
    }

    /// Ends whatever its statements are at; none may follow. PostgreSQL finds by itself that a connection is gone.
    pub fn cut_off(&self) {
        if let Self::Sqlite { is_cut_off, .. } = self {
            is_cut_off.store(true, Ordering::Relaxed);
        }
    }

    /// Closes every connection; SQLite folds its log back into the file.
    pub async fn close(&self) {
        match self {
            Self::Postgres { pool, .. } => pool.close().await,
            Self::Sqlite { pool, .. } => pool.close().await,
        }
    }
}

impl Tx {
    /// As [`Store::engine`].
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.pick("postgres", "sqlite")
    }

    /// As [`Store::pick`].
    pub fn pick<T>(&self, postgres: T, sqlite: T) -> T {
        match self {
            Self::Postgres(_) => postgres,
            Self::Sqlite(_) => sqlite,
        }
    }

    /// As [`Store::query`].
    ///
    /// # Errors
    /// As [`Store::query`].
    pub async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        match self {
            Self::Postgres(tx) => postgres::query(&mut **tx, sql, parameters).await,
            Self::Sqlite(tx) => sqlite::query(&mut **tx, sql, parameters).await,
        }
        .map_err(classify)
    }

    /// As [`Store::execute`].
    ///
    /// # Errors
    /// As [`Store::query`].
    pub async fn execute(&mut self, sql: &str, parameters: &[Value]) -> Result<u64> {
        match self {
            Self::Postgres(tx) => postgres::execute(&mut **tx, sql, parameters).await,
            Self::Sqlite(tx) => sqlite::execute(&mut **tx, sql, parameters).await,
        }
        .map_err(classify)
    }

    /// As [`Store::table_columns`].
    ///
    /// # Errors
    /// As [`Store::query`].
    pub async fn table_columns(&mut self, table: &str) -> Result<Vec<String>> {
        let (sql, name) = match self {
            Self::Postgres(_) => postgres_columns(table),
            Self::Sqlite(_) => sqlite_columns(table),
        };
        self.query(sql, &[name]).await?.iter().map(|row| row.text("name")).collect()
    }

    /// A digest of the rows of one statement, in their order; none of them is kept.
    ///
    /// # Errors
    /// As [`Store::query`].
    pub async fn digest(&mut self, sql: &str, parameters: &[Value]) -> Result<String> {
        match self {
            Self::Postgres(tx) => postgres::digest(&mut **tx, sql, parameters).await,
            Self::Sqlite(tx) => sqlite::digest(&mut **tx, sql, parameters).await,
        }
        .map_err(classify)
    }

    /// Makes everything since the beginning permanent, all at once.
    ///
    /// # Errors
    /// As [`Store::query`]; then nothing is. Where the connection broke meanwhile nobody knows, and the error says so.
    pub async fn commit(self) -> Result<()> {
        let committed = match self {
            Self::Postgres(tx) => tx.commit().await,
            Self::Sqlite(tx) => tx.commit().await,
        };
        committed.map_err(|error| match error {
            sqlx::Error::Io(_) => Failure::try_again("The connection broke while the database was committing; whether it did is not known")
                .caused_by(error)
                .hint("run the same command again: it finds what was committed, and does the rest")
                .into(),
            error => classify(error),
        })
    }
}

fn postgres_columns(table: &str) -> (&'static str, Value) {
    let sql = "SELECT attname::TEXT AS name FROM pg_attribute \
         WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    (sql, crate::sql_text::quote_identifier(table).into())
}

fn sqlite_columns(table: &str) -> (&'static str, Value) {
    ("SELECT name FROM pragma_table_xinfo($1)", table.into())
}

/// Turns what the database says into an error with a kind and the next step, where they are known.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub fn classify(error: sqlx::Error) -> anyhow::Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned).unwrap_or_default();
    let text = what_it_says(&error);
    let failure = if is_read_only(&error) {
        read_only()
    } else if code == "42P01" || text.contains("no such table") {
        lacks_table()
    } else if code == "42703" || text.contains("no such column") {
        lacks_column()
    } else if matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) {
        Failure::bad_data("The database holds a value that cannot be read").hint("mend the row that holds it")
    } else if sqlite_code(&code).is_some_and(|code| matches!(code, 11 | 26)) {
        return damaged(&text).into();
    } else if is_full(&code) {
        Failure::try_again("There is no room left for the database").hint("make room on its disk; this command can be repeated as it is")
    } else if matches!(code.as_str(), "26000" | "42P05") {
        // A prepared statement that is gone, or that another session's client has prepared.
        pooler_of_transactions()
    } else if code == "42501" && text.contains("row-level security") {
        Failure::config("Row-level security would hide rows from this database role").hint(
            "a run must see every row: connect as a role with BYPASSRLS (`tallyroll_runner` of sql/roles.sql), or as the tables' owner",
        )
    } else if code == "42501" {
        Failure::config("The database role lacks a right").hint("grant it, or connect as the role that owns the tables")
    } else if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
        Failure::bad_data("Two rows have the same unique key")
            .hint("the statement gives more than one row for one grain; mend its GROUP BY")
    } else if ["22023", "23001", "1811"].contains(&code.as_str()) {
        // Raised by our own functions and triggers (1811: SQLITE_CONSTRAINT_TRIGGER), with words for the caller.
        return Failure::usage(text).hint(hint_of(&error).unwrap_or("nothing was changed")).into();
    } else if code == "55P03" {
        Failure::try_again("Another session kept a lock for too long")
            .hint("`pg_locks`, joined with `pg_stat_activity` by `pid`, shows whose it is; this command can be repeated as it is")
    } else if may_pass(&error) {
        Failure::try_again("The database could not do it this time").hint("this command can be repeated as it is")
    } else {
        return anyhow::anyhow!(text).context("The database refused a statement");
    };
    failure.caused_by(anyhow::anyhow!(text)).into()
}

fn read_only() -> Failure {
    Failure::config(READ_ONLY).hint("connect to the primary, as a role or user that may write")
}

fn lacks_table() -> Failure {
    Failure::config("The database lacks a table").hint("`tallyroll migrate` creates or upgrades the schema")
}

fn lacks_column() -> Failure {
    Failure::config("The database lacks a column")
        .hint("mend the SQL file, or run `tallyroll migrate` if the schema is older than this version")
}

fn hint_of(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?.hint()
}

/// The database's own words, once: sqlx repeats them as the source of its error.
fn what_it_says(error: &sqlx::Error) -> String {
    let Some(said) = error.as_database_error() else { return error.to_string() };
    let detail = said.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().and_then(|said| said.detail());
    match (said.code(), detail) {
        (Some(code), Some(detail)) => format!("{} ({detail}) [{code}]", said.message()),
        (Some(code), None) => format!("{} [{code}]", said.message()),
        (None, _) => said.message().to_owned(),
    }
}

fn is_read_only(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    // 25006: PostgreSQL's read_only_sql_transaction. 8: SQLITE_READONLY.
    code == "25006" || sqlite_code(&code) == Some(8)
}

/// SQLite's primary result code: its extended ones are the primary one + 256 n. PostgreSQL's codes have five characters.
fn sqlite_code(code: &str) -> Option<u32> {
    (code.len() < 5).then(|| code.parse::<u32>().ok()).flatten().map(|code| code & 0xff)
}

/// 53100: PostgreSQL's `disk_full`. 13: `SQLITE_FULL`.
fn is_full(code: &str) -> bool {
    code == "53100" || sqlite_code(code) == Some(13)
}

fn pooler_of_transactions() -> Failure {
    Failure::config("The database is reached through a pooler that changes sessions between transactions")
        .hint("connect to the server itself, or to a pool that keeps a session for each connection (pgbouncer: `pool_mode = session`)")
}

fn damaged(text: &str) -> Failure {
    Failure::bad_data("The database file is damaged")
        .caused_by(anyhow::anyhow!(text.to_owned()))
        .hint("restore it from a copy; `PRAGMA integrity_check` of sqlite3(1) says what is broken")
}

/// As [`classify`], of an error of the connection that reads SQLite's log.
#[must_use]
pub fn classify_sqlite(error: rusqlite::Error) -> anyhow::Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => damaged(&error.to_string()).into(),
        Some(
            rusqlite::ErrorCode::DatabaseBusy
            | rusqlite::ErrorCode::DatabaseLocked
            | rusqlite::ErrorCode::CannotOpen
            | rusqlite::ErrorCode::OutOfMemory,
        ) => Failure::try_again("The database could not do it this time")
            .caused_by(error)
            .hint("this command can be repeated as it is")
            .into(),
        _ => error.into(),
    }
}

/// Whether another try may pass: lost connections, serialization failures, a server that starts or is full, a busy file.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // 5 and 6: busy, locked. 14: SQLITE_CANTOPEN of a file that was open a moment ago: no descriptor is left. 7: no memory.
            sqlite_code(&code).is_some_and(|code| matches!(code, 5 | 6 | 7 | 14))
                // 08: connections. 53: disk, memory, connections used up.
                || code.starts_with("08")
                || code.starts_with("53")
                || matches!(code.as_ref(), "40001" | "40P01" | "55P03" | "57P01" | "57P02" | "57P03" | "25P03")
        }
        _ => false,
    }
}
