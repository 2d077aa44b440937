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
}

pub(super) async fn run(session: Session, arguments: &Arguments) -> Result<()> {
    let create = if arguments.dry_run { Create::Never } else { Create::IfMissing };
    let store = session.open(create).await?;
    let migrations = store.migrate(arguments.dry_run).await?;
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
    Ok(())
}
