//! `migrate`: the schema.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::output;
use super::session::Session;
use crate::job::OperatorKind;
use crate::jobs::Jobs;
use crate::measure::{self, Measure};
use crate::operator;
use crate::snapshot::storage::Storage;
use crate::store::{Create, Store};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only tell what would be applied
    #[arg(long)]
    dry_run: bool,
    /// Also make the roles, rights and row-level security of `sql/roles.sql` (PostgreSQL)
    #[arg(long, conflicts_with = "dry_run")]
    roles: bool,
}

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    let create = if arguments.dry_run { Create::Never } else { Create::IfMissing };
    let store = session.open(create).await?;
    // A superuser among another's tables gives roles and rights, and runs nothing of theirs.
    let roles_only = arguments.roles && store.only_gives_roles().await?;
    let migrations = if roles_only { Vec::new() } else { store.migrate(arguments.dry_run).await? };
    let roles = if arguments.roles { store.create_roles().await } else { Ok(()) };
    let tables = if arguments.dry_run || roles_only { Ok(Vec::new()) } else { make_result_tables(&session, &store).await };
    store.close().await;
    let applied = if arguments.dry_run { "would be applied" } else { "applied" };
    for migration in &migrations {
        let state = if migration.already_applied { "there already" } else { applied };
        if session.json {
            output::json(&json!({ "version": migration.version, "description": migration.description, "state": state }))?;
        } else if !migration.already_applied {
            session.tell(&format!("{} {}: {state}", migration.version, migration.description))?;
        }
    }
    if !session.json && !roles_only && migrations.iter().all(|migration| migration.already_applied) {
        session.tell(&format!("The schema at `{}` is up to date", store.location()))?;
    }
    roles?;
    for table in tables? {
        if session.json {
            output::json(&json!({ "table": table, "state": "made" }))?;
        } else {
            session.tell(&format!("Made the table {table} of a job of the project"))?;
        }
    }
    if arguments.roles && !session.json {
        session.tell(
            "The roles tallyroll_migrator, tallyroll_owner, tallyroll_runner, tallyroll_writer, tallyroll_reader and tallyroll_user are there, with their rights",
        )?;
    }
    Ok(())
}

/// Makes the tables that jobs of the project write and that are not there, or lack a measure that came since, each after those that its SELECT reads.
async fn make_result_tables(session: &Session, store: &Store) -> Result<Vec<String>> {
    let jobs = Jobs::load(&session.project)?;
    let mut missing = Vec::new();
    for job in jobs.iter().filter(|job| matches!(job.operator, OperatorKind::Sql | OperatorKind::Rollup)) {
        let columns = store.table_columns(&job.writes).await?;
        let lacks = |measure: &Measure| !columns.iter().any(|column| column == measure.name);
        let is_older = job.operator == OperatorKind::Rollup && !job.has_table_of_the_schema && measure::since_the_first().any(lacks);
        if columns.is_empty() || is_older {
            missing.push(job);
        }
    }
    let mut made = Vec::new();
    // Who migrates need not reach the storage, unless there is a job to load.
    if missing.is_empty() {
        return Ok(made);
    }
    let storage = Storage::open(&session.project, &session.loaded.config.output.url)?;
    while let Some(next) = missing.iter().position(|job| missing.iter().all(|other| !job.reads.contains(&other.writes))) {
        let job = missing.remove(next);
        let operator = operator::load(&session.project, &session.loaded.config, store, &storage, &jobs, job).await?;
        if let Some(select) = operator.select() {
            select.ensure_table(store, job).await?;
            made.push(job.writes.clone());
        }
    }
    Ok(made)
}
