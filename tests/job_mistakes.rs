//! The usual mistakes in a project's SQL and checks: told before or while they run, never written.

use crate::job_files::{AS_OF, fixture};
use crate::on_both_databases;
use crate::support::Engine;

on_both_databases!(
    a_row_of_another_window_fails_its_window,
    a_check_of_a_column_that_is_not_there_is_refused,
    a_mistake_in_sql_is_told_with_its_line,
    what_sql_reads_is_named,
    another_window_and_back_is_as_before,
    a_table_of_another_grain_is_refused,
);

const DAILY: &str =
    "description = \"d\"\noperator = \"sql\"\nreads = [\"usage_daily\"]\ngrain = [\"usage_date\", \"customer_id\"]\nwindow = \"day\"\n";

async fn a_row_of_another_window_fails_its_window(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.log("2026-03-02T10:00:00.000000Z", &[]).await;
    fixture.run_well(&["run-job", "usage_daily", "--as-of", AS_OF]);
    let select = |where_| format!("SELECT usage_date, customer_id, request_count AS n FROM usage_daily WHERE {where_}");
    fixture.write("jobs/daily.toml", DAILY);
    fixture.write("sql/daily.sql", &select("usage_date >= :window_start AND usage_date < :window_end"));
    fixture.run_well(&["migrate"]);
    fixture.run_well(&["run-job", "daily", "--as-of", AS_OF]);
    let rows = "SELECT usage_date, n FROM daily ORDER BY 1";
    assert_eq!(fixture.rows(rows).await, ["2026-03-01|1", "2026-03-02|1"]);
    // The usual mistake: everything so far. Each day would have the days before it once more.
    for mistake in ["usage_date < :window_end", ":window_start = :window_start AND :window_end = :window_end"] {
        fixture.write("sql/daily.sql", &select(mistake));
        let failed = fixture.run(&["run-job", "daily", "--day", "2026-03-02", "--as-of", AS_OF]);
        assert_eq!(failed.code, Some(65), "{failed:?}");
        assert!(failed.stderr.contains("gives a row whose `usage_date` is 2026-03-01, for the window 2026-03-02"), "{}", failed.stderr);
        assert_eq!(fixture.rows(rows).await, ["2026-03-01|1", "2026-03-02|1"]);
    }
}

async fn a_check_of_a_column_that_is_not_there_is_refused(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("sql/daily.sql", "SELECT usage_date, customer_id, request_count AS n FROM usage_daily WHERE usage_date >= :window_start AND usage_date < :window_end");
    for (check, said) in [
        ("not_null = [\"m\"]", "names column `m`"),
        ("unique = [\"n\", \"n) OR 1=1; DROP TABLE users; --\"]", "names column `n) OR 1=1"),
        ("typo = 'SELECT n FROM daily WHERE \"nn\" IS NULL'", "Check `typo`"),
    ] {
        fixture.write("jobs/daily.toml", &format!("{DAILY}[checks]\n{check}\n"));
        let said_by_both = fixture.assert_refused("daily", check).await;
        assert!(said_by_both.contains(said), "{said_by_both}");
    }
}

async fn a_mistake_in_sql_is_told_with_its_line(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("jobs/daily.toml", DAILY);
    let head = "\n-- ü: one row a day\n\nSELECT\n    usage_date,\n    customer_id,\n    ";
    let tail = "\nWHERE usage_date >= :window_start\n    AND usage_date < :window_end\n";
    for (sql, line) in [
        (format!("{head}request_count AS n\nFORM usage_daily{tail}"), 8),
        (format!("{head}requests AS n\nFROM usage_daily{tail}"), 7),
        (format!("{head}request_count AS n\nFROM usage_daily{tail}    AND no_such_column = 1\n"), 11),
    ] {
        fixture.write("sql/daily.sql", &sql);
        let said = fixture.assert_refused("daily", &sql).await;
        assert!(said.contains("sql/daily.sql` does not fit the database") && said.contains(&format!("line {line}: ")), "{line} in {said}");
    }
    std::fs::remove_file(fixture.path().join("jobs/daily.toml")).unwrap();
    // A source's statements stand in one file.
    let source = format!("sql/sources/usage_event.{}.sql", if engine == Engine::Postgres { "postgres" } else { "sqlite" });
    let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&source)).unwrap();
    let place = text.rfind("ingest_").unwrap();
    fixture.write(&source, &format!("{}no_{}", &text[..place], &text[place..]));
    let refused = fixture.run(&["check"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    let line = 1 + text[..place].matches('\n').count();
    assert!(refused.stderr.contains(&source) && refused.stderr.contains(&format!("line {line}: ")), "{line} in {}", refused.stderr);
}

/// What is not named makes no job due, and a job's own rows are what it made of others.
async fn what_sql_reads_is_named(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", AS_OF]);
    fixture.execute("CREATE TABLE team (user_id TEXT, name TEXT)").await;
    let select = |from: &str| format!("SELECT usage_date, customer_id, request_count AS n FROM {from}");
    let window = "usage_date >= :window_start AND usage_date < :window_end";
    fixture.write("jobs/daily.toml", DAILY);
    for (from, unnamed) in [
        (format!("usage_daily_customer WHERE {window}"), "usage_daily_customer"),
        (format!("usage_daily WHERE {window} AND user_id IN (SELECT user_id FROM usage_monthly_user)"), "usage_monthly_user"),
        (format!("usage_daily WHERE {window} AND EXISTS (SELECT 1 FROM ai_usage_summary)"), "usage_monthly_user"),
    ] {
        fixture.write("sql/daily.sql", &select(&from));
        let said = fixture.assert_refused("daily", &from).await;
        assert!(said.contains(&format!("reads `{unnamed}`, which `reads` of")), "{said}");
    }
    // A table that no job writes is no matter.
    fixture.write("sql/daily.sql", &select(&format!("usage_daily WHERE {window} AND user_id NOT IN (SELECT user_id FROM team)")));
    fixture.run_well(&["migrate"]);
    fixture.run_well(&["run-job", "daily", "--as-of", AS_OF]);
    assert_eq!(fixture.rows("SELECT n FROM daily").await, ["1"]);
    fixture.write(
        "sql/daily.sql",
        &select(&format!("usage_daily WHERE {window} UNION ALL SELECT usage_date, customer_id, n FROM daily WHERE {window}")),
    );
    let said = fixture.assert_refused("daily", "itself").await;
    assert!(said.contains("reads `daily`, the table that it writes"), "{said}");
    fixture.write("sql/daily.sql", &select(&format!("usage_daily WHERE {window} AND (SELECT COUNT(*) FROM DAILY) >= 0")));
    let said = fixture.assert_refused("daily", "itself in capitals").await;
    assert!(said.contains("the table that it writes"), "{said}");
    assert_eq!(fixture.rows("SELECT n FROM daily").await, ["1"]);
    // A source makes nothing due.
    fixture.write("jobs/daily.toml", &DAILY.replace("usage_daily", "usage_event"));
    fixture.write("sql/daily.sql", "SELECT CAST(occurred_at AS DATE) AS usage_date, customer_id, 1 AS n FROM usage_event");
    let said = fixture.assert_refused("daily", "a source").await;
    assert!(said.contains("the source `usage_event`, which makes no `sql` job due"), "{said}");
}

async fn another_window_and_back_is_as_before(engine: Engine) {
    let fixture = fixture(engine).await;
    for day in ["2026-02-27", "2026-03-02", "2026-03-03"] {
        fixture.log(&format!("{day}T10:00:00.000000Z"), &[]).await;
    }
    fixture.run_well(&["run-job", "usage_daily", "--as-of", AS_OF]);
    let select = "SELECT usage_date, customer_id, SUM(request_count) AS n FROM usage_daily WHERE usage_date >= :window_start AND usage_date < :window_end GROUP BY 1, 2";
    fixture.write("sql/daily.sql", select);
    let rows = "SELECT usage_date, n FROM daily ORDER BY 1, 2";
    let mut first = None;
    for window in ["day", "month", "day", "month", "day"] {
        fixture.write("jobs/daily.toml", &DAILY.replace("\"day\"", &format!("\"{window}\"")));
        fixture.run_well(&["migrate"]);
        let ran = fixture.run_well(&["run-job", "daily", "--as-of", AS_OF]);
        assert!(!ran.contains("Nothing is due"), "{window}: {ran}");
        let found = fixture.rows(rows).await;
        assert_eq!(first.get_or_insert_with(|| found.clone()), &found, "{window}");
        let length = if window == "day" { 1 } else { 28 };
        let others = fixture.store.pick("window_end - window_start", "julianday(window_end) - julianday(window_start)");
        let (all, own) = ("SELECT COUNT(*) FROM job_window WHERE job = 'daily'", format!("({others} = 1) = ({length} = 1)"));
        assert_eq!(fixture.number(all).await, fixture.number(&format!("{all} AND {own}")).await, "{window}");
        fixture.run_well(&["check"]);
        fixture.run_well(&["reconcile", "--as-of", AS_OF]);
        assert!(fixture.run_well(&["run-job", "daily", "--as-of", AS_OF]).contains("Nothing is due"));
    }
    assert!(first.unwrap().len() > 3);
}

/// Its key would let two rows of one grain stay.
async fn a_table_of_another_grain_is_refused(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.run_well(&["run-job", "usage_daily", "--as-of", AS_OF]);
    fixture.write("sql/daily.sql", "SELECT usage_date, customer_id, SUM(request_count) AS n FROM usage_daily WHERE usage_date >= :window_start AND usage_date < :window_end GROUP BY 1, 2");
    fixture.write("jobs/daily.toml", DAILY);
    fixture.run_well(&["run-job", "daily", "--as-of", AS_OF]);
    fixture.write("jobs/daily.toml", &DAILY.replace(", \"customer_id\"", ""));
    let said = fixture.assert_refused("daily", "a coarser grain").await;
    assert!(said.contains("has one row for each (customer_id, usage_date)"), "{said}");
    fixture.execute("DROP TABLE daily").await;
    fixture.run_well(&["migrate"]);
    fixture.run_well(&["run-job", "daily", "--as-of", AS_OF]);
}
