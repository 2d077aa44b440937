//! What most commands begin with: project, settings, logging, jobs, and the signal that stops them.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::output;
use crate::clock::Clock;
use crate::config::{self, LogFormat};
use crate::engine::env::Context;
use crate::engine::log::{EACH_WINDOW, RunLog};
use crate::failure::Failure;
use crate::jobs::Jobs;
use crate::project::Project;
use crate::snapshot::storage::Storage;
use crate::store::{Create, Store};
use crate::text_file;

// The options of every command. Not a doc comment: clap would show it as the description of the program.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct Global {
    /// Folder of `tallyroll.toml`, `schedules.toml`, `jobs/` and `sql/`; what it lacks is built in
    #[arg(long, short = 'C', global = true, value_name = "DIR", default_value = ".", env = "TALLYROLL_PROJECT")]
    pub(super) project: PathBuf,
    /// Database to use instead of `database.url`
    #[arg(long, global = true, value_name = "URL", value_parser = |url: &str| Ok::<_, Infallible>(SecretString::from(url)))]
    pub(super) database_url: Option<SecretString>,
    /// Print JSON: one document, or one per line for lists
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Show every column, whole run ids and instants, in tables wider than 80 characters
    #[arg(long, global = true)]
    pub(super) wide: bool,
    /// Log errors alone, and do not report what a run, an import, `migrate`, `export` or `record` did
    #[arg(long, short = 'q', global = true)]
    pub(super) quiet: bool,
    /// Log each window that a run writes, and on a terminal what else a run says
    #[arg(long, short = 'v', global = true, conflicts_with = "quiet")]
    pub(super) verbose: bool,
}

/// A loaded project.
pub(super) struct Session {
    pub(super) project: Project,
    pub(super) loaded: config::Loaded,
    pub(super) json: bool,
    pub(super) wide: bool,
    pub(super) quiet: bool,
}

impl Session {
    /// Loads settings and starts logging.
    pub(super) fn load(global: &Global) -> Result<Self> {
        if !global.project.is_dir() {
            return Err(Failure::config(format!("There is no project folder `{}`", global.project.display()))
                .hint("`tallyroll init DIR` makes one")
                .into());
        }
        let project = Project::new(&global.project);
        let flags: Vec<(&str, SecretString)> = global.database_url.iter().map(|url| ("database.url", url.clone())).collect();
        let loaded = config::load(&project, std::env::vars_os(), &flags)?;
        start_logging(loaded.config.log.format, global);
        Ok(Self { project, loaded, json: global.json, wide: global.wide, quiet: global.quiet })
    }

    pub(super) async fn open(&self, create: Create) -> Result<Store> {
        Store::open(&self.project, &self.loaded.config, create).await
    }

    /// Says what was done, unless `--quiet` asks for nothing of the kind.
    pub(super) fn tell(&self, text: &str) -> Result<()> {
        if self.quiet { Ok(()) } else { output::line(text) }
    }

    /// Everything a run needs, with a progress bar on a terminal.
    pub(super) async fn context(&self) -> Result<Arc<Context>> {
        let jobs = Jobs::load(&self.project)?;
        let store = self.open(Create::Never).await?;
        store.require_migrated().await?;
        Ok(Arc::new(Context {
            project: self.project.clone(),
            config: self.loaded.config.clone(),
            store,
            storage: Storage::open(&self.project, &self.loaded.config.output.url)?,
            jobs,
            clock: Clock::system(),
            stop: stop_signal()?,
            observe: output::progress(self.loaded.config.log.format == LogFormat::Text),
        }))
    }
}

/// The text of a file that the command line names.
pub(super) fn read_text(path: &Path) -> Result<String> {
    text_file::read(path)
        .and_then(|text| text.context("there is no such file"))
        .map_err(|error| Failure::usage(format!("Failed to read `{}`", path.display())).caused_by(error).into())
}

/// Becomes the number of the first SIGINT or SIGTERM; a second one ends the process at once.
pub(super) fn stop_signal() -> Result<watch::Receiver<Option<i32>>> {
    let (sender, receiver) = watch::channel(None);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
            };
            if sender.borrow().is_some() {
                // Open transactions are rolled back by the database.
                std::process::exit(128 + number);
            }
            tracing::warn!(signal = number, "Stopping; a window that is being written is finished first. A second signal stops at once");
            sender.send_replace(Some(number));
        }
    });
    Ok(receiver)
}

/// Logs go to stderr: quiet on a terminal, where a progress bar and a table say the same, and without each window where people read them.
/// They are our own lines, however loud: those of libraries repeat what was sent and answered, with the secrets in it.
fn start_logging(format: LogFormat, global: &Global) {
    let level = match format {
        _ if global.quiet => "error".to_owned(),
        LogFormat::Text if !global.verbose && std::io::stderr().is_terminal() => "warn".to_owned(),
        LogFormat::Text if !global.verbose => format!("info,{EACH_WINDOW}=warn"),
        LogFormat::Text | LogFormat::Json => "info".to_owned(),
    };
    let from_environment = || EnvFilter::try_from_default_env().ok().filter(|_| !global.quiet);
    let filter = from_environment().unwrap_or_else(|| EnvFilter::new(level));
    let own = || filter_fn(|metadata| metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME")));
    let filter = filter.and(own());
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let to_stderr = match format {
        LogFormat::Json => to_stderr.json().flatten_event(true).with_filter(filter).boxed(),
        LogFormat::Text => to_stderr.with_ansi(output::is_coloured(&std::io::stderr())).with_filter(filter).boxed(),
    };
    // What a run logs is kept with its record, however quiet the terminal. A second start, in tests, leaves the first in place.
    let _ = tracing_subscriber::registry().with(to_stderr).with(RunLog.with_filter(LevelFilter::INFO.and(own()))).try_init();
}
