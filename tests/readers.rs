//! What others read: the finance files in pyarrow and DuckDB, with the right types and equal sums.

use serde_json::Value;

use crate::on_both_databases;
use crate::support::seats::python;
use crate::support::{Engine, Fixture};

on_both_databases!(pyarrow_and_duckdb_read_the_same, exported_files_have_csv_twins, a_missing_finance_file_makes_its_month_due);

async fn filled(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    for (customer, cost) in [("7", 3), ("NULL", 5), ("9", 11)] {
        let tokens = (cost * 1_000).to_string();
        fixture
            .log("2026-02-03T10:00:00.000000Z", &[("customer_id", customer), ("customer_name", "'=A1'"), ("input_tokens", &tokens)])
            .await;
    }
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-05"]);
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-05"]);
    fixture.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    fixture.run_well(&["run-job", "peak_seats", "--as-of", "2026-04-05"]);
    fixture
}

async fn pyarrow_and_duckdb_read_the_same(engine: Engine) {
    let fixture = filled(engine).await;
    let output = python("readers.py").arg(fixture.path().join("out")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let numbers = |key: &str| read[key].as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect::<Vec<_>>();
    let row = &fixture.rows("SELECT COUNT(*), SUM(peak_seats), SUM(overage_seats) FROM peak_seats WHERE state = 'final'").await[0];
    let table: Vec<i64> = row.split('|').map(|number| number.parse().unwrap()).collect();
    for key in ["arrow_current", "duckdb_current"] {
        assert_eq!(numbers(key), table, "{key}");
    }
    for key in ["arrow_journal", "duckdb_journal", "duckdb_csv"] {
        assert_eq!(numbers(key), table[1..], "{key}");
    }
    let nanos = fixture.number("SELECT SUM(total_cost_nanos) FROM usage_monthly_customer").await;
    assert_eq!(read["arrow_usage_nanos"].as_i64(), Some(nanos));
    insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        let kinds = serde_json::json!({
            "arrow": read["schema"], "parquet": read["physical"], "duckdb": read["duckdb_types"], "usage": read["usage_schema"],
            "footer": read["footer"], "format_version": read["format_version"],
        });
        insta::assert_snapshot!("finance_types", serde_json::to_string_pretty(&kinds).unwrap());
    });
}

async fn a_missing_finance_file_makes_its_month_due(engine: Engine) {
    let fixture = filled(engine).await;
    let before = fixture.out();
    std::fs::remove_dir_all(fixture.path().join("out/usage_monthly")).unwrap();
    let written = fixture.written(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-05"]);
    assert_eq!(written, ["usage_monthly_customer 2026-02", "usage_monthly_user 2026-02", "user_dashboard all", "usage_dashboard all"]);
    assert!(fixture.out() == before);
}

async fn exported_files_have_csv_twins(engine: Engine) {
    let fixture = filled(engine).await;
    fixture.run_well(&["export", "--to", "finance"]);
    let exported = crate::support::seats::tree(&fixture.path().join("finance"));
    let parquet: Vec<&String> = exported.keys().filter(|path| path.ends_with(".parquet")).collect();
    assert!(parquet.len() >= 10, "{parquet:?}");
    for path in parquet {
        assert!(exported.contains_key(&path.replace(".parquet", ".csv")), "{path}");
        assert_eq!(exported[path], fixture.out()[path], "{path}");
    }
    let csv = String::from_utf8(exported["usage_monthly/usage_month=2026-02/usage_monthly_customer.csv"].clone()).unwrap();
    // NULL, "no customer", stands first; a name that is a formula does not run; money has every digit.
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[1].starts_with("2026-02-01,,") && lines[2].starts_with("2026-02-01,7,'=A1,"), "{csv}");
    assert!(lines[2].contains("0.009150000"), "{csv}");
    // What a job has left that publishes no more would be counted with the others.
    fixture.run_well(&["export", "--to", "finance"]);
    fixture.write("finance/usage_monthly/usage_month=2026-02/usage_by_team.parquet", "PAR1");
    let refused = fixture.run(&["export", "--to", "finance"]);
    assert!(
        refused.code == Some(2) && refused.stderr.contains("usage_by_team.parquet` is none of the files that are exported"),
        "{refused:?}"
    );
    let nothing = Fixture::new(engine).await;
    let refused = nothing.run(&["export", "--to", "finance"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("There is nothing to export"), "{}", refused.stderr);
}
