//! `sql`: a SELECT that runs inside the database; what it gives replaces the window's rows.

mod checks;
mod reads;
mod table;

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use uuid::Uuid;

use crate::abort;
use crate::engine::window_rows;
use crate::failure::Failure;
use crate::fingerprint;
use crate::job::Job;
use crate::job::checks::EQUAL_SUMS;
use crate::jobs::Jobs;
use crate::project::{Project, ProjectFile};
use crate::sql_text::{self, Numbered, quote_identifier};
use crate::store::reading::only_reads;
use crate::store::{Dialect, Store, Tx, Value, format_instant, result_table};
use crate::text_file;
use crate::window::{Window, WindowKind, day_of, first_of_month};

/// Parameters that a job's SQL may use: the window as days, the same as instants, the run's `as_of`, and the day and the first of
/// the month, of `reporting.timezone`, that it lies in.
pub const PARAMETERS: [&str; 7] = ["window_start", "window_end", "window_start_at", "window_end_at", "as_of", "as_of_date", "as_of_month"];

/// A job's SELECT, ready to run.
#[derive(Debug, Clone)]
pub struct SqlSelect {
    origin: String,
    /// Our own: it need not be held to reading.
    is_trusted: bool,
    statement: String,
    /// Of its file, where it begins.
    line: usize,
    columns: Vec<String>,
    /// Checks by name, each a SELECT that must give no row.
    checks: Vec<(String, String)>,
    timezone: Tz,
    dialect: Dialect,
}

impl SqlSelect {
    /// Loads `sql/<job>.<engine>.sql` or `sql/<job>.sql` and has the database prove that it and the job's checks only read.
    ///
    /// # Errors
    /// [`Failure`] of kind config: no such file, a statement that does not fit the database, or a grain column it does not give.
    pub async fn load(project: &Project, store: &Store, jobs: &Jobs, job: &Job, timezone: Tz) -> Result<Self> {
        let paths = [format!("sql/{}.{}.sql", job.name, store.engine()), format!("sql/{}.sql", job.name)];
        let Some(file) = project.read_first(&paths)? else {
            return Err(Failure::config(format!("Job `{}` has no SQL: neither `{}` nor `{}` is there", job.name, paths[0], paths[1]))
                .hint("write the SELECT that gives the rows of one window; `:window_start` and `:window_end` say which")
                .into());
        };
        let mut select = Self::new(store, jobs, job, timezone)?;
        (select.statement, select.is_trusted) = (single_statement(&file)?, file.is_built_in);
        (select.line, select.origin) = (text_file::line_of(&file.text, &select.statement), file.origin);
        select.prove(store, job).await?;
        if !select.is_trusted {
            select.require_named_reads(store, jobs, job).await?;
        }
        Ok(select)
    }

    /// Of a SELECT of our own making, which gives `columns`: it and its checks need no proof where the job's file is ours too.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn generated(store: &Store, jobs: &Jobs, job: &Job, timezone: Tz, statement: String, columns: Vec<String>) -> Result<Self> {
        let mut select = Self { statement, columns, is_trusted: true, ..Self::new(store, jobs, job, timezone)? };
        if !job.is_built_in {
            select.prove(store, job).await?;
        }
        Ok(select)
    }

    fn new(store: &Store, jobs: &Jobs, job: &Job, timezone: Tz) -> Result<Self> {
        let no_job_writes = |table: &str| Failure::config(format!("`equal_sums` of `{}` names `{table}`, which no job writes", job.origin));
        let summed = job.checks.equal_sums.as_ref().map(|table| jobs.writer_of(table).ok_or_else(|| no_job_writes(table))).transpose()?;
        let windowed = |job: &Job| (job.writes.clone(), job.window_column.clone());
        let checks = job.checks.statements(&windowed(job), summed.map(windowed).as_ref());
        let origin = job.origin.clone();
        Ok(Self {
            statement: String::new(),
            line: 1,
            is_trusted: false,
            origin,
            columns: Vec::new(),
            checks,
            timezone,
            dialect: store.dialect(),
        })
    }

    async fn prove(&mut self, store: &Store, job: &Job) -> Result<()> {
        let numbered = self.number(&self.statement).with_context(|| format!("In `{}`", self.origin))?;
        let numbered = Numbered { line: self.line, ..numbered };
        let given = store.columns_given(&numbered, self.is_trusted).await;
        self.columns = given.with_context(|| format!("`{}` does not fit the database", self.origin))?;
        let mut seen = BTreeSet::new();
        // SQLite takes names that differ in case alone for one, PostgreSQL those that are alike in the first 63 bytes.
        let alike = |name: &String| name.to_lowercase().chars().take(crate::job::problems::LONGEST_NAME_BYTES).collect::<String>();
        if let Some(column) = self.columns.iter().find(|name| !seen.insert(alike(name))) {
            return Err(Failure::config(format!("`{}` gives two columns that are called `{column}`", self.origin))
                .hint("name each otherwise, with `AS`, in more than case and within the first 63 characters")
                .into());
        }
        let missing: Vec<&str> =
            job.grain.iter().chain([&job.window_column]).filter(|column| !self.columns.contains(column)).map(String::as_str).collect();
        if let Some(column) = missing.first() {
            return Err(Failure::config(format!("`{}` gives no column `{column}`, which `{}` names", self.origin, job.origin))
                .hint(format!("it gives {}", self.columns.join(", ")))
                .into());
        }
        let checked = job.checks.not_null.iter().chain(&job.checks.unique);
        if let Some(column) = checked.into_iter().find(|column| !self.columns.contains(column)) {
            return Err(Failure::config(format!("A check of `{}` names column `{column}`, which its result does not have", job.origin))
                .hint(format!("it has {}", self.columns.join(", ")))
                .into());
        }
        // Our own need no proof: it would make a run that finds nothing due half as long again.
        if !job.is_built_in {
            self.prove_checks(store, job).await?;
        }
        Ok(())
    }

    /// What its results are made by: a digest of the job's file and one of its SQL, with a space between.
    #[must_use]
    pub fn definition(&self, job: &Job) -> String {
        format!("{} {}", job.definition(), fingerprint::of(self.texts()))
    }

    /// What says what it gives: the SELECT and the checks.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.statement.as_str()).chain(self.checks.iter().flat_map(|(name, check)| [name.as_str(), check.as_str()]))
    }

    /// Whether a row has a column.
    #[must_use]
    pub fn gives(&self, column: &str) -> bool {
        self.columns.iter().any(|known| known == column)
    }

    /// What the result follows from beside its input: the day of `as_of`, for SQL over everything that asks what day it is, and the
    /// rows of `follows`.
    ///
    /// # Errors
    /// What the database says of `follows`.
    pub async fn follows_from(&self, tx: &mut Tx, job: &Job, as_of: DateTime<Utc>) -> Result<Vec<String>> {
        let mut parts = Vec::new();
        if job.window == WindowKind::All && self.statement.contains(":as_of") {
            parts.push(format!("as of {}", day_of(as_of, self.timezone)?));
        }
        if let Some(follows) = &job.follows {
            let within = || format!("In `follows` of `{}`", job.origin);
            let (sql, parameters) =
                self.bind(sql_text::bare(follows), Window::containing(job.window, as_of.date_naive())?, as_of).with_context(within)?;
            parts.push(tx.digest(&sql, &parameters).await.map_err(only_reads).with_context(within)?);
        }
        Ok(parts)
    }

    /// Replaces the rows of a window; how many there are now.
    ///
    /// # Errors
    /// What the database says; [`Failure`] of kind bad-data when a check returns rows.
    pub async fn write(&self, tx: &mut Tx, job: &Job, window: Window, as_of: DateTime<Utc>) -> Result<i64> {
        let table = quote_identifier(&job.writes);
        window_rows::delete(tx, job, window).await?;
        abort::point("derived_deleted");
        let (select, parameters) = self.bind(&self.statement, window, as_of)?;
        let row_count = self.insert(tx, &table, &select, &parameters, Some((job, window))).await;
        let row_count = row_count.with_context(|| format!("`{}` failed for {window}", self.origin))?;
        abort::point("derived_written");
        self.run_checks(tx, job, window, as_of, |_| true).await?;
        Ok(i64::try_from(row_count)?)
    }

    /// Replaces the rows of a window by rows that were made, and checked against what they were made from, in memory.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn replace(&self, tx: &mut Tx, job: &Job, window: Window, rows: &RecordBatch, as_of: DateTime<Utc>) -> Result<()> {
        window_rows::delete(tx, job, window).await?;
        abort::point("rollup_deleted");
        tx.insert_batch(&job.writes, rows).await?;
        abort::point("rollup_written");
        self.run_checks(tx, job, window, as_of, |check| check != EQUAL_SUMS).await
    }

    /// Appends what a SELECT gives; how many rows. One that a project brings runs, on PostgreSQL, where nothing can be written but a
    /// table of this transaction's own, and gives no row outside of the window.
    async fn insert(&self, tx: &mut Tx, table: &str, select: &str, parameters: &[Value], within: Option<(&Job, Window)>) -> Result<u64> {
        let names = self.columns.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
        let select = &self.in_types_of(tx, table, select).await?;
        // Our own need not be held to that, and would be written twice.
        if self.is_trusted {
            return tx.execute(&format!("INSERT INTO {table} ({names}) {select}"), parameters).await;
        }
        let (rows, parameters) = tx.read_apart(table, &names, select, parameters).await?;
        window_rows::require_inside(tx, &self.origin, within, &rows, parameters).await?;
        tx.execute(&format!("INSERT INTO {table} ({names}) SELECT {names} FROM {rows}"), parameters).await
    }

    /// A SELECT in the types of its table: ids are text, and tables of the seeds hold them as UUIDs, those of versions before as numbers.
    async fn in_types_of(&self, tx: &mut Tx, table: &str, select: &str) -> Result<String> {
        let types = tx.types_to_cast_to(table).await?;
        if types.is_empty() {
            return Ok(select.to_owned());
        }
        let column = |name: &String| match (quote_identifier(name), types.get(name)) {
            (column, Some(type_name)) => format!("CAST(result.{column} AS {type_name})"),
            (column, None) => format!("result.{column}"),
        };
        Ok(format!("SELECT {} FROM (\n{select}\n) AS result", self.columns.iter().map(column).collect::<Vec<_>>().join(", ")))
    }

    /// Keeps others from writing the table of a job over everything until `tx` ends. In a snapshot's transaction it comes first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn lock_whole(&self, tx: &mut Tx, job: &Job) -> Result<()> {
        if job.window == WindowKind::All { tx.lock_table(&job.writes).await } else { Ok(()) }
    }

    /// Replaces only the rows of one id, of a job over everything. A run of the job waits, or is waited for.
    ///
    /// # Errors
    /// What the database says.
    pub async fn write_one(&self, store: &Store, job: &Job, column: &str, id: Uuid, as_of: DateTime<Utc>) -> Result<()> {
        let (table, column) = (quote_identifier(&job.writes), quote_identifier(column));
        result_table::require_own(store, job).await?;
        result_table::require_alone(store, job).await?;
        let (select, mut parameters) = self.bind(&self.statement, Window::containing(job.window, as_of.date_naive())?, as_of)?;
        // A text in what is selected, and in the table whatever that keeps.
        parameters.push(id.to_string().into());
        let select = format!("SELECT * FROM (\n{select}\n) AS result WHERE {column} = ${}", parameters.len());
        let mut tx = store.begin().await?;
        self.lock_whole(&mut tx, job).await?;
        tx.execute(&format!("DELETE FROM {table} WHERE {column} = $1"), &[id.into()]).await?;
        self.insert(&mut tx, &table, &select, &parameters, None).await.with_context(|| format!("`{}` failed", self.origin))?;
        tx.commit().await
    }

    fn number(&self, sql: &str) -> Result<Numbered> {
        sql_text::number_typed_parameters(sql, &PARAMETERS, |name| self.dialect.type_of_parameter(name))
    }

    fn bind(&self, sql: &str, window: Window, as_of: DateTime<Utc>) -> Result<(String, Vec<Value>)> {
        let numbered = self.number(sql)?;
        let parameters = numbered.names.iter().map(|name| self.parameter(name, window, as_of)).collect::<Result<_>>()?;
        Ok((numbered.sql, parameters))
    }

    fn parameter(&self, name: &str, window: Window, as_of: DateTime<Utc>) -> Result<Value> {
        Ok(match name {
            "window_start" => window.start_date.into(),
            "window_end" => window.end_date.into(),
            "window_start_at" => window.instants(self.timezone)?.0.into(),
            "window_end_at" => window.instants(self.timezone)?.1.into(),
            "as_of" => as_of.into(),
            "as_of_date" => day_of(as_of, self.timezone)?.into(),
            "as_of_month" => first_of_month(day_of(as_of, self.timezone)?).into(),
            other => bail!("Unknown parameter `:{other}` at {}", format_instant(as_of)),
        })
    }
}

fn single_statement(file: &ProjectFile) -> Result<String> {
    let mut statements = sql_text::statements(&file.text);
    match statements.remove("") {
        Some(statement) if !statement.is_empty() => Ok(statement),
        _ => Err(Failure::config(format!("`{}` must hold one SELECT, without `-- name:` lines", file.origin)).into()),
    }
}
