//! Rollups: whichever way they are made, they hold what the SELECTs hold that they took the place of.

use crate::golden;
use crate::on_both_databases;
use crate::support::{Engine, Fixture};

on_both_databases!(
    alone_or_in_one_pass_the_rows_are_those_of_plain_sql,
    one_file_makes_a_rollup,
    a_rollup_of_a_rollup,
    what_does_not_fit_is_named,
    checks_have_names,
    a_built_in_summary_keeps_its_meaning,
);

/// The six summaries as plain SQL gave them: `tests/fixtures/rollups/`.
const PLAIN: [(&str, &str, &str, &str); 6] = [
    ("usage_daily_customer", r#"["usage_date", "customer_id"]"#, "day", include_str!("fixtures/rollups/usage_daily_customer.sql")),
    ("usage_daily_total", r#"["usage_date"]"#, "day", include_str!("fixtures/rollups/usage_daily_total.sql")),
    ("usage_daily_type", r#"["usage_date", "request_type", "model"]"#, "day", include_str!("fixtures/rollups/usage_daily_type.sql")),
    ("usage_daily_user", r#"["usage_date", "user_id"]"#, "day", include_str!("fixtures/rollups/usage_daily_user.sql")),
    ("usage_monthly_customer", r#"["usage_month", "customer_id"]"#, "month", include_str!("fixtures/rollups/usage_monthly_customer.sql")),
    ("usage_monthly_user", r#"["usage_month", "user_id"]"#, "month", include_str!("fixtures/rollups/usage_monthly_user.sql")),
];

const AS_OF: [&str; 2] = ["--as-of", "2026-04-01T00:00:00Z"];

/// What the summaries hold, without what `job_window` says of how they came about.
async fn summaries(fixture: &Fixture) -> Vec<String> {
    fixture.results().await.into_iter().filter(|line| !line.contains("|done|")).collect()
}

async fn alone_or_in_one_pass_the_rows_are_those_of_plain_sql(engine: Engine) {
    for timezone in ["UTC", "America/New_York"] {
        let fixture = Fixture::new(engine).await;
        golden::load(&fixture, timezone).await;
        fixture.run_well(&[&["run-job", "usage_daily", "--downstream"], &AS_OF[..]].concat());
        let in_one_pass = summaries(&fixture).await;
        assert!(in_one_pass.len() > 60, "{}", in_one_pass.len());
        for (name, ..) in PLAIN {
            fixture.execute(&format!("DELETE FROM {name}")).await;
            fixture.run_well(&[&["run-job", name, "--force"], &AS_OF[..]].concat());
        }
        assert_eq!(summaries(&fixture).await, in_one_pass, "alone, {timezone}");
        for (name, grain, window, select) in PLAIN {
            let reads = if name == "usage_daily_total" { r#"["usage_daily_customer", "usage_daily_user"]"# } else { r#"["usage_daily"]"# };
            let job = format!("description = \"d\"\noperator = \"sql\"\nreads = {reads}\ngrain = {grain}\nwindow = \"{window}\"\n");
            let plain = format!("plain_{name}");
            fixture.write(&format!("jobs/{plain}.toml"), &job);
            fixture.write(&format!("sql/{plain}.sql"), select);
            fixture.run_well(&[&["run-job", &plain], &AS_OF[..]].concat());
            let columns = fixture.store.table_columns(&plain).await.unwrap().join(", ");
            let all = |table: &str| format!("SELECT {columns} FROM {table} ORDER BY {}", grain.trim_matches(['[', ']']).replace('"', ""));
            let (rows, plain) = (fixture.rows(&all(name)).await, fixture.rows(&all(&plain)).await);
            assert!(!rows.is_empty() && rows == plain, "{name}, {timezone}\n{rows:#?}\n{plain:#?}");
        }
    }
}

const MODELS: &str = r#"
description = "Usage per model and month"
operator = "rollup"
reads = ["usage_daily"]
grain = ["usage_month", "model"]
unique = { unique_users = "user_id" }
window = "month"
"#;

const RUN: &[&str] = &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z"];

async fn log_three(fixture: &Fixture) {
    for (day, model) in [("01", "'a'"), ("02", "'a'"), ("03", "'b'")] {
        fixture.log(&format!("2026-03-{day}T10:00:00.000000Z"), &[("model_used", model)]).await;
    }
}

async fn one_file_makes_a_rollup(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    log_three(&fixture).await;
    fixture.write("jobs/models.toml", MODELS);
    fixture.run_well(&["check"]);
    assert!(fixture.written(RUN).contains(&"models 2026-03".to_owned()));
    let read = "SELECT usage_month, model, request_count, unique_users, tool_turns FROM models ORDER BY 2";
    assert_eq!(fixture.rows(read).await, ["2026-03-01|a|2|1|0", "2026-03-01|b|1|1|0"]);
    // It follows late rows like the built-in ones.
    fixture.log("2026-03-02T11:00:00.000000Z", &[("model_used", "'b'")]).await;
    assert!(fixture.written(RUN).contains(&"models 2026-03".to_owned()));
    assert_eq!(fixture.rows(read).await, ["2026-03-01|a|2|1|0", "2026-03-01|b|2|1|0"]);
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
}

async fn a_rollup_of_a_rollup(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    log_three(&fixture).await;
    let job = MODELS.replace("\"usage_daily\"", "\"usage_daily_type\"").replace("unique = { unique_users = \"user_id\" }", "");
    fixture.write("jobs/models.toml", &job);
    fixture.run_well(RUN);
    assert_eq!(fixture.rows("SELECT model, request_count FROM models ORDER BY 1").await, ["a|2", "b|1"]);
}

async fn what_does_not_fit_is_named(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    for (from, to, said) in [
        ("\"usage_month\", \"model\"", "\"usage_month\", \"modle\"", "`modle` is no key of `usage_daily`: did you mean `model`?"),
        ("[\"usage_daily\"]", "[\"usage_daily\", \"usage_daily_user\"]", "`rollup` reads one table"),
        (
            "[\"usage_daily\"]",
            "[\"usage_dayly\"]",
            "it reads `usage_dayly`, which no job writes and no source is called: did you mean `usage_daily`?",
        ),
        (
            "[\"usage_daily\"]",
            "[\"user_dashboard_data\"]",
            "a `rollup` reads `usage_daily` or another rollup's table, not `user_dashboard_data`",
        ),
        ("unique =", "labels = [\"user_email\"]\nunique =", "the label of a key that `grain` does not have"),
        ("\"user_id\" }", "\"user_id) FROM users; --\" }", "is no plain column name"),
        ("unique_users =", "Request_Count =", "its table would have two columns `Request_Count`"),
        ("window = \"month\"", "window = \"all\"", "`rollup` works by day or month"),
        ("window = \"month\"", "window = \"month\"\nwindow_column = \"model\"", "the first column of `grain`"),
        ("operator = \"rollup\"", "operator = \"sql\"", "`labels` and `unique` are for"),
    ] {
        assert!(MODELS.contains(from), "{from}");
        fixture.write("jobs/models.toml", &MODELS.replace(from, to));
        let refused = fixture.run(&["check"]);
        assert_eq!(refused.code, Some(78), "{said}: {refused:?}");
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
}

async fn checks_have_names(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    log_three(&fixture).await;
    fixture.log("2026-03-04T10:00:00.000000Z", &[("model_used", "NULL")]).await;
    for (checks, said) in [
        ("not_null = [\"model\"]", "Check `not_null` of job `models` returned 1 row for 2026-03"),
        ("unique = [\"unique_users\"]", "Check `unique` of job `models` returned 1 row for 2026-03"),
        ("equal_sums = \"usage_dayly\"", "names `usage_dayly`, which no job writes"),
        ("few = \"SELECT model FROM models WHERE request_count > 1\"", "Check `few` of job `models` returned 1 row"),
    ] {
        fixture.write("jobs/models.toml", &format!("{MODELS}\n[checks]\n{checks}\n"));
        let failed = fixture.run(&["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-15T00:00:00Z", "--force"]);
        assert!(failed.code == Some(65) || failed.code == Some(78), "{checks}: {failed:?}");
        assert!(failed.stderr.contains(said), "{said}: {}", failed.stderr);
    }
    // A SELECT of one's own whose sums are not those of what it reads.
    fixture.write("jobs/models.toml", "description = \"d\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"usage_month\"]\nwindow = \"month\"\nwrites = \"half\"\n[checks]\nequal_sums = \"usage_daily\"\n");
    let select = "SELECT :window_start AS usage_month, CAST(1 AS BIGINT) AS request_count, CAST(0 AS BIGINT) AS total_cost_nanos";
    fixture.write("sql/models.sql", select);
    let failed = fixture.run(&["run-job", "models", "--as-of", "2026-04-15T00:00:00Z"]);
    assert_eq!(failed.code, Some(65), "{failed:?}");
    assert!(failed.stderr.contains("request_count = 1, request_count of usage_daily = 4"), "{}", failed.stderr);
}

/// Dashboards, reports and finance files read these tables: a project may change when they are made, and what is checked, alone.
async fn a_built_in_summary_keeps_its_meaning(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    log_three(&fixture).await;
    fixture.run_well(RUN);
    let before = summaries(&fixture).await;
    let built_in = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/jobs/usage_monthly_user.toml")).unwrap();
    // Books everything to one user: each month's sums are right.
    fixture.write(
        "sql/usage_monthly_user.sql",
        &PLAIN[5].3.replace("GROUP BY user_id", "GROUP BY usage_month").replace("    user_id,", "    'mallory' AS user_id,"),
    );
    for (from, to) in [
        ("operator = \"rollup\"", "operator = \"sql\""),
        ("[\"usage_month\", \"user_id\"]", "[\"usage_month\", \"customer_id\"]"),
        ("= \"customer_id\"", "= \"model\""),
        ("labels = [\"user_email\"]\n", ""),
        ("[\"usage_daily\"]", "[\"usage_daily_user\"]"),
    ] {
        let changed = built_in.replace(from, to);
        assert_ne!(changed, built_in, "{from}");
        let changed = if to.contains("sql") {
            changed.replace("unique = { unique_customers = \"customer_id\" }\n", "").replace("labels = [\"user_email\"]\n", "")
        } else {
            changed
        };
        fixture.write("jobs/usage_monthly_user.toml", &changed);
        for command in [&["check"][..], &["run-job", "usage_monthly_user", "--force", "--as-of", "2026-04-15T00:00:00Z"]] {
            let refused = fixture.run(command);
            assert!(refused.code == Some(78) && refused.stderr.contains("the place of a built-in one keeps"), "{to}: {refused:?}");
        }
    }
    assert_eq!(summaries(&fixture).await, before);
    std::fs::remove_file(fixture.path().join("jobs/usage_monthly_user.toml")).unwrap();
    // Others: another column would say which rows a day has, and what is not read makes nothing due.
    for (job, from, to) in [
        ("usage_daily", "window = \"day\"", "window = \"day\"\nwindow_column = \"user_id\""),
        ("peak_seats", "window_column = \"billing_month\"", "window_column = \"plan\""),
        ("usage_dashboard", "\"usage_daily_customer\"", "\"usage_daily_type\""),
        ("user_dashboard", "follows = \"\"\"", "follows = \"\"\"\n-- another one"),
    ] {
        let built_in = std::fs::read_to_string(format!("{}/jobs/{job}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let changed = built_in.replace(from, to);
        assert_ne!(changed, built_in, "{job}");
        fixture.write(&format!("jobs/{job}.toml"), &changed);
        let refused = fixture.run(RUN);
        assert!(refused.code == Some(78) && refused.stderr.contains("the place of a built-in one keeps"), "{job}: {refused:?}");
        std::fs::remove_file(fixture.path().join(format!("jobs/{job}.toml"))).unwrap();
    }
    assert_eq!(summaries(&fixture).await, before);
    fixture.write("jobs/usage_monthly_user.toml", &format!("{built_in}\n[checks]\nnot_null = [\"request_count\"]\n"));
    fixture.run_well(&["check"]);
}
