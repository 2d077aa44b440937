//! PostgreSQL that stops, is a standby, was restored, holds a prepared transaction, is set otherwise by its administrator.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use uuid::Uuid;

use super::{RUN, fill, undisturbed};
use crate::support::cluster::{Cluster, as_server};
use crate::support::{Engine, Finished, Fixture, postgres_url};

/// Waits until the statement gives a row.
async fn until(fixture: &Fixture, sql: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while fixture.rows(sql).await.is_empty() {
        assert!(Instant::now() < deadline, "it did not come: {sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ended(child: Child) -> Finished {
    Finished::of(&child.wait_with_output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_while_a_run_writes_or_commits() {
    let expected = undisturbed(Engine::Postgres).await;
    let cluster = Cluster::start("");
    let fixture = Fixture::at(&cluster.url("postgres")).await;
    fill(&fixture, Engine::Postgres).await;
    fixture
        .execute("CREATE FUNCTION public.slow() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END'")
        .await;
    for (when, trigger) in [
        ("state = 'active' AND query LIKE 'COPY%usage_daily%'", "CREATE TRIGGER slow AFTER INSERT ON usage_daily FOR EACH STATEMENT"),
        (
            "state = 'active' AND query = 'COMMIT'",
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT OR UPDATE ON job_window DEFERRABLE INITIALLY DEFERRED FOR EACH ROW",
        ),
    ] {
        fixture.execute(&format!("{trigger} EXECUTE FUNCTION public.slow()")).await;
        fixture.accept_triggers().await;
        let child = fixture.command(RUN).spawn().unwrap();
        until(&fixture, &format!("SELECT 1 FROM pg_stat_activity WHERE {when} AND pid <> pg_backend_pid()")).await;
        cluster.stop();
        let stopped = ended(child);
        assert_eq!(stopped.code, Some(75), "{when}: {stopped:?}");
        assert!(stopped.stderr.contains("can be repeated as it is"), "{when}: {}", stopped.stderr);
        cluster.go_on();
        for table in ["usage_daily", "job_window"] {
            fixture.execute(&format!("DROP TRIGGER IF EXISTS slow ON {table}")).await;
        }
    }
    fixture.run_well(RUN);
    assert_eq!(fixture.results().await, expected);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM job_run WHERE state = 'running'").await, 0, "a dead run's record stayed open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_and_not_written() {
    let cluster = Cluster::start("-c wal_level=replica -c max_wal_senders=4");
    let fixture = Fixture::at(&cluster.url("postgres")).await;
    fill(&fixture, Engine::Postgres).await;
    let standby = cluster.standby();
    let on_standby =
        |arguments: &[&str]| Finished::of(&fixture.command(arguments).env("DATABASE_URL", standby.url("postgres")).output().unwrap());
    for arguments in [RUN, &["migrate"], &["run-due"], &["record", "seat-change", "--org", "1"]] {
        let refused = on_standby(arguments);
        let is_nothing_to_do = arguments == ["migrate"] && refused.code == Some(0);
        assert!(is_nothing_to_do || refused.code == Some(78), "{arguments:?}: {refused:?}");
        assert!(is_nothing_to_do || refused.stderr.contains("read-only"), "{arguments:?}: {}", refused.stderr);
    }
    for arguments in [["status"], ["check"], ["list-jobs"]] {
        assert_eq!(on_standby(&arguments).code, Some(0), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_over_later_runs() {
    let expected = undisturbed(Engine::Postgres).await;
    let cluster = Cluster::start("");
    let fixture = Fixture::at(&cluster.url("postgres")).await;
    fill(&fixture, Engine::Postgres).await;
    fixture.run_well(RUN);
    // Later runs use up transactions, so that a new server's counter is behind this one's.
    fixture.execute("CREATE PROCEDURE public.use_up() LANGUAGE plpgsql AS 'BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'").await;
    fixture.execute("CALL public.use_up()").await;
    fixture.run_well(&[RUN, &["--rebuild"]].concat());
    let file = cluster.path().join("dump").display().to_string();
    cluster.well("pg_dump", &["-d", &cluster.url("postgres"), "-Fc", "-f", &file]);
    fixture.log("2026-02-03T10:00:00.000000Z", &[]).await;
    fixture.log("2026-03-30T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    fixture.store.close().await;

    // Over the same server: as if the later runs had never been.
    cluster.well("createdb", &["--maintenance-db", &cluster.url("postgres"), "restored"]);
    cluster.well("pg_restore", &["-d", &cluster.url("restored"), &file]);
    let restored = Fixture::at(&cluster.url("restored")).await;
    restored.run_well(RUN);
    assert_eq!(restored.results().await, expected);
    restored.log("2026-02-03T10:00:00.000000Z", &[]).await;
    assert!(restored.written(RUN).contains(&"usage_daily 2026-02-03".to_owned()));
    restored.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);

    // Into another server, whose transactions have smaller numbers.
    let other = Cluster::start("");
    std::fs::copy(&file, other.path().join("dump")).unwrap();
    other.well("pg_restore", &["-d", &other.url("postgres"), &other.path().join("dump").display().to_string()]);
    let moved = Fixture::at(&other.url("postgres")).await;
    let refused = moved.run(RUN);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("restored copy") && refused.stderr.contains("--rebuild"), "{}", refused.stderr);
    moved.run_well(&[RUN, &["--rebuild"]].concat());
    assert_eq!(moved.results().await, expected);
    moved.log("2026-02-03T10:00:00.000000Z", &[]).await;
    assert!(moved.written(RUN).contains(&"usage_daily 2026-02-03".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_delays_nobody_and_is_counted_once_committed() {
    let cluster = Cluster::start("-c max_prepared_transactions=5");
    let fixture = Fixture::at(&cluster.url("postgres")).await;
    let count = "SELECT CAST(SUM(request_count) AS BIGINT) FROM usage_daily";
    fixture.log("2026-02-02T10:00:00.000000Z", &[]).await;
    fixture.run_well(RUN);
    let mut connection = PgConnection::connect(&fixture.url).await.unwrap();
    for sql in [
        "BEGIN",
        "INSERT INTO public.ai_usage_log (user_id, created_at) VALUES (gen_random_uuid(), '2026-02-02T11:00:00Z')",
        "PREPARE TRANSACTION 'for later'",
    ] {
        connection.execute(sql).await.unwrap();
    }
    for hour in 12..15 {
        fixture.log(&format!("2026-02-02T{hour}:00:00.000000Z"), &[]).await;
        fixture.run_well(RUN);
        assert_eq!(fixture.number(count).await, hour - 10);
    }
    connection.execute("COMMIT PREPARED 'for later'").await.unwrap();
    assert!(fixture.written(RUN).contains(&"usage_daily 2026-02-02".to_owned()));
    assert_eq!(fixture.number(count).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_an_administrator_change_nothing() {
    let expected = undisturbed(Engine::Postgres).await;
    let fixture = Fixture::new(Engine::Postgres).await;
    fill(&fixture, Engine::Postgres).await;
    fixture
        .execute("CREATE FUNCTION public.slow() RETURNS TRIGGER LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END'")
        .await;
    fixture.execute("CREATE TRIGGER slow AFTER INSERT ON usage_daily FOR EACH STATEMENT EXECUTE FUNCTION public.slow()").await;
    fixture.accept_triggers().await;
    let database = fixture.rows("SELECT current_database()").await[0].clone();
    for setting in [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "statement_timeout = '15ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "timezone = 'Asia/Kathmandu'",
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = 0",
        "standard_conforming_strings = off",
        "row_security = on",
        "plan_cache_mode = 'force_generic_plan'",
        "client_encoding = 'LATIN1'",
    ] {
        fixture.execute(&format!("ALTER DATABASE {database} SET {setting}")).await;
    }
    fixture.run_well(RUN);
    fixture.run_well(&["reconcile", "--as-of", "2026-04-15T00:00:00Z"]);
    let found = fixture.results().await;
    assert_eq!(found, expected);
}

/// A database of an owner that is no superuser; its URL for that owner.
async fn owned_database() -> (String, String) {
    let name = format!("owner_{}", Uuid::new_v4().simple());
    let mut admin = PgConnection::connect(&postgres_url()).await.unwrap();
    for sql in [format!("CREATE ROLE {name} LOGIN"), format!("CREATE DATABASE {name} OWNER {name}")] {
        admin.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let url = postgres_url().replace("postgres://postgres@", &format!("postgres://{name}@")).replace("/postgres?", &format!("/{name}?"));
    let mut inside = PgConnection::connect(&postgres_url().replace("/postgres?", &format!("/{name}?"))).await.unwrap();
    inside.execute(AssertSqlSafe(format!("ALTER SCHEMA public OWNER TO {name}"))).await.unwrap();
    (name, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_no_superuser_and_row_level_security_that_is_forced() {
    let expected = undisturbed(Engine::Postgres).await;
    let (_, url) = owned_database().await;
    let fixture = Fixture::at(&url).await;
    fill(&fixture, Engine::Postgres).await;
    fixture.execute("ALTER TABLE ai_usage_log ENABLE ROW LEVEL SECURITY").await;
    fixture.execute("ALTER TABLE ai_usage_log FORCE ROW LEVEL SECURITY").await;
    let refused = fixture.run(RUN);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("Row-level security would hide rows"), "{}", refused.stderr);
    assert_eq!(fixture.number("SELECT COUNT(*) FROM usage_daily").await, 0);
    fixture.execute("ALTER TABLE ai_usage_log NO FORCE ROW LEVEL SECURITY").await;
    fixture.run_well(RUN);
    fixture.run_well(&["check"]);
    assert_eq!(fixture.results().await, expected);
}

/// Ended when it is dropped.
struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pooler that gives each transaction another session, as Debian's package has it.
fn pgbouncer(cluster: &Cluster, port: u16) -> Pooler {
    let dir = cluster.path();
    let file = dir.join("pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         pool_mode = transaction\nlogfile = {}\nignore_startup_parameters = extra_float_digits\n",
        dir.display(),
        dir.join("pgbouncer.log").display()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = as_server("/usr/sbin/pgbouncer".as_ref());
    command.arg(file).stdout(Stdio::null()).stderr(Stdio::null());
    Pooler(command.spawn().expect("the tests need Debian's package pgbouncer: run them with scripts/test.sh"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_of_transactions_is_refused() {
    let cluster = Cluster::start("");
    let fixture = Fixture::at(&cluster.url("postgres")).await;
    fill(&fixture, Engine::Postgres).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let pooler = pgbouncer(&cluster, port);
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "the pooler did not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = fixture.results().await;
    for arguments in [RUN, &["status"], &["migrate"]] {
        let refused = Finished::of(
            &fixture.command(arguments).env("DATABASE_URL", format!("postgres://postgres@127.0.0.1:{port}/postgres")).output().unwrap(),
        );
        assert_eq!(refused.code, Some(78), "{arguments:?} {refused:?}");
        assert!(refused.stderr.contains("pool_mode = session"), "{}", refused.stderr);
    }
    assert_eq!(fixture.results().await, before);
    drop(pooler);
    fixture.run_well(RUN);
    assert_eq!(fixture.results().await, undisturbed(Engine::Postgres).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_under_the_server() {
    let expected = undisturbed(Engine::Postgres).await;
    let cluster = Cluster::start("-c temp_file_limit=-1");
    let fixture = Fixture::at(&cluster.url("postgres")).await;
    fill(&fixture, Engine::Postgres).await;
    // A tablespace on a disk of a few megabytes: the results do not fit.
    let disk = cluster.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=0777", "tmpfs"]).arg(&disk).status().unwrap();
    if mounted.success() {
        let space = disk.join("space");
        std::fs::create_dir(&space).unwrap();
        assert!(Command::new("chown").arg("nobody").arg(&space).status().unwrap().success());
        fixture.execute(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display())).await;
        fixture.execute("ALTER TABLE usage_daily SET TABLESPACE small").await;
        fixture.execute("ALTER TABLE usage_daily_user SET TABLESPACE small").await;
        std::fs::write(disk.join("filler"), vec![0_u8; 1_000_000]).unwrap_err();
    } else {
        // Without the right to mount, the server's own error is raised where its disk would have been full.
        fixture
            .execute(
                "CREATE FUNCTION public.full_disk() RETURNS TRIGGER LANGUAGE plpgsql AS $$BEGIN \
                 RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END$$",
            )
            .await;
        fixture
            .execute("CREATE TRIGGER full_disk AFTER INSERT ON usage_daily FOR EACH STATEMENT EXECUTE FUNCTION public.full_disk()")
            .await;
        fixture.accept_triggers().await;
    }
    let full = fixture.run(RUN);
    assert_eq!(full.code, Some(75), "{full:?}");
    assert!(full.stderr.contains("No space left on device") && full.stderr.contains("can be repeated as it is"), "{}", full.stderr);
    if mounted.success() {
        std::fs::remove_file(disk.join("filler")).unwrap();
        assert!(Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk).status().unwrap().success());
    } else {
        fixture.execute("DROP TRIGGER full_disk ON usage_daily").await;
    }
    fixture.run_well(RUN);
    assert_eq!(fixture.results().await, expected);
    cluster.stop();
    if mounted.success() {
        assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    }
}
