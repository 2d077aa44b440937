//! The archive while others write, while it is killed at any moment, and where the disk is full: no row is lost, and none counts twice.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{COUNT, RECONCILE, archive, assert_same, counted, delete, raw_rows};
use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture, repetitions};

on_both_databases!(a_day_that_changes_after_it_was_copied_stays, killed_at_random_moments);

const DAY: [&str; 5] = ["archive", "--day", "2026-02-28", "--as-of", "2026-07-15T00:00:00Z"];

/// The command, held at a point.
fn held(fixture: &Fixture, arguments: &[&str], point: &str) -> Child {
    let child = fixture.command(arguments).env("TALLYROLL_ABORT_AT", format!("{point}:1:STOP")).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let is_held = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap().rsplit(") ").next().unwrap().starts_with('T');
    while !is_held() {
        assert!(Instant::now() < deadline, "it did not come to `{point}`");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

async fn a_day_that_changes_after_it_was_copied_stays(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    delete(&fixture);
    let chat = "FROM chat_requests WHERE id = '00000000-0000-4000-8000-00000000c001'";
    let changes = [
        "UPDATE chat_requests SET prompt = 'another' WHERE id = '00000000-0000-4000-8000-00000000c001'".to_owned(),
        "UPDATE request_analytics SET category = 'newer' WHERE id = '00000000-0000-4000-8000-00000000a001'".to_owned(),
        "UPDATE chat_requests SET status = 'failed' WHERE id = '00000000-0000-4000-8000-00000000c002'".to_owned(),
        format!(
            "INSERT INTO chat_requests (id, user_id, model, tokens_used, status, created_at) SELECT \
             '00000000-0000-4000-8000-00000000c003', user_id, model, 5, status, created_at {chat}"
        ),
        "DELETE FROM request_analytics WHERE id = '00000000-0000-4000-8000-00000000a002'".to_owned(),
    ];
    // Before a run's plan is asked whether the day is counted whole, and after it has said so.
    let points = ["day_copied", "day_counted", "day_copied", "day_counted", "day_counted"];
    for (change, point) in changes.iter().zip(points) {
        let child = held(&fixture, &DAY, point);
        fixture.execute(change).await;
        let rows = raw_rows(&fixture).await;
        kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
        let ended = Finished::of(&child.wait_with_output().unwrap());
        let is_found = point == "day_counted";
        assert_eq!(ended.code, Some(if is_found { 65 } else { 0 }), "{change}: {ended:?}");
        assert!(!is_found || ended.stderr.contains("The day changed after it was copied"), "{change}: {}", ended.stderr);
        assert_eq!(raw_rows(&fixture).await, rows, "{change}");
        assert_eq!(fixture.number("SELECT COUNT(*) FROM archived_day WHERE source = 'chat_requests'").await, 0, "{change}");
        fixture.run_well(&COUNT);
    }
    let (rows, before) = (raw_rows(&fixture).await, fixture.results().await);
    fixture.run_well(&DAY);
    assert_eq!(fixture.number("SELECT event_count FROM archived_day WHERE source = 'chat_requests'").await, 3);
    assert!(fixture.run_well(&COUNT).starts_with("Nothing is due"));
    fixture.run_well(&["archive", "--restore", "2026-02-28"]);
    assert_eq!(raw_rows(&fixture).await, rows);
    fixture.run_well(&COUNT);
    assert_same(&fixture.results().await, &before);
}

async fn killed_at_random_moments(engine: Engine) {
    let fixture = counted(engine, "UTC").await;
    delete(&fixture);
    let (rows, before) = (raw_rows(&fixture).await, fixture.results().await);
    let start = Instant::now();
    archive(&fixture);
    let whole = start.elapsed();
    let days = fixture.rows("SELECT DISTINCT event_date FROM archived_day ORDER BY 1").await;
    let mut landed = 0;
    let count = repetitions(2, 50);
    for repetition in 0..count {
        // Spread by the golden ratio: no two moments alike, the same in every test run.
        #[allow(clippy::cast_precision_loss, reason = "a moment")]
        let moment = (repetition as f64 * 0.618_034 + 0.3).fract();
        for day in &days {
            let mut child = fixture.command(&["archive", "--restore", day]).spawn().unwrap();
            tokio::time::sleep(whole.mul_f64(moment / 4.0)).await;
            child.kill().unwrap();
            landed += u32::from(!child.wait().unwrap().success());
            fixture.run_well(&["archive", "--restore", day]);
        }
        assert_eq!(raw_rows(&fixture).await, rows, "restore {repetition}");
        assert_eq!(fixture.number("SELECT COUNT(*) FROM archived_day").await, 0);
        fixture.run_well(&COUNT);
        assert_same(&fixture.results().await, &before);
        let mut child = fixture.command(&["archive", "--as-of", "2026-07-15T00:00:00Z"]).spawn().unwrap();
        tokio::time::sleep(whole.mul_f64(moment)).await;
        child.kill().unwrap();
        landed += u32::from(!child.wait().unwrap().success());
        // What the killed one has done is counted as before, and the next one finishes it.
        fixture.run_well(&[&COUNT[..], &["--rebuild"]].concat());
        assert_same(&fixture.results().await, &before);
        archive(&fixture);
        fixture.run_well(&["archive", "--verify"]);
    }
    fixture.run_well(&[&COUNT[..], &["--rebuild"]].concat());
    assert_same(&fixture.results().await, &before);
    fixture.run_well(&RECONCILE);
    println!("{landed} kills hit an archive or a restore at work");
    assert!(landed > 0, "no kill hit");
}

/// The folder of the lake is full: nothing is deleted, and the next run goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_under_the_lake() {
    let fixture = counted(Engine::Sqlite, "UTC").await;
    delete(&fixture);
    let settings = fs::read_to_string(fixture.path().join("tallyroll.toml")).unwrap();
    fixture.write("tallyroll.toml", &format!("{settings}url = \"./disk/lake\"\n"));
    let (rows, before) = (raw_rows(&fixture).await, fixture.results().await);
    // In a mount namespace of its own: nothing is left behind.
    let script = format!(
        "mkdir disk && mount -t tmpfs -o size=64k tmpfs disk || exit 99\n\
         {binary} {run} 2>full.err; echo $? >full.code\n{binary} archive --list --json >full.list\n\
         mount -o remount,size=64m disk\n{binary} {run} || exit 98\n{binary} archive --verify || exit 97\n\
         {binary} {rebuild} || exit 96\n",
        binary = env!("CARGO_BIN_EXE_tallyroll"),
        run = "archive --as-of 2026-07-15T00:00:00Z",
        rebuild = [&COUNT[..], &["--rebuild"]].concat().join(" "),
    );
    fixture.run_in_own_mounts(&script);
    let read = |name: &str| fs::read_to_string(fixture.path().join(name)).unwrap();
    assert!(read("full.code").trim() == "75" && read("full.err").contains("disk"), "{} {}", read("full.code"), read("full.err"));
    // Some days were archived before it was full, and others not.
    let done = read("full.list").lines().count();
    let all = usize::try_from(fixture.number("SELECT COUNT(*) FROM archived_day").await).unwrap();
    assert!((1..all).contains(&done), "{done} of {all}");
    assert_same(&fixture.results().await, &before);
    assert!(raw_rows(&fixture).await["usage_event"].is_empty() && !rows["usage_event"].is_empty());
}
