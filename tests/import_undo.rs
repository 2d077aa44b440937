//! An import can be taken out again, or another put in its place, whole.

use serde_json::Value;

use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(an_import_is_taken_out, an_import_is_replaced_at_once, only_one_import_is_taken_out, what_applications_insert_stays,);

const RUN: [&str; 5] = ["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];
const HEADER: &str = "occurred_at,user_id,model,in,out,team\n";
const RIGHT: [&str; 8] = ["import", "usage", "log.csv", "--column", "input_tokens=in", "--column", "output_tokens=out", "--json"];

async fn with_log(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    let rows = (10..15).map(|day| format!("2026-03-{day},ann,m,{day},2,x\n")).collect::<Vec<_>>().concat();
    fixture.write("log.csv", &format!("{HEADER}{rows}"));
    fixture
}

fn imported(fixture: &Fixture, arguments: &[&str]) -> Value {
    serde_json::from_str(&fixture.run_well(arguments)).unwrap()
}

async fn summaries(fixture: &Fixture) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["usage_daily", "usage_daily_customer", "usage_monthly_user"] {
        all.extend(fixture.rows(&format!("SELECT * FROM {table} ORDER BY 1, 2, 3, 4")).await);
    }
    all
}

async fn an_import_is_taken_out(engine: Engine) {
    let fixture = with_log(engine).await;
    let report = imported(&fixture, &RIGHT);
    let id = report["import_id"].as_str().unwrap();
    assert_eq!(id.len(), 12);
    assert!(fixture.run_well(&["import", "list"]).contains(id));
    let listed = imported(&fixture, &["import", "list", "--json"]);
    assert_eq!((&listed["inserted_count"], listed["sha256"].as_str().unwrap().len()), (&Value::from(5), 64));
    fixture.run_well(&RUN);
    assert_eq!(fixture.number("SELECT SUM(request_count) FROM usage_daily").await, 5);
    // The same file again brings nothing, and is no import.
    assert_eq!(imported(&fixture, &RIGHT)["import_id"], Value::Null);
    assert!(fixture.run_well(&["import", "undo", &id[..6]]).contains("5 rows of `log.csv` taken out"));
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 0);
    // That the raw rows of these days are gone is meant, also where the first run is killed; of another day it is not.
    fixture.execute("INSERT INTO usage_event (event_id, occurred_at, user_id) VALUES ('lost', '2026-03-30T10:00:00.000000Z', 'ann')").await;
    let planned = fixture.run_well(&[&RUN[..2], &RUN[3..], &["--dry-run"]].concat());
    assert!(planned.contains("taken out: import"), "{planned}");
    assert!(!fixture.command(&RUN).env("TALLYROLL_ABORT_AT", "plan_committed").output().unwrap().status.success());
    fixture.run_well(&RUN);
    fixture.execute("DELETE FROM usage_event").await;
    assert_eq!(fixture.run(&RUN).code, Some(65));
    assert_eq!(fixture.rows("SELECT usage_date FROM usage_daily").await, ["2026-03-30"]);
    fixture.run_well(&[&RUN[..], &["--force"]].concat());
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
    assert!(fixture.run_well(&["import", "list"]).contains("taken out"));
    let refused = fixture.run(&["import", "undo", id]);
    assert!(refused.code == Some(2) && refused.stderr.contains("was taken out already"), "{refused:?}");
    // And in again.
    assert_eq!(imported(&fixture, &RIGHT)["inserted_count"], 5);
}

async fn an_import_is_replaced_at_once(engine: Engine) {
    let (fixture, right) = (with_log(engine).await, with_log(engine).await);
    imported(&right, &RIGHT);
    right.run_well(&RUN);
    // Tokens the wrong way round.
    let wrong = ["import", "usage", "log.csv", "--column", "input_tokens=out", "--column", "output_tokens=in", "--json"];
    let id = imported(&fixture, &wrong)["import_id"].as_str().unwrap().to_owned();
    fixture.run_well(&RUN);
    assert_ne!(summaries(&fixture).await, summaries(&right).await);
    // Killed before it is whole, nothing of it has happened.
    let replace = [&RIGHT[..], &["--replace", &id]].concat();
    assert!(!fixture.command(&replace).env("TALLYROLL_ABORT_AT", "import_before_commit").output().unwrap().status.success());
    assert_eq!(fixture.number("SELECT SUM(output_tokens) FROM usage_event").await, 10 + 11 + 12 + 13 + 14);
    // Refused, neither.
    fixture.write("bad.csv", &format!("{HEADER}yesterday,ann,m,1,1,x\n"));
    let refused = fixture.run(&["import", "usage", "bad.csv", "--column", "input_tokens=in", "--replace", &id]);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 5);
    fixture.write("empty.csv", HEADER);
    let refused = fixture.run(&["import", "usage", "empty.csv", "--column", "input_tokens=in", "--replace", &id]);
    assert!(refused.code == Some(65) && refused.stderr.contains("brings no row"), "{refused:?}");
    let report = imported(&fixture, &replace);
    assert_eq!((&report["replaced_count"], &report["inserted_count"]), (&Value::from(5), &Value::from(5)));
    fixture.run_well(&RUN);
    assert_eq!(summaries(&fixture).await, summaries(&right).await);
    let by = format!("replaced by {}", report["import_id"].as_str().unwrap());
    assert!(fixture.run_well(&["import", "list"]).contains(&by));
}

async fn only_one_import_is_taken_out(engine: Engine) {
    let fixture = with_log(engine).await;
    imported(&fixture, &RIGHT);
    fixture.write("more.csv", &format!("{HEADER}2026-03-20,ann,m,1,1,x\n"));
    let more = imported(&fixture, &["import", "usage", "more.csv", "--column", "input_tokens=in", "--json"]);
    for (id, said) in
        [("", "More than one"), ("zz", "There is no import `zz`"), ("' OR 1=1 --", "There is no import"), ("%", "There is no import")]
    {
        let refused = fixture.run(&["import", "undo", id]);
        assert!(refused.code == Some(2) && refused.stderr.contains(said), "{id}: {refused:?}");
    }
    let two = fixture.run(&["import", "usage", "log.csv", "more.csv", "--replace", "x"]);
    assert!(two.code == Some(2) && two.stderr.contains("one file"), "{two:?}");
    fixture.run_well(&["import", "undo", more["import_id"].as_str().unwrap()]);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_event").await, 5);
}

async fn what_applications_insert_stays(engine: Engine) {
    let fixture = with_log(engine).await;
    let id = imported(&fixture, &RIGHT)["import_id"].as_str().unwrap().to_owned();
    fixture.execute("INSERT INTO usage_event (user_id, input_tokens) VALUES ('ann', 7)").await;
    fixture.run_well(&["import", "undo", &id]);
    assert_eq!(fixture.rows("SELECT source_name, input_tokens FROM usage_event").await, ["application|7"]);
}
