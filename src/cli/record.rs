//! `record`: rows for the seat ledger, through what the migrations install for applications.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::output;
use super::session::Session;
use crate::abort;
use crate::store::Create;

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Count the seat assignments of an org and append what changed
    #[command(after_help = "Example:\n  tallyroll record seat-change --org 42")]
    SeatChange(SeatChange),
    /// Give users of a namespace a seat type, and append what changed
    #[command(after_help = "Example:\n  tallyroll record assignment --namespace 42 --user 7 --user 8 --seat-type base")]
    Assignment(Assignment),
    /// Note that a user used an AI feature; the first use takes a seat of type `ai`
    #[command(after_help = "Example:\n  tallyroll record ai-use --org 42 --user 00000000-0000-4000-8000-000000000001 --event-type task")]
    AiUse(AiUse),
}

#[derive(Debug, Args)]
pub(super) struct SeatChange {
    /// The org: the `namespace_id` of its assignments
    #[arg(long)]
    org: String,
    /// Why, for whoever reads the ledger
    #[arg(long, default_value = "seat_change")]
    reason: String,
}

#[derive(Debug, Args)]
pub(super) struct Assignment {
    #[arg(long, value_name = "ID")]
    namespace: i64,
    /// User ids, each with the same seat type
    #[arg(long, value_name = "ID", required = true)]
    user: Vec<i64>,
    #[arg(long)]
    seat_type: String,
    #[arg(long, value_name = "ID")]
    organization: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct AiUse {
    #[arg(long, value_name = "UUID")]
    user: Uuid,
    /// The org that the seat counts for
    #[arg(long)]
    org: String,
    #[arg(long)]
    event_type: String,
    #[arg(long, default_value = "")]
    description: String,
}

pub(super) async fn run(session: Session, what: &What) -> Result<()> {
    let store = session.open(Create::Never).await?;
    store.require_migrated().await?;
    let mut tx = store.begin().await?;
    let collate = tx.dialect().collate();
    let last_id = format!("SELECT COALESCE(MAX(id), 0) AS id FROM seat_usage_event WHERE org_id{collate} = $1");
    let org = match what {
        What::SeatChange(SeatChange { org, .. }) | What::AiUse(AiUse { org, .. }) => org.clone(),
        What::Assignment(Assignment { namespace, .. }) => namespace.to_string(),
    };
    let before = tx.query(&last_id, &[org.as_str().into()]).await?.first().map_or(Ok(0), |row| row.int("id"))?;
    match what {
        What::SeatChange(arguments) => tx.record_seat_change(&org, &arguments.reason).await?,
        What::Assignment(arguments) => {
            let Assignment { namespace, user, seat_type, organization } = arguments;
            tx.upsert_seat_assignment(*namespace, user, seat_type, *organization).await?;
            tx.record_seat_change(&org, "seat_change").await?;
        }
        What::AiUse(arguments) => {
            tx.record_ai_seat_usage(arguments.user, &org, &arguments.event_type, &arguments.description).await?;
        }
    }
    let added = format!(
        "SELECT id, seat_type, seats, occurred_at, reason FROM seat_usage_event WHERE org_id{collate} = $1 AND id > $2 ORDER BY id"
    );
    let rows = tx.query(&added, &[org.as_str().into(), before.into()]).await?;
    abort::point("seats_before_commit");
    tx.commit().await?;
    abort::point("seats_recorded");
    store.close().await;
    let mut table = Vec::new();
    for row in &rows {
        let text = |column: &str| row.opt_text(column).map(Option::unwrap_or_default);
        if session.json {
            output::json(&json!({
                "id": row.int("id")?, "org_id": org, "seat_type": row.text("seat_type")?, "seats": row.int("seats")?,
                "occurred_at": row.instant("occurred_at")?, "reason": row.opt_text("reason")?,
            }))?;
        }
        let at = crate::store::format_instant(row.instant("occurred_at")?);
        table.push(vec![row.int("id")?.to_string(), text("seat_type")?, output::grouped(row.int("seats")?), at, text("reason")?]);
    }
    if session.json {
        return Ok(());
    }
    if table.is_empty() {
        return session.tell("No count changed; the ledger stays as it is");
    }
    session.tell(&output::table(&["row", "seat type", "seats", "in force from", "reason"], &["row", "seats"], &table))
}
