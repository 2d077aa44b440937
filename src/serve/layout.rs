//! The frame of every page: head, navigation, style sheet, security headers. No script, no outside asset.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::auth::Session;
use super::problem::Problem;

/// Nothing is loaded from elsewhere, nothing executes, nobody frames the page.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A page; `session` is none before the login.
pub(super) fn page(title: &str, session: Option<&Session>, content: &Markup) -> Response {
    refreshing(title, session, None, content)
}

/// A page that the browser loads again every so many seconds: one that follows a run.
pub(super) fn refreshing(title: &str, session: Option<&Session>, refresh_seconds: Option<u32>, content: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if let Some(seconds) = refresh_seconds { meta http-equiv="refresh" content=(seconds); }
                title { (title) " · Tallyroll" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/style.css";
            }
            body {
                header {
                    a class="brand" href="/" { "Tallyroll" }
                    @if let Some(session) = session {
                        nav {
                            a href="/" { "Jobs" }
                            a href="/runs" { "Runs" }
                            a href="/usage" { "Usage" }
                            a href="/seats" { "Seats" }
                        }
                        @if session.login.is_some() {
                            form method="post" action="/logout" class="logout" {
                                input type="hidden" name="csrf" value=(session.csrf);
                                button class="quiet" { "Log out" }
                            }
                        }
                    }
                }
                main { (content) }
            }
        }
    };
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], markup.into_string()).into_response()
}

/// Adds the security headers to whatever is answered.
pub(super) async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

pub(super) async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=300")];
    (headers, include_str!("style.css")).into_response()
}

pub(super) async fn not_found() -> Problem {
    Problem::not_found("There is no such page")
}

/// A text as it may stand in a query: percent-encoded but for what is safe anywhere.
pub(super) fn encode(text: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if safe(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
