//! What must hold once a window of a SELECT's result is written.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use super::SqlSelect;
use crate::failure::Failure;
use crate::job::Job;
use crate::show::counted;
use crate::sql_text;
use crate::store::reading::only_reads;
use crate::store::{Store, Tx, Value};
use crate::window::Window;

/// Rows of a check that are counted.
const MOST_FAILURES: usize = 1_000;
/// Characters of a value that an error shows.
const MOST_SHOWN: usize = 80;

impl SqlSelect {
    /// That `follows` and the checks only read. Checks read a table that may not be there yet: then an empty one stands for it.
    pub(super) async fn prove_checks(&self, store: &Store, job: &Job) -> Result<()> {
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

    /// Makes the checks that are asked for.
    pub(super) async fn run_checks(
        &self,
        tx: &mut Tx,
        job: &Job,
        window: Window,
        as_of: DateTime<Utc>,
        is_asked: fn(&str) -> bool,
    ) -> Result<()> {
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
        let count = if failures.len() < MOST_FAILURES { counted(failures.len(), "row") } else { format!("{MOST_FAILURES} rows or more") };
        Err(Failure::bad_data(format!("Check `{name}` of job `{}` returned {count} for {window}, first: {}", job.name, shown.join(", ")))
            .hint(format!("the window's old rows stay; the check is in `{}`", job.origin))
            .into())
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_text().unwrap_or_else(|| "NULL".to_owned());
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
