//! `export`: the finance files in a folder, for people with a spreadsheet.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use super::output;
use super::session::Session;
use crate::failure::Failure;
use crate::snapshot::export::{Exported, export};
use crate::snapshot::overlap;
use crate::snapshot::owner::OWNER_FILE;
use crate::snapshot::storage::Storage;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder to write to; files of the same name are replaced
    #[arg(long, value_name = "DIR", value_parser = output::local_folder)]
    to: PathBuf,
}

pub(super) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let context = session.context().await?;
    let storage = &context.storage;
    require_outside(&arguments.to, storage)?;
    let target = Storage::Local { root: arguments.to.clone() };
    let files = overlap::settled(&context, || Box::pin(export(&context.store, &context.jobs, storage, &target)), |_| true).await?;
    context.store.close().await;
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
    session.tell(&output::table(&["file", "rows"], &["rows"], &rows))?;
    session.tell(&format!("{} and their CSV twins in `{}`", output::counted(files.len(), "file"), arguments.to.display()))
}

/// Fails where the folder is an output or would be in one: whoever reads an output would count every row twice.
fn require_outside(to: &Path, output: &Storage) -> Result<()> {
    let absolute = std::path::absolute(to).with_context(|| format!("The folder `{}`", to.display()))?;
    // What is not there yet is made below the nearest folder that is.
    let there = absolute.ancestors().find_map(|folder| folder.canonicalize().ok()).unwrap_or_default();
    let output = match output {
        Storage::Local { root } => root.canonicalize().ok(),
        Storage::S3 { .. } => None,
    };
    let is_output = |folder: &Path| output.as_deref() == Some(folder) || folder.join(OWNER_FILE).symlink_metadata().is_ok();
    match there.ancestors().find(|folder| is_output(folder)) {
        None => Ok(()),
        Some(folder) => Err(Failure::usage(format!("`{}` is an output of tallyroll: nothing is exported into it", folder.display()))
            .hint("export to a folder of its own")
            .into()),
    }
}
