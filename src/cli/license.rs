//! `license`: signed offline licences.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::json;

use super::output;
use super::session::read_text;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::license::{self, License};
use crate::text_file;

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Check a licence's signature and print what it says
    #[command(after_help = "Example:\n  tallyroll license verify acme.json --public-key vendor.pem")]
    Verify(Arguments),
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The licence: JSON with `sig`, or the same in Base64
    file: PathBuf,
    /// The vendor's Ed25519 public key, PEM
    #[arg(long, value_name = "K")]
    public_key: PathBuf,
}

/// The text of a licence's file. Its path is not shown: somebody may have given the licence itself.
pub(super) fn read_license(path: &Path) -> Result<String> {
    text_file::read(path).and_then(|text| text.context("there is no such file")).map_err(|error| {
        let failure = Failure::usage("The licence's file cannot be read").caused_by(error);
        failure.hint("name the file that holds the licence, not the licence itself").into()
    })
}

pub(super) fn run(what: &What, is_json: bool) -> Result<()> {
    let What::Verify(arguments) = what;
    let license = license::verify(&read_license(&arguments.file)?, &read_text(&arguments.public_key)?)?;
    let now = Clock::system().now();
    let is_expired = license.term(now)?.is_expired(now);
    if is_json {
        output::json(&json!({ "is_signed": true, "is_expired": is_expired, "license": license }))?;
    } else {
        show(&license, is_expired)?;
    }
    // What it says is signed all the same; that it counts no longer must not be overlooked.
    if is_expired { Err(license.expired().into()) } else { Ok(()) }
}

fn show(license: &License, is_expired: bool) -> Result<()> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = vec![
        row("licence", license.id.clone()),
        row("seats", license.seats.map_or("no limit".to_owned(), output::grouped)),
        row("months begin at", license.start_date.clone().unwrap_or_else(|| "not said".to_owned())),
        row("expires at", format!("{}{}", license.expiry_date, if is_expired { " (expired)" } else { "" })),
        row("signature", "holds".to_owned()),
    ];
    output::line(&output::table(&["", ""], &[], &rows))
}
