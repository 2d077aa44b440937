//! Tells a webhook that a job failed, works again, or is overdue, as Slack-compatible JSON (`{"text": …}`).

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::redirect;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::show::escaped;
use crate::store::format_instant;

/// What the webhook is told.
#[derive(Debug, Clone)]
pub(super) enum Notice {
    Failed { text: String, attempts: i64 },
    Recovered,
    Overdue { slot: DateTime<Utc> },
}

/// Sends notices, if there is a URL.
#[derive(Debug, Clone)]
pub(super) struct Notifier {
    url: SecretString,
}

const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The most characters of an error that are sent; the history has all of it.
const MOST_TEXT: usize = 1_500;

impl Notice {
    /// As `schedule_notice` keeps it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "failed",
            Self::Recovered => "recovered",
            Self::Overdue { .. } => "overdue",
        }
    }

    fn text(&self, job: &str) -> String {
        let job = escaped(job);
        match self {
            Self::Failed { text, attempts } => {
                let tries = if *attempts == 1 { String::new() } else { format!(" after {attempts} tries") };
                format!("Tallyroll: job {job} failed{tries}: {}", text.chars().take(MOST_TEXT).collect::<String>())
            }
            Self::Recovered => format!("Tallyroll: job {job} works again"),
            Self::Overdue { slot } => format!("Tallyroll: job {job} is overdue: its slot of {} is not done", format_instant(*slot)),
        }
    }
}

impl Notifier {
    pub(super) fn new(url: SecretString) -> Self {
        Self { url }
    }

    /// Sends a notice, and tries again if the receiver is away. A notice that cannot be sent is logged; nothing fails because of it.
    pub(super) async fn send(&self, job: &str, notice: &Notice) {
        if self.url.expose_secret().is_empty() {
            return;
        }
        let body = json!({ "text": notice.text(job) });
        for attempt in 1..=ATTEMPTS {
            match self.post(&body).await {
                Ok(()) => return,
                Err(error) if attempt < ATTEMPTS && error.may_pass => tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt - 1)).await,
                Err(error) => {
                    tracing::warn!(job, kind = notice.kind(), attempt, error = error.text, "The webhook could not be told");
                    return;
                }
            }
        }
    }

    async fn post(&self, body: &serde_json::Value) -> Result<(), NotSent> {
        // The URL is a secret: no error may show it.
        let not_sent = |error: reqwest::Error| NotSent { may_pass: !error.is_builder(), text: error.without_url().to_string() };
        // Nor may another host get it, or what is told: no redirect is followed.
        let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build().map_err(not_sent)?;
        let answer = client.post(self.url.expose_secret()).json(body).send().await.map_err(not_sent)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let may_pass = status.is_server_error() || status == reqwest::StatusCode::TOO_MANY_REQUESTS;
        Err(NotSent { may_pass, text: format!("it answered {status}") })
    }
}

struct NotSent {
    may_pass: bool,
    text: String,
}
