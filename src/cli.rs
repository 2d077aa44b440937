//! The command line: arguments in, tables and exit codes out. No domain logic.

mod archive;
mod check;
mod dashboard;
mod demo;
mod explain;
mod export;
mod import;
mod imports;
mod init;
mod license;
mod list_jobs;
mod migrate;
mod output;
mod price_import;
mod prices;
mod quarantine;
mod reconcile;
mod record;
mod render;
mod report;
mod run_due;
mod run_job;
mod runs;
mod serve;
mod session;
mod shell;
mod status;
mod verify;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{CommandFactory as _, Parser, Subcommand};

use self::session::{Global, Session};
use crate::failure;

/// Turns AI usage logs and seat ledgers into summaries that finance can bill from.
#[derive(Debug, Parser)]
#[command(name = "tallyroll", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an SQLite database with a realistic log, run every job on it, and show what came out
    #[command(after_help = "Example:\n  tallyroll demo --dir demo --events 100000")]
    Demo(demo::Arguments),
    /// Write the built-in settings, schedules, jobs and SQL, to edit
    #[command(after_help = "Example:\n  tallyroll init usage-project")]
    Init(init::Arguments),
    /// Create or upgrade the schema, the triggers and the views
    #[command(after_help = "Example:\n  DATABASE_URL=postgres://owner@db/app tallyroll migrate --dry-run")]
    Migrate(migrate::Arguments),
    /// Check settings, schedules, jobs, SQL and schema; report all problems at once
    #[command(after_help = "Example:\n  tallyroll check --show")]
    Check(check::Arguments),
    /// List the jobs: what they read and write, when they run, what is due
    #[command(after_help = "Example:\n  tallyroll list-jobs --json | jq -r .name")]
    ListJobs,
    /// Run one job over its due windows, or over those named
    #[command(after_help = "Examples:\n  tallyroll run-job usage_daily --downstream\n  \
        tallyroll run-job usage_daily --from 2026-03-01 --to 2026-04-01 --dry-run\n  tallyroll run-job usage_monthly_user --month 2026-03")]
    RunJob(run_job::Arguments),
    /// Run every schedule that is due, then end: what cron starts once a minute
    #[command(after_help = "Example, a line for cron(8):\n  * * * * * cd /srv/usage && tallyroll run-due")]
    RunDue,
    /// Run the schedules, and show health, metrics and the web page
    #[command(after_help = "Example:\n  TALLYROLL__SERVE__TOKEN_FILE=/run/secrets/token tallyroll serve --bind 0.0.0.0:8080")]
    Serve(serve::Arguments),
    /// Show past runs, newest first
    #[command(after_help = "Example:\n  tallyroll runs --job usage_daily --failed --limit 5")]
    Runs(runs::Arguments),
    /// Show, for each job, how many windows are done, due, failed and missing
    #[command(after_help = "Example:\n  tallyroll status")]
    Status,
    /// Check sealed files against manifest, journal and ledger; exit code 65 names what does not hold
    #[command(after_help = "Example:\n  tallyroll verify --billing-month 2026-03")]
    Verify(verify::Arguments),
    /// Compare every summary, peak and sealed file with what it was made from; exit code 65 names what differs
    #[command(after_help = "Example:\n  tallyroll reconcile --from 2026-03-01 --to 2026-04-01")]
    Reconcile(reconcile::Arguments),
    /// Put past days of the raw log into the lake as Parquet, proven row by row; or put them back
    #[command(after_help = "Examples:\n  tallyroll archive --dry-run\n  tallyroll archive\n  tallyroll archive --restore 2026-03-05")]
    Archive(archive::Arguments),
    /// Show the admin's dashboard, or a user's: totals, costs, limits, recent requests
    #[command(after_help = "Examples:\n  tallyroll dashboard --days 7\n  tallyroll dashboard --user 00000000-0000-4000-8000-000000000001")]
    Dashboard(dashboard::Arguments),
    /// Show what stands behind a number
    #[command(subcommand)]
    Explain(explain::What),
    /// Print a report
    #[command(subcommand)]
    Report(report::What),
    /// Copy the finance files to a folder, each with a CSV twin
    #[command(after_help = "Example:\n  tallyroll export --to /srv/finance/2026-03")]
    Export(export::Arguments),
    /// Take files into the source tables, once each, however often they are read
    #[command(subcommand)]
    Import(import::What),
    /// What models cost: show it, import it, find what is missing, compare
    #[command(subcommand)]
    Prices(prices::What),
    /// What enters no total: list it, look at it, have its days looked at again, forget rows of files
    #[command(subcommand)]
    Quarantine(quarantine::What),
    /// Append to the seat ledger by hand, or from a script beside an SQLite database
    #[command(subcommand)]
    Record(record::What),
    /// Signed offline licences
    #[command(subcommand)]
    License(license::What),
    /// Print what Kubernetes, cron or systemd needs to keep `schedules.toml`
    #[command(subcommand, after_help = "Example:\n  tallyroll -C /srv/usage render crontab | crontab -")]
    Render(render::What),
    /// Print a completion script for a shell, which completes the names of jobs, too
    #[command(after_help = "Example, a line for ~/.bashrc:\n  source <(tallyroll completions bash)")]
    Completions(shell::Arguments),
    /// Print the manual page
    #[command(after_help = "Example:\n  tallyroll man | man -l -")]
    Man,
}

/// Parses the arguments, runs the command, prints an error once, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    shell::complete(Cli::command);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&anyhow::Error::new(error).context("The runtime could not start"));
            return ExitCode::FAILURE;
        }
    };
    // A library that is told nonsense by a server may panic; its message has been printed.
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(cli))))
        .unwrap_or_else(|_| Err(anyhow!("This is a mistake in the program, or a server that does not keep to its protocol")));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(failure::exit_code(&error))
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let Cli { global, command } = cli;
    match command {
        Command::Completions(arguments) => shell::completions(&arguments),
        Command::Man => shell::man(&Cli::command()),
        Command::Init(arguments) => init::run(&arguments, global.json),
        Command::Demo(arguments) => demo::run(global, &arguments).await,
        Command::Check(arguments) => check::run(&global, &arguments).await,
        Command::ListJobs => list_jobs::run(&global).await,
        Command::Migrate(arguments) => migrate::run(Session::load(&global)?, &arguments).await,
        Command::RunJob(arguments) => run_job::run(Session::load(&global)?, &arguments).await,
        Command::RunDue => run_due::run(Session::load(&global)?).await,
        Command::Serve(arguments) => serve::run(Session::load(&global)?, &arguments).await,
        Command::Runs(arguments) => runs::run(Session::load(&global)?, &arguments).await,
        Command::Status => status::run(Session::load(&global)?).await,
        Command::Verify(arguments) => verify::run(Session::load(&global)?, &arguments).await,
        Command::Reconcile(arguments) => reconcile::run(Session::load(&global)?, &arguments).await,
        Command::Archive(arguments) => archive::run(&Session::load(&global)?, &arguments).await,
        Command::Dashboard(arguments) => dashboard::run(Session::load(&global)?, &arguments).await,
        Command::Explain(what) => explain::run(Session::load(&global)?, &what).await,
        Command::Report(what) => report::run(Session::load(&global)?, &what).await,
        Command::Export(arguments) => export::run(&Session::load(&global)?, &arguments).await,
        Command::Prices(what) => prices::run(Session::load(&global)?, &what).await,
        Command::Quarantine(what) => quarantine::run(Session::load(&global)?, &what).await,
        Command::Record(what) => record::run(Session::load(&global)?, &what).await,
        Command::Render(what) => render::run(&Session::load(&global)?, &what),
        Command::License(what) => license::run(&what, global.json),
        Command::Import(what) => import::run(Session::load(&global)?, &what).await,
    }
}
