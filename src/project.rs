//! The project folder: jobs, SQL and settings that a user may edit, each with the built-in one behind it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::failure::Failure;
use crate::text_file;

/// Every built-in file, by its path in a project folder. `tallyroll init` writes these out.
macro_rules! built_in_files {
    ($($path:literal),* $(,)?) => {
        pub const BUILT_IN_FILES: &[(&str, &str)] = &[$(($path, include_str!(concat!("../", $path)))),*];
    };
}

built_in_files![
    "tallyroll.toml",
    "schedules.toml",
    "prices.toml",
    "jobs/archive.toml",
    "jobs/peak_seats.toml",
    "jobs/reconcile.toml",
    "formats/anthropic.toml",
    "formats/langfuse.toml",
    "formats/litellm.toml",
    "formats/openai-costs.toml",
    "formats/openai-usage.toml",
    "formats/openai.toml",
    "jobs/usage_daily.toml",
    "jobs/usage_dashboard.toml",
    "jobs/usage_daily_customer.toml",
    "jobs/usage_daily_total.toml",
    "jobs/usage_daily_type.toml",
    "jobs/usage_daily_user.toml",
    "jobs/usage_monthly_customer.toml",
    "jobs/usage_monthly_user.toml",
    "jobs/user_dashboard.toml",
    "sql/user_dashboard.sql",
    "sql/sources/ai_usage_log.postgres.sql",
    "sql/sources/ai_usage_log.sqlite.sql",
    "sql/sources/chat_requests.postgres.sql",
    "sql/sources/chat_requests.sqlite.sql",
    "sql/sources/seat_usage_event.postgres.sql",
    "sql/sources/seat_usage_event.sqlite.sql",
    "sql/sources/subscription.postgres.sql",
    "sql/sources/subscription.sqlite.sql",
    "sql/sources/usage_event.postgres.sql",
    "sql/sources/usage_event.sqlite.sql",
];

/// A folder that may hold `tallyroll.toml`, `schedules.toml`, `prices.toml`, `jobs/`, `sql/` and `formats/`.
#[derive(Debug, Clone)]
pub struct Project {
    pub dir: PathBuf,
}

/// A file's text and where it came from, as an error should name it.
#[derive(Debug, Clone)]
pub struct ProjectFile {
    pub text: String,
    pub origin: String,
    /// Whether it says what the file of its name in this program says.
    pub is_built_in: bool,
}

impl ProjectFile {
    fn of_folder(path: &str, text: String, origin: String) -> Self {
        let is_built_in = built_in(path).is_some_and(|known| known == text);
        Self { text, origin, is_built_in }
    }

    fn of_program(path: &str, text: &str) -> Self {
        Self { text: text.to_owned(), origin: format!("{path} (built in)"), is_built_in: true }
    }
}

/// The text of a built-in file.
fn built_in(path: &str) -> Option<&'static str> {
    BUILT_IN_FILES.iter().find(|(known, _)| *known == path).map(|(_, text)| *text)
}

impl Project {
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The first of `paths` that the folder holds, else the first that is built in; `None` when neither has any.
    ///
    /// # Errors
    /// [`Failure`] of kind config when a file is there and cannot be read: [`text_file::read`].
    pub fn read_first(&self, paths: &[String]) -> Result<Option<ProjectFile>> {
        for path in paths {
            let file = self.dir.join(path);
            if let Some(text) = read_text(&file)? {
                return Ok(Some(ProjectFile::of_folder(path, text, file.display().to_string())));
            }
        }
        Ok(paths.iter().find_map(|path| built_in(path).map(|text| ProjectFile::of_program(path, text))))
    }

    /// Every file `folder/<stem>.<extension>`, the folder's own in place of the built-in of the same name, sorted by stem; an error
    /// in place of one that cannot be read.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn read_all(&self, folder: &str, extension: &str) -> Result<BTreeMap<String, Result<ProjectFile>>> {
        let mut files = BTreeMap::new();
        for (path, text) in BUILT_IN_FILES {
            if let Some(stem) = stem_in(Path::new(path), folder, extension) {
                files.insert(stem, Ok(ProjectFile::of_program(path, text)));
            }
        }
        let dir = self.dir.join(folder);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let dangling = text_file::refuse_dangling(&dir);
                return dangling.map(|()| files).map_err(|error| Failure::config("The project cannot be read").caused_by(error).into());
            }
            Err(error) => return Err(error).with_context(|| format!("Failed to list `{}`", dir.display())),
        };
        for entry in entries {
            let path = entry.with_context(|| format!("Failed to list `{}`", dir.display()))?.path();
            let relative = Path::new(folder).join(path.file_name().unwrap_or_default());
            if let Some(stem) = stem_in(&relative, folder, extension) {
                let (name, origin) = (format!("{folder}/{stem}.{extension}"), path.display().to_string());
                let file = read_text(&path).and_then(|text| text.context("The file is gone"));
                files.insert(stem, file.map(|text| ProjectFile::of_folder(&name, text, origin)));
            }
        }
        Ok(files)
    }
}

/// The text of a file that the project names, if there is such a file.
///
/// # Errors
/// [`Failure`] of kind config: [`text_file::read`].
pub fn read_text(path: &Path) -> Result<Option<String>> {
    text_file::read(path).map_err(|error| Failure::config(format!("Failed to read `{}`", path.display())).caused_by(error).into())
}

fn stem_in(path: &Path, folder: &str, extension: &str) -> Option<String> {
    let matches = path.parent() == Some(Path::new(folder)) && path.extension().is_some_and(|found| found == extension);
    matches.then(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
}
