//! `render`: prints what another scheduler needs to keep `schedules.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::output;
use super::session::Session;
use crate::failure::Failure;
use crate::jobs::Jobs;
use crate::render::{self, Planned, cronjobs, crontab, systemd};
use crate::schedule;

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// A Kubernetes CronJob for each schedule
    #[command(
        after_help = "Example:\n  tallyroll render cronjobs --image registry/tallyroll:1 --config-map tallyroll-project | kubectl apply -f -"
    )]
    Cronjobs(CronjobsArguments),
    /// Lines for cron(8)
    #[command(after_help = "Examples:\n  tallyroll -C /srv/usage render crontab | crontab -\n  \
        tallyroll -C /srv/usage render crontab --user-field > /etc/cron.d/tallyroll")]
    Crontab(CrontabArguments),
    /// A systemd service and timer for each schedule
    #[command(after_help = "Example:\n  tallyroll -C /srv/usage render systemd --out /etc/systemd/system")]
    Systemd(SystemdArguments),
}

#[derive(Debug, Args)]
pub(super) struct CronjobsArguments {
    /// The image, as `deploy/Dockerfile` builds it
    #[arg(long, default_value = concat!("tallyroll:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// Namespace of the CronJobs; without it, the one they are applied to
    #[arg(long, value_name = "NS")]
    namespace: Option<String>,
    /// Secret with the keys `database-url` and `output-url`
    #[arg(long, value_name = "NAME", default_value = "tallyroll")]
    secret: String,
    /// ConfigMap with the files of the project folder, `/` in their names written as `.`; without it, the built-in ones
    #[arg(long, value_name = "NAME")]
    config_map: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CrontabArguments {
    /// Name a user in each line, as /etc/cron.d wants it
    #[arg(long, value_name = "USER", num_args = 0..=1, require_equals = true, default_missing_value = "tallyroll", value_parser = user)]
    user_field: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SystemdArguments {
    /// Write the units into this folder instead of printing them
    #[arg(long, value_name = "DIR", value_parser = output::local_folder)]
    out: Option<PathBuf>,
    /// Where the program will be
    #[arg(long, value_name = "PATH", default_value = "/usr/local/bin/tallyroll")]
    binary: String,
}

pub(super) fn run(session: &Session, what: &What) -> Result<()> {
    let (schedules, problems) = schedule::read(&session.project, &Jobs::load(&session.project)?)?;
    if !problems.is_empty() {
        return Err(Failure::config("Schedules cannot be used").listing(problems).into());
    }
    let schedules = render::planned(&schedules)?;
    match what {
        What::Cronjobs(arguments) => print_cronjobs(session, &schedules, arguments),
        What::Crontab(arguments) => {
            let options = crontab::Options { project: absolute(&session.project.dir)?, user: arguments.user_field.clone() };
            if session.json {
                return crontab::documents(&schedules, &options)?.iter().try_for_each(output::json);
            }
            output::line(crontab::render(&schedules, &options)?.trim_end())
        }
        What::Systemd(arguments) => print_systemd(session, &schedules, arguments),
    }
}

fn print_cronjobs(session: &Session, schedules: &[Planned], arguments: &CronjobsArguments) -> Result<()> {
    let options = cronjobs::Options {
        image: arguments.image.clone(),
        namespace: arguments.namespace.clone(),
        secret: arguments.secret.clone(),
        config_map: arguments.config_map.clone(),
        project_files: if arguments.config_map.is_some() { project_files(&session.project.dir)? } else { Vec::new() },
        lock_lease_seconds: u64::from(session.loaded.config.engine.lock_lease_seconds),
    };
    if session.json {
        return cronjobs::documents(schedules, &options)?.iter().try_for_each(output::json);
    }
    output::line(cronjobs::render(schedules, &options)?.trim_end())
}

fn print_systemd(session: &Session, schedules: &[Planned], arguments: &SystemdArguments) -> Result<()> {
    let options = systemd::Options { binary: arguments.binary.clone(), project: absolute(&session.project.dir)? };
    let units = systemd::units(schedules, &options)?;
    if let Some(dir) = &arguments.out {
        fs::create_dir_all(dir).with_context(|| format!("Failed to make the folder `{}`", dir.display()))?;
        for unit in &units {
            let path = dir.join(&unit.name);
            fs::write(&path, &unit.text).with_context(|| format!("Failed to write `{}`", path.display()))?;
        }
    }
    if session.json {
        return units.iter().try_for_each(output::json);
    }
    for (index, unit) in units.iter().enumerate() {
        match &arguments.out {
            Some(dir) => output::line(&dir.join(&unit.name).display().to_string())?,
            None => output::line(&format!("{}# {}\n{}", if index > 0 { "\n" } else { "" }, unit.name, unit.text.trim_end()))?,
        }
    }
    Ok(())
}

/// The files of a project folder that a pod needs, by their paths within it. What the folder lacks is built in.
fn project_files(dir: &Path) -> Result<Vec<String>> {
    let mut files: Vec<String> = ["tallyroll.toml", "schedules.toml", "prices.toml"]
        .iter()
        .filter(|name| dir.join(name).is_file())
        .map(ToString::to_string)
        .collect();
    for (folder, extension) in [("jobs", "toml"), ("sql", "sql"), ("sql/sources", "sql")] {
        let Ok(entries) = fs::read_dir(dir.join(folder)) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("Failed to list `{}`", dir.join(folder).display()))?.path();
            if path.is_file() && path.extension().is_some_and(|found| found == extension) {
                files.push(format!("{folder}/{}", path.file_name().unwrap_or_default().to_string_lossy()));
            }
        }
    }
    let is_key = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    if let Some(file) = files.iter().find(|file| !cronjobs::config_map_key(file).chars().all(is_key)) {
        return Err(Failure::config(format!("`{}` cannot be in a ConfigMap", dir.join(file).display()))
            .hint("a file's name there is letters, digits, `-`, `.` and `_`")
            .into());
    }
    files.sort();
    Ok(files)
}

/// The project folder as a scheduler finds it from anywhere.
fn absolute(dir: &Path) -> Result<String> {
    let path = std::path::absolute(dir).with_context(|| format!("Failed to tell where `{}` is", dir.display()))?;
    let text = path.to_str().ok_or_else(|| Failure::usage(format!("The name of the project folder `{}` is no UTF-8", path.display())))?;
    Ok(if text.len() > 1 { text.trim_end_matches('/').to_owned() } else { text.to_owned() })
}

fn user(text: &str) -> Result<String, String> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    let is_name = text.bytes().all(is_inner) && text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_name { Ok(text.to_owned()) } else { Err("a user's name is lower-case letters, digits, `_` and `-`".to_owned()) }
}
