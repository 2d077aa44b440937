//! Files as spreadsheets, exports and pipes give them, and what `import --dry-run` says of one.

use std::io::Write;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(
    the_same_rows_in_any_shape_are_the_same_events,
    lines_are_counted_whatever_ends_them,
    what_comes_in_is_read,
    a_dry_run_changes_nothing_and_says_what_would_come,
    a_ledger_without_ids_is_numbered_in_its_order,
);

const USER: &str = "user_id=00000000-0000-4000-8000-000000000001";
const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];
const ROWS: &str = "occurred_at,model,input_tokens,output_tokens\n2026-03-01T09:00:00Z,gpt-4o,7,1\n1772445600,\"a, \"\"b\"\"\",8,2\n";

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn piped(fixture: &Fixture, arguments: &[&str], bytes: &[u8]) -> Finished {
    let mut command = fixture.command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing of it has closed it.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    Finished::of(&child.wait_with_output().unwrap())
}

async fn the_same_rows_in_any_shape_are_the_same_events(engine: Engine) {
    let semicolons = "occurred_at;model;input_tokens;output_tokens\n2026-03-01 09:00;gpt-4o;7.0;1\n1772445600000;\"a, \"\"b\"\"\";8;2.00\n";
    let shapes: Vec<(&str, Vec<u8>)> = vec![
        ("usage.csv", ROWS.into()),
        ("crlf.csv", ROWS.replace('\n', "\r\n").into()),
        ("bom.csv", [b"\xef\xbb\xbf", ROWS.as_bytes()].concat()),
        ("semicolons.csv", semicolons.into()),
        ("quoted.csv", ROWS.replace("occurred_at,", "\n\"occurred_at\",").into()),
        ("tabs.tsv", semicolons.replace(';', "\t").into()),
        ("packed.csv.gz", packed(ROWS.as_bytes())),
        // Two in one, as logs that were appended to are.
        ("twice.csv.gz", [packed(&ROWS.as_bytes()[..60]), packed(&ROWS.as_bytes()[60..])].concat()),
    ];
    let mut results = Vec::new();
    for (name, bytes) in shapes {
        let fixture = Fixture::new(engine).await;
        std::fs::write(fixture.path().join(name), bytes).unwrap();
        fixture.run_well(&["import", "usage", name, "--set", USER]);
        fixture.run_well(RUN);
        let read =
            "SELECT usage_date, model, request_count, input_tokens, output_tokens, first_request_at FROM usage_daily ORDER BY usage_date";
        results.push((name, fixture.rows(read).await));
    }
    assert_eq!(results[0].1[1], "2026-03-02|a, \"b\"|1|8|2|2026-03-02T10:00:00.000000Z");
    for (name, rows) in &results {
        assert_eq!(rows, &results[0].1, "{name}");
    }
}

async fn lines_are_counted_whatever_ends_them(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.9\n");
    let rows = "occurred_at,error_message,input_tokens\n2026-03-01,a,1\n2026-03-01,\"two\nlines\",x\n2026-03-01,b,y\n2026-03-01,b\n";
    for (name, ends) in [("lf.csv", "\n"), ("crlf.csv", "\r\n")] {
        fixture.write(name, &rows.replace('\n', ends));
        let told = fixture.run_well(&["import", "usage", name, "--set", USER, "--json"]);
        let report: Value = serde_json::from_str(&told).unwrap();
        let lines: Vec<u64> = report["bad_rows"].as_array().unwrap().iter().map(|row| row["line"].as_u64().unwrap()).collect();
        assert_eq!(lines, [3, 5, 6], "{name}");
    }
}

async fn what_comes_in_is_read(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let count = "SELECT COUNT(*) FROM usage_event";
    let import = ["import", "usage", "-", "--set", USER];
    for bytes in [ROWS.as_bytes(), b"{\"occurred_at\": 1772445600.5, \"input_tokens\": 5}\n"] {
        let imported = piped(&fixture, &import, bytes);
        assert_eq!(imported.code, Some(0), "{imported:?}");
    }
    assert_eq!(fixture.number(count).await, 3);
    for (bytes, expected) in [
        (&b""[..], "Nothing came in"),
        (b"PAR1\x15\x04", "Parquet is read from its end"),
        (b"a,b\n1,2\n", "No column of `-` gives `occurred_at`"),
    ] {
        let refused = piped(&fixture, &import, bytes);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
    let packed = packed(ROWS.repeat(500).as_bytes());
    std::fs::write(fixture.path().join("cut.csv.gz"), &packed[..packed.len() - 20]).unwrap();
    std::fs::write(fixture.path().join("plain.csv.gz"), ROWS).unwrap();
    std::fs::write(fixture.path().join("utf16.csv"), b"\xff\xfeo\0c\0").unwrap();
    for file in ["cut.csv.gz", "plain.csv.gz", "utf16.csv"] {
        let refused = fixture.run(&["import", "usage", file, "--set", USER]);
        assert_eq!(refused.code, Some(65), "{refused:?}");
        assert!(refused.stderr.contains(&format!("`{file}` cannot be read")), "{}", refused.stderr);
    }
    assert_eq!(fixture.number(count).await, 3);
}

async fn a_dry_run_changes_nothing_and_says_what_would_come(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write(
        "prices.toml",
        "[[price]]\nmodel = \"gpt-4o\"\neffective_from = \"2023-01-01\"\ninput_usd_per_million = \"2.5\"\noutput_usd_per_million = \"10\"\n",
    );
    fixture.write(
        "usage.csv",
        "at,who,model,in,team\n2026-03-01,00000000-0000-4000-8000-000000000001,gpt-4o,1000000,x\n\
         2026-03-01,00000000-0000-4000-8000-000000000001,o3,5,x\nyesterday,00000000-0000-4000-8000-000000000001,o3,5,x\n",
    );
    let import = ["import", "usage", "usage.csv", "--column", "occurred_at=at", "--column", "user_id=who", "--column", "input_tokens=in"];
    let told = fixture.run_well(&[&import[..], &["--dry-run"]].concat());
    for part in
        ["3 rows, 1 of them bad", "column `who`", "Columns not used: team", "2.500000", "unknown", "line 4: `occurred_at` is `yesterday`"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
    let report: Value = serde_json::from_str(&fixture.run_well(&[&import[..], &["--dry-run", "--json"]].concat())).unwrap();
    let model = &report["preview"]["models"]["gpt-4o"];
    assert_eq!((&model["total_cost_usd"], &model["unpriced_count"]), (&Value::from("2.500000000"), &Value::from(0)));
    assert_eq!(report["preview"]["models"]["o3"]["unpriced_count"], 1);
    for table in ["usage_event", "quarantined_event", "usage_import"] {
        assert_eq!(fixture.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
    }
    assert_eq!(report["known_count"], 0, "the database was not asked");
    // A column that is not there gives nothing, in a file of objects neither.
    fixture.write("usage.jsonl", "{\"occurred_at\": \"2026-03-01\", \"in\": 5}\n");
    let refused = fixture.run(&["import", "usage", "usage.jsonl", "--set", USER, "--column", "input_tokens=inn"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    fixture.write("header.csv", "at,in\n");
    let refused = fixture.run(&["import", "usage", "header.csv", "--set", USER, "--column", "input_tokens=in", "--dry-run"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("gives `occurred_at`"), "{refused:?}");
    let refused = fixture.run(&["import", "subscriptions", "--license", "x", "--public-key", "y", "--org", "1", "--dry-run"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("cannot be used with"), "{refused:?}");
    // A file with nothing to count is most likely a mapping that forgot it.
    let refused = fixture.run(&["import", "usage", "usage.csv", "--column", "occurred_at=at", "--column", "user_id=who", "--dry-run"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("gives tokens or a cost"), "{}", refused.stderr);
}

async fn a_ledger_without_ids_is_numbered_in_its_order(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    // Two rows of one instant, and a row that stands there twice.
    let ledger = "org_id,seats,occurred_at\n7,3,2026-01-01\n7,5,2026-01-02\n7,4,2026-01-02\n7,4,2026-01-02\n";
    fixture.write("ledger.csv", ledger);
    let import =
        |file: &str| -> serde_json::Value { serde_json::from_str(&fixture.run_well(&["import", "seats", file, "--json"])).unwrap() };
    assert_eq!(import("ledger.csv")["inserted_count"], 4);
    let again = import("ledger.csv");
    assert_eq!((&again["inserted_count"], &again["known_count"]), (&0.into(), &4.into()), "{again}");
    let read = "SELECT seats FROM seat_usage_event ORDER BY id";
    assert_eq!(fixture.rows(read).await, ["3", "5", "4", "4"]);
    // One more of the equal rows, and a later one; as many rows as fill several statements.
    fixture.write("more.csv", &format!("{ledger}7,4,2026-01-02\n{}", "8,1,2026-01-03\n".repeat(2_500)));
    assert_eq!(import("more.csv")["inserted_count"], 2_501);
    assert_eq!(import("more.csv")["inserted_count"], 0);
    // What the application records comes behind.
    let recorded = "INSERT INTO seat_usage_event (org_id, seat_type, seats, occurred_at, reason) VALUES ('9', 'total', 1, '2026-01-04T00:00:00.000000Z', 'x')";
    fixture.execute(recorded).await;
    assert_eq!(fixture.rows("SELECT org_id FROM seat_usage_event ORDER BY id DESC LIMIT 1").await, ["9"]);
    // With ids, all rows have one.
    fixture.write("ids.csv", "id,org_id,seats,occurred_at\n99999,7,1,2026-02-01\n,7,2,2026-02-01\n");
    let refused = fixture.run(&["import", "seats", "ids.csv"]);
    assert!(refused.code == Some(65) && refused.stderr.contains("`id` is empty"), "{refused:?}");
    fixture.write("mixed.jsonl", "{\"id\": 99999, \"org_id\": \"7\", \"seats\": 1, \"occurred_at\": \"2026-02-01\"}\n{\"org_id\": \"7\", \"seats\": 2, \"occurred_at\": \"2026-02-01\"}\n");
    assert_eq!(import("mixed.jsonl")["inserted_count"], 2);
    assert_eq!(import("mixed.jsonl")["inserted_count"], 0);
}
