//! The table of a SELECT's result: made where there is none, and looked at.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::{PARAMETERS, SqlSelect};
use crate::abort;
use crate::failure::Failure;
use crate::job::Job;
use crate::measure;
use crate::sql_text::{self, quote_identifier};
use crate::store::{Store, result_table};
use crate::window::Window;

impl SqlSelect {
    /// Makes the result table from the SELECT's columns where there is none, with the grain as its key.
    ///
    /// # Errors
    /// As [`Self::check_table`].
    pub async fn ensure_table(&self, store: &Store, job: &Job) -> Result<()> {
        if !store.table_columns(&job.writes).await?.is_empty() {
            self.add_measures(store, job).await?;
            return self.check_table(store, job).await;
        }
        result_table::require_own(store, job).await?;
        result_table::require_right_to_create(store, job).await?;
        let table = quote_identifier(&job.writes);
        let grain = job.grain.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ");
        let index = store.dialect().index_name(&format!("idx_{}_grain", job.writes));
        let mut tx = store.begin().await?;
        let record = "INSERT INTO result_table (table_name, job) VALUES ($1, $2) ON CONFLICT (table_name) DO UPDATE SET job = excluded.job";
        tx.execute(record, &[job.writes.as_str().into(), job.name.as_str().into()]).await?;
        // The record's row is locked: whoever made the table meanwhile has ended.
        if !tx.table_columns(&job.writes).await?.is_empty() {
            drop(tx);
            return self.check_table(store, job).await;
        }
        tx.execute(&self.create_table_sql("TABLE", job)?, &[]).await?;
        tx.execute(&format!("CREATE UNIQUE INDEX {index} ON {table} ({grain})"), &[]).await?;
        result_table::record(&mut tx, job).await?;
        tx.commit().await?;
        abort::point("table_made");
        tracing::info!(table = job.writes, "Made the result table from the columns that the job's SQL gives");
        Ok(())
    }

    /// A rollup of an earlier release lacks the measures that came since: of what it holds they are 0.
    async fn add_measures(&self, store: &Store, job: &Job) -> Result<()> {
        if job.has_table_of_the_schema || !self.is_trusted {
            return Ok(());
        }
        let existing = store.table_columns(&job.writes).await?;
        let missing = measure::since_the_first().filter(|measure| !existing.iter().any(|column| column == measure.name));
        for measure in missing {
            result_table::require_own(store, job).await?;
            result_table::require_right_to_create(store, job).await?;
            let (table, column) = (quote_identifier(&job.writes), measure.name);
            store.execute(&format!("ALTER TABLE {table} ADD COLUMN {column} BIGINT NOT NULL DEFAULT 0"), &[]).await?;
        }
        Ok(())
    }

    pub(super) fn create_table_sql(&self, kind: &str, job: &Job) -> Result<String> {
        let epoch = DateTime::<Utc>::default();
        let window = Window::containing(job.window, epoch.date_naive())?;
        let select = sql_text::replace_parameters(&self.statement, &PARAMETERS, |name| {
            let literal = self.parameter(name, window, epoch).ok().and_then(|value| value.to_text()).unwrap_or_default();
            match self.dialect.type_of_parameter(name) {
                Some(type_name) => format!("CAST('{literal}' AS {type_name})"),
                None => format!("'{literal}'"),
            }
        })?;
        Ok(format!("CREATE {kind} {} AS SELECT * FROM (\n{select}\n) AS result LIMIT 0", quote_identifier(&job.writes)))
    }

    /// Checks that the result table, where there is one, is the job's and takes what the SELECT gives.
    ///
    /// # Errors
    /// [`Failure`] of kind config: where the table is not the job's, was made for another grain, or one that names the column it lacks.
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
            None => result_table::require_grain(store, job).await,
        }
    }
}
