//! What can be imported: the tables, and the fields that a file may give for them. Pure.

use std::collections::BTreeMap;

use crate::failure;
use crate::seats::TOTAL;
use crate::source::MAX_TEXT_BYTES;

/// What a file is imported as.
#[derive(Debug)]
pub struct Target {
    pub(super) table: &'static str,
    pub(super) fields: &'static [Field],
    /// The columns by which a row is known again.
    pub(super) key: &'static [&'static str],
    /// Whether a row that is there already takes what the file says now; else it stays as it is.
    pub(super) is_updated: bool,
    /// Columns of which a file gives at least one, where there are any.
    pub(super) figures: &'static [&'static str],
}

/// A field that a file may give, under its name or another that files often have, and the column that it goes into.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) also: &'static [&'static str],
    pub(super) column: &'static str,
    pub(super) form: Form,
    pub(super) absent: Absent,
}

/// How a field's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Instant,
    /// 64 bits.
    Int,
    /// A ledger row's id.
    LedgerId,
    Seats,
    Usd,
    /// A text of at most so many bytes.
    Label(usize),
    Json,
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
    /// Given by the database, in the order of the rows.
    Numbered,
}

const fn field(name: &'static str, form: Form, absent: Absent) -> Field {
    Field { name, also: &[], column: name, form, absent }
}

impl Field {
    /// Files call it this, too.
    const fn or(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }
}

const LABEL: Form = Form::Label(MAX_TEXT_BYTES);

/// Usage events, into `usage_event`; other headers are those of `ai_usage_log`.
pub static USAGE: Target = Target {
    table: "usage_event",
    fields: &[
        field("source_name", Form::Label(100), Absent::Text("import")),
        field("event_id", Form::Label(800), Absent::Identity).or(&["id"]),
        field("occurred_at", Form::Instant, Absent::Refused).or(&["created_at"]),
        field("user_id", LABEL, Absent::Refused),
        field("user_name", LABEL, Absent::Null).or(&["user_email"]),
        field("customer_id", LABEL, Absent::Null),
        field("customer_name", LABEL, Absent::Null),
        field("request_type", LABEL, Absent::Text("request")),
        field("category", LABEL, Absent::Null),
        field("provider", LABEL, Absent::Null),
        field("model", LABEL, Absent::Null).or(&["model_used"]),
        field("service_tier", LABEL, Absent::Null),
        field("status", LABEL, Absent::Text("success")),
        field("input_tokens", Form::Int, Absent::Zero),
        field("cached_input_tokens", Form::Int, Absent::Zero),
        field("cache_write_tokens", Form::Int, Absent::Zero),
        field("output_tokens", Form::Int, Absent::Zero),
        field("reasoning_tokens", Form::Int, Absent::Zero),
        field("total_tokens", Form::Int, Absent::Null),
        Field { name: "total_cost_usd", also: &["cost_usd", "logged_cost_usd"], column: "cost_usd", form: Form::Usd, absent: Absent::Null },
        field("latency_ms", Form::Int, Absent::Null),
        field("tool_turns", Form::Int, Absent::Zero),
        field("rating", Form::Int, Absent::Null),
        field("tags", Form::Json, Absent::Null),
    ],
    key: &["source_name", "event_id"],
    is_updated: false,
    figures: &["input_tokens", "output_tokens", "total_tokens", "cost_usd"],
};

/// Rows of the seat ledger. It is append-only: an id that is there keeps its row. Without ids the n-th of equal rows is there already if
/// the ledger has n.
pub static SEATS: Target = Target {
    table: "seat_usage_event",
    fields: &[
        field("id", Form::LedgerId, Absent::Numbered),
        field("org_id", LABEL, Absent::Refused),
        field("seat_type", LABEL, Absent::Text(TOTAL)),
        field("seats", Form::Seats, Absent::Refused),
        field("occurred_at", Form::Instant, Absent::Refused),
        field("reason", LABEL, Absent::Text("import")),
    ],
    key: &["id"],
    is_updated: false,
    figures: &[],
};

/// Subscriptions: one that is there already takes what the file says now.
pub static SUBSCRIPTIONS: Target = Target {
    table: "subscription",
    fields: &[
        field("id", LABEL, Absent::Refused),
        field("org_id", LABEL, Absent::Refused),
        field("plan", LABEL, Absent::Null),
        field("committed_seats", Form::Seats, Absent::Null),
        field("start_at", Form::Instant, Absent::Refused),
        field("end_at", Form::Instant, Absent::Null),
        field("license_id", LABEL, Absent::Null),
    ],
    key: &["id"],
    is_updated: true,
    figures: &[],
};

impl Target {
    /// What happens to a row whose id is there already: nothing, or the columns that the file has are taken over where they
    /// differ. A column that the file lacks is no empty cell.
    pub(super) fn on_conflict(&self, given: &[&str]) -> String {
        let columns: Vec<&str> =
            self.fields.iter().map(|field| field.column).filter(|column| !self.key.contains(column) && given.contains(column)).collect();
        let key = self.key.join(", ");
        if !self.is_updated || columns.is_empty() {
            return format!("ON CONFLICT ({key}) DO NOTHING");
        }
        let set: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        let differs: Vec<String> =
            columns.iter().map(|column| format!("{}.{column} IS DISTINCT FROM excluded.{column}", self.table)).collect();
        format!("ON CONFLICT ({key}) DO UPDATE SET {} WHERE {}", set.join(", "), differs.join(" OR "))
    }

    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name || field.also.contains(&name))
    }
}

/// The name of an event's field that may be called by one of its other names.
pub(super) fn field_name(name: &str) -> Result<String, String> {
    let unknown = || {
        let nearest = failure::did_you_mean(name, USAGE.fields.iter().map(|field| field.name));
        format!("there is no field `{name}`{nearest}")
    };
    Ok(USAGE.field(name).ok_or_else(unknown)?.name.to_owned())
}

/// Gives each field its own name.
pub(super) fn named<T>(by_field: BTreeMap<String, T>) -> Result<BTreeMap<String, T>, String> {
    let mut named = BTreeMap::new();
    for (name, value) in by_field {
        let field = field_name(&name)?;
        if named.insert(field.clone(), value).is_some() {
            return Err(format!("the field `{field}` is there twice, once as `{name}`"));
        }
    }
    Ok(named)
}
