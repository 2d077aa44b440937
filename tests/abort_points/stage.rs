//! One command on one state of a database: run undisturbed, it passes points; killed at any of them and run again, it ends in the same.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;

use crate::support::template::{Template, Whole};
use crate::support::{Finished, Fixture};

/// A point, and which time that a process comes to it.
pub type At<'a> = (&'a str, usize);

pub struct Stage {
    before: Template,
    command: &'static [&'static str],
    /// Exit code of the command, undisturbed.
    code: i32,
    /// How often an undisturbed run passes each point.
    pub passed: BTreeMap<String, usize>,
    after: Whole,
}

impl Stage {
    /// Runs the command undisturbed; gives the state after it, too, for a next stage.
    pub async fn of(fixture: Fixture, command: &'static [&'static str], code: i32) -> (Self, Fixture) {
        let before = fixture.freeze().await;
        let fixture = before.copy().await;
        let trace = tempfile::NamedTempFile::new().unwrap();
        let output = fixture.command(command).env("TALLYROLL_ABORT_TRACE", trace.path()).output().unwrap();
        let finished = Finished::of(&output);
        assert_eq!(finished.code, Some(code), "{command:?}\n{}\n{}", finished.stdout, finished.stderr);
        let mut passed = BTreeMap::new();
        for name in std::fs::read_to_string(trace.path()).unwrap().lines() {
            *passed.entry(name.to_owned()).or_default() += 1;
        }
        let stage = Self { before, command, code, passed, after: fixture.whole().await };
        stage.run_again(&fixture);
        stage.assert_same(&fixture, "run twice").await;
        (stage, fixture)
    }

    /// Kills the command at each point in turn, runs it again, and compares.
    ///
    /// Whatever was sealed when it was killed stays as it was. Whether the last of several kills was reached.
    pub async fn killed(&self, kills: &[At<'_>]) -> bool {
        let fixture = self.before.copy().await;
        let mut sealed = BTreeMap::new();
        let mut landed = true;
        for (index, (point, count)) in kills.iter().enumerate() {
            let output = fixture.command(self.command).env("TALLYROLL_ABORT_AT", format!("{point}:{count}")).output().unwrap();
            landed = output.status.signal() == Some(9);
            // What the first kill left may spare the next run the point.
            assert!(landed || index > 0, "{:?} at {kills:?}: {:?}", self.command, Finished::of(&output));
            let files = fixture.out().into_iter().filter(|(path, _)| path.contains("/final/") && !path.contains("/."));
            for (path, bytes) in files {
                let known = sealed.entry(path.clone()).or_insert_with(|| bytes.clone());
                assert!(*known == bytes, "{:?} at {kills:?}: the sealed {path} changed", self.command);
            }
        }
        self.run_again(&fixture);
        self.assert_same(&fixture, &format!("killed at {kills:?}")).await;
        assert!(sealed.iter().all(|(path, bytes)| self.after.files.get(path) == Some(bytes)), "{:?} at {kills:?}", self.command);
        fixture.remove().await;
        landed
    }

    /// Tells the command to stop at a point; it says in its records that it did, and holds nothing. Then runs it again, and compares.
    pub async fn stopped(&self, (point, count): At<'_>) {
        let fixture = self.before.copy().await;
        let output = fixture.command(self.command).env("TALLYROLL_ABORT_AT", format!("{point}:{count}:TERM")).output().unwrap();
        let finished = Finished::of(&output);
        // One that hears it when all is done ends as it would have.
        assert!([Some(143), Some(self.code)].contains(&finished.code), "{:?} stopped at {point}:{count}: {finished:?}", self.command);
        let left =
            "SELECT job, state FROM job_run WHERE state = 'running' UNION ALL SELECT job, run_id FROM job_lock WHERE run_id IS NOT NULL";
        let left = fixture.rows(left).await;
        assert!(left.is_empty(), "{:?} stopped at {point}:{count} left {left:?}", self.command);
        self.run_again(&fixture);
        self.assert_same(&fixture, &format!("stopped at {point}:{count}")).await;
        fixture.remove().await;
    }

    /// The plain command; one of schedules until none is due.
    fn run_again(&self, fixture: &Fixture) {
        for _ in 0..5 {
            let finished = fixture.run(self.command);
            assert!(
                finished.code == Some(self.code),
                "{:?} run again: {:?}\n{}\n{}",
                self.command,
                finished.code,
                finished.stdout,
                finished.stderr
            );
            if self.command[0] != "run-due" || finished.stdout.is_empty() {
                return;
            }
        }
        panic!("schedules go on being due");
    }

    async fn assert_same(&self, fixture: &Fixture, when: &str) {
        let differences = self.after.differences(&fixture.whole().await);
        assert!(differences.is_empty(), "{:?} {when}:\n{}", self.command, differences.join("\n"));
    }

    pub async fn remove(self) {
        self.before.remove().await;
    }
}
