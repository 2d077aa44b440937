//! What a job's table looks like: its columns, and tables that inherit from it.

use super::{AS_OF, JOB, fixture};
use crate::on_both_databases;
use crate::support::Engine;

on_both_databases!(two_columns_of_one_name_are_refused_by_check);

async fn two_columns_of_one_name_are_refused_by_check(engine: Engine) {
    let fixture = fixture(engine).await;
    fixture.write("jobs/mine.toml", JOB);
    let long = "x".repeat(63);
    for columns in ["'x' AS id, 1 AS id", "'x' AS id, 2 AS Id", &format!("'x' AS id, 1 AS {long}y, 2 AS {long}z")] {
        fixture.write("sql/mine.sql", &format!("SELECT {columns}").replace(" Id", " \"Id\""));
        let refused = fixture.run(&["check"]);
        assert_eq!(refused.code, Some(78), "{columns}: {refused:?}");
        assert!(refused.stderr.contains("two columns"), "{columns}: {}", refused.stderr);
    }
}

/// Somebody archives by inheritance: the rows of an heir are not the job's.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_table_that_inherits_stay() {
    let fixture = fixture(Engine::Postgres).await;
    fixture.write("sql/mine.sql", "SELECT 'x' AS id");
    fixture.write("jobs/mine.toml", JOB);
    let run = ["run-job", "mine", "--force", "--as-of", AS_OF];
    fixture.run_well(&run);
    fixture.log("2026-03-10T10:00:00.000000Z", &[]).await;
    fixture.run_well(&["run-job", "usage_daily", "--downstream", "--as-of", AS_OF]);
    let again = |job| ["run-job", job, "--force", "--as-of", AS_OF];
    for (table, again) in [("mine", run), ("usage_daily", again("usage_daily")), ("file_digest", again("usage_monthly_user"))] {
        fixture.execute(&format!("CREATE TABLE public.heir () INHERITS (tallyroll.{table})")).await;
        let count = fixture.execute(&format!("INSERT INTO public.heir SELECT * FROM ONLY tallyroll.{table}")).await;
        assert!(count > 0);
        let refused = fixture.run(&again);
        assert_eq!(refused.code, Some(78), "{table}: {refused:?}");
        assert!(refused.stderr.contains("heir"), "{}", refused.stderr);
        assert_eq!(fixture.run(&["check"]).code, Some(78), "{table}");
        assert_eq!(fixture.number("SELECT COUNT(*) FROM public.heir").await, i64::try_from(count).unwrap());
        fixture.execute(&format!("ALTER TABLE heir NO INHERIT tallyroll.{table}")).await;
        fixture.run_well(&again);
        fixture.execute("DROP TABLE public.heir").await;
    }
}
