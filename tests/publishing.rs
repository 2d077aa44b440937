//! Publishing: killed anywhere, on a full disk, by two at once: no half file is ever seen, and a rerun ends in the same bytes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tallyroll::snapshot::manifest::Manifest;
use tallyroll::snapshot::parquet_file;

use crate::support::seats::{S3, Tree, python, tree};
use crate::support::{Engine, Finished, Fixture, repetitions};
use crate::unrecorded::adoption;

const RUN: [&str; 4] = ["run-job", "peak_seats", "--as-of", "2026-04-05T00:00:00Z"];

/// A fixture whose first run seals more than two years.
async fn long_history(engine: Engine) -> Fixture {
    let fixture = Fixture::new(engine).await;
    fixture.three_subscriptions().await;
    for index in 0..40 {
        fixture.subscribe(&format!("s{index}"), "org-1", &format!("2024-01-{:02}T00:00:00.000000Z", index % 28 + 1), 5).await;
    }
    fixture
}

/// Makes the database forget what was published, as if no run had ever committed.
async fn forget(fixture: &Fixture) {
    for table in ["job_window", "peak_seats", "snapshot_file"] {
        fixture.execute(&format!("DELETE FROM {table}")).await;
    }
}

fn command(fixture: &Fixture, environment: &[(&'static str, String)]) -> Command {
    let mut command = fixture.command(&RUN);
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command
}

fn run_well(fixture: &Fixture, environment: &[(&'static str, String)]) {
    let finished = Finished::of(&command(fixture, environment).output().unwrap());
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

/// Every file that a reader could see is whole.
fn assert_whole(files: &Tree, when: &str) {
    for (path, bytes) in files.iter().filter(|(path, _)| !path.rsplit('/').next().unwrap().starts_with('.')) {
        if path.ends_with("peak_seats.parquet") {
            parquet_file::read(bytes.clone().into()).unwrap_or_else(|error| panic!("{when}: {path}: {error:#}"));
        } else if path.ends_with("manifest.json") {
            Manifest::parse(&bytes.clone().into()).unwrap_or_else(|error| panic!("{when}: {path}: {error:#}"));
        } else if path.ends_with("peak_seats.csv") {
            assert!(bytes.ends_with(b"Z\n"), "{when}: {path}");
        } else if path.ends_with("_SUCCESS") {
            for name in ["peak_seats.parquet", "peak_seats.csv", "manifest.json"] {
                assert!(files.contains_key(&path.replace("_SUCCESS", name)), "{when}: {path} without {name}");
            }
        }
    }
}

/// The files of a storage, temporary ones aside: a local folder, or the objects of a bucket.
fn published(fixture: &Fixture, place: &Place, name: &str) -> Tree {
    let mut files = match place {
        Place::Local => tree(&fixture.path().join(name)),
        Place::S3(server) => {
            let to = fixture.path().join(format!("copy-{name}"));
            // As it is now, not as it was at an earlier look.
            let _ = std::fs::remove_dir_all(&to);
            let output = python("s3_dump.py").args([&server.url, name]).arg(&to).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            tree(&to)
        }
    };
    files.retain(|path, _| !path.rsplit('/').next().unwrap().starts_with('.'));
    files
}

enum Place {
    Local,
    S3(S3),
}

impl Place {
    fn environment(&self, name: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::Local => vec![("TALLYROLL__OUTPUT__URL", format!("./{name}"))],
            Self::S3(server) => server.environment(name),
        }
    }
}

async fn killed(engine: Engine, place: Place) {
    let fixture = long_history(engine).await;
    let environment = place.environment("whole");
    let start = Instant::now();
    run_well(&fixture, &environment);
    let whole_run = start.elapsed();
    let expected = published(&fixture, &place, "whole");
    assert!(expected.len() > 100, "{}", expected.len());
    let mut landed = 0;
    let count = repetitions(5, 50);
    for repetition in 0..count {
        forget(&fixture).await;
        let name = format!("killed-{repetition}");
        let environment = place.environment(&name);
        let mut child = command(&fixture, &environment).spawn().unwrap();
        // Spread over the run by the golden ratio: no two moments alike, the same in every test run.
        #[allow(clippy::cast_precision_loss, reason = "a moment")]
        let moment = (repetition as f64 * 0.618_034 + 0.35).fract();
        tokio::time::sleep(whole_run.mul_f64(0.05 + moment)).await;
        child.kill().unwrap();
        landed += u32::from(!child.wait().unwrap().success());
        let seen = published(&fixture, &place, &name);
        assert_whole(&seen, &name);
        run_well(&fixture, &environment);
        let rerun = published(&fixture, &place, &name);
        assert_eq!(expected.keys().collect::<Vec<_>>(), rerun.keys().collect::<Vec<_>>(), "{name}");
        for (path, bytes) in &expected {
            assert!(rerun[path] == *bytes, "{name}: {path}");
        }
        assert!(seen.iter().filter(|(path, _)| path.contains("final")).all(|(path, bytes)| rerun[path] == *bytes), "{name}");
    }
    println!("{landed} of {count} kills hit a run at work");
    assert!(landed > 0, "no kill hit a run");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_publishes_to_a_folder() {
    killed(Engine::Sqlite, Place::Local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_publishes_to_a_folder_from_postgres() {
    killed(Engine::Postgres, Place::Local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_publishes_to_a_bucket() {
    killed(Engine::Sqlite, Place::S3(S3::start())).await;
}

/// A folder of few kilobytes, in a mount namespace of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_no_half_file() {
    let fixture = long_history(Engine::Sqlite).await;
    run_well(&fixture, &[("TALLYROLL__OUTPUT__URL", "./whole".to_owned())]);
    let expected = tree(&fixture.path().join("whole"));
    forget(&fixture).await;
    std::fs::create_dir(fixture.path().join("out")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=200k tmpfs out || exit 99\n\
         {tallyroll} {run} 2> full.err; echo $? > full.code; cp -r out partial\n\
         mount -o remount,size=64m out\n{tallyroll} {run} || exit 98\ncp -r out again\numount out\n",
        tallyroll = env!("CARGO_BIN_EXE_tallyroll"),
        run = RUN.join(" "),
    );
    fixture.run_in_own_mounts(&script);
    let read = |name: &str| std::fs::read_to_string(fixture.path().join(name)).unwrap();
    assert_eq!(read("full.code").trim(), "75", "{}", read("full.err"));
    assert!(read("full.err").contains("There is no room left for"), "{}", read("full.err"));
    let partial = tree(&fixture.path().join("partial"));
    assert!(!partial.is_empty() && partial.len() < expected.len());
    assert_whole(&partial, "full disk");
    let again = tree(&fixture.path().join("again"));
    assert_eq!(again.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(again == expected, "the rerun ended in other bytes");
}

async fn two_at_once(place: Place) {
    let one = long_history(Engine::Sqlite).await;
    let two = long_history(Engine::Sqlite).await;
    let alone = match &place {
        Place::Local => vec![("TALLYROLL__OUTPUT__URL", one.path().join("alone").display().to_string())],
        Place::S3(server) => server.environment("alone"),
    };
    run_well(&one, &alone);
    let expected = published(&one, &place, "alone");
    for round in 0..repetitions(2, 20) {
        let name = format!("round-{round}");
        let environment = match &place {
            Place::Local => vec![("TALLYROLL__OUTPUT__URL", one.path().join(&name).display().to_string())],
            Place::S3(server) => server.environment(&name),
        };
        forget(&one).await;
        forget(&two).await;
        let spawn = |fixture: &Fixture| -> Child { command(fixture, &environment).stdout(Stdio::null()).spawn().unwrap() };
        let mut publishers = [spawn(&one), spawn(&two)];
        // A reader looks all the time.
        let mut looks = 0;
        let deadline = Instant::now() + Duration::from_mins(1);
        while publishers.iter_mut().any(|publisher| publisher.try_wait().unwrap().is_none()) {
            if matches!(place, Place::Local) {
                assert_readable(&one.path().join(&name), &name);
            }
            looks += 1;
            assert!(Instant::now() < deadline, "the publishers hang");
        }
        for publisher in publishers {
            let finished = Finished::of(&publisher.wait_with_output().unwrap());
            assert_eq!(finished.code, Some(0), "{finished:?}");
        }
        let both = published(&one, &place, &name);
        assert_eq!(both.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "round {round}, {looks} looks");
        assert!(both == expected, "round {round}");
    }
    // The second learns of a late row, and both run at once again: whoever is first, the journal adds up, and a last word of
    // the one that knows more is the truth.
    two.seats(7, "org-1", "2026-02-10T00:00:00.000000Z", 30).await;
    let name = "late".to_owned();
    let environment = match &place {
        Place::Local => vec![("TALLYROLL__OUTPUT__URL", one.path().join(&name).display().to_string())],
        Place::S3(server) => server.environment(&name),
    };
    forget(&one).await;
    forget(&two).await;
    let mut publishers = [command(&one, &environment).spawn().unwrap(), command(&two, &environment).spawn().unwrap()];
    for publisher in &mut publishers {
        assert!(publisher.wait().unwrap().success());
    }
    // Revisions of another database are adopted one by one.
    for _ in 0..10 {
        let mut force = two.command(&[&RUN[..], &["--force"]].concat());
        let forced = Finished::of(&force.envs(environment.iter().map(|(name, value)| (*name, value))).output().unwrap());
        if forced.code == Some(0) {
            break;
        }
        assert_eq!(forced.code, Some(65), "{forced:?}");
        two.execute(&adoption(&forced.stderr)).await;
    }
    let mut verify = two.command(&["verify", "--as-of", "2026-04-05"]);
    let verified = Finished::of(&verify.envs(environment.iter().map(|(name, value)| (*name, value))).output().unwrap());
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

/// Every file under its final name is whole, while others are being written.
fn assert_readable(root: &Path, when: &str) {
    let mut files = tree(root);
    // Read one after the other: what belongs together may come in between.
    files.retain(|path, _| !path.ends_with("_SUCCESS"));
    assert_whole(&files, when);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_publishers_at_once_in_one_folder() {
    two_at_once(Place::Local).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_publishers_at_once_in_one_bucket() {
    two_at_once(Place::S3(S3::start())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_refuses_or_is_away_is_told_apart() {
    let server = S3::start();
    let fixture = long_history(Engine::Sqlite).await;
    let with = |name: &'static str, value: &str| {
        let mut environment = server.environment("x");
        environment.retain(|(known, _)| *known != name);
        environment.push((name, value.to_owned()));
        Finished::of(&command(&fixture, &environment).output().unwrap())
    };
    let refused = with("TALLYROLL__OUTPUT__URL", "s3://nowhere/x");
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert_eq!(refused.stderr.matches("NoSuchBucket").count(), 1, "{}", refused.stderr);
    let away = with("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    assert_eq!(away.code, Some(75), "{away:?}");
    // Without a prefix everything stands at the bucket's root.
    let whole = with("TALLYROLL__OUTPUT__URL", "s3://finance");
    assert_eq!(whole.code, Some(0), "{whole:?}");
    let again = with("TALLYROLL__OUTPUT__URL", "s3://finance");
    assert!(again.stdout.starts_with("Nothing is due"), "{again:?}");
    let read_only = Finished::of(&command(&fixture, &[("TALLYROLL__OUTPUT__URL", "/proc/out".to_owned())]).output().unwrap());
    assert_ne!(read_only.code, Some(0), "{read_only:?}");
}
