//! Files of a project that are no files, or say what never comes to pass.

use std::process::{Command, Stdio};

use crate::job_files::fixture;
use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(only_regular_files_of_a_bounded_size_are_read, a_cron_line_that_never_fires_is_refused);

/// A run that may neither hang nor fill the memory of the machine.
fn bounded(fixture: &Fixture, arguments: &[&str], environment: &[(&str, &str)]) -> Finished {
    let mut command = Command::new("timeout");
    command
        .args(["20", "prlimit", "--as=3000000000", env!("CARGO_BIN_EXE_tallyroll")])
        .args(arguments)
        .current_dir(fixture.path())
        .env_clear()
        .env("DATABASE_URL", &fixture.url)
        .env("PATH", "/usr/bin:/bin")
        .env("RUST_LOG", "error")
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    Finished::of(&command.output().unwrap())
}

async fn only_regular_files_of_a_bounded_size_are_read(engine: Engine) {
    let fixture = fixture(engine).await;
    let big = fixture.path().join("big");
    std::fs::File::create(&big).unwrap().set_len(1 << 30).unwrap();
    fixture.write("two_bytes", "\u{0}");
    std::fs::write(fixture.path().join("no_text"), [0xff, 0xfe, 0x00]).unwrap();
    assert!(Command::new("mkfifo").arg(fixture.path().join("pipe")).status().unwrap().success());
    std::fs::create_dir(fixture.path().join("folder")).unwrap();
    let at = |name: &str| fixture.path().join(name).display().to_string();
    let hostile = [
        ("/dev/zero".to_owned(), "no regular file"),
        (at("pipe"), "no regular file"),
        (at("folder"), "no regular file"),
        (at("big"), "larger than 16 MiB"),
        (at("no_text"), "UTF-8"),
        // Somebody means it to be there: without it the built-in one would count otherwise.
        (at("gone"), "leads nowhere"),
    ];
    for (target, said) in &hostile {
        for path in [
            "jobs/odd.toml",
            "sql/user_dashboard.sql",
            "sql/sources/ai_usage_log.sqlite.sql",
            "sql/sources/ai_usage_log.postgres.sql",
            "schedules.toml",
            "prices.toml",
            "tallyroll.toml",
        ] {
            if path.contains("sqlite") != (engine == Engine::Sqlite) && path.contains("sources") {
                continue;
            }
            let file = fixture.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, &file).unwrap();
            let refused = bounded(&fixture, &["check"], &[]);
            std::fs::remove_file(&file).unwrap();
            assert_eq!(refused.code, Some(78), "{path} {target} {refused:?}");
            assert!(refused.stderr.contains(path) && refused.stderr.contains(said), "{path} {target} {}", refused.stderr);
        }
        // What the command line names and is not there is told as that.
        if target.ends_with("gone") {
            continue;
        }
        for arguments in [
            &["license", "verify", target.as_str(), "--public-key", target.as_str()][..],
            &["report", "seats", "--subscription", "kept", "--sign", target.as_str()],
        ] {
            let refused = bounded(&fixture, arguments, &[]);
            assert_eq!(refused.code, Some(2), "{arguments:?} {refused:?}");
            assert!(refused.stderr.contains(said), "{arguments:?} {}", refused.stderr);
        }
        let refused = bounded(&fixture, &["check"], &[("TALLYROLL__SERVE__TOKEN_FILE", target)]);
        assert_eq!(refused.code, Some(78), "{target} {refused:?}");
        assert!(refused.stderr.contains("TALLYROLL__SERVE__TOKEN_FILE") && refused.stderr.contains(said), "{}", refused.stderr);
    }
    let refused = bounded(&fixture, &["check"], &[("TALLYROLL__USAGE__PRICE_BOOK", "/dev/zero")]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("/dev/zero"), "{}", refused.stderr);
    // A source is a name, no way out of the folder.
    let refused = bounded(&fixture, &["check"], &[("TALLYROLL__USAGE__SOURCES", "../../outside")]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("not a path"), "{}", refused.stderr);
    // One bad file of several hides none of the others' problems.
    std::os::unix::fs::symlink("/dev/zero", fixture.path().join("jobs/odd.toml")).unwrap();
    fixture.write("jobs/empty.toml", "");
    let refused = bounded(&fixture, &["check"], &[]);
    assert!(refused.stderr.contains("odd.toml") && refused.stderr.contains("empty.toml"), "{}", refused.stderr);
}

async fn a_cron_line_that_never_fires_is_refused(engine: Engine) {
    let fixture = fixture(engine).await;
    for line in ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30W 2 *"] {
        fixture.write("schedules.toml", &format!("[usage_daily]\ncron = \"{line}\"\n"));
        for arguments in [&["check"][..], &["run-due"], &["serve", "--bind", "127.0.0.1:0"]] {
            let refused = bounded(&fixture, arguments, &[]);
            assert_eq!(refused.code, Some(78), "{line} {arguments:?} {refused:?}");
            assert!(refused.stderr.contains("never fires") && refused.stderr.contains(line), "{}", refused.stderr);
        }
    }
    for line in ["0 0 29 2 *", "0 0 29 2 +1", "0 0 31 * *", "0 0 L 2 *"] {
        fixture.write("schedules.toml", &format!("[usage_daily]\ncron = \"{line}\"\n"));
        let accepted = bounded(&fixture, &["check"], &[]);
        assert_eq!(accepted.code, Some(0), "{line} {accepted:?}");
    }
}
