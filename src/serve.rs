//! `serve`: the web page and its JSON (`docs/interface.md`, "HTTP").

pub mod app;
mod asked;
pub mod auth;
mod chart;
pub mod connections;
mod data;
mod layout;
mod login;
mod pages;
mod parts;
mod problem;
mod session;
pub mod token;

pub use self::app::{App, Starter, router};
pub use self::auth::Auth;
pub use self::pages::api_routes;
