//! `export`: the finance files in a folder, for people with a spreadsheet.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::output;
use super::session::Session;
use crate::failure::Failure;
use crate::snapshot::export::{Exported, export};
use crate::snapshot::storage::Storage;
use crate::store::Create;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder to write to; files of the same name are replaced
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let storage = Storage::open(&session.project, &session.loaded.config.output.url)?;
    let target = Storage::Local { root: arguments.to.clone() };
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let files = export(&store, &storage, &target).await?;
    store.close().await;
    if files.is_empty() {
        return Err(Failure::usage(format!("There is nothing to export at `{}`", storage.shown("")))
            .hint("`tallyroll run-job peak_seats` and `tallyroll run-job usage_daily --downstream` write the finance files")
            .into());
    }
    let mut rows = Vec::new();
    for Exported { path, row_count } in &files {
        if session.json {
            output::json(&serde_json::json!({ "path": path, "row_count": row_count }))?;
        }
        rows.push(vec![path.clone(), output::grouped(i64::try_from(*row_count)?)]);
    }
    if session.json {
        return Ok(());
    }
    output::line(&output::table(&["file", "rows"], &["rows"], &rows))?;
    output::line(&format!("{} file(s) and their CSV twins in `{}`", files.len(), arguments.to.display()))
}
