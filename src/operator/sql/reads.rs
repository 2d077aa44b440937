//! What a SELECT reads, as the database says it, and whether `reads` names it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use chrono::DateTime;

use super::SqlSelect;
use crate::failure::Failure;
use crate::job::Job;
use crate::jobs::Jobs;
use crate::store::Store;
use crate::window::Window;

impl SqlSelect {
    /// The tables that it reads, as the database names them.
    ///
    /// # Errors
    /// What the database says.
    pub async fn tables_read(&self, store: &Store, job: &Job) -> Result<BTreeSet<String>> {
        let any = DateTime::UNIX_EPOCH;
        let (sql, parameters) = self.bind(&self.statement, Window::containing(job.window, any.date_naive())?, any)?;
        store.tables_read(&sql, &parameters).await.with_context(|| format!("`{}` cannot be planned", self.origin))
    }

    /// Fails where it reads the result of a job that `reads` does not name, which would not make it due, or its own, of which a window
    /// that is computed again would follow.
    pub(super) async fn require_named_reads(&self, store: &Store, jobs: &Jobs, job: &Job) -> Result<()> {
        let read = self.tables_read(store, job).await?;
        // SQLite says a name as it was written where no column of it is used.
        let is = |table: &str, name: &str| table.eq_ignore_ascii_case(name);
        let unnamed = |table: &&String| jobs.iter().any(|other| is(table, &other.writes)) && job.reads.iter().all(|read| !is(table, read));
        let Some(table) = read.iter().find(unnamed) else { return Ok(()) };
        let said = if is(table, &job.writes) {
            format!("`{}` reads `{table}`, the table that it writes: a window would follow from what was computed before", self.origin)
        } else {
            format!("`{}` reads `{table}`, which `reads` of `{}` does not name", self.origin, job.origin)
        };
        Err(Failure::config(said).hint("`reads` says what makes the job due, and a job never reads its own table").into())
    }
}
