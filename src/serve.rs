//! `serve`: the web page and its JSON (`docs/interface.md`, "HTTP").

pub mod app;
pub mod auth;
mod chart;
pub mod connections;
mod data;
mod guard;
mod html;
mod layout;
mod login;
mod pages;
mod problem;
mod query;
mod receive;
mod recording;
mod router;
mod session;
mod states;
pub mod token;

pub use self::app::{App, Starter};
pub use self::auth::Auth;
pub use self::router::router;

/// Method and path of everything below `/api/`; `docs/openapi.json` describes each.
#[must_use]
pub fn api_routes() -> Vec<(&'static str, &'static str)> {
    pages::api_routes().into_iter().chain(recording::api_routes()).collect()
}
