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
mod router;
mod session;
mod states;
pub mod token;

pub use self::app::{App, Starter};
pub use self::auth::Auth;
pub use self::pages::api_routes;
pub use self::router::router;
