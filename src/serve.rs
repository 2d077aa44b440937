//! `serve`: the web page and its JSON (`docs/interface.md`, "HTTP").

pub mod app;
pub mod auth;
mod layout;
mod pages;

pub use self::app::{App, Starter, router};
