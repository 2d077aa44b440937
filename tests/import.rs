//! `import usage`: files in, once each.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    a_trace_with_its_own_headers_goes_in_once,
    ids_costs_and_nulls_are_kept,
    bad_rows_are_listed_and_kept_aside,
    too_many_bad_rows_import_nothing,
    every_format_gives_the_same_events,
    hostile_texts_go_in_as_texts,
    mistakes_on_the_command_line_are_explained,
    what_is_there_already_and_says_something_else_is_told,
);

const USER: &str = "user_id=00000000-0000-4000-8000-000000000001";
const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];

async fn a_trace_with_its_own_headers_goes_in_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    // Seven digits after the second; two equal rows are two events; one is at the last ten-millionth of a day.
    fixture.write(
        "trace.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n\
         2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 23:59:59.9999999,1,1\n",
    );
    fixture.write(
        "prices.toml",
        "[[price]]\nmodel = \"gpt-4o\"\neffective_from = \"2023-01-01\"\ninput_usd_per_million = \"2.5\"\noutput_usd_per_million = \"10\"\n",
    );
    let import = [
        "import",
        "usage",
        "trace.csv",
        "--column",
        "occurred_at=TIMESTAMP",
        "--column",
        "input_tokens=ContextTokens",
        "--column",
        "output_tokens=GeneratedTokens",
        "--set",
        USER,
        "--set",
        "model=gpt-4o",
        "--json",
    ];
    let first = fixture.run_well(&import);
    assert!(first.contains("\"inserted_count\":4,\"known_count\":0"), "{first}");
    let second = fixture.run_well(&import);
    assert!(second.contains("\"inserted_count\":0,\"known_count\":4"), "{second}");
    fixture.run_well(RUN);
    let read = "SELECT usage_date, request_count, input_tokens, output_tokens, total_cost_nanos, model FROM usage_daily";
    // (4808 + 3180 + 3180 + 1) x 2500 + (10 + 8 + 8 + 1) x 10000
    assert_eq!(fixture.rows(read).await, ["2023-11-16|4|11169|27|28192500|gpt-4o"]);
    fixture.run_well(&import);
    assert!(fixture.run_well(RUN).starts_with("Nothing is due"));
}

/// An id is an event's for good: a file that says something else of it is told so.
async fn what_is_there_already_and_says_something_else_is_told(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let file = |tokens: u32| {
        let rows = (0..1_500).map(|row| format!("e{row},2026-03-01T10:00:00Z,ann,m,{},5", if row % 500 == 7 { tokens } else { 10 }));
        format!("event_id,occurred_at,user_id,model,input_tokens,output_tokens\n{}\n", rows.collect::<Vec<_>>().join("\n"))
    };
    fixture.write("log.csv", &file(10));
    let import = ["import", "usage", "log.csv"];
    assert!(!fixture.run_well(&import).contains("something else"));
    assert!(!fixture.run_well(&import).contains("something else"));
    fixture.write("log.csv", &file(11));
    let said = "3 events of log.csv were there already and say something else there, the first in line 9; that stays";
    let told = fixture.run_well(&import);
    assert!(told.contains(said), "{told}");
    let report: serde_json::Value = serde_json::from_str(&fixture.run_well(&[&import[..], &["--json"]].concat())).unwrap();
    assert_eq!((&report["differing_count"], &report["first_differing_line"]), (&3.into(), &9.into()), "{report}");
    assert_eq!(fixture.number("SELECT SUM(input_tokens) FROM usage_event").await, 15_000);
}

async fn ids_costs_and_nulls_are_kept(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write(
        "usage.jsonl",
        r#"{"event_id": "00000000-0000-4000-8000-0000000000e1", "occurred_at": "2026-03-01T10:00:00+01:00", "user_id": "00000000-0000-4000-8000-000000000001", "total_cost_usd": "0.000000001", "customer_id": null, "model": "m"}

{"id": "00000000-0000-4000-8000-0000000000e2", "created_at": "2026-03-01T10:00:00Z", "user_id": "00000000-0000-4000-8000-000000000001", "customer_id": 4, "model_used": "m", "status": "error"}
"#,
    );
    fixture.run_well(&["import", "usage", "usage.jsonl"]);
    fixture.run_well(RUN);
    let read = "SELECT customer_id, model, total_cost_nanos, unpriced_count, error_count, first_request_at FROM usage_daily ORDER BY first_request_at";
    assert_eq!(fixture.rows(read).await, ["NULL|m|1|0|0|2026-03-01T09:00:00.000000Z", "4|m|NULL|1|1|2026-03-01T10:00:00.000000Z"]);
}

async fn bad_rows_are_listed_and_kept_aside(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("tallyroll.toml", "[quarantine]\nmax_ratio = 0.9\n");
    fixture.write(
        "usage.csv",
        "occurred_at,user_id,input_tokens,total_cost_usd\n2026-03-01,00000000-0000-4000-8000-000000000001,5,\nyesterday,00000000-0000-4000-8000-000000000001,5,\n\
         2026-03-01,ann,5,\n2026-03-01,,5,\n2026-03-01,00000000-0000-4000-8000-000000000001,1e3,\n2026-03-01,00000000-0000-4000-8000-000000000001,3000000000,\n\
         2026-03-01,00000000-0000-4000-8000-000000000001,5,NaN\n2026-03-01,00000000-0000-4000-8000-000000000001\n",
    );
    let stdout = fixture.run_well(&["import", "usage", "usage.csv"]);
    for line in [
        "line 3: `occurred_at` is `yesterday`: not an instant",
        "line 5: `user_id` is empty",
        "line 6: `input_tokens` is `1e3`: not a whole number",
        "line 8: `total_cost_usd` is `NaN`: not a decimal number",
        "line 9: 2 cells, where the header has 4",
    ] {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 3);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event WHERE source = 'import:usage.csv'").await, 5);
    // A fixed file takes the rows of its earlier self out of the quarantine.
    fixture.write("usage.csv", "occurred_at,user_id,input_tokens,total_cost_usd\n2026-03-01,00000000-0000-4000-8000-000000000001,5,\n");
    fixture.run_well(&["import", "usage", "usage.csv"]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0);
}

async fn too_many_bad_rows_import_nothing(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write(
        "usage.csv",
        "occurred_at,user_id,input_tokens\n2026-03-01,00000000-0000-4000-8000-000000000001,1\nyesterday,00000000-0000-4000-8000-000000000001,1\n",
    );
    let refused = fixture.run(&["import", "usage", "usage.csv"]);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("1 of the 2 rows of `usage.csv` are bad") && refused.stderr.contains("line 3:"), "{}", refused.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 0);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM quarantined_event").await, 0, "nothing is left behind");
}

async fn every_format_gives_the_same_events(engine: Engine) {
    let mut results = Vec::new();
    for format in ["csv", "jsonl", "parquet"] {
        let fixture = Fixture::new(engine).await;
        let path = format!("usage.{format}");
        match format {
            "csv" => fixture.write(&path, "occurred_at,model,input_tokens\n2026-03-01 10:00:00.5,gpt-4o,7\n2026-03-02 10:00:00,gpt-4o,\n"),
            "jsonl" => fixture.write(
                &path,
                "{\"occurred_at\":\"2026-03-01T10:00:00.5Z\",\"model\":\"gpt-4o\",\"input_tokens\":7}\n{\"occurred_at\":\"2026-03-02T10:00:00Z\",\"model\":\"gpt-4o\"}\n",
            ),
            _ => {
                let instants = TimestampMicrosecondArray::from(vec![1_772_359_200_500_000, 1_772_445_600_000_000]).with_timezone("UTC");
                let batch = RecordBatch::try_from_iter([
                    ("occurred_at", Arc::new(instants) as arrow::array::ArrayRef),
                    ("model", Arc::new(StringArray::from(vec!["gpt-4o", "gpt-4o"]))),
                    ("input_tokens", Arc::new(Int32Array::from(vec![Some(7), None]))),
                ])
                .unwrap();
                let mut writer = ArrowWriter::try_new(File::create(fixture.path().join(&path)).unwrap(), batch.schema(), None).unwrap();
                writer.write(&batch).unwrap();
                writer.close().unwrap();
            }
        }
        let import = ["import", "usage", &path, "--set", USER];
        fixture.run_well(&import);
        fixture.run_well(&import);
        fixture.run_well(RUN);
        results.push(fixture.results().await);
    }
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
    assert!(results[0].iter().any(|line| line.contains("2026-03-01T10:00:00.500000Z")), "{results:?}");
}

async fn hostile_texts_go_in_as_texts(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let long = "x".repeat(1_000);
    let names =
        ["'; DROP TABLE ai_usage_log; --", "=HYPERLINK(\"http://x\")", "../../etc/passwd", "\u{202e}gnp.exe", "🦀 株式会社", long.as_str()];
    let mut file = csv::Writer::from_path(fixture.path().join("usage.csv")).unwrap();
    file.write_record(["occurred_at", "user_id", "customer_id", "customer_name", "input_tokens"]).unwrap();
    for (index, name) in names.iter().enumerate() {
        file.write_record(["2026-03-01", "00000000-0000-4000-8000-000000000001", &index.to_string(), name, "1"]).unwrap();
    }
    file.flush().unwrap();
    fixture.run_well(&["import", "usage", "usage.csv"]);
    fixture.run_well(RUN);
    let stored = fixture.rows("SELECT customer_name FROM usage_monthly_customer ORDER BY customer_id").await;
    assert_eq!(stored, names);

    fixture.write(
        "nul.jsonl",
        "{\"occurred_at\":\"2026-03-01\",\"user_id\":\"00000000-0000-4000-8000-000000000001\",\"customer_name\":\"a\\u0000b\",\"input_tokens\":1}\n",
    );
    let refused = fixture.run(&["import", "usage", "nul.jsonl"]);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("holds a NUL character"), "{}", refused.stderr);
}

async fn mistakes_on_the_command_line_are_explained(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    fixture.write("trace.csv", "TIMESTAMP,ContextTokens\n2023-11-16 18:17:03,1\n");
    fixture.write("trace.txt", "");
    for (arguments, expected) in [
        (&["trace.csv"][..], "No column of `trace.csv` gives `occurred_at`"),
        (&["trace.csv", "--column", "occurred_at=TIME"], "has no column `TIME`"),
        (&["trace.csv", "--column", "occured_at=TIMESTAMP"], "did you mean `occurred_at`?"),
        (&["trace.csv", "--column", "occurred_at=TIMESTAMP", "--set", "rating=good"], "`--set rating=good`"),
        (&["trace.csv", "--set", "model"], "has no `=`"),
        (&["trace.txt"], "no extension that tells its format"),
        (&["nowhere.csv"], "Failed to open `nowhere.csv`"),
    ] {
        let failed = fixture.run(&[&["import", "usage"], arguments].concat());
        assert_eq!(failed.code, Some(2), "{arguments:?} {failed:?}");
        assert!(failed.stderr.contains(expected), "{expected} in {}", failed.stderr);
    }
}
