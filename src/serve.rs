//! `serve`: the web page and its JSON (`docs/interface.md`, "HTTP").

pub mod app;
mod asked;
pub mod auth;
mod chart;
mod data;
mod layout;
mod login;
mod pages;
mod parts;
mod problem;

pub use self::app::{App, Starter, router};
pub use self::auth::Auth;
pub use self::pages::api_routes;
