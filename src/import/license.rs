//! A signed licence as a subscription.

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::target::SUBSCRIPTIONS;
use crate::failure::Failure;
use crate::license::License;
use crate::store::{Store, Value};

/// Takes a verified licence as a subscription of `org_id`: its start anchors the months, its expiry ends them; whether anything
/// changed.
///
/// # Errors
/// [`Failure`] of kind bad-data for a licence without a start date, or one that has expired at `now`: its months would come as
/// corrections of closed ones, and the file is most likely last year's. What the database says.
pub async fn import_license(store: &Store, license: &License, org_id: &str, now: DateTime<Utc>) -> Result<bool> {
    let term = license.term(now)?;
    let Some(start_at) = term.start_at else {
        return Err(Failure::bad_data(format!("Licence `{}` has no `startDate`, so nothing says when its months begin", license.id))
            .hint("ask for a licence with a start date, or import the subscription from a file with `start_at`")
            .into());
    };
    if term.is_expired(now) {
        return Err(license
            .expired()
            .hint("import the one that follows it; months that have passed come by a file with `start_at` and `end_at`")
            .into());
    }
    let values = vec![
        license.id.as_str().into(),
        org_id.into(),
        Value::Null,
        license.seats.into(),
        start_at.into(),
        term.end_at.into(),
        license.id.as_str().into(),
    ];
    let columns: Vec<&str> = SUBSCRIPTIONS.fields.iter().map(|field| field.column).collect();
    // A licence says nothing of a plan.
    let given: Vec<&str> = columns.iter().copied().filter(|column| *column != "plan").collect();
    let mut tx = store.begin().await?;
    let changed = tx.insert_rows(SUBSCRIPTIONS.table, &columns, &[values], &SUBSCRIPTIONS.on_conflict(&given)).await?;
    tx.commit().await?;
    Ok(changed > 0)
}
