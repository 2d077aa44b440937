//! Which billing months say something else than was published of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::fold::{self, Order};
use super::folded::{Folded, FoldedMonth, MadeFrom, SEALED_MARK};
use super::{FoundLedger, PeakSeats};
use crate::engine::due::{DueWindows, Look};
use crate::engine::request::{ASKED_FOR, FORCED, Request};
use crate::failure::Failure;
use crate::seats::calendar::{BillingMonth, State};
use crate::snapshot::{self, CURRENT_FOLDER, FINAL_FOLDER, journal, owner};
use crate::store::Store;
use crate::store::windows::{WindowRecord, WindowState};
use crate::window::Window;

/// What is published of a month, and what the database knows of it.
#[derive(Debug, Default)]
struct Published {
    /// The latest revision of which there is a file, those whose Parquet file is there, and how many were recorded.
    revisions: i64,
    with_rows: BTreeSet<i64>,
    recorded: i64,
    has_current: bool,
}

impl Published {
    /// Why what is there is not what was recorded, if so: a run was killed or lost its lock, or files are gone.
    fn difference(&self) -> Option<&'static str> {
        match self {
            Self { revisions, recorded, .. } if revisions > recorded => Some("its journal holds a revision that was not recorded"),
            Self { with_rows, recorded, .. } if (1..=*recorded).any(|number| !with_rows.contains(&number)) => {
                Some("its sealed files are missing")
            }
            Self { has_current: false, .. } => Some("its file in `current/` is missing"),
            _ => None,
        }
    }
}

/// How often the ledger is read to collect the rows of closed months that have changed.
const MAX_PASSES: usize = 4;

impl PeakSeats {
    /// The windows to write, each with its reason. Nothing is sealed that had not ended, with its grace, at `now`.
    ///
    /// # Errors
    /// What the ledger says; [`Failure`] of kind usage for a month that is asked for and cannot be written.
    pub async fn due(&self, look: &mut Look<'_>, before: Option<&Arc<FoundLedger>>) -> Result<(DueWindows, Arc<FoundLedger>)> {
        let (store, states, request, now) = (&look.context.store, look.states, look.request, look.context.clock.now());
        owner::check(&self.storage, store).await?;
        let published = self.published(store, now).await?;
        // As the first look found it, before this run recorded anything.
        let has_sealed = if let Some(before) = before {
            before.has_sealed
        } else {
            let sql = "SELECT 1 AS one FROM snapshot_file WHERE state = $1 LIMIT 1";
            !store.query(sql, &[State::Final.name().into()]).await?.is_empty()
        };
        let folded = self.folded(look, now, &published, before.map(|before| &before.folded)).await?;
        let mut due = DueWindows::new();
        for (window, month) in &folded.months {
            let is_sealed = folded.sealed.contains(window);
            if request.from.is_none() {
                let difference = published.get(window).unwrap_or(&Published::default()).difference();
                due.extend(reason(states.get(window), month, is_sealed, difference, request).map(|reason| (*window, reason)));
            } else if folded.is_asked_for(*window) {
                if is_sealed && !folded.has_ended(*window) {
                    return Err(Failure::usage(format!(
                        "Billing month {window} is sealed; a run as of {} cannot change it",
                        request.as_of
                    ))
                    .hint("leave `--as-of` out, or name an instant after the month")
                    .into());
                }
                due.insert(*window, ASKED_FOR.to_owned());
            }
        }
        if let (Some(from), true) = (request.from, due.is_empty()) {
            return Err(Failure::usage(format!("No subscription month ends in {} as of {}", from.format("%Y-%m"), request.as_of))
                .hint("name a billing month that holds the last day of a subscription month, up to the one that `--as-of` lies in")
                .into());
        }
        Ok((due, Arc::new(FoundLedger { folded, has_sealed })))
    }

    /// What every billing month says; made once for a plan and its run.
    async fn folded(
        &self,
        look: &Look<'_>,
        now: DateTime<Utc>,
        published: &BTreeMap<Window, Published>,
        known: Option<&Arc<Folded>>,
    ) -> Result<Arc<Folded>> {
        let (store, states, request) = (&look.context.store, look.states, look.request);
        let made_from = MadeFrom::new(states, request);
        // A listing of the storage may have said less when the plan was made first.
        let is_collected = |known: &Folded| {
            published
                .iter()
                .all(|(window, month)| month.difference().is_none() || !known.months.contains_key(window) || known.is_collected(*window))
        };
        if let Some(known) = known.filter(|known| known.is_from(&made_from) && is_collected(known)) {
            return Ok(Arc::clone(known));
        }
        let was_sealed = states.values().filter(|state| is_sealed(state)).map(|state| state.window);
        let in_journal = published.iter().filter(|(_, month)| month.revisions > 0).map(|(window, _)| *window);
        let sealed: BTreeSet<Window> = in_journal.chain(was_sealed).collect();
        let project_id = owner::project_id(store).await?;
        let order = Order { states, made_from: made_from.clone(), sealed: sealed.clone(), now, grace_hours: self.grace_hours, project_id };
        let mut changed: BTreeSet<Window> = BTreeSet::new();
        for _ in 0..MAX_PASSES {
            let keep = |window: Window| {
                let is_done = states.get(&window).is_some_and(|state| state.state == WindowState::Done);
                let is_as_recorded = published.get(&window).is_some_and(|month| month.difference().is_none());
                let is_settled = sealed.contains(&window) && is_done && is_as_recorded && !request.force && !request.rebuild;
                let is_named = request.from.is_none() || made_from.is_asked_for(window);
                is_named && (!is_settled || request.from.is_some()) || changed.contains(&window)
            };
            let folded = fold::fold(&self.source, store, &order, keep).await?;
            // A closed month whose facts changed is rare: its rows are collected by a second pass.
            let differs = |window: &Window| {
                let fingerprint = folded.months.get(window).map(FoldedMonth::fingerprint);
                request.from.is_none() && states.get(window).is_some_and(|state| state.input_fingerprint != fingerprint)
            };
            let missing: Vec<Window> = sealed
                .iter()
                .filter(|window| folded.has_ended(**window) && differs(window) && !folded.is_collected(**window))
                .copied()
                .collect();
            if missing.is_empty() {
                return Ok(Arc::new(folded));
            }
            changed.extend(missing);
        }
        Err(Failure::try_again("Closed months change while they are being looked at").hint("this command can be repeated as it is").into())
    }

    /// What the storage holds of each month, and what the database knows of it.
    async fn published(&self, store: &Store, now: DateTime<Utc>) -> Result<BTreeMap<Window, Published>> {
        let mut published: BTreeMap<Window, Published> = BTreeMap::new();
        for path in self.storage.list(FINAL_FOLDER).await? {
            if let Some((month, number)) = journal::revision_of(&path) {
                let known = published.entry(month.window()?).or_default();
                known.revisions = known.revisions.max(number.into());
                if path == journal::rows_path(month, number) {
                    known.with_rows.insert(number.into());
                }
            }
        }
        for path in self.storage.list(CURRENT_FOLDER).await? {
            if let Some(month) = snapshot::current_month(&path) {
                published.entry(month.window()?).or_default().has_current = true;
            }
        }
        let sql = "SELECT billing_month, MAX(revision) AS revision FROM snapshot_file WHERE state = 'final' GROUP BY billing_month";
        for row in store.query(sql, &[]).await? {
            if let Some(month) = BillingMonth::parse(&row.text("billing_month")?) {
                published.entry(month.window()?).or_default().recorded = row.int("revision")?;
            }
        }
        for (window, month) in &mut published {
            let billing_month = BillingMonth::of(window.start_date);
            if month.revisions > 0 && month.recorded == 0 && now < billing_month.closes_at(self.grace_hours)? {
                tracing::warn!(%billing_month, "The output holds sealed files of a month that is not closed; `tallyroll verify` names them");
                month.revisions = 0;
                month.with_rows.clear();
            }
        }
        Ok(published)
    }
}

fn is_sealed(state: &WindowRecord) -> bool {
    state.input_fingerprint.as_ref().is_some_and(|fingerprint| fingerprint.starts_with(SEALED_MARK))
}

fn reason(
    state: Option<&WindowRecord>,
    month: &FoldedMonth,
    is_sealed: bool,
    difference: Option<&'static str>,
    request: &Request,
) -> Option<String> {
    // A run as of an earlier instant knows less than the one that sealed the month.
    if is_sealed && month.state != State::Final {
        return None;
    }
    let Some(state) = state else { return Some("never written".to_owned()) };
    let is_changed = state.input_fingerprint.as_deref() != Some(&month.fingerprint());
    let reason = match state.state {
        WindowState::Due => state.due_reason.as_deref().unwrap_or("left undone"),
        WindowState::Failed => "failed before",
        _ if let Some(difference) = difference => difference,
        _ if is_changed && is_sealed => "ledger or subscriptions changed after it was sealed",
        _ if is_changed && month.state == State::Final => "its grace is over",
        _ if is_changed => "ledger, subscriptions or time moved on",
        WindowState::Kept => "its ledger rows are back",
        _ if request.force || request.rebuild => FORCED,
        _ => return None,
    };
    Some(reason.to_owned())
}
