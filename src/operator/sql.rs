//! `sql`: a SELECT that runs inside the database; what it gives replaces the window's rows.

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::abort;
use crate::failure::Failure;
use crate::job::Job;
use crate::project::{Project, ProjectFile};
use crate::sql_text::{self, quote_identifier};
use crate::store::{Store, Tx, Value, format_instant};
use crate::window::{Window, WindowKind, day_of, first_of_month};

/// Parameters that a job's SQL may use: the window as days, the same as instants, the run's `as_of`, and the day and the first of
/// the month, of `reporting.timezone`, that it lies in.
pub const PARAMETERS: [&str; 7] = ["window_start", "window_end", "window_start_at", "window_end_at", "as_of", "as_of_date", "as_of_month"];

/// A job's SELECT, ready to run.
#[derive(Debug, Clone)]
pub struct SqlSelect {
    file: ProjectFile,
    columns: Vec<String>,
    timezone: Tz,
    parameter_type: fn(&str) -> Option<&'static str>,
}

impl SqlSelect {
    /// Loads `sql/<job>.<engine>.sql` or `sql/<job>.sql` and asks the database which columns it gives.
    ///
    /// # Errors
    /// [`Failure`] of kind config: no such file, a statement that does not fit the database, or a grain column it does not give.
    pub async fn load(project: &Project, store: &Store, job: &Job, timezone: Tz) -> Result<Self> {
        let paths = [format!("sql/{}.{}.sql", job.name, store.engine()), format!("sql/{}.sql", job.name)];
        let Some(file) = project.read_first(&paths)? else {
            return Err(Failure::config(format!("Job `{}` has no SQL: neither `{}` nor `{}` is there", job.name, paths[0], paths[1]))
                .hint("write the SELECT that gives the rows of one window; `:window_start` and `:window_end` say which")
                .into());
        };
        let statement = single_statement(&file)?;
        let parameter_type: fn(&str) -> Option<&'static str> = store.pick(postgres_type, |_| None);
        let numbered = sql_text::number_typed_parameters(&statement, &PARAMETERS, parameter_type);
        let numbered = numbered.with_context(|| format!("In `{}`", file.origin))?;
        let columns = store.columns_of(&numbered.sql).await.with_context(|| format!("`{}` does not fit the database", file.origin))?;
        let missing: Vec<&str> =
            job.grain.iter().chain([&job.window_column]).filter(|column| !columns.contains(column)).map(String::as_str).collect();
        if let Some(column) = missing.first() {
            return Err(Failure::config(format!("`{}` gives no column `{column}`, which `{}` names", file.origin, job.origin))
                .hint(format!("it gives {}", columns.join(", ")))
                .into());
        }
        Ok(Self { file, columns, timezone, parameter_type })
    }

    /// Makes the result table from the SELECT's columns where there is none, with the grain as its key.
    ///
    /// # Errors
    /// As [`Self::check_table`].
    pub async fn ensure_table(&self, store: &Store, job: &Job) -> Result<()> {
        if store.table_columns(&job.writes).await?.is_empty() {
            let epoch = DateTime::<Utc>::default();
            let window = Window::containing(job.window, epoch.date_naive())?;
            let select = sql_text::replace_parameters(&single_statement(&self.file)?, &PARAMETERS, |name| {
                let literal = self.parameter(name, window, epoch).ok().and_then(|value| value.to_text()).unwrap_or_default();
                match (self.parameter_type)(name) {
                    Some(type_name) => format!("CAST('{literal}' AS {type_name})"),
                    None => format!("'{literal}'"),
                }
            })?;
            let table = quote_identifier(&job.writes);
            let grain = job.grain.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ");
            let index = quote_identifier(&format!("idx_{}_grain", job.writes));
            let mut tx = store.begin().await?;
            tx.execute(&format!("CREATE TABLE IF NOT EXISTS {table} AS SELECT * FROM ({select}) AS result LIMIT 0"), &[]).await?;
            tx.execute(&format!("CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {table} ({grain})"), &[]).await?;
            tx.commit().await?;
            abort::point("table_made");
            tracing::info!(table = job.writes, "Made the result table from the columns that the job's SQL gives");
            return Ok(());
        }
        self.check_table(store, job).await
    }

    /// Checks that the result table, where there is one, takes what the SELECT gives.
    ///
    /// # Errors
    /// [`Failure`] of kind config that names the column it lacks.
    pub async fn check_table(&self, store: &Store, job: &Job) -> Result<()> {
        let existing = store.table_columns(&job.writes).await?;
        match self.columns.iter().find(|column| !existing.is_empty() && !existing.contains(column)) {
            Some(column) => {
                Err(Failure::config(format!("`{}` gives column `{column}`, which table `{}` lacks", self.file.origin, job.writes))
                    .hint(format!("add it with ALTER TABLE, or drop the table: the next run makes it anew; it has {}", existing.join(", ")))
                    .into())
            }
            None => Ok(()),
        }
    }

    /// What the result follows from beside its input: the day of `as_of`, for SQL over everything that asks what day it is.
    ///
    /// # Errors
    /// Only at the end of the calendar.
    pub fn depends_on_day(&self, job: &Job, as_of: DateTime<Utc>) -> Result<Option<String>> {
        let asks = job.window == WindowKind::All && self.file.text.contains(":as_of");
        if asks { Ok(Some(format!("as of {}", day_of(as_of, self.timezone)?))) } else { Ok(None) }
    }

    /// Replaces the rows of a window; how many there are now.
    ///
    /// # Errors
    /// What the database says; [`Failure`] of kind bad-data when a check returns rows.
    pub async fn write(&self, tx: &mut Tx, job: &Job, window: Window, as_of: DateTime<Utc>) -> Result<i64> {
        let table = quote_identifier(&job.writes);
        let column = quote_identifier(&job.window_column);
        if job.window == WindowKind::All {
            tx.execute(&format!("DELETE FROM {table}"), &[]).await?;
        } else {
            let sql = format!("DELETE FROM {table} WHERE {column} >= $1 AND {column} < $2");
            tx.execute(&sql, &[window.start_date.into(), window.end_date.into()]).await?;
        }
        abort::point("derived_deleted");
        let names = self.columns.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
        let insert = format!("INSERT INTO {table} ({names}) {}", single_statement(&self.file)?);
        let (sql, parameters) = self.bind(&insert, window, as_of)?;
        let row_count = tx.execute(&sql, &parameters).await.with_context(|| format!("`{}` failed for {window}", self.file.origin))?;
        abort::point("derived_written");
        for (name, check) in &job.checks {
            let (sql, parameters) = self.bind(check, window, as_of).with_context(|| format!("In check `{name}` of `{}`", job.origin))?;
            let failures =
                tx.query(&sql, &parameters).await.with_context(|| format!("Check `{name}` of `{}` failed to run", job.origin))?;
            if let Some(first) = failures.first() {
                let shown: Vec<String> = first
                    .columns
                    .iter()
                    .zip(&first.values)
                    .map(|(column, value)| format!("{column} = {}", value.to_text().unwrap_or_else(|| "NULL".to_owned())))
                    .collect();
                return Err(Failure::bad_data(format!(
                    "Check `{name}` of job `{}` returned {} row(s) for {window}, first: {}",
                    job.name,
                    failures.len(),
                    shown.join(", ")
                ))
                .hint(format!("the window's old rows stay; the check is in `{}`", job.origin))
                .into());
            }
        }
        Ok(i64::try_from(row_count)?)
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
        let names = self.columns.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
        let insert = format!("INSERT INTO {table} ({names}) SELECT {names} FROM ({}) AS result", single_statement(&self.file)?);
        let (sql, mut parameters) = self.bind(&insert, Window::containing(job.window, as_of.date_naive())?, as_of)?;
        parameters.push(value.clone());
        let mut tx = store.begin().await?;
        self.lock_whole(store, &mut tx, job).await?;
        tx.execute(&format!("DELETE FROM {table} WHERE {column} = $1"), std::slice::from_ref(value)).await?;
        let sql = format!("{sql} WHERE {column} = ${}", parameters.len());
        tx.execute(&sql, &parameters).await.with_context(|| format!("`{}` failed", self.file.origin))?;
        tx.commit().await
    }

    fn bind(&self, sql: &str, window: Window, as_of: DateTime<Utc>) -> Result<(String, Vec<Value>)> {
        let numbered = sql_text::number_typed_parameters(sql, &PARAMETERS, self.parameter_type)?;
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

fn single_statement(file: &ProjectFile) -> Result<String> {
    let mut statements = sql_text::statements(&file.text);
    match statements.remove("") {
        Some(statement) if !statement.is_empty() => Ok(statement),
        _ => Err(Failure::config(format!("`{}` must hold one SELECT, without `-- name:` lines", file.origin)).into()),
    }
}
