//! `migrate`: the schema.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::output;
use super::session::Session;
use crate::store::Create;

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
    let migrations = store.migrate(arguments.dry_run).await?;
    let roles = if arguments.roles { store.create_roles().await } else { Ok(()) };
    store.close().await;
    let applied = if arguments.dry_run { "would be applied" } else { "applied" };
    for migration in &migrations {
        let state = if migration.already_applied { "there already" } else { applied };
        if session.json {
            output::json(&json!({ "version": migration.version, "description": migration.description, "state": state }))?;
        } else if !migration.already_applied {
            output::line(&format!("{} {}: {state}", migration.version, migration.description))?;
        }
    }
    if !session.json && migrations.iter().all(|migration| migration.already_applied) {
        output::line(&format!("The schema at `{}` is up to date", store.location()))?;
    }
    roles?;
    if arguments.roles && !session.json {
        output::line(
            "The roles tallyroll_migrator, tallyroll_runner, tallyroll_writer, tallyroll_reader and tallyroll_user are there, with their rights",
        )?;
    }
    Ok(())
}
