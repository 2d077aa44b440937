//! A crontab: one line per schedule, grouped by time zone.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Planned, one_line, untranslatable};
use crate::failure::Failure;

/// What the lines say besides the schedule.
#[derive(Debug, Clone)]
pub struct Options {
    /// The project folder, as an absolute path.
    pub project: String,
    /// The user that a line of `/etc/cron.d` names; a user's own crontab names none.
    pub user: Option<String>,
}

/// The crontab.
///
/// # Errors
/// When a line cannot be said in cron's words, or the folder's name cannot stand in a crontab.
pub fn render(schedules: &[Planned], options: &Options) -> Result<String> {
    let texts = texts(schedules)?;
    let mut zones: BTreeMap<&str, Vec<(&Planned, &String)>> = BTreeMap::new();
    for (planned, text) in schedules.iter().zip(&texts) {
        zones.entry(planned.timezone).or_default().push((planned, text));
    }
    let user = options.user.as_ref().map(|user| format!("{user} ")).unwrap_or_default();
    let command = command(&options.project)?;
    let mut crontab = format!(
        "# Made by `tallyroll render crontab` from schedules.toml.\n\
         # cron starts a job and does no more: jitter, timeout, retries and catch_up are not in these lines.\n\
         # This one line instead of them keeps all that schedules.toml says, its time zones as well:\n\
         # * * * * * {user}{command} run-due\n#\n{}\
         SHELL=/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin\n",
        zone_comment(&zones.keys().copied().collect::<Vec<_>>()),
    );
    for (zone, group) in zones {
        let _ = write!(crontab, "\nCRON_TZ={zone}\n");
        for (planned, text) in group {
            let _ = writeln!(crontab, "{text} {user}{command} {}", planned.arguments(planned.queue_seconds()).join(" "));
        }
    }
    Ok(crontab)
}

/// The same as one object per line of the crontab.
///
/// # Errors
/// As [`render`].
pub fn documents(schedules: &[Planned], options: &Options) -> Result<Vec<Value>> {
    let document = |(planned, text): (&Planned, &String)| {
        let mut command = vec!["tallyroll".to_owned(), "--project".to_owned(), options.project.clone()];
        command.extend(planned.arguments(planned.queue_seconds()));
        json!({ "job": planned.job, "cron": text, "timezone": planned.timezone, "user": options.user, "command": command })
    };
    Ok(schedules.iter().zip(&texts(schedules)?).map(document).collect())
}

/// The cron lines, or every one that cannot be said.
pub(super) fn texts(schedules: &[Planned]) -> Result<Vec<String>> {
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    for planned in schedules {
        match planned.line.to_text() {
            Ok(text) => texts.push(text),
            Err(problem) => problems.push(format!("`schedules.toml`, [{}]: `cron` {problem}", planned.job)),
        }
    }
    if problems.is_empty() { Ok(texts) } else { Err(untranslatable(&problems)) }
}

fn zone_comment(zones: &[&str]) -> String {
    let rest = match zones {
        [zone] => {
            format!("all schedules are in {zone}, so with Debian's cron the system's zone has to be {zone} (`timedatectl` shows it).")
        }
        _ => format!("the schedules are in {}, so with Debian's cron use the line with run-due instead.", zones.join(", ")),
    };
    format!(
        "# cronie reads the lines below a CRON_TZ in that time zone. Debian's cron ignores CRON_TZ and takes the system's zone:\n# {rest}\n"
    )
}

/// `tallyroll --project DIR` for sh(1) inside a crontab, where `%` would end the command.
fn command(project: &str) -> Result<String> {
    let project = one_line("The project folder", project)?;
    if project.contains('\\') {
        // cron takes a backslash before `%` for its own, and cannot be told otherwise.
        return Err(Failure::usage(format!("The project folder `{project}` holds a backslash, which a crontab cannot quote")).into());
    }
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@,".contains(character);
    let quoted = if project.chars().all(is_plain) { project.to_owned() } else { format!("'{}'", project.replace('\'', "'\"'\"'")) };
    Ok(format!("tallyroll --project {}", quoted.replace('%', "\\%")))
}
