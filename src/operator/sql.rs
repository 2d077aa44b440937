//! `sql`: a SELECT that runs inside the database; what it gives replaces the window's rows.

mod result_table;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::abort;
use crate::failure::Failure;
use crate::job::Job;
use crate::job::checks::{EQUAL_SUMS, Windowed};
use crate::jobs::Jobs;
use crate::project::{Project, ProjectFile};
use crate::sql_text::{self, Numbered, quote_identifier};
use crate::store::reading::only_reads;
use crate::store::{Store, Tx, Value, format_instant};
use crate::window::{Window, WindowKind, day_of, first_of_month};

/// Parameters that a job's SQL may use: the window as days, the same as instants, the run's `as_of`, and the day and the first of
/// the month, of `reporting.timezone`, that it lies in.
pub const PARAMETERS: [&str; 7] = ["window_start", "window_end", "window_start_at", "window_end_at", "as_of", "as_of_date", "as_of_month"];

/// Where PostgreSQL keeps the rows of a window between reading and writing.
const STAGED: &str = "pg_temp.tallyroll_staged_rows";
/// Rows of a check that are counted.
const MOST_FAILURES: usize = 1_000;
/// Characters of a value that an error shows.
const MOST_SHOWN: usize = 80;

/// A job's SELECT, ready to run.
#[derive(Debug, Clone)]
pub struct SqlSelect {
    origin: String,
    /// Our own: it need not be held to reading.
    is_trusted: bool,
    statement: String,
    columns: Vec<String>,
    /// Checks by name, each a SELECT that must give no row.
    checks: Vec<(String, String)>,
    timezone: Tz,
    parameter_type: fn(&str) -> Option<&'static str>,
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
        (select.statement, select.is_trusted, select.origin) = (single_statement(&file)?, file.is_built_in(), file.origin);
        select.prove(store, job).await?;
        Ok(select)
    }

    /// Of a SELECT of our own making, which gives `columns`: it and its checks need no proof where the job's file is ours too.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn generated(store: &Store, jobs: &Jobs, job: &Job, timezone: Tz, statement: String, columns: Vec<String>) -> Result<Self> {
        let mut select = Self { statement, columns, is_trusted: true, ..Self::new(store, jobs, job, timezone)? };
        if !job.is_built_in() {
            select.prove(store, job).await?;
        }
        Ok(select)
    }

    fn new(store: &Store, jobs: &Jobs, job: &Job, timezone: Tz) -> Result<Self> {
        let parameter_type: fn(&str) -> Option<&'static str> = store.pick(postgres_type, |_| None);
        let sums = job.checks.equal_sums.as_ref();
        let summed = sums.map(|table| jobs.writer_of(table).ok_or_else(|| no_job_writes(table, job, "[checks] equal_sums"))).transpose()?;
        let checks = job
            .checks
            .statements(Windowed::of(&job.writes, &job.window_column), summed.map(|job| Windowed::of(&job.writes, &job.window_column)));
        let origin = job.origin.clone();
        Ok(Self { statement: String::new(), is_trusted: false, origin, columns: Vec::new(), checks, timezone, parameter_type })
    }

    async fn prove(&mut self, store: &Store, job: &Job) -> Result<()> {
        let numbered = self.number(&self.statement).with_context(|| format!("In `{}`", self.origin))?;
        let proved = store.prove_select(&numbered, None).await;
        self.columns = proved.with_context(|| format!("`{}` does not fit the database", self.origin))?;
        let missing: Vec<&str> =
            job.grain.iter().chain([&job.window_column]).filter(|column| !self.columns.contains(column)).map(String::as_str).collect();
        if let Some(column) = missing.first() {
            return Err(Failure::config(format!("`{}` gives no column `{column}`, which `{}` names", self.origin, job.origin))
                .hint(format!("it gives {}", self.columns.join(", ")))
                .into());
        }
        // Our own need no proof: it would make a run that finds nothing due half as long again.
        if !job.is_built_in() {
            self.prove_checks(store, job).await?;
        }
        Ok(())
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

    /// That `follows` and the checks only read. Checks read a table that may not be there yet: then an empty one stands for it.
    async fn prove_checks(&self, store: &Store, job: &Job) -> Result<()> {
        let is_missing = !self.checks.is_empty() && store.table_columns(&job.writes).await?.is_empty();
        let table = if is_missing { Some(self.create_table_sql("TEMP TABLE", job)?) } else { None };
        if let Some(follows) = &job.follows {
            let context = || format!("`follows` of `{}`", job.origin);
            store.prove_select(&self.number(sql_text::bare(follows)).with_context(context)?, None).await.with_context(context)?;
        }
        for (name, check) in &self.checks {
            let context = || format!("Check `{name}` of `{}`", job.origin);
            let check = sql_text::bare(check);
            if check.is_empty() {
                return Err(Failure::config(format!("{} must hold one SELECT", context())).into());
            }
            let numbered = self.number(check).with_context(context)?;
            store.prove_select(&numbered, table.as_deref()).await.with_context(context)?;
        }
        Ok(())
    }

    /// Makes the result table from the SELECT's columns where there is none, with the grain as its key.
    ///
    /// # Errors
    /// As [`Self::check_table`].
    pub async fn ensure_table(&self, store: &Store, job: &Job) -> Result<()> {
        if !store.table_columns(&job.writes).await?.is_empty() {
            return self.check_table(store, job).await;
        }
        result_table::require_own(store, job).await?;
        result_table::require_right_to_create(store, job).await?;
        let table = quote_identifier(&job.writes);
        let grain = job.grain.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ");
        // PostgreSQL finds a name by itself, and would cut a long one.
        let index = store.pick(String::new(), quote_identifier(&format!("idx_{}_grain", job.writes)));
        let mut tx = store.begin().await?;
        let record = "INSERT INTO result_table (table_name, job) VALUES ($1, $2) ON CONFLICT (table_name) DO UPDATE SET job = excluded.job";
        tx.execute(record, &[job.writes.as_str().into(), job.name.as_str().into()]).await?;
        // The record's row is locked: whoever made the table meanwhile has ended.
        if !tx.table_columns(&job.writes).await?.is_empty() {
            drop(tx);
            return self.check_table(store, job).await;
        }
        tx.execute(&self.create_table_sql("TABLE", job)?, &[]).await?;
        result_table::record(&mut tx, job).await?;
        tx.execute(&format!("CREATE UNIQUE INDEX {index} ON {table} ({grain})"), &[]).await?;
        if let Some(give) = store.pick(Some("SELECT tallyroll.tallyroll_give_result_table(to_regclass($1))::TEXT"), None) {
            tx.query(give, &[table.into()]).await?;
        }
        tx.commit().await?;
        abort::point("table_made");
        tracing::info!(table = job.writes, "Made the result table from the columns that the job's SQL gives");
        Ok(())
    }

    fn create_table_sql(&self, kind: &str, job: &Job) -> Result<String> {
        let epoch = DateTime::<Utc>::default();
        let window = Window::containing(job.window, epoch.date_naive())?;
        let select = sql_text::replace_parameters(&self.statement, &PARAMETERS, |name| {
            let literal = self.parameter(name, window, epoch).ok().and_then(|value| value.to_text()).unwrap_or_default();
            match (self.parameter_type)(name) {
                Some(type_name) => format!("CAST('{literal}' AS {type_name})"),
                None => format!("'{literal}'"),
            }
        })?;
        Ok(format!("CREATE {kind} {} AS SELECT * FROM (\n{select}\n) AS result LIMIT 0", quote_identifier(&job.writes)))
    }

    /// Checks that the result table, where there is one, is the job's and takes what the SELECT gives.
    ///
    /// # Errors
    /// [`Failure`] of kind config: where the table is not the job's, or one that names the column it lacks.
    pub async fn check_table(&self, store: &Store, job: &Job) -> Result<()> {
        result_table::require_own(store, job).await?;
        let existing = store.table_columns(&job.writes).await?;
        match self.columns.iter().find(|column| !existing.is_empty() && !existing.contains(column)) {
            Some(column) => Err(Failure::config(format!("`{}` gives column `{column}`, which table `{}` lacks", self.origin, job.writes))
                .hint(format!(
                    "add it with ALTER TABLE, or drop the table: `tallyroll migrate` makes it anew; it has {}",
                    existing.join(", ")
                ))
                .into()),
            None => Ok(()),
        }
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
        delete(tx, job, window).await?;
        abort::point("derived_deleted");
        let (select, parameters) = self.bind(&self.statement, window, as_of)?;
        let row_count = self.insert(tx, &table, &select, &parameters).await;
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
        delete(tx, job, window).await?;
        abort::point("rollup_deleted");
        tx.insert_batch(&job.writes, rows).await?;
        abort::point("rollup_written");
        self.run_checks(tx, job, window, as_of, |check| check != EQUAL_SUMS).await
    }

    async fn run_checks(&self, tx: &mut Tx, job: &Job, window: Window, as_of: DateTime<Utc>, is_asked: fn(&str) -> bool) -> Result<()> {
        let checks: Vec<&(String, String)> = self.checks.iter().filter(|(name, _)| is_asked(name)).collect();
        if checks.is_empty() {
            return Ok(());
        }
        tx.begin_reading().await?;
        for (name, check) in checks {
            self.check(tx, job, (name, check), window, as_of).await?;
        }
        tx.end_reading().await
    }

    /// Appends what a SELECT gives; how many rows. One that a project brings runs, on PostgreSQL, where nothing can be written but a
    /// table of this transaction's own.
    async fn insert(&self, tx: &mut Tx, table: &str, select: &str, parameters: &[Value]) -> Result<u64> {
        let names = self.columns.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
        // Our own need not be held to reading, and would be written twice.
        if self.is_trusted || matches!(tx, Tx::Sqlite(_)) {
            return tx.execute(&format!("INSERT INTO {table} ({names}) {select}"), parameters).await;
        }
        tx.execute(&format!("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {names} FROM {table} WITH NO DATA", &STAGED[8..]), &[]).await?;
        tx.begin_reading().await?;
        tx.execute(&format!("INSERT INTO {STAGED} ({names}) {select}"), parameters).await.map_err(only_reads)?;
        tx.end_reading_and_keep_rows().await?;
        tx.execute(&format!("INSERT INTO {table} ({names}) SELECT {names} FROM {STAGED}"), &[]).await
    }

    /// Fails where a check returns rows.
    async fn check(&self, tx: &mut Tx, job: &Job, check: (&str, &str), window: Window, as_of: DateTime<Utc>) -> Result<()> {
        let (name, text) = check;
        let (sql, parameters) =
            self.bind(sql_text::bare(text), window, as_of).with_context(|| format!("In check `{name}` of `{}`", job.origin))?;
        let sql = format!("SELECT * FROM (\n{sql}\n) AS failures LIMIT {MOST_FAILURES}");
        let failures = tx.query(&sql, &parameters).await.map_err(only_reads);
        let failures = failures.with_context(|| format!("Check `{name}` of `{}` failed to run", job.origin))?;
        let Some(first) = failures.first() else { return Ok(()) };
        let shown: Vec<String> =
            first.columns.iter().zip(&first.values).map(|(column, value)| format!("{column} = {}", shown(value))).collect();
        let count =
            if failures.len() < MOST_FAILURES { format!("{} row(s)", failures.len()) } else { format!("{MOST_FAILURES} rows or more") };
        Err(Failure::bad_data(format!("Check `{name}` of job `{}` returned {count} for {window}, first: {}", job.name, shown.join(", ")))
            .hint(format!("the window's old rows stay; the check is in `{}`", job.origin))
            .into())
    }

    /// Keeps others from writing the table of a job over everything until `tx` ends. In a snapshot's transaction it comes first.
    ///
    /// # Errors
    /// What the database says.
    pub async fn lock_whole(&self, store: &Store, tx: &mut Tx, job: &Job) -> Result<()> {
        let lock = store.pick(Some(format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", quote_identifier(&job.writes))), None);
        match lock.filter(|_| job.window == WindowKind::All) {
            Some(lock) => tx.execute(&lock, &[]).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Replaces only the rows of `column` = `value`, of a job over everything. A run of the job waits, or is waited for.
    ///
    /// # Errors
    /// What the database says.
    pub async fn write_one(&self, store: &Store, job: &Job, column: &str, value: &Value, as_of: DateTime<Utc>) -> Result<()> {
        let (table, column) = (quote_identifier(&job.writes), quote_identifier(column));
        result_table::require_own(store, job).await?;
        let (select, mut parameters) = self.bind(&self.statement, Window::containing(job.window, as_of.date_naive())?, as_of)?;
        parameters.push(value.clone());
        let select = format!("SELECT * FROM (\n{select}\n) AS result WHERE {column} = ${}", parameters.len());
        let mut tx = store.begin().await?;
        self.lock_whole(store, &mut tx, job).await?;
        tx.execute(&format!("DELETE FROM {table} WHERE {column} = $1"), std::slice::from_ref(value)).await?;
        self.insert(&mut tx, &table, &select, &parameters).await.with_context(|| format!("`{}` failed", self.origin))?;
        tx.commit().await
    }

    fn number(&self, sql: &str) -> Result<Numbered> {
        sql_text::number_typed_parameters(sql, &PARAMETERS, self.parameter_type)
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

#[expect(clippy::unnecessary_wraps, reason = "the same shape as for SQLite, which has no types to give")]
fn postgres_type(parameter: &str) -> Option<&'static str> {
    Some(if parameter == "as_of" || parameter.ends_with("_at") { "TIMESTAMPTZ" } else { "DATE" })
}

async fn delete(tx: &mut Tx, job: &Job, window: Window) -> Result<()> {
    let (table, column) = (quote_identifier(&job.writes), quote_identifier(&job.window_column));
    if job.window == WindowKind::All {
        tx.execute(&format!("DELETE FROM {table}"), &[]).await?;
    } else {
        let sql = format!("DELETE FROM {table} WHERE {column} >= $1 AND {column} < $2");
        tx.execute(&sql, &[window.start_date.into(), window.end_date.into()]).await?;
    }
    Ok(())
}

fn no_job_writes(table: &str, job: &Job, place: &str) -> anyhow::Error {
    Failure::config(format!("`{place}` of `{}` names `{table}`, which no job writes", job.origin)).into()
}

fn shown(value: &Value) -> String {
    let text = value.to_text().unwrap_or_else(|| "NULL".to_owned());
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn single_statement(file: &ProjectFile) -> Result<String> {
    let mut statements = sql_text::statements(&file.text);
    match statements.remove("") {
        Some(statement) if !statement.is_empty() => Ok(statement),
        _ => Err(Failure::config(format!("`{}` must hold one SELECT, without `-- name:` lines", file.origin)).into()),
    }
}
