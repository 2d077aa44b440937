//! Definitions are inputs: what a result was made by, and what it came to, is noted with its window.

use crate::custom_job::{JOB, SQL};
use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    an_edited_select_makes_its_windows_due,
    an_edited_source_makes_every_day_due,
    an_edited_definition_can_be_accepted,
    rows_that_somebody_changed_are_found_and_written_anew,
    an_emptied_table_is_due_again,
);

const AS_OF: [&str; 2] = ["--as-of", "2026-04-15T00:00:00Z"];

fn run<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["run-job"], arguments, &AS_OF].concat()
}

async fn with_models(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    for (month, model) in [("02", "'a'"), ("03", "'a'"), ("03", "'b'")] {
        fixture.log(&format!("2026-{month}-10T10:00:00.000000Z"), &[("model_used", model)]).await;
    }
    fixture.write("jobs/usage_by_model.toml", JOB);
    fixture.write("sql/usage_by_model.sql", SQL);
    fixture.run_well(&run(&["usage_daily", "--downstream"]));
    fixture
}

async fn an_edited_select_makes_its_windows_due(engine: Engine) {
    let fixture = with_models(engine).await;
    assert!(fixture.run_well(&run(&["usage_by_model"])).contains("Nothing is due"));
    fixture.write("sql/usage_by_model.sql", &SQL.replace("SUM(request_count)", "10 * SUM(request_count)"));
    let planned = fixture.run_well(&run(&["usage_by_model", "--dry-run"]));
    assert_eq!(planned.matches("its SQL changed").count(), 2, "{planned}");
    assert_eq!(fixture.written(&run(&["usage_by_model"])), ["usage_by_model 2026-02", "usage_by_model 2026-03"]);
    assert_eq!(fixture.rows("SELECT request_count FROM usage_by_model ORDER BY usage_month, model").await, ["10", "10", "10"]);
    assert!(fixture.run_well(&run(&["usage_by_model"])).contains("Nothing is due"));
    // The job's file is a part of it, its description is not.
    fixture.write("jobs/usage_by_model.toml", &JOB.replace("Requests per model", "Whatever"));
    assert!(fixture.run_well(&run(&["usage_by_model"])).contains("Nothing is due"));
    fixture.write("jobs/usage_by_model.toml", &format!("{JOB}\n[checks]\nnot_null = [\"request_count\"]\n"));
    let planned = fixture.run_well(&run(&["usage_by_model", "--dry-run"]));
    assert_eq!(planned.matches("its SQL changed").count(), 2, "{planned}");
}

async fn an_edited_source_makes_every_day_due(engine: Engine) {
    let fixture = with_models(engine).await;
    let path = format!("sql/sources/ai_usage_log.{}.sql", fixture.store.engine());
    let built_in = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    fixture.write(&path, &built_in);
    assert!(fixture.run_well(&run(&["usage_daily"])).contains("Nothing is due"));
    fixture.write(&path, &built_in.replacen("request_type AS request_type", "'other' AS request_type", 1));
    let planned = fixture.run_well(&run(&["usage_daily", "--dry-run"]));
    assert_eq!(planned.matches("its SQL changed").count(), 2, "{planned}");
    let written = fixture.written(&run(&["usage_daily", "--downstream"]));
    for window in ["usage_daily 2026-02-10", "usage_daily 2026-03-10", "usage_daily_type 2026-02-10", "usage_by_model 2026-03"] {
        assert!(written.contains(&window.to_owned()), "{window}: {written:?}");
    }
    assert_eq!(fixture.rows("SELECT DISTINCT request_type FROM usage_daily_type").await, ["other"]);
}

async fn an_edited_definition_can_be_accepted(engine: Engine) {
    let fixture = with_models(engine).await;
    let before = fixture.rows("SELECT usage_month, model, request_count FROM usage_by_model ORDER BY 1, 2").await;
    fixture.write("sql/usage_by_model.sql", &SQL.replace("SUM(request_count)", "SUM(request_count + 0)"));
    assert!(fixture.run_well(&run(&["usage_by_model", "--dry-run"])).contains("its SQL changed"));
    let accepted = fixture.run_well(&run(&["usage_by_model", "--accept-definition"]));
    assert!(accepted.contains("`usage_by_model`: 2 windows taken over as they are"), "{accepted}");
    assert!(fixture.run_well(&run(&["usage_by_model"])).contains("Nothing is due"));
    assert_eq!(fixture.rows("SELECT usage_month, model, request_count FROM usage_by_model ORDER BY 1, 2").await, before);
    let refused = fixture.run(&run(&["usage_by_model", "--accept-definition", "--force"]));
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

async fn rows_that_somebody_changed_are_found_and_written_anew(engine: Engine) {
    let fixture = with_models(engine).await;
    fixture.run_well(&["check"]);
    let before = fixture.results().await;
    for (change, table, window) in [
        ("UPDATE usage_daily_user SET total_tokens = total_tokens + 1 WHERE usage_date = '2026-03-10'", "usage_daily_user", "2026-03-10"),
        ("DELETE FROM usage_monthly_customer WHERE usage_month = '2026-02-01'", "usage_monthly_customer", "2026-02"),
        ("UPDATE usage_daily SET request_count = request_count + 1 WHERE usage_date = '2026-02-10'", "usage_daily", "2026-02-10"),
        ("DELETE FROM usage_by_model WHERE model = 'b'", "usage_by_model", "2026-03"),
    ] {
        assert!(fixture.execute(change).await > 0, "{change}");
        let checked = fixture.run(&["check"]);
        assert_eq!(checked.code, Some(78), "{change}: {checked:?}");
        assert!(checked.stderr.contains(&format!("`{table}` holds")) && checked.stderr.contains(window), "{}", checked.stderr);
        let reconciled = fixture.run(&[&["reconcile", "--json"], &AS_OF[..]].concat());
        assert_eq!(reconciled.code, Some(65), "{change}");
        assert!(reconciled.stdout.contains(&format!("{table} {window}")), "{}", reconciled.stdout);
        // As the hint says.
        let hint = checked.stderr.split("`tallyroll ").nth(1).unwrap().split('`').next().unwrap().to_owned();
        let command: Vec<&str> = hint.split(' ').chain(AS_OF).collect();
        fixture.run_well(&command);
        fixture.run_well(&["check"]);
        let tables = |all: Vec<String>| -> Vec<String> { all.into_iter().filter(|line| !line.contains("|done|")).collect() };
        assert_eq!(tables(fixture.results().await), tables(before.clone()), "{change}");
    }
}

async fn an_emptied_table_is_due_again(engine: Engine) {
    let fixture = with_models(engine).await;
    let before = fixture.results().await;
    for table in ["usage_daily_user", "usage_monthly_user", "usage_by_model"] {
        fixture.execute(&format!("DELETE FROM {table}")).await;
        let planned = fixture.run_well(&run(&[table, "--dry-run"]));
        assert_eq!(planned.matches("its rows are gone from the table").count(), 2, "{planned}");
        fixture.run_well(&run(&[table]));
    }
    assert_eq!(fixture.results().await, before);
    // A table that is gone whole is made anew by the run that needs it.
    fixture.execute("DROP TABLE usage_by_model").await;
    let planned = fixture.run_well(&run(&["usage_by_model"]));
    assert!(planned.contains("2/2"), "{planned}");
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_by_model").await, 3);
}
