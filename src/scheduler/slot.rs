//! Which slots are due, and what happens to each. Pure: it takes a schedule, what is known of its slots, and an instant.

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::{CatchUp, Overlap, Schedule};

/// What is known of a job's slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The newest slot that was ever decided on.
    pub latest: Option<DateTime<Utc>>,
    /// Whether a scheduler is at work on one.
    pub is_busy: bool,
    pub last_finished_at: Option<DateTime<Utc>>,
}

/// What happens to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Run,
    /// It came while nothing ran, and `catch_up` leaves it out.
    Missed,
    /// It came while the job was still at work, and `overlap` is `skip`.
    Skipped,
}

impl Fate {
    pub(super) fn state(self) -> SlotState {
        match self {
            Self::Run => SlotState::Running,
            Self::Missed => SlotState::Missed,
            Self::Skipped => SlotState::Skipped,
        }
    }
}

/// The state of a slot, as `schedule_state` keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotState {
    Running,
    Success,
    Failed,
    Missed,
    Skipped,
}

impl SlotState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Missed => "missed",
            Self::Skipped => "skipped",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Running, Self::Success, Self::Failed, Self::Missed, Self::Skipped].into_iter().find(|state| state.name() == name)
    }
}

/// What came of a slot that was run to its end.
#[derive(Debug, Clone)]
pub(super) struct SlotOutcome {
    pub(super) state: SlotState,
    pub(super) run_id: Option<String>,
    pub(super) error_text: Option<String>,
    /// The number of the last try.
    pub(super) attempts: i64,
}

/// The slots that are due, oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decided {
    pub slots: Vec<(DateTime<Utc>, Fate)>,
    /// When the first slot begins that is only waiting for its jitter.
    pub next_at: Option<DateTime<Utc>>,
}

/// A slot that begins later than this was missed. `run-due` comes once a minute.
const ON_TIME: TimeDelta = TimeDelta::minutes(2);

/// The slots of a job seen for the first time count from this long ago, so that the minute that woke us counts.
pub(super) const FIRST_LOOK: TimeDelta = TimeDelta::minutes(1);

/// Decides on the slots since the latest one known. If the clock was set back there are none: slots never go back.
#[must_use]
pub fn decide(job: &str, schedule: &Schedule, known: &Known, now: DateTime<Utc>) -> Decided {
    let mut decided = Decided::default();
    let mut due = Vec::new();
    for slot in schedule.slots(known.latest.unwrap_or(now - FIRST_LOOK), now) {
        let begins_at = slot + schedule.delay(job, slot);
        if begins_at > now {
            decided.next_at = Some(begins_at);
            break;
        }
        due.push(slot);
    }
    let Some(newest) = due.last().copied() else { return decided };
    if known.is_busy {
        if schedule.settings.overlap == Overlap::Skip {
            decided.slots = due.into_iter().map(|slot| (slot, Fate::Skipped)).collect();
        }
        return decided;
    }
    // A slot that waited for the run before it is not late.
    let waited_since = known.last_finished_at.map_or(newest, |finished_at| finished_at.max(newest));
    let is_on_time = now - waited_since <= ON_TIME + schedule.delay(job, newest);
    decided.slots = due
        .into_iter()
        .map(|slot| {
            let runs = match schedule.settings.catch_up {
                CatchUp::All => true,
                CatchUp::Latest => slot == newest,
                CatchUp::None => slot == newest && is_on_time,
            };
            (slot, if runs { Fate::Run } else { Fate::Missed })
        })
        .collect();
    decided
}
