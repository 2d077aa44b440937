//! Who migrates, and who makes the tables of a project's jobs.

use super::{ROLES, database, drop_roles, login, try_rows, with_roles};
use crate::custom_job::{JOB, SQL};
use crate::support::{Engine, Finished, Fixture};
use sqlx::Connection;

/// The binary, connected as `name`.
pub fn run_as(fixture: &Fixture, name: &str, arguments: &[&str]) -> Finished {
    let mut command = fixture.command(arguments);
    command.env("DATABASE_URL", fixture.url.replace("postgres://postgres@", &format!("postgres://{name}@")));
    Finished::of(&command.output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrator_and_an_owner_who_is_no_superuser_migrate_again() {
    let _one_at_a_time = ROLES.lock().await;
    // Roles with BYPASSRLS take a superuser, once for the server.
    let fixture = with_roles().await;
    let (migrator, owner) = (format!("up-{}", database(&fixture)), format!("own-{}", database(&fixture)));
    fixture.execute(&format!("CREATE ROLE \"{migrator}\" LOGIN IN ROLE tallyroll_migrator")).await;
    fixture.execute(&format!("CREATE ROLE \"{owner}\" LOGIN CREATEROLE")).await;
    let migrated = run_as(&fixture, &migrator, &["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");

    let theirs = Fixture::empty(Engine::Postgres).await;
    theirs
        .execute(&format!(
            "ALTER DATABASE test_{} OWNER TO \"{owner}\"",
            theirs.url.split("/test_").nth(1).unwrap().split('?').next().unwrap()
        ))
        .await;
    for arguments in
        [&["migrate"][..], &["migrate", "--roles"], &["migrate"], &["migrate", "--roles"], &["run-job", "usage_daily", "--downstream"]]
    {
        let ran = run_as(&theirs, &owner, arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?} {ran:?}");
    }
    let migrated = run_as(&theirs, &migrator, &["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    // A superuser makes the roles: who theirs the tables goes on upgrading.
    theirs.run_well(&["migrate", "--roles"]);
    assert_eq!(run_as(&theirs, &owner, &["migrate"]).code, Some(0));
    for fixture in [&theirs, &fixture] {
        fixture.execute(&format!("REASSIGN OWNED BY \"{owner}\" TO postgres")).await;
        fixture.execute(&format!("DROP OWNED BY \"{owner}\"")).await;
    }
    drop_roles(&fixture, &[migrator, owner]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_makes_the_tables_of_a_projects_jobs_and_the_runner_may_not() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let (runner, reader) = (format!("run-{}", database(&fixture)), format!("fin-{}", database(&fixture)));
    fixture.execute(&format!("CREATE ROLE \"{runner}\" LOGIN BYPASSRLS IN ROLE tallyroll_runner")).await;
    fixture.write("jobs/usage_by_model.toml", JOB);
    fixture.write("sql/usage_by_model.sql", SQL);
    // One that reads what the other writes, and comes before it by its name.
    fixture.write("jobs/models.toml", &JOB.replace("\"usage_daily\"", "\"usage_by_model\""));
    fixture.write("sql/models.sql", &SQL.replace("FROM usage_daily", "FROM usage_by_model").replace("usage_date", "usage_month"));
    let refused = run_as(&fixture, &runner, &["run-job", "usage_by_model"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("usage_by_model") && refused.stderr.contains("tallyroll migrate"), "{}", refused.stderr);

    let told = fixture.run_well(&["migrate"]);
    assert!(told.contains("Made the table usage_by_model"), "{told}");
    assert!(!fixture.run_well(&["migrate"]).contains("Made the table"));
    let ran = run_as(&fixture, &runner, &["run-job", "usage_by_model", "--downstream", "--as-of", "2026-03-22"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let where_and_whose =
        "SELECT relnamespace::REGNAMESPACE::TEXT, relowner::REGROLE::TEXT FROM pg_class WHERE relname IN ('models', 'usage_by_model')";
    assert_eq!(fixture.rows(where_and_whose).await, ["tallyroll|tallyroll_migrator", "tallyroll|tallyroll_migrator"]);
    let mut finance = login(&fixture, &reader, "tallyroll_reader").await;
    let read = try_rows(&mut finance, "SELECT SUM(request_count)::TEXT FROM tallyroll.models").await.unwrap();
    assert_eq!(read, fixture.rows("SELECT SUM(request_count)::TEXT FROM usage_by_model").await);
    finance.close().await.unwrap();
    drop_roles(&fixture, &[runner, reader]).await;
}

/// PostgreSQL lets whoever may create in the database put one that it trusts into any schema, as a superuser's.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_of_somebody_else_stops_everything() {
    let _one_at_a_time = ROLES.lock().await;
    let fixture = with_roles().await;
    let name = format!("mal-{}", database(&fixture));
    let mut stranger = login(&fixture, &name, "tallyroll_user").await;
    fixture
        .execute(&format!(
            "GRANT CREATE ON DATABASE test_{} TO \"{name}\"",
            fixture.url.split("/test_").nth(1).unwrap().split('?').next().unwrap()
        ))
        .await;
    try_rows(&mut stranger, "CREATE EXTENSION citext SCHEMA tallyroll").await.unwrap();
    let stopped = fixture.run(&["run-job", "usage_daily"]);
    assert_eq!(stopped.code, Some(78), "{stopped:?}");
    assert!(stopped.stderr.contains("extension citext"), "{}", stopped.stderr);
    stranger.close().await.unwrap();
    drop_roles(&fixture, &[name]).await;
}
