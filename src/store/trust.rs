//! Whose code would run here: an index, a trigger, an operator that fits better runs with the rights of whoever reads or writes.
//!
//! So before a command touches a table, the catalog alone, with PostgreSQL's own operators, says who owns what is in our schema and in the
//! application's, and who may create there.

use std::fmt::Write as _;

use anyhow::Result;

use super::value::Row;
use super::{Store, Tx, Value, postgres};
use crate::failure::Failure;

const DISTRUSTED: &str = include_str!("../../sql/trust.sql");

/// Tables and views in the application's schema that are read or written by name.
const OF_THE_APPLICATION: &str = "ai_usage_log,chat_requests,request_analytics,users,user_plans,user_roles,subscription,seat_usage_event,usage_event,\
     ai_seat_state,subscription_seat_assignments,user_dashboard_data,ai_usage_summary,tallyroll_migration";

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Use,
    Migrate,
    /// What the functions' owner would run, who is made then.
    Roles,
    /// As `Use`, but for rights that `--roles` takes back.
    AfterMigrate,
}

impl Store {
    /// Whether this session's role is a superuser among what belongs to somebody who is none, in a schema that is there: rights can be
    /// given, and nothing else.
    ///
    /// # Errors
    /// What the database says.
    pub async fn only_gives_roles(&self) -> Result<bool> {
        let is_there = "SELECT 1 AS one FROM pg_catalog.pg_class AS daily JOIN pg_catalog.pg_namespace AS own \
             ON own.oid OPERATOR(pg_catalog.=) daily.relnamespace \
             WHERE own.nspname OPERATOR(pg_catalog.=) 'tallyroll' AND daily.relname OPERATOR(pg_catalog.=) 'usage_daily'";
        let distrusted = self.distrusted(Before::Migrate).await?;
        let is_super = distrusted.map(|row| row.int("is_super")).transpose()?.unwrap_or_default() != 0;
        Ok(is_super && !self.query(is_there, &[]).await?.is_empty())
    }

    /// Stops before anything is touched where somebody's code would run with the rights of this session.
    ///
    /// # Errors
    /// [`Failure`] of kind config that names what it is, and whose.
    pub async fn require_trust(&self) -> Result<()> {
        self.require_trust_before(Before::Use).await
    }

    /// As [`Self::require_trust`], before `migrate`.
    ///
    /// # Errors
    /// As [`Self::require_trust`].
    pub(super) async fn require_trust_to_migrate(&self) -> Result<()> {
        self.require_trust_before(Before::Migrate).await
    }

    /// As [`Self::require_trust`], after `migrate`.
    ///
    /// # Errors
    /// As [`Self::require_trust`].
    pub(super) async fn require_trust_after_migrate(&self) -> Result<()> {
        self.require_trust_before(Before::AfterMigrate).await
    }

    /// As [`Self::require_trust`], of what tables use alone, before the transaction that made the roles is committed.
    ///
    /// # Errors
    /// As [`Self::require_trust`].
    pub(super) async fn require_trust_to_make_roles(&self, tx: &mut Tx) -> Result<()> {
        self.refuse(distrusted(tx, Before::Roles).await?)
    }

    async fn require_trust_before(&self, before: Before) -> Result<()> {
        self.refuse(self.distrusted(before).await?)
    }

    fn refuse(&self, found: Option<Row>) -> Result<()> {
        let Some(row) = found else { return Ok(()) };
        let (what, owner) = (row.text("what")?, row.text("owner")?);
        let (kind, is_super) = (row.text("kind")?, row.int("is_super")? != 0);
        if kind == "trigger" {
            let (definition, digest) = owner.rsplit_once('\n').unwrap_or((&owner, ""));
            return Err(Failure::config(format!(
                "Nobody knows who made the trigger {what} at `{}`: it runs for whoever writes there",
                self.location()
            ))
            .hint(format!(
                "look at it, {definition}, and drop it; or, as the table's owner, accept it: \
                     COMMENT ON TRIGGER {what} IS 'tallyroll: accepted {digest}'"
            ))
            .into());
        }
        if kind == "default" {
            let may = if what.contains(" ON SCHEMAS ") { "may create in each schema" } else { "may make triggers on each table" };
            return Err(Failure::config(format!("At `{}` `{owner}` {may} that `migrate` makes", self.location()))
                .hint(format!("first {what}; what it makes there would run with the rights of others"))
                .into());
        }
        if kind == "trigger right" {
            return Err(Failure::config(format!(
                "At `{}` `{owner}` may make triggers, which run for whoever writes there",
                self.location()
            ))
            .hint(format!("{what}; `tallyroll migrate --roles` takes it back on all tables"))
            .into());
        }
        let is_right = kind == "right";
        let location = self.location();
        let mut said = if is_right {
            format!("At `{location}` {owner} may create in schema {what}, for instance an operator")
        } else {
            format!("The {what} at `{location}` belongs to `{owner}`")
        };
        let _ = if is_super {
            write!(said, ", and is no superuser: what it made would run as superuser")
        } else {
            write!(said, ": what it made would run with the rights of whoever runs this")
        };
        let fix = if is_right {
            format!("`REVOKE CREATE ON SCHEMA {what} FROM {owner}`; what was made there meanwhile is looked for by the next run")
        } else if is_super && kind == "owned" {
            format!("connect as `{owner}`, or to run jobs as tallyroll_runner; as superuser only `tallyroll migrate --roles` runs here")
        } else {
            "drop it, or give it to the owner of `ai_usage_log`, after a look at what it does; docs/interface.md says who is trusted"
                .to_owned()
        };
        Err(Failure::config(said).hint(fix).into())
    }

    async fn distrusted(&self, before: Before) -> Result<Option<Row>> {
        let Self::Postgres { .. } = self else { return Ok(None) };
        distrusted(&mut self.begin().await?, before).await
    }
}

async fn distrusted(tx: &mut Tx, before: Before) -> Result<Option<Row>> {
    tx.execute(postgres::NOTHING_OF_OTHERS, &[]).await?;
    // The planner expects many rows of what is recursive: with much memory it clears much, which takes ten times as long.
    tx.execute("SET LOCAL work_mem = '4MB'", &[]).await?;
    let rows = tx.query(DISTRUSTED, &[OF_THE_APPLICATION.into(), Value::Int(before as i64)]).await?;
    Ok(rows.into_iter().next())
}
