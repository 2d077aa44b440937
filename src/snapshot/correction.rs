//! The rows of a later revision: what a closed subscription month says now, what that differs from before, and why.

use super::peak_row::{Entry, PeakRow};
use crate::seats::Coverage;
use crate::seats::calendar::State;

/// Why a row of the journal stands at nothing.
const NO_LONGER_THERE: &str = "subscription month no longer exists";

/// Whether a row takes its subscription month back.
pub(super) fn is_gone(row: &PeakRow<'_>) -> bool {
    row.entry.correction_reason.as_deref() == Some(NO_LONGER_THERE)
}

/// What a subscription month says now, instead of `before`, or for the first time after its billing month closed.
pub(super) fn changed<'a>(before: Option<&PeakRow<'_>>, now: PeakRow<'a>, number: i32, as_of: i64) -> PeakRow<'a> {
    let reason = before.map_or_else(|| "subscription month added after closing".to_owned(), |before| reason(before, &now));
    correction(before, now, number, as_of, reason)
}

/// A subscription month that is no longer there.
pub(super) fn gone<'a>(before: &PeakRow<'a>, number: i32, as_of: i64) -> PeakRow<'a> {
    correction(Some(before), nothing_of(before), number, as_of, NO_LONGER_THERE.to_owned())
}

fn correction<'a>(before: Option<&PeakRow<'_>>, now: PeakRow<'a>, number: i32, as_of: i64, reason: String) -> PeakRow<'a> {
    let overage_before = before.and_then(PeakRow::overage_seats);
    let overage_now = now.overage_seats();
    let overage_seats_delta =
        (overage_before.is_some() || overage_now.is_some()).then(|| overage_now.unwrap_or_default() - overage_before.unwrap_or_default());
    let entry = Entry {
        revision: number,
        is_correction: true,
        peak_seats_delta: now.month.peak_seats - before.map_or(0, |before| before.month.peak_seats),
        overage_seats_delta,
        correction_reason: Some(reason.into()),
    };
    PeakRow { as_of, entry, state: State::Final, ..now }
}

/// A subscription month taken back: nobody held a seat in it.
fn nothing_of<'a>(before: &PeakRow<'a>) -> PeakRow<'a> {
    let mut row = before.clone();
    let month = &mut row.month;
    month.coverage = Coverage::None;
    (month.peak_seats, month.seconds_at_peak, month.ledger_rows, month.term_peak_seats) = (0, 0, 0, 0);
    (month.peak_at, month.peak_event_id, month.peak_carried_in) = (None, None, false);
    (month.opening_seats, month.closing_seats, month.min_seats, month.avg_seats_micros) = (None, None, None, None);
    row
}

/// What made a row differ, for a person.
fn reason(before: &PeakRow<'_>, now: &PeakRow<'_>) -> String {
    let (old, new) = (&before.month, &now.month);
    let shown = |number: Option<i64>| number.map_or("none".to_owned(), |number| number.to_string());
    if before.org_id != now.org_id {
        return "subscription changed: another org".to_owned();
    }
    if old.period != new.period {
        return "subscription changed: its start or end".to_owned();
    }
    let agreed =
        [("plan", before.plan.as_deref(), now.plan.as_deref()), ("licence", before.license_id.as_deref(), now.license_id.as_deref())];
    let mut changed: Vec<String> = agreed
        .iter()
        .filter(|(_, before, now)| before != now)
        .map(|(name, before, now)| format!("{name} {} -> {}", before.unwrap_or("none"), now.unwrap_or("none")))
        .collect();
    if before.committed_seats != now.committed_seats {
        changed.push(format!("committed seats {} -> {}", shown(before.committed_seats), shown(now.committed_seats)));
    }
    if !changed.is_empty() {
        return format!("subscription changed: {}", changed.join(", "));
    }
    if (old.peak_seats, old.peak_event_id) != (new.peak_seats, new.peak_event_id) {
        let set_by = |month: &crate::seats::MonthPeak| format!("{} by row {}", month.peak_seats, shown(month.peak_event_id));
        return format!("late ledger row: peak {} -> {}", set_by(old), set_by(new));
    }
    if old.term_peak_seats != new.term_peak_seats && old.ledger_rows == new.ledger_rows && old.avg_seats_micros == new.avg_seats_micros {
        return format!("late ledger row in an earlier month: term peak {} -> {}", old.term_peak_seats, new.term_peak_seats);
    }
    format!("late ledger row: rows in the month {} -> {}", old.ledger_rows, new.ledger_rows)
}
