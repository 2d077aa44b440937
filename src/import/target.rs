//! What can be imported: the tables, and the fields that a file may give for them. Pure.

use crate::seats::TOTAL;

/// What a file is imported as.
#[derive(Debug)]
pub struct Target {
    pub(super) table: &'static str,
    pub(super) fields: &'static [Field],
    /// Whether a row that is there already takes what the file says now; else it stays as it is.
    pub(super) is_updated: bool,
    /// Columns of which a file gives at least one, where there are any.
    pub(super) figures: &'static [&'static str],
}

/// A field that a file may give, and the table's own name for it.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) column: &'static str,
    pub(super) form: Form,
    pub(super) absent: Absent,
}

/// How a field's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Uuid,
    Instant,
    /// 32 bits, as the seed's columns.
    Int,
    /// A ledger row's id.
    LedgerId,
    Seats,
    Usd,
    /// A text that jobs read, which is bounded.
    Label,
    Text,
}

/// What stands for an empty cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Null,
    Refused,
    Zero,
    Text(&'static str),
    /// Made from the row's text.
    Identity,
}

const fn field(name: &'static str, column: &'static str, form: Form, absent: Absent) -> Field {
    Field { name, column, form, absent }
}

/// Usage events, into `ai_usage_log`.
pub static USAGE: Target = Target {
    table: "ai_usage_log",
    fields: &[
        field("event_id", "id", Form::Uuid, Absent::Identity),
        field("occurred_at", "created_at", Form::Instant, Absent::Refused),
        field("user_id", "user_id", Form::Uuid, Absent::Refused),
        field("user_email", "user_email", Form::Label, Absent::Null),
        field("customer_id", "customer_id", Form::Int, Absent::Null),
        field("customer_name", "customer_name", Form::Label, Absent::Null),
        field("request_type", "request_type", Form::Label, Absent::Text("report")),
        field("session_id", "session_id", Form::Text, Absent::Null),
        field("model", "model_used", Form::Label, Absent::Null),
        field("input_tokens", "input_tokens", Form::Int, Absent::Zero),
        field("output_tokens", "output_tokens", Form::Int, Absent::Zero),
        field("total_cost_usd", "logged_cost_usd", Form::Usd, Absent::Null),
        field("latency_ms", "latency_ms", Form::Int, Absent::Null),
        field("tool_turns", "tool_turns", Form::Int, Absent::Zero),
        field("status", "status", Form::Label, Absent::Text("success")),
        field("error_message", "error_message", Form::Text, Absent::Null),
        field("cost_basis", "cost_basis", Form::Text, Absent::Text("logged")),
    ],
    is_updated: false,
    figures: &["input_tokens", "output_tokens", "logged_cost_usd"],
};

/// Rows of the seat ledger. It is append-only: an id that is there keeps its row.
pub static SEATS: Target = Target {
    table: "seat_usage_event",
    fields: &[
        field("id", "id", Form::LedgerId, Absent::Refused),
        field("org_id", "org_id", Form::Label, Absent::Refused),
        field("seat_type", "seat_type", Form::Label, Absent::Text(TOTAL)),
        field("seats", "seats", Form::Seats, Absent::Refused),
        field("occurred_at", "occurred_at", Form::Instant, Absent::Refused),
        field("reason", "reason", Form::Label, Absent::Text("import")),
    ],
    is_updated: false,
    figures: &[],
};

/// Subscriptions: one that is there already takes what the file says now.
pub static SUBSCRIPTIONS: Target = Target {
    table: "subscription",
    fields: &[
        field("id", "id", Form::Label, Absent::Refused),
        field("org_id", "org_id", Form::Label, Absent::Refused),
        field("plan", "plan", Form::Label, Absent::Null),
        field("committed_seats", "committed_seats", Form::Seats, Absent::Null),
        field("start_at", "start_at", Form::Instant, Absent::Refused),
        field("end_at", "end_at", Form::Instant, Absent::Null),
        field("license_id", "license_id", Form::Label, Absent::Null),
    ],
    is_updated: true,
    figures: &[],
};

impl Target {
    /// What happens to a row whose id is there already: nothing, or the columns that the file has are taken over where they
    /// differ. A column that the file lacks is no empty cell.
    pub(super) fn on_conflict(&self, given: &[&str]) -> String {
        let columns: Vec<&str> =
            self.fields.iter().map(|field| field.column).filter(|column| *column != "id" && given.contains(column)).collect();
        if !self.is_updated || columns.is_empty() {
            return "ON CONFLICT (id) DO NOTHING".to_owned();
        }
        let set: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        let differs: Vec<String> =
            columns.iter().map(|column| format!("{}.{column} IS DISTINCT FROM excluded.{column}", self.table)).collect();
        format!("ON CONFLICT (id) DO UPDATE SET {} WHERE {}", set.join(", "), differs.join(" OR "))
    }

    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name || field.column == name)
    }
}
