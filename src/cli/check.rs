//! `check`: every problem at once.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use secrecy::ExposeSecret as _;
use serde_json::json;
use url::Url;

use super::session::{Global, Session};
use super::{list_jobs, output};
use crate::clock::Clock;
use crate::failure::{self, Failure};
use crate::import::Format;
use crate::jobs::Jobs;
use crate::operator::{self, Operator};
use crate::project::Project;
use crate::reconcile::results;
use crate::serve::token;
use crate::snapshot::storage::Storage;
use crate::store::Create;
use crate::store::result_table::require_alone;
use crate::{config, schedule};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print every setting in force, secrets masked, and where it came from
    #[arg(long)]
    show: bool,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> Result<()> {
    let session = Session::load(global)?;
    if arguments.show {
        show(&session.loaded, session.json)?;
    }
    let (jobs, mut problems) = Jobs::read(&session.project)?;
    let (schedules, schedule_problems) = schedule::read(&session.project, &jobs)?;
    problems.extend(schedule_problems);
    if let Err(error) = session.loaded.config.price_book(&session.project) {
        problems.push(explained(&error));
    }
    problems.extend(unusable(&session.loaded, &session.project));
    problems.extend(Format::problems(&session.project)?);
    if let Err(error) = token::check_all(&session.loaded.config.serve) {
        problems.push(explained(&error.into()));
    }
    if let Err(error) = check_database(&session, &jobs, &mut problems).await {
        problems.push(explained(&error));
    }
    if session.json {
        output::json(&json!({ "problems": problems }))?;
    } else if problems.is_empty() {
        output::line(&list_jobs::times(&schedules, Clock::system().now()))?;
        output::line(&format!(
            "No problems: settings, prices, {} jobs, {} schedules, SQL and schema fit together",
            jobs.iter().count(),
            schedules.len()
        ))?;
    }
    match problems.len() {
        0 => Ok(()),
        count => Err(Failure::config(output::counted(count, "problem")).listing(problems).into()),
    }
}

/// Subscriptions that cannot be billed, and windows that somebody changed, of which so many are named.
const SHOWN_SUBSCRIPTIONS: usize = 20;
const SHOWN_WINDOWS: usize = 20;

/// Settings that are read and could not be used.
fn unusable(loaded: &config::Loaded, project: &Project) -> Vec<String> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    if config.serve.bind.parse::<SocketAddr>().is_err() {
        problems.push("`serve.bind` is no address to listen on, such as `127.0.0.1:8080`".to_owned());
    }
    let webhook = config.notify.webhook_url.expose_secret();
    let is_http = |url: &Url| ["http", "https"].contains(&url.scheme()) && url.has_host();
    if !webhook.is_empty() && !Url::parse(webhook).is_ok_and(|url| is_http(&url)) {
        problems.push("`notify.webhook_url` is no address that begins with `https://` or `http://`".to_owned());
    }
    let is_named = loaded.settings.iter().any(|setting| setting.key == "usage.price_book" && setting.origin != "default");
    if is_named && !project.dir.join(&config.usage.price_book).exists() {
        problems.push(format!("`usage.price_book` names `{}`, and there is no such file", config.usage.price_book));
    }
    problems
}

async fn check_database(session: &Session, jobs: &Jobs, problems: &mut Vec<String>) -> Result<()> {
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let storage = match Storage::open(&session.project, &session.loaded.config.output.url) {
        Ok(storage) => storage,
        Err(error) => {
            problems.push(explained(&error));
            return Ok(());
        }
    };
    for job in jobs.iter() {
        if let Err(error) = require_alone(&store, job).await {
            // The first one: that of a table of ours stops every job.
            problems.push(explained(&error));
            break;
        }
    }
    for job in jobs.iter() {
        let checked = match operator::load(&session.project, &session.loaded.config, &store, &storage, jobs, job).await {
            Ok(Operator::PeakSeats(peak_seats)) => {
                let (_, bad) = peak_seats.source.subscriptions(&mut store.begin_read().await?, Clock::system().now()).await?;
                problems.extend(bad.into_iter().take(SHOWN_SUBSCRIPTIONS).map(|bad| explained(&bad.failure().into())));
                Ok(())
            }
            Ok(operator) => match operator.select() {
                Some(select) => select.check_table(&store, job).await,
                None => Ok(()),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            problems.push(format!("job `{}`: {}", job.name, explained(&error)));
        }
    }
    for (source, day) in store.archived_sources_but(&session.loaded.config.usage.sources).await? {
        problems.push(format!(
            "rows of `{source}` are in the lake alone, the first of {day}, and `usage.sources` lacks it: they are in no total \
             (hint: put it back; to do without it, `tallyroll archive --restore` its days first)"
        ));
    }
    let changed = results::read(&store, jobs).await?.into_iter().filter(|noted| noted.written != noted.found);
    problems.extend(changed.take(SHOWN_WINDOWS).map(|noted| {
        format!(
            "`{}` holds {} for {}, and {} were written: somebody changed it (hint: `{}` writes it anew)",
            noted.table, noted.found, noted.window, noted.written, noted.again
        )
    }));
    store.close().await;
    Ok(())
}

/// An error and its next step, on one line.
fn explained(error: &anyhow::Error) -> String {
    match failure::find(error).and_then(|failure| failure.hint.as_ref()) {
        Some(hint) => format!("{} (hint: {hint})", failure::text(error)),
        None => failure::text(error),
    }
}

fn show(loaded: &config::Loaded, is_json: bool) -> Result<()> {
    let settings = &loaded.settings;
    if is_json {
        return settings
            .iter()
            .try_for_each(|setting| output::json(&json!({ "key": setting.key, "value": setting.value, "origin": setting.origin })));
    }
    let rows: Vec<Vec<String>> =
        settings.iter().map(|setting| vec![setting.key.clone(), setting.value.clone(), setting.origin.clone()]).collect();
    output::line(&output::table(&["key", "value", "from"], &[], &rows))
}
