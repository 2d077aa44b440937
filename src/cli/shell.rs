//! `completions` and `man`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{CompletionCandidate, Shell};

use super::output;
use crate::jobs::Jobs;
use crate::project::Project;

/// What a shell sets when it asks this program what may come next.
const ASKING_SHELL: &str = "TALLYROLL_COMPLETE";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Shell to print the script for
    shell: Shell,
}

/// The script asks this program at each press of the tab key, so it knows the jobs of the project.
pub(super) fn completions(arguments: &Arguments) -> Result<()> {
    let shells = Shells::builtins();
    let completer = shells.completer(&arguments.shell.to_string()).context("There is no script for this shell")?;
    let mut script = Vec::new();
    completer.write_registration(ASKING_SHELL, "tallyroll", "tallyroll", "tallyroll", &mut script)?;
    output::line(String::from_utf8(script)?.trim_end())
}

/// Answers a shell and ends; does nothing where no shell asks.
pub(super) fn complete(command: fn() -> Command) {
    CompleteEnv::with_factory(command).var(ASKING_SHELL).complete();
}

/// The jobs of the project that the command line names so far, each with what it is.
pub(super) fn job_names() -> Vec<CompletionCandidate> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let named = arguments.windows(2).find(|pair| pair[0] == "-C" || pair[0] == "--project").map(|pair| pair[1].clone());
    let dir = named.or_else(|| std::env::var_os("TALLYROLL_PROJECT")).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let Ok((jobs, _)) = Jobs::read(&Project::new(dir)) else { return Vec::new() };
    jobs.iter().map(|job| CompletionCandidate::new(&job.name).help(Some(job.description.clone().into()))).collect()
}

/// The manual page: each command as it is typed, with its options and examples, then what holds for all of them.
pub(super) fn man(command: &Command) -> Result<()> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for subcommand in command.get_subcommands() {
        command_section(&mut page, subcommand, &format!("tallyroll {}", subcommand.get_name()))?;
    }
    page.extend_from_slice(MANUAL.as_bytes());
    output::line(String::from_utf8(page)?.trim_end())
}

/// A command with its own options, and those that it holds after it.
fn command_section(page: &mut Vec<u8>, command: &Command, name: &str) -> Result<()> {
    let escaped = |text: &str| text.replace('\\', "\\e").replace('-', "\\-").replace("\n.", "\n\\&.").replace("\n'", "\n\\&'");
    writeln!(page, ".SS \"{}\"\n{}", escaped(name), escaped(&command.get_about().map(ToString::to_string).unwrap_or_default()))?;
    for argument in command.get_arguments().filter(|argument| !argument.is_global_set() && argument.get_id() != "help") {
        let value = argument.get_value_names().into_iter().flatten().map(clap::builder::Str::as_str).collect::<Vec<_>>().join(" ");
        let takes_value = argument.get_action().takes_values();
        let long = argument.get_long().map(|long| format!("--{long}{}", if takes_value { format!(" {value}") } else { String::new() }));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", escaped(&long.unwrap_or(value)), escaped(&help))?;
    }
    if let Some(examples) = command.get_after_help() {
        writeln!(page, ".PP\n.nf\n{}\n.fi", escaped(&examples.to_string()))?;
    }
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        command_section(page, subcommand, &format!("{name} {}", subcommand.get_name()))?;
    }
    Ok(())
}

/// What the page says of all commands; docs/interface.md says it at length.
const MANUAL: &str = r#".SH "EXIT STATUS"
.TP
\fB0\fR
Done, or nothing was due; serve was asked to stop, and stopped.
.TP
\fB1\fR
A failure that has no number of its own.
.TP
\fB2\fR
Wrong arguments.
.TP
\fB65\fR
The data does not add up: a check failed, a sealed file was changed, too many events are in quarantine.
.TP
\fB75\fR
Try again: another run is at work, or the database or the storage cannot be reached.
.TP
\fB78\fR
The settings, a job, its SQL, the schema or a right is wrong.
.TP
\fB130, 143\fR
Interrupted by SIGINT or SIGTERM; nothing is half-written.
.SH ENVIRONMENT
.TP
\fBDATABASE_URL\fR
The database, in place of \fBdatabase.url\fR. \fBDATABASE_URL_FILE\fR names a file that holds it.
.TP
\fBTALLYROLL__SECTION__KEY\fR
Any setting, such as \fBTALLYROLL__OUTPUT__URL\fR; with \fB_FILE\fR behind it the path of a file that holds it.
.TP
\fBTALLYROLL_PROJECT\fR
The project folder, in place of \fB\-\-project\fR.
.TP
\fBAWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL\fR
For an output in a bucket.
.TP
\fBRUST_LOG\fR
What is logged: error, warn, info, debug.
.TP
\fBNO_COLOR\fR
No colour, whatever its value.
.SH FILES
.TP
\fBtallyroll.toml\fR
Settings; \fBtallyroll check \-\-show\fR prints them all.
.TP
\fBschedules.toml\fR
When each job runs.
.TP
\fBjobs/*.toml, sql/*.sql, sql/sources/*.sql\fR
Jobs, their SQL, and what reads the log and the ledger. What the project lacks is built in.
.TP
\fBprices.toml\fR
What models cost.
.TP
\fBtallyroll.db, out/\fR
The database and the finance files, unless set otherwise.
.SH EXAMPLES
.PP
Everything that is due, by hand or from cron:
.PP
.nf
    tallyroll run\-job usage_daily \-\-downstream
    * * * * * cd /srv/usage && tallyroll run\-due
.fi
.PP
What finance asks at the end of a month:
.PP
.nf
    tallyroll verify \-\-billing\-month 2026\-03
    tallyroll export \-\-to /srv/finance/2026\-03
.fi
"#;
