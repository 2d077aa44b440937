//! Little memory, few file descriptors.

use std::process::Command;

use super::{RUN, fill, undisturbed};
use crate::on_both_databases;
use crate::support::{Engine, Finished, Fixture};

on_both_databases!(few_file_descriptors, little_memory);

/// The command under prlimit(1).
fn limited(fixture: &Fixture, limit: &str, arguments: &[&str]) -> Finished {
    let inherited = fixture.command(&[]);
    let mut command = Command::new("prlimit");
    command.arg(limit).arg(env!("CARGO_BIN_EXE_tallyroll")).args(arguments).current_dir(fixture.path());
    command.env_clear().envs(inherited.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Finished::of(&command.env("PATH", "/usr/bin:/bin").output().expect("the tests need prlimit(1) of util-linux"))
}

async fn few_file_descriptors(engine: Engine) {
    let expected = undisturbed(engine).await;
    for count in [16, 24, 32] {
        let fixture = Fixture::new(engine).await;
        fill(&fixture, engine).await;
        let finished = limited(&fixture, &format!("--nofile={count}"), RUN);
        // A truth about descriptors, or a run that is whole.
        assert!(finished.code == Some(0) || finished.stderr.contains("error:"), "{count}: {finished:?}");
        assert!(count < 32 || finished.code == Some(0), "{count}: {finished:?}");
        fixture.run_well(RUN);
        assert_eq!(fixture.results().await, expected, "{count}");
    }
}

async fn little_memory(engine: Engine) {
    let expected = undisturbed(engine).await;
    // What is limited is address space, not memory: glibc reserves 64 MB of it for each thread that allocates, so that
    // only the last is always enough.
    for megabytes in [64_u64, 128, 192, 256, 384, 512, 1024, 4096] {
        let fixture = Fixture::new(engine).await;
        fill(&fixture, engine).await;
        let finished = limited(&fixture, &format!("--as={}", megabytes << 20), RUN);
        assert!(megabytes < 4096 || finished.code == Some(0), "{megabytes} MB: {finished:?}");
        fixture.run_well(RUN);
        assert_eq!(fixture.results().await, expected, "{megabytes} MB, exit code {:?}", finished.code);
    }
}
