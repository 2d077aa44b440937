//! systemd units: a service that runs the job once, and a timer that starts it.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Planned, on_calendar, one_line};
use crate::failure::Failure;

/// What the units say besides the schedule.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program, as an absolute path: systemd looks into no PATH of a user's.
    pub binary: String,
    /// The project folder, as an absolute path.
    pub project: String,
}

/// A unit's file.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Unit {
    pub name: String,
    pub text: String,
}

/// What a service may not do. It needs its state folder, the network and nothing else.
const HARDENING: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
PrivateTmp=yes
PrivateDevices=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
CapabilityBoundingSet=
UMask=0027
";

/// A service and a timer for each schedule.
///
/// # Errors
/// When a path cannot stand in a unit.
pub fn units(schedules: &[Planned], options: &Options) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for planned in schedules {
        units.push(Unit { name: format!("tallyroll-{}.service", planned.job), text: service(planned, options)? });
        units.push(Unit { name: format!("tallyroll-{}.timer", planned.job), text: timer(planned) });
    }
    Ok(units)
}

fn service(planned: &Planned, options: &Options) -> Result<String> {
    // systemd reads signs before a program's path as orders of its own.
    if !options.binary.starts_with('/') {
        return Err(Failure::usage(format!("`--binary {}` is no absolute path", options.binary.escape_debug())).into());
    }
    let mut command = vec![quoted("--binary", &options.binary)?, "--project".to_owned(), quoted("The project folder", &options.project)?];
    command.extend(planned.arguments(planned.queue_seconds()));
    let attempt_seconds = planned.timeout_seconds.saturating_add(planned.queue_seconds());
    let (mut limit, mut restart) = (String::new(), String::new());
    if planned.retry_count > 0 {
        // systemd counts the timer's starts as well, so they come on top of the retries.
        let attempts = u64::from(planned.retry_count) + 1;
        let interval = attempts.saturating_mul(attempt_seconds.saturating_add(planned.backoff_seconds));
        let burst = planned.starts_within(interval).saturating_add(u64::from(planned.retry_count));
        limit = format!("StartLimitIntervalSec={interval}\nStartLimitBurst={}\n", burst.min(u64::from(u32::MAX)));
        restart = format!("Restart=on-failure\nRestartSec={}\n", planned.backoff_seconds);
    }
    Ok(format!(
        "# Made by `tallyroll render systemd` from schedules.toml.\n\
         # Only /var/lib/tallyroll can be written: an SQLite database and a local output folder belong there. In /etc/tallyroll/environment:\n\
         # DATABASE_URL=sqlite:///var/lib/tallyroll/tallyroll.db and TALLYROLL__OUTPUT__URL=/var/lib/tallyroll/out, or those of your servers.\n\
         [Unit]\nDescription=Tallyroll: job {}\nWants=network-online.target\nAfter=network-online.target\n{limit}\n\
         [Service]\nType=oneshot\nUser=tallyroll\nDynamicUser=yes\nStateDirectory=tallyroll\nStateDirectoryMode=0750\n\
         EnvironmentFile=-/etc/tallyroll/environment\nExecStart={}\nTimeoutStartSec={attempt_seconds}\nTimeoutStopSec=90\n\
         # Stopped by a signal, with nothing half-written.\nSuccessExitStatus=130 143\n\
         # Usage, bad data, configuration: the next attempt would find the same.\nRestartPreventExitStatus=2 65 78\n{restart}{}{HARDENING}",
        planned.job,
        command.join(" "),
        protect_home(&options.project),
    ))
}

fn timer(planned: &Planned) -> String {
    let mut timer = format!(
        "# Made by `tallyroll render systemd` from schedules.toml.\n[Unit]\nDescription=When Tallyroll runs job {}\n\n[Timer]\n",
        planned.job
    );
    for expression in on_calendar::expressions(&planned.line, planned.timezone) {
        let _ = writeln!(timer, "OnCalendar={expression}");
    }
    let persistent = if planned.is_caught_up { "yes" } else { "no" };
    let _ = writeln!(timer, "Persistent={persistent}\nRandomizedDelaySec={}\nAccuracySec=1s", planned.jitter_seconds);
    timer + "\n[Install]\nWantedBy=timers.target\n"
}

/// A home is hidden, unless the project lies in one.
fn protect_home(project: &str) -> &'static str {
    let is_in_home = ["/home/", "/root/", "/run/user/"].iter().any(|home| format!("{project}/").starts_with(home));
    if is_in_home { "ProtectHome=read-only\n" } else { "ProtectHome=yes\n" }
}

/// A word of `ExecStart=`, where `%` and `$` mean something.
fn quoted(what: &str, word: &str) -> Result<String> {
    let word = one_line(what, word)?.replace('%', "%%").replace('$', "$$");
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@,=%$".contains(character);
    if word.chars().all(is_plain) {
        return Ok(word);
    }
    Ok(format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")))
}
