//! `POST /api/usage-events`: one usage event or many, each once.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::body::refused;
use crate::import::posted::{CONFLICT, Posted, RECORDED, UNPROCESSABLE, record_events};
use crate::serve::app::App;
use crate::serve::problem::Problem;
use crate::serve::query::Query;

/// Events of one request.
const EVENTS_MAX: usize = 10_000;

/// Characters of an idempotency key.
const KEY_CHARS_MAX: usize = 255;

pub(super) async fn record(State(app): State<Arc<App>>, query: Query, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let is_atomic = query.word("atomic", &["0", "1"])? == "1";
    let key = idempotency_key(&headers)?;
    let text = std::str::from_utf8(&body).map_err(|_| Problem::bad_request("The body is not UTF-8"))?;
    let (events, is_one) = events(text, kind(&headers)?)?;
    if events.len() > EVENTS_MAX {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("There are more than {EVENTS_MAX} events"))
            .hint("send them in several requests"));
    }
    let context = &app.context;
    let posted = record_events(&context.store, &context.config, &context.clock, &events, key, is_atomic).await.map_err(refused)?;
    Ok((status(&posted, is_one, is_atomic), Json(posted)).into_response())
}

/// One event has the status of its own; many have one that says whether all are in the log.
fn status(posted: &Posted, is_one: bool, is_atomic: bool) -> StatusCode {
    let has = |status| posted.events.iter().any(|event| event.status == status);
    let worst = if has(UNPROCESSABLE) {
        UNPROCESSABLE
    } else if has(CONFLICT) {
        CONFLICT
    } else {
        RECORDED
    };
    match StatusCode::from_u16(worst) {
        Ok(status) if status == StatusCode::OK || is_one || is_atomic => status,
        _ => StatusCode::MULTI_STATUS,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    JsonLines,
}

fn kind(headers: &HeaderMap) -> Result<Kind, Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Kind::Json),
        "application/jsonl" | "application/x-jsonlines" | "application/x-ndjson" | "application/ndjson" => Ok(Kind::JsonLines),
        _ => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of no kind that can be recorded")
            .hint("send `content-type: application/json`, or `application/x-ndjson` with an object on each line")),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_CHARS_MAX).contains(&key.len()));
    key.map(Some).ok_or_else(|| Problem::bad_request(format!("`Idempotency-Key` is not 1 to {KEY_CHARS_MAX} ASCII characters")))
}

/// The texts of the events, one more than may be at most, and whether one was sent by itself.
fn events(text: &str, kind: Kind) -> Result<(Vec<&str>, bool), Problem> {
    let unreadable = |error: serde_json::Error| Problem::bad_request(format!("The body is not JSON: {error}"));
    let is_one = kind == Kind::Json && !text.trim_start().starts_with('[');
    let events: Vec<&str> = match kind {
        Kind::JsonLines => text.lines().filter(|line| !line.trim().is_empty()).take(EVENTS_MAX + 1).collect(),
        Kind::Json if is_one => vec![serde_json::from_str::<&RawValue>(text).map_err(unreadable)?.get()],
        Kind::Json => serde_json::from_str::<FirstEvents<'_>>(text).map_err(unreadable)?.0,
    };
    if events.is_empty() { Err(Problem::bad_request("The body has no event")) } else { Ok((events, is_one)) }
}

/// The first elements of an array: of one without end no more is kept than tells that there are too many.
struct FirstEvents<'a>(Vec<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for FirstEvents<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Vec<&'de str>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut events = Vec::new();
                while events.len() <= EVENTS_MAX {
                    let Some(event) = elements.next_element::<&RawValue>()? else { return Ok(events) };
                    events.push(event.get());
                }
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(events)
            }
        }
        deserializer.deserialize_seq(Elements).map(Self)
    }
}
