//! `init`: the built-in files, to edit.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::output;
use crate::project::BUILT_IN_FILES;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder to write into
    #[arg(default_value = ".", value_parser = output::local_folder)]
    dir: PathBuf,
}

pub(super) fn run(arguments: &Arguments, is_json: bool) -> Result<()> {
    let mut written = Vec::new();
    let mut kept = Vec::new();
    for (path, text) in BUILT_IN_FILES {
        let file = arguments.dir.join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("Failed to make `{}`", folder.display()))?;
        }
        // Whatever has the name stays, a link that leads nowhere too.
        match File::create_new(&file).and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => written.push(*path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => kept.push(*path),
            Err(error) => return Err(error).with_context(|| format!("Failed to write `{}`", file.display())),
        }
    }
    if is_json {
        return output::json(&json!({ "dir": arguments.dir, "written": written, "kept": kept }));
    }
    for path in &written {
        output::line(&format!("wrote {path}"))?;
    }
    for path in &kept {
        output::line(&format!("kept  {path}, which is there already"))?;
    }
    output::line(&format!(
        "\nNext: edit `{}`, then `tallyroll -C {} migrate`",
        arguments.dir.join("tallyroll.toml").display(),
        arguments.dir.display()
    ))
}
