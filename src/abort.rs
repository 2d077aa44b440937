//! Points at which the tests kill or stop the process, each named for the step that has just been taken. They are compiled in by the feature
//! `abort-points` alone; without it a point is nothing.

/// With `TALLYROLL_ABORT_AT=name` the process dies here by SIGKILL, with `name:n` the nth time that it comes here.
/// With `name:n:TERM` it is told to stop instead, and goes on once it has heard; with `name:n:STOP` it waits until somebody continues it.
/// With `TALLYROLL_ABORT_TRACE=file` it goes on, and each name that it passes is a line of the file.
#[cfg(feature = "abort-points")]
pub use armed::point;

#[cfg(not(feature = "abort-points"))]
#[inline]
pub fn point(_name: &str) {}

// A binary for use never has them.
#[cfg(all(feature = "abort-points", not(debug_assertions)))]
compile_error!("the feature `abort-points` is for tests: a release build must not have it");

/// Every point; a test compares them with the calls in the source.
pub const POINTS: [&str; 67] = [
    "lock_taken_over",
    "lock_before_commit",
    "lock_acquired",
    "plan_kept",
    "plan_committed",
    "run_before_finish",
    "run_finished",
    "lock_released",
    "log_kept",
    "table_made",
    "window_computed",
    "rows_deleted",
    "rows_written",
    "quarantine_written",
    "quarantine_committed",
    "window_recorded",
    "rollup_deleted",
    "rollup_written",
    "pass_written",
    "window_before_commit",
    "window_committed",
    "failure_before_commit",
    "failure_committed",
    "derived_deleted",
    "derived_written",
    "usage_monthly_put",
    "dashboards_deleted",
    "dashboards_written",
    "reconciliation_written",
    "output_claimed",
    "revision_intended",
    "revision_put",
    "revision_read_back",
    "csv_put",
    "manifest_put",
    "success_put",
    "month_sealed",
    "peaks_deleted",
    "peaks_written",
    "snapshot_recorded",
    "current_put",
    "file_before_rename",
    "import_batch",
    "import_before_commit",
    "import_committed",
    "seats_before_commit",
    "seats_recorded",
    "migration_applied",
    "slots_before_commit",
    "slots_claimed",
    "slots_taken_over",
    "slot_begun",
    "slot_before_finish",
    "slot_finished",
    "history_tidied",
    "part_put",
    "day_read_back",
    "lake_manifest_put",
    "day_copied",
    "day_counted",
    "rows_of_table_deleted",
    "delete_before_commit",
    "delete_committed",
    "day_archived",
    "rows_put_back",
    "restore_before_commit",
    "restore_committed",
];

#[cfg(feature = "abort-points")]
mod armed {
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::POINTS;

    struct Armed {
        name: String,
        /// How often the point is still to be passed.
        left: AtomicU64,
        signal: Signal,
    }

    /// Time enough for the task that waits for signals.
    const HEARING: Duration = Duration::from_millis(100);

    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

    pub fn point(name: &str) {
        trace(name);
        let Some(armed) = ARMED.get_or_init(armed).as_ref().filter(|armed| armed.name == name) else { return };
        if armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = kill_process(getpid(), armed.signal);
            if armed.signal != Signal::KILL {
                return std::thread::sleep(HEARING);
            }
            // Until the signal has come nothing else may happen.
            loop {
                std::thread::park();
            }
        }
    }

    fn armed() -> Option<Armed> {
        let text = std::env::var("TALLYROLL_ABORT_AT").ok()?;
        let signals = [(":TERM", Signal::TERM), (":STOP", Signal::STOP)];
        let signal = |(suffix, signal)| text.strip_suffix(suffix).map(|text| (text, signal));
        let (text, signal) = signals.into_iter().find_map(signal).unwrap_or((&text, Signal::KILL));
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        let left: u64 = count.parse().unwrap_or_default();
        // One that is never reached would test nothing.
        assert!(POINTS.contains(&name) && left > 0, "TALLYROLL_ABORT_AT: there is no abort point `{text}`");
        Some(Armed { name: name.to_owned(), left: AtomicU64::new(left), signal })
    }

    fn trace(name: &str) {
        let Some(path) = std::env::var_os("TALLYROLL_ABORT_TRACE") else { return };
        if let Ok(mut file) = std::fs::File::options().create(true).append(true).open(path) {
            let _ = file.write_all(format!("{name}\n").as_bytes());
        }
    }
}
