//! What a person sees: errors of one screen with what, where and the next step, frozen with their exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Engine, Finished, Fixture};

/// Exit code, stdout and stderr of a command, without what differs from run to run.
fn shown(fixture: &Fixture, finished: &Finished) -> String {
    let dir = fixture.path().display().to_string();
    let clean = |text: &str| text.replace(&dir, "DIR").trim_end().to_owned();
    format!("exit {:?}\n--- stdout\n{}\n--- stderr\n{}", finished.code.unwrap_or(-1), clean(&finished.stdout), clean(&finished.stderr))
}

macro_rules! snapshot {
    ($fixture:expr, $name:literal, $arguments:expr) => {
        let finished = $fixture.run(&$arguments);
        insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!($name, shown(&$fixture, &finished));
        });
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_where_and_what_next() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    snapshot!(fixture, "unknown_job", ["run-job", "usage_dayly"]);
    snapshot!(fixture, "from_after_to", ["run-job", "usage_daily", "--from", "2026-03-02", "--to", "2026-03-01"]);
    snapshot!(fixture, "bad_day", ["run-job", "usage_daily", "--day", "2026-02-30"]);
    snapshot!(fixture, "dry_run", ["run-job", "usage_daily", "--downstream", "--dry-run", "--as-of", "2026-04-01"]);
    snapshot!(fixture, "nothing_due", ["run-job", "usage_monthly_user", "--as-of", "2026-04-01"]);

    fixture.write("tallyroll.toml", "[usage]\nsource = [\"ai_usage_log\"]\n");
    snapshot!(fixture, "unknown_key", ["status"]);
    fixture.write("tallyroll.toml", "[billing]\ngrace_hours = \"three days\"\n");
    snapshot!(fixture, "wrong_type", ["status"]);
    fixture.write("tallyroll.toml", "[reporting]\ntimezone = \"Europe/Pariss\"\n");
    snapshot!(fixture, "wrong_timezone", ["status"]);
    fixture.write("tallyroll.toml", "");

    fixture.write("schedules.toml", "[usage_daily]\ncron = \"*/15 * * *\"\n[usage_dayli]\ncron = \"* * * * *\"\n");
    snapshot!(fixture, "bad_cron", ["check"]);
    fixture.write("schedules.toml", "");

    fixture.write(
        "jobs/broken.toml",
        "description = \"b\"\noperator = \"sequel\"\nreads = [\"usage_daily\"]\ngrain = [\"d\"]\nwindow = \"day\"\n",
    );
    snapshot!(fixture, "bad_job", ["check"]);
    fs::remove_dir_all(fixture.path().join("jobs")).unwrap();

    fixture.execute("ALTER TABLE ai_usage_log RENAME COLUMN latency_ms TO latency").await;
    snapshot!(fixture, "missing_column", ["run-job", "usage_daily"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_cannot_be_used_are_told_apart() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    fixture.store.close().await;
    snapshot!(fixture, "not_migrated", ["run-job", "usage_daily"]);
    snapshot!(fixture, "no_database", ["--database-url", "sqlite://nowhere.db", "status"]);
    snapshot!(fixture, "no_such_scheme", ["--database-url", "mysql://me:secret@host/db", "status"]);
    snapshot!(fixture, "unreachable", ["--database-url", "postgres://me:secret@127.0.0.1:1/db", "status"]);
    snapshot!(fixture, "no_project", ["-C", "nowhere", "status"]);
}

/// A hot standby, or a role that may only read: what PostgreSQL says is 25006.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_postgres_is_named_so() {
    let fixture = Fixture::new(Engine::Postgres).await;
    fixture.log("2026-03-01T10:00:00Z", &[]).await;
    let database = fixture.rows("SELECT current_database()").await[0].clone();
    fixture.execute(&format!("ALTER DATABASE {database} SET default_transaction_read_only = on")).await;
    snapshot!(fixture, "read_only_postgres", ["run-job", "usage_daily"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_sqlite_file_is_named_so() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    fixture.store.close().await;
    fs::set_permissions(fixture.path().join("tallyroll.db"), fs::Permissions::from_mode(0o444)).unwrap();
    // Root may write any file: as an ordinary user, then.
    let mut command = std::process::Command::new("setpriv");
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let finished = if is_root {
        let binary = fixture.path().join("tallyroll");
        fs::copy(env!("CARGO_BIN_EXE_tallyroll"), &binary).unwrap();
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary).args(["run-job", "usage_daily"]);
        command.current_dir(fixture.path()).env_clear().env("PATH", "/usr/bin:/bin").env("RUST_LOG", "error");
        Finished::of(&command.output().unwrap())
    } else {
        fixture.run(&["run-job", "usage_daily"])
    };
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("read-only") && finished.stderr.contains("hint:"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_on_stdout_and_everything_else_on_stderr() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[]).await;
    for arguments in [
        &["run-job", "usage_daily", "--downstream", "--dry-run", "--as-of", "2026-04-01"][..],
        &["run-job", "usage_daily", "--downstream", "--as-of", "2026-04-01"],
        &["runs"],
        &["status"],
        &["list-jobs"],
        &["migrate"],
        &["check", "--show"],
    ] {
        let stdout = fixture.run_well(&[arguments, &["--json"]].concat());
        assert!(!stdout.is_empty());
        for line in stdout.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {line}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_logs_carry_run_job_and_window() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fixture.log("2026-03-01T10:00:00.000000Z", &[("latency_ms", "-1")]).await;
    let mut command = fixture.command(&["run-job", "usage_daily", "--as-of", "2026-04-01"]);
    let finished = Finished::of(&command.env("TALLYROLL__LOG__FORMAT", "json").env("RUST_LOG", "info").output().unwrap());
    let lines: Vec<serde_json::Value> = finished.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let failed = lines.iter().find(|line| line["message"] == "The window was not written").unwrap_or_else(|| panic!("{finished:?}"));
    let spans = failed["spans"].to_string();
    assert!(
        spans.contains("\"run_id\":") && spans.contains("\"job\":\"usage_daily\"") && spans.contains("\"window\":\"2026-03-01\""),
        "{failed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_the_same_each_time_and_refuses_a_folder_of_others() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    let of_a_day = ["demo", "--events", "2000", "--as-of", "2026-04-01", "--dir"];
    let first = fixture.run_well(&[&of_a_day[..], &["a"]].concat());
    let second = fixture.run_well(&[&of_a_day[..], &["b"]].concat());
    assert_eq!(first.replace("a/", "b/").replace("-C a", "-C b"), second);
    // Again, on whatever day: the folder says of which it is.
    assert_eq!(fixture.run_well(&["demo", "--dir", "a", "--events", "2000"]), first);
    assert!(first.contains("2026-01") && first.contains("cost USD") && first.contains("Database   a/tallyroll.db"), "{first}");
    for other in [&["--events", "10"][..], &["--events", "2000", "--as-of", "2026-05-01"]] {
        assert_eq!(fixture.run(&[&["demo", "--dir", "a"], other].concat()).code, Some(2), "{other:?}");
    }
    for day in ["0001-01-01", "262142-12-31"] {
        assert_eq!(fixture.run(&["demo", "--dir", "c", "--as-of", day]).code, Some(2), "{day}");
    }
    // Unless it is told otherwise it ends today, so that everything shows it.
    fixture.run_well(&["demo", "--dir", "today", "--events", "2000"]);
    for command in ["verify", "reconcile"] {
        fixture.run_well(&["-C", "today", command]);
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&fixture.run_well(&["-C", "today", "dashboard", "--days", "7", "--json"])).unwrap();
    assert!(dashboard["summary"]["total_requests"].as_i64().unwrap() > 20, "{dashboard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn init_writes_a_project_that_checks_out() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    fixture.run_well(&["init", "project"]);
    fixture.run_well(&["-C", "project", "migrate"]);
    assert!(fixture.run_well(&["-C", "project", "check"]).contains("No problems"));
    fixture.write("project/tallyroll.toml", "[usage]\nlookback_days = 7\n");
    assert!(fixture.run_well(&["init", "project"]).contains("kept  tallyroll.toml"));
    assert!(fixture.run_well(&["-C", "project", "check", "--show"]).contains("project/tallyroll.toml"));
    // Nor is anything written where a link leads.
    std::fs::remove_file(fixture.path().join("project/tallyroll.toml")).unwrap();
    std::os::unix::fs::symlink(fixture.path().join("elsewhere"), fixture.path().join("project/tallyroll.toml")).unwrap();
    assert!(fixture.run_well(&["init", "project"]).contains("kept  tallyroll.toml"));
    assert!(!fixture.path().join("elsewhere").exists());
}

/// Somebody who reads the first line and goes, as `head -1` does.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_nobody_reads_has_its_exit_code() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    let mut failing = fixture.command(&["status"]);
    let mut child = failing.spawn().unwrap();
    drop((child.stderr.take(), child.stdout.take()));
    assert_eq!(child.wait().unwrap().code(), Some(78));
}

/// An address made a folder of that name.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_no_folder() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    for arguments in [&["export", "--to", "s3://finance/x"][..], &["init", "s3://finance/x"], &["demo", "--dir", "file:///tmp/x"]] {
        let refused = fixture.run(arguments);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("folder of this machine"), "{}", refused.stderr);
    }
    assert!(!fixture.path().join("s3:").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_the_manual_page_name_every_command() {
    let fixture = Fixture::empty(Engine::Sqlite).await;
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(fixture.run_well(&["completions", shell]).contains("TALLYROLL_COMPLETE"));
    }
    // What a shell makes of it, at the end of a line that has been typed so far.
    fixture.write(
        "jobs/usage_by_team.toml",
        "description = \"Usage per team\"\noperator = \"rollup\"\nreads = [\"usage_daily\"]\ngrain = [\"usage_date\"]\nwindow = \"day\"\n",
    );
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_tallyroll"));
    for (typed, expected) in [
        ("run-j", "run-job"),
        ("run-job usage_by", "usage_by_team"),
        ("run-job peak", "peak_seats"),
        ("runs --job usage_monthly_c", "usage_monthly_customer"),
        ("-C /nonexistent run-job usage_by", ""),
        ("run-job --as-", "--as-of"),
    ] {
        let words: Vec<&str> = std::iter::once("tallyroll").chain(typed.split(' ')).collect();
        let script = format!(
            "source <(tallyroll completions bash); COMP_WORDS=({}); COMP_CWORD={}; _clap_complete_tallyroll tallyroll {}; echo \"${{COMPREPLY[*]}}\"",
            words.join(" "),
            words.len() - 1,
            words[words.len() - 1]
        );
        let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let completed =
            std::process::Command::new("bash").args(["-c", &script]).env("PATH", path).current_dir(fixture.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), expected, "{typed}: {}", String::from_utf8_lossy(&completed.stderr));
    }
    let page = fixture.run_well(&["man"]);
    for command in ["demo", "init", "migrate", "check", "list", "run", "status", "import"] {
        assert!(page.contains(command), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_settings_that_could_not_be_used() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    for (key, value, expected) in [
        ("SERVE__BIND", "http://x:y", "`serve.bind`"),
        ("NOTIFY__WEBHOOK_URL", "nonsense", "`notify.webhook_url`"),
        ("NOTIFY__WEBHOOK_URL", "ftp://host/y", "`notify.webhook_url`"),
        ("USAGE__PRICE_BOOK", "/nonexistent", "`usage.price_book` names `/nonexistent`"),
    ] {
        let checked = Finished::of(&fixture.command(&["check"]).env(format!("TALLYROLL__{key}"), value).output().unwrap());
        assert!(checked.code == Some(78) && checked.stderr.contains(expected), "{key} {checked:?}");
    }
    fixture.write("prices.toml", "");
    fixture.run_well(&["check"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_windows_are_a_line_of_log_unless_each_is_asked_for() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    for day in 1..=20 {
        fixture.log(&format!("2026-03-{day:02}T10:00:00.000000Z"), &[]).await;
    }
    let said = |more: &[&str]| {
        let arguments = [&["run-job", "usage_daily", "--from", "2026-03-01", "--to", "2026-04-01"], more].concat();
        let finished = Finished::of(&fixture.command(&arguments).env_remove("RUST_LOG").output().unwrap());
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stderr.lines().count()
    };
    assert!((1..=3).contains(&said(&[])), "{}", said(&[]));
    assert!(said(&["-v"]) > 20);
    assert_eq!(said(&["-q"]), 0);
    assert_eq!(fixture.run(&["status", "-q", "-v"]).code, Some(2));
}
