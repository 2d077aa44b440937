//! Statements that people write, in job and source files: the database itself proves that a text is one SELECT that only reads, and holds
//! it to that while it runs. Parsing them here would be a guess.
//!
//! PostgreSQL prepares the text alone (one statement), then runs it for no rows as a part of a SELECT (nothing but a query can stand
//! there, and no query that writes) in a read-only transaction (no row locks). What a function does shows only as it runs: a run
//! calls it in a read-only subtransaction, of which nothing is left: no cursor that would be read at the commit, no setting, no prepared
//! statement. What no transaction holds (another server by dblink, a signal to a process) is not seen.
//! SQLite has an authorizer that is asked about all that a statement does, and no functions that write.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{Access, access};
use sqlx::postgres::{PgConnection, PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, Column, Connection as _, Executor, SqlSafeStr, Statement, TypeInfo};

use super::sqlite::BUSY_TIMEOUT;
use super::{READ_ONLY, Row, Store, Tx, Value, classify, classify_sqlite, is_read_only, lacks_column, lacks_table, postgres, read_only};
use crate::failure::{self, Failure};
use crate::sql_text::Numbered;
use crate::text_file::line_at;

/// Where PostgreSQL keeps the rows of a window between reading and writing.
const STAGED: &str = "tallyroll_staged_rows";

impl Store {
    /// Proves that a statement is one SELECT that only reads, without running it; the names of the columns that it gives.
    ///
    /// `prepared_by` makes a temporary table that the statement reads and that is not there yet.
    ///
    /// # Errors
    /// [`Failure`] of kind config with what the database says against it; one of kind try-again where it cannot be asked.
    pub async fn prove_select(&self, statement: &Numbered, prepared_by: Option<&str>) -> Result<Vec<String>> {
        match self {
            Self::Postgres { .. } => self.prove_in_postgres(statement, prepared_by).await,
            Self::Sqlite { file, .. } => {
                let (file, statement, prepared_by) = (file.clone(), statement.clone(), prepared_by.map(str::to_owned));
                tokio::task::spawn_blocking(move || prove_in_sqlite(&file, &statement, prepared_by.as_deref())).await?
            }
        }
    }

    /// As [`Self::prove_select`]; a statement of this program need not be proved, only fit the database.
    ///
    /// # Errors
    /// As [`Self::prove_select`].
    pub async fn columns_given(&self, statement: &Numbered, is_built_in: bool) -> Result<Vec<String>> {
        match self {
            Self::Postgres { pool, .. } if is_built_in => given_in_postgres(&mut *postgres::acquire(pool).await?, statement).await,
            _ => self.prove_select(statement, None).await,
        }
    }

    /// As [`Tx::read`], in a transaction of its own.
    ///
    /// # Errors
    /// As [`Tx::read`].
    pub async fn read(&self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        let mut tx = self.begin_read().await?;
        // Rolled back when it is dropped: nothing that was set stays with the connection.
        tx.read(sql, parameters).await
    }

    async fn prove_in_postgres(&self, statement: &Numbered, prepared_by: Option<&str>) -> Result<Vec<String>> {
        let mut tx = self.begin().await?;
        if let Some(sql) = prepared_by {
            tx.execute(sql, &[]).await?;
        }
        tx.execute("SET TRANSACTION READ ONLY", &[]).await?;
        let Tx::Postgres(connection) = &mut tx else { return Ok(Vec::new()) };
        given_in_postgres(connection, statement).await
    }
}

impl Tx {
    /// The columns of a statement's result, each with the database's name for its type.
    ///
    /// # Errors
    /// What the database says against the statement.
    pub async fn columns_of(&mut self, sql: &str) -> Result<BTreeMap<String, String>> {
        let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
        let named = |name: &str, type_name: &str| (name.to_owned(), type_name.to_owned());
        Ok(match self {
            Self::Postgres(tx) => {
                let prepared = tx.prepare(sql).await.map_err(no_select)?;
                prepared.columns().iter().map(|column| named(column.name(), column.type_info().name())).collect()
            }
            Self::Sqlite(tx) => {
                let prepared = tx.prepare(sql).await.map_err(no_select)?;
                prepared.columns().iter().map(|column| named(column.name(), column.type_info().name())).collect()
            }
        })
    }

    /// The columns of a table whose values PostgreSQL takes as their own type alone, each with its type; none from SQLite, which takes what
    /// its tables hold. Texts are left out: a cast to one of some length would cut it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn types_to_cast_to(&mut self, table: &str) -> Result<BTreeMap<String, String>> {
        if self.pick(false, true) {
            return Ok(BTreeMap::new());
        }
        let sql = "SELECT attname::TEXT AS name, atttypid::REGTYPE::TEXT AS type FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid \
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND typcategory NOT IN ('S', 'V')";
        self.query(sql, &[table.into()]).await?.iter().map(|row| Ok((row.text("name")?, row.text("type")?))).collect()
    }

    /// The rows of a statement that holds a text of a file, in which it can only read. The transaction is one of [`Store::begin_read`].
    ///
    /// # Errors
    /// As [`Store::prove_select`] and [`Store::query`].
    pub async fn read(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Row>> {
        if self.pick(false, true) {
            let files = self.query("SELECT file FROM pragma_database_list WHERE name = 'main'", &[]).await?;
            let file = files.first().map(|row| row.text("file")).transpose()?.unwrap_or_default();
            let statement = Numbered { sql: sql.to_owned(), names: vec![String::new(); parameters.len()], line: 1 };
            tokio::task::spawn_blocking(move || prove_in_sqlite(Path::new(&file), &statement, None)).await??;
        }
        self.query(sql, parameters).await.map_err(only_reads)
    }

    /// Has a text of a file give its rows where it can only read: what stands behind FROM for them, with its parameters. They have the
    /// columns `names` of `table`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_apart<'a>(
        &mut self,
        table: &str,
        names: &str,
        select: &str,
        parameters: &'a [Value],
    ) -> Result<(String, &'a [Value])> {
        // SQLite has proved it.
        if self.pick(false, true) {
            return Ok((format!("(\n{select}\n) AS result"), parameters));
        }
        self.execute(&format!("CREATE TEMP TABLE {STAGED} ON COMMIT DROP AS SELECT {names} FROM {table} WITH NO DATA"), &[]).await?;
        self.begin_reading().await?;
        self.execute(&format!("INSERT INTO pg_temp.{STAGED} ({names}) {select}"), parameters).await.map_err(only_reads)?;
        self.end_reading_and_keep_rows().await?;
        Ok((format!("pg_temp.{STAGED}"), &[]))
    }

    /// From here to [`Self::end_reading`] PostgreSQL refuses whatever writes, in functions too. SQLite needs no such thing.
    ///
    /// # Errors
    /// What the database says.
    pub async fn begin_reading(&mut self) -> Result<()> {
        match self {
            Self::Postgres(tx) => {
                sqlx::raw_sql("SAVEPOINT reading; SET TRANSACTION READ ONLY").execute(&mut **tx).await.map(|_| ()).map_err(classify)
            }
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// Everything that was made, opened or set since is undone.
    ///
    /// # Errors
    /// What the database says.
    pub async fn end_reading(&mut self) -> Result<()> {
        self.end_subtransaction("ROLLBACK TO SAVEPOINT reading; RELEASE SAVEPOINT reading", false).await
    }

    /// As [`Self::end_reading`], but that rows stay in a temporary table. A cursor that is to outlive the transaction is read at its end,
    /// when writing is allowed again; what was set would say where later statements write.
    ///
    /// # Errors
    /// What the database says.
    async fn end_reading_and_keep_rows(&mut self) -> Result<()> {
        self.end_subtransaction("CLOSE ALL; RELEASE SAVEPOINT reading", true).await
    }

    async fn end_subtransaction(&mut self, sql: &'static str, must_renew: bool) -> Result<()> {
        let Self::Postgres(tx) = self else { return Ok(()) };
        sqlx::raw_sql(sql).execute(&mut **tx).await.map_err(classify)?;
        if must_renew {
            postgres::renew(tx).await.map_err(classify)?;
        }
        // Not undone by anything: a function may have put another statement under the name of one of ours.
        tx.clear_cached_statements().await.map_err(classify)
    }
}

/// The error of a statement that could only read: the database is not read-only, the statement wrote.
#[must_use]
pub fn only_reads(error: anyhow::Error) -> anyhow::Error {
    let said = error.root_cause().to_string();
    // A syntax error, a query that writes where only a reading one can stand, a function that would let itself write.
    let is_no_query = failure::find(&error).is_none() && ["[42601]", "[0A000]", "[25001]"].iter().any(|code| said.ends_with(code));
    let is_write = failure::find(&error).is_some_and(|failure| failure.to_string() == READ_ONLY);
    if is_no_query || is_write { writes(anyhow::anyhow!(said)) } else { error }
}

fn writes(said: anyhow::Error) -> anyhow::Error {
    Failure::config("It is not one SELECT that can only read")
        .hint("leave out second statements, what writes or locks rows, and functions that write; the files of jobs and sources only say what is read")
        .caused_by(said)
        .into()
}

fn no_select(error: sqlx::Error) -> anyhow::Error {
    let said = super::what_it_says(&error);
    let is_write = is_read_only(&error);
    let classified = classify(error);
    if is_write || failure::find(&classified).is_none() { writes(anyhow::anyhow!(said)) } else { classified }
}

/// The columns of a statement that fits the database and the rights of this role: those are asked for when it is run, for no row.
async fn given_in_postgres(connection: &mut PgConnection, statement: &Numbered) -> Result<Vec<String>> {
    let prepared = connection.prepare(AssertSqlSafe(statement.sql.clone()).into_sql_str()).await;
    let prepared = prepared.map_err(|error| match position_in(&statement.sql, &error) {
        Some(at) => at_line(statement, at, no_select(error)),
        None => no_select(error),
    })?;
    let columns = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
    let nulls = vec![Value::Null; statement.names.len()];
    let sql = format!("SELECT * FROM (\n{}\n) AS result LIMIT 0", statement.sql);
    postgres::query(connection, &sql, &nulls).await.map_err(no_select)?;
    Ok(columns)
}

/// Names the line of its file where the database stumbled over a statement.
fn at_line(statement: &Numbered, at: usize, error: anyhow::Error) -> anyhow::Error {
    error.context(format!("line {}", statement.line + line_at(&statement.sql, at) - 1))
}

/// The byte of a statement that PostgreSQL names, in characters, in its error.
fn position_in(sql: &str, error: &sqlx::Error) -> Option<usize> {
    match error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.position()? {
        PgErrorPosition::Original(position) => Some(sql.char_indices().nth(position.saturating_sub(1)).map_or(sql.len(), |(at, _)| at)),
        PgErrorPosition::Internal { .. } => None,
    }
}

fn prove_in_sqlite(file: &Path, statement: &Numbered, prepared_by: Option<&str>) -> Result<Vec<String>> {
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| refused(error, file))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Otherwise a column that is not there, in quotes, would be a text.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    if let Some(sql) = prepared_by {
        connection.execute_batch(sql).map_err(|error| refused(error, file))?;
    }
    connection.authorizer(Some(|asked: AuthContext<'_>| match asked.action {
        // Some pragmas write, also as functions in a FROM.
        AuthAction::Read { table_name, .. } if table_name.to_ascii_lowercase().starts_with("pragma_") => Authorization::Deny,
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if !function_name.eq_ignore_ascii_case("load_extension") => Authorization::Allow,
        _ => Authorization::Deny,
    }))?;
    let prepared = connection.prepare(&statement.sql).map_err(|error| match error {
        rusqlite::Error::SqlInputError { offset, .. } => at_line(statement, usize::try_from(offset).unwrap_or(0), refused(error, file)),
        error => refused(error, file),
    })?;
    let columns: Vec<String> = prepared.column_names().into_iter().map(str::to_owned).collect();
    // As a part of a SELECT too: EXPLAIN is none, and a parenthesis of its own would end the one around it.
    let within = connection.prepare(&format!("SELECT * FROM (\n{}\n) AS result", statement.sql)).map_err(|error| refused(error, file))?;
    if !prepared.readonly() || !within.readonly() {
        return Err(writes(anyhow::anyhow!("it may change the database")));
    }
    // SQLite takes a parameter that nobody gives for NULL.
    if prepared.parameter_count() != statement.names.len() {
        return Err(writes(anyhow::anyhow!("it has parameters of its own: `?`, `@name` or `$name`")));
    }
    Ok(columns)
}

fn refused(error: rusqlite::Error, file: &Path) -> anyhow::Error {
    let text = match &error {
        rusqlite::Error::SqliteFailure(code, Some(said)) | rusqlite::Error::SqlInputError { error: code, msg: said, .. } => {
            format!("{said} [{}]", code.extended_code)
        }
        other => other.to_string(),
    };
    let failure = match error.sqlite_error_code() {
        // Beside its log it needs a file that it may write.
        Some(ErrorCode::CannotOpen) if access(file, Access::WRITE_OK).is_err() => read_only(),
        Some(ErrorCode::CannotOpen | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory) => {
            return classify_sqlite(error);
        }
        _ if text.contains("no such table") => lacks_table(),
        _ if text.contains("no such column") => lacks_column(),
        _ => return writes(anyhow::anyhow!(text)),
    };
    failure.caused_by(anyhow::anyhow!(text)).into()
}
