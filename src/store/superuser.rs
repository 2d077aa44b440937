//! A superuser among what somebody else made: triggers and operators of that owner would run as superuser.

use anyhow::Result;

use super::Store;
use crate::failure::Failure;

/// Reads nothing but the catalog, with PostgreSQL's own operators.
const OWNER: &str = "SELECT owner.rolname::pg_catalog.TEXT AS owner
    FROM pg_catalog.pg_class AS log
    JOIN pg_catalog.pg_namespace AS place ON place.oid OPERATOR(pg_catalog.=) log.relnamespace
    JOIN pg_catalog.pg_roles AS owner ON owner.oid OPERATOR(pg_catalog.=) log.relowner
    WHERE log.relname OPERATOR(pg_catalog.=) 'ai_usage_log'
        AND place.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(FALSE))
        AND NOT owner.rolsuper
        AND EXISTS (
            SELECT 1 FROM pg_catalog.pg_roles AS asking
            WHERE asking.rolsuper
                AND (asking.rolname OPERATOR(pg_catalog.=) CURRENT_USER OR asking.rolname OPERATOR(pg_catalog.=) SESSION_USER)
        )
    LIMIT 1";

impl Store {
    /// The owner of the log where that is no superuser and this session's role is one.
    ///
    /// # Errors
    /// What the database says.
    pub async fn owner_below_superuser(&self) -> Result<Option<String>> {
        let Self::Postgres { .. } = self else { return Ok(None) };
        self.query(OWNER, &[]).await?.first().map(|row| row.text("owner")).transpose()
    }

    /// Stops a superuser among the tables of an owner that is none.
    ///
    /// # Errors
    /// [`Failure`] of kind config.
    pub(super) async fn require_no_superuser_for_others(&self) -> Result<()> {
        let Some(owner) = self.owner_below_superuser().await? else { return Ok(()) };
        Err(Failure::config(format!(
            "The tables at `{}` belong to `{owner}`, who is no superuser: its triggers and operators would run as superuser",
            self.location()
        ))
        .hint(format!("connect as `{owner}`, or to run jobs as tallyroll_runner; as superuser only `tallyroll migrate --roles` runs here"))
        .into())
    }
}
