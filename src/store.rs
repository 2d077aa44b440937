//! The database: the only module that knows there are two of them.
//!
//! SQL is written once, with `$1`, `$2`, … for parameters, wherever both databases understand it. What they say differently stands
//! here: whole statements beside their table, the rest in [`Dialect`].

pub mod archived;
pub mod bulk;
mod classify;
mod dialect;
mod functions;
pub mod lock;
pub mod migrate;
mod postgres;
pub mod reading;
pub mod recording;
pub mod result_table;
mod run_history;
pub mod runs;
mod sqlite;
mod tables_read;
mod trust;
pub(crate) mod url;
pub mod value;
mod watermarks;
pub mod windows;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use secrecy::ExposeSecret as _;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{Postgres, Sqlite, Transaction};

pub use classify::{classify, classify_sqlite, no_session};
pub use dialect::Dialect;
pub use value::{Row, Value, format_instant};

use self::classify::{READ_ONLY, is_read_only, lacks_column, lacks_table, read_only, what_it_says};
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

/// Connections of a job beside those of its windows: the lock, its heartbeat, the run's record.
const SPARE_CONNECTIONS: u32 = 3;

impl Store {
    /// Opens the database that `database.url` names.
    ///
    /// # Errors
    /// [`Failure`] of kind config or try-again; see the two databases' `connect`.
    pub async fn open(project: &Project, config: &Config, create: Create) -> Result<Self> {
        let of_a_job = config.engine.windows_at_once * 2 + SPARE_CONNECTIONS;
        let text = config.database.url.expose_secret();
        let parsed = url::parse(text)
            .map_err(|not_url| Failure::config(format!("`database.url` ({}) {}", url::hidden(text), not_url.reason)).hint(not_url.hint))?;
        match parsed {
            DatabaseUrl::Postgres(url) => {
                let pool = postgres::connect(&url, of_a_job * Dialect::Postgres.jobs_at_once()).await?;
                Ok(Self::Postgres { pool, shown_url: url.shown })
            }
            DatabaseUrl::Sqlite(path) => {
                let file = project.dir.join(path);
                let is_cut_off = Arc::default();
                let pool = sqlite::connect(&file, create == Create::IfMissing, of_a_job, &is_cut_off).await?;
                Ok(Self::Sqlite { pool, file, is_cut_off })
            }
        }
    }

    /// Which of the two databases it is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres { .. } => Dialect::Postgres,
            Self::Sqlite { .. } => Dialect::Sqlite,
        }
    }

    /// [`Dialect::name`].
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.dialect().name()
    }

    /// Where it is, without any password.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::Postgres { shown_url, .. } => shown_url.clone(),
            Self::Sqlite { file, .. } => file.display().to_string(),
        }
    }

    /// [`Dialect::pick`].
    pub fn pick<T>(&self, postgres: T, sqlite: T) -> T {
        self.dialect().pick(postgres, sqlite)
    }

    /// The rows of one statement.
    ///
    /// # Errors
    /// What the database says, with a kind and the next step where they are known ([`classify`]).
    pub async fn query(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        match self {
            Self::Postgres { pool, .. } => postgres::query(&mut *postgres::acquire(pool).await?, sql, parameters).await,
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
            Self::Postgres { pool, .. } => postgres::execute(&mut *postgres::acquire(pool).await?, sql, parameters).await,
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
            Self::Postgres { pool, .. } => pool.begin().await.map(Tx::Postgres).map_err(no_session),
            Self::Sqlite { pool, .. } => pool.begin_with("BEGIN IMMEDIATE").await.map(Tx::Sqlite).map_err(classify),
        }
    }

    /// Begins a transaction that may write and whose statements all see one snapshot.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn begin_snapshot(&self) -> Result<Tx> {
        match self {
            Self::Postgres { pool, .. } => {
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.map(Tx::Postgres).map_err(no_session)
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
            Self::Postgres { pool, .. } => {
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map(Tx::Postgres).map_err(no_session)
            }
            Self::Sqlite { pool, .. } => pool.begin().await.map(Tx::Sqlite).map_err(classify),
        }
    }

    /// The columns of a table, or none when there is no such table.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn table_columns(&self, table: &str) -> Result<Vec<String>> {
        let (sql, name) = if let Self::Postgres { .. } = self { dialect::postgres_columns(table) } else { dialect::sqlite_columns(table) };
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
    /// As [`Store::dialect`].
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// As [`Store::engine`].
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.dialect().name()
    }

    /// As [`Store::pick`].
    pub fn pick<T>(&self, postgres: T, sqlite: T) -> T {
        self.dialect().pick(postgres, sqlite)
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
            Self::Postgres(_) => dialect::postgres_columns(table),
            Self::Sqlite(_) => dialect::sqlite_columns(table),
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
