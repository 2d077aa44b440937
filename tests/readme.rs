//! The README's commands work as they are printed.

use std::process::{Command, Stdio};

use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(what_use_it_prints_works_in_this_order);

/// The shell of the first block behind a heading.
fn block(heading: &str) -> String {
    let readme = include_str!("../README.md");
    let behind = readme.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    behind.split("```sh\n").nth(1).unwrap().split("\n```").next().unwrap().to_owned()
}

async fn what_use_it_prints_works_in_this_order(engine: Engine) {
    let fixture = Fixture::empty(engine).await;
    for (file, text) in [
        ("trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2026-05-10 10:00:00,1000,100\n2026-05-11 10:00:00,500,50\n"),
        ("spend.csv", include_str!("fixtures/formats/litellm.csv")),
        ("seats.csv", "org_id,seats,occurred_at\n42,5,2026-04-01\n42,7,2026-05-03\n"),
        ("subscriptions.csv", "id,org_id,plan,committed_seats,start_at\nsub-1,42,pro,5,2026-04-01\n"),
        ("model_prices_and_context_window.json", r#"{"gpt-4o": {"input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05}}"#),
    ] {
        fixture.write(&format!("usage/{file}"), text);
    }
    let printed = block("Use it");
    assert!(printed.contains("DATABASE_URL=postgres://owner@db/app") && printed.lines().count() > 30, "{printed}");
    // What installs is not run, nobody edits, and the database is the fixture's.
    let url = fixture.url.replace("sqlite://tallyroll.db", &format!("sqlite://{}/tallyroll.db", fixture.path().display()));
    let script = printed.replace("postgres://owner@db/app", &format!("'{url}'"));
    let script = format!("set -eu\ncargo() {{ :; }}\n{script}\n");
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_tallyroll")).parent().unwrap();
    let mut command = Command::new("bash");
    command.args(["-x", "-c", &script]).current_dir(fixture.path()).env_clear().stdin(Stdio::null());
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("EDITOR", "true").env("RUST_LOG", "error");
    let ran = Finished::of(&command.output().unwrap());
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    assert_eq!(fixture.number("SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily").await, 5);
    assert!(fixture.number("SELECT COUNT(*) FROM peak_seats").await > 0);
    assert!(fixture.path().join("usage/out/peak_seats/final").is_dir());
}

/// A part that was pasted twice says old things beside new ones.
#[test]
fn no_document_has_a_heading_twice() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/semantics.md", "docs/interface.md"] {
        let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for heading in text.lines().filter(|line| line.starts_with("## ")) {
            assert!(seen.insert(heading), "{name}: {heading}");
        }
    }
}
