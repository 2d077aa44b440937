//! An SQLite file that somebody else locks, that may not be written, that a killed process left, that is broken.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::{RUN, fill, undisturbed};
use crate::support::{Engine, Finished, Fixture, repetitions};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_writer_locks() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fill(&fixture, Engine::Sqlite).await;
    let expected = undisturbed(Engine::Sqlite).await;
    let mut tx = fixture.store.begin().await.unwrap();
    tx.execute("UPDATE job_lock SET job = job", &[]).await.unwrap();
    let waiting = fixture.command(RUN).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(tx);
    let waited = Finished::of(&waiting.wait_with_output().unwrap());
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert_eq!(fixture.results().await, expected);
    // Longer than a run waits: half a minute.
    if repetitions(0, 1) == 1 {
        fixture.execute("UPDATE ai_usage_log SET tool_turns = 1").await;
        let tx = fixture.store.begin().await.unwrap();
        let refused = fixture.run(RUN);
        assert_eq!(refused.code, Some(75), "{refused:?}");
        assert!(refused.stderr.contains("can be repeated as it is"), "{}", refused.stderr);
        drop(tx);
        fixture.run_well(RUN);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_be_written() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fill(&fixture, Engine::Sqlite).await;
    fixture.store.close().await;
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(fixture.path().join("tallyroll.db"), fs::Permissions::from_mode(0o444)).unwrap();
    for file in ["tallyroll.db-wal", "tallyroll.db-shm"] {
        let _ = fs::remove_file(fixture.path().join(file));
    }
    // Root writes what it likes: the command runs as nobody.
    let binary = fixture.path().join("tallyroll");
    fs::copy(env!("CARGO_BIN_EXE_tallyroll"), &binary).unwrap();
    let inherited = fixture.command(&[]);
    let mut command = crate::support::cluster::as_server(&binary);
    command.args(RUN).current_dir(fixture.path()).env_clear();
    command.envs(inherited.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", std::env::var_os("PATH").unwrap());
    let refused = Finished::of(&command.output().unwrap());
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("may write") || refused.stderr.contains("read-only"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_that_a_killed_process_left() {
    let expected = undisturbed(Engine::Sqlite).await;
    let fixture = Fixture::new(Engine::Sqlite).await;
    fill(&fixture, Engine::Sqlite).await;
    let mut child = fixture.command(RUN).spawn().unwrap();
    while fixture.number("SELECT COUNT(*) FROM job_window WHERE state = 'done'").await < 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // As after a power cut: the file and its log, copied while the test's connections are open; once without the log's index.
    for keep_index in [true, false] {
        let copy = Fixture::empty(Engine::Sqlite).await;
        copy.store.close().await;
        for file in ["tallyroll.db", "tallyroll.db-wal", "tallyroll.db-shm"] {
            let _ = fs::remove_file(copy.path().join(file));
            if keep_index || !file.ends_with("shm") {
                fs::copy(fixture.path().join(file), copy.path().join(file)).unwrap();
            }
        }
        copy.run_well(RUN);
        let copy = Fixture::reopened(copy).await;
        assert_eq!(copy.results().await, expected, "with the log's index: {keep_index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_broken_page() {
    let fixture = Fixture::new(Engine::Sqlite).await;
    fill(&fixture, Engine::Sqlite).await;
    fixture.run_well(RUN);
    let page = fixture.number("SELECT rootpage FROM sqlite_schema WHERE name = 'ai_usage_log'").await;
    let size = fixture.number("PRAGMA page_size").await;
    fixture.store.close().await;
    let file = fixture.path().join("tallyroll.db");
    let whole = fs::read(&file).unwrap();
    let mut broken = whole.clone();
    let at = usize::try_from((page - 1) * size).unwrap();
    broken[at..at + 64].fill(0xA5);
    fs::write(&file, &broken).unwrap();
    let refused = fixture.run(&["run-job", "usage_daily", "--rebuild", "--as-of", "2026-04-15T00:00:00Z"]);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("is damaged") && refused.stderr.contains("restore"), "{}", refused.stderr);
    // Not a database at all.
    fs::write(&file, "This is no database, but a letter, and a long one, so that a header would have had its place in it.\n".repeat(50))
        .unwrap();
    let refused = fixture.run(RUN);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    // The copy comes back, and all is well.
    fs::write(&file, &whole).unwrap();
    fixture.run_well(RUN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_under_the_file() {
    let expected = undisturbed(Engine::Sqlite).await;
    let fixture = Fixture::new(Engine::Sqlite).await;
    fill(&fixture, Engine::Sqlite).await;
    fixture.store.close().await;
    // In a mount namespace of its own: nothing is left behind.
    let script = format!(
        "mkdir disk && mount -t tmpfs -o size=64m tmpfs disk || exit 99\n\
         cp tallyroll.db disk/ && mount -o remount,size=$(( ($(stat -c %s tallyroll.db) / 1024 + 120) ))k disk || exit 99\n\
         export DATABASE_URL=sqlite://$PWD/disk/tallyroll.db\n\
         {binary} {run} 2>full.err; echo $? >full.code\n\
         mount -o remount,size=64m disk\n{binary} {run} || exit 98\n\
         rm -f tallyroll.db-wal tallyroll.db-shm; cp disk/tallyroll.db* .\numount disk\n",
        binary = env!("CARGO_BIN_EXE_tallyroll"),
        run = RUN.join(" "),
    );
    fixture.run_in_own_mounts(&script);
    let read = |name: &str| fs::read_to_string(fixture.path().join(name)).unwrap();
    assert_eq!(read("full.code").trim(), "75", "{}", read("full.err"));
    assert!(read("full.err").contains("full"), "{}", read("full.err"));
    let fixture = Fixture::reopened(fixture).await;
    assert_eq!(fixture.results().await, expected);
}
