//! `/usage`: what a span of days cost and who spent it, from the summaries alone.

mod answer;
mod read;
mod span;
mod top;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::{Days, Months, NaiveDate};
use maud::{Markup, html};

use self::answer::Answer;
use self::read::{Period, Sums, TypeLine};
use self::span::Span;
use self::top::{LISTED, TopLine};
use crate::serve::app::App;
use crate::serve::chart::{self, Bar};
use crate::serve::html::{encode, figure, grouped, name, usd};
use crate::serve::layout;
use crate::serve::problem::Problem;
use crate::serve::query::Query;
use crate::serve::session::Session;
use crate::window::{day_of, first_of_month};

/// What was asked for.
struct Wanted<'a> {
    span: Span,
    /// `day`, `week` or `month`: what a bar stands for.
    by: &'static str,
    search: Option<&'a str>,
    today: NaiveDate,
}

/// The most bars of a chart. A span with more days is drawn by weeks or months.
const BARS_MAX: i64 = 400;

fn wanted<'a>(app: &App, query: &'a Query) -> Result<Wanted<'a>, Problem> {
    let today = day_of(app.context.clock.now(), app.context.config.reporting.timezone)?;
    let span = Span::asked(query, today)?;
    let usual = match span.days() {
        ..=92 => "day",
        93..=732 => "week",
        _ => "month",
    };
    let by = if query.text("by").is_some() { query.word("by", &["day", "week", "month"])? } else { usual };
    let by = match by {
        "day" if span.days() > BARS_MAX => "week",
        by => by,
    };
    let by = if by == "week" && span.days() / 7 > BARS_MAX { "month" } else { by };
    Ok(Wanted { span, by, search: query.text("q"), today })
}

pub(super) async fn json(State(app): State<Arc<App>>, query: Query) -> Result<Response, Problem> {
    let wanted = wanted(&app, &query)?;
    let usage = read::usage(&app.context.store, wanted.span, wanted.search).await?;
    Ok(Json(Answer::new(wanted.span, wanted.by, app.context.config.reporting.timezone, usage)).into_response())
}

pub(super) async fn page(State(app): State<Arc<App>>, Extension(session): Extension<Session>, query: Query) -> Result<Response, Problem> {
    let wanted = wanted(&app, &query)?;
    let usage = read::usage(&app.context.store, wanted.span, wanted.search).await?;
    let total = usage.total();
    let periods = read::periods(&usage.days, wanted.span, wanted.by);
    let Span { from, to } = wanted.span;
    let content = html! {
        h1 { "Usage" }
        (form(&wanted))
        p class="soft" {
            (from) " through " (to) ", " (wanted.span.days()) " days of " (app.context.config.reporting.timezone.name()) "."
        }
        (figures(&total))
        @if usage.days.is_empty() {
            p { "No requests are known of these days." }
        } @else {
            h2 { "Cost per " (wanted.by) }
            (chart::bars(&format!("Cost per {} from {from} through {to}", wanted.by), &costs(&periods), &axis_usd))
            h2 { "Requests per " (wanted.by) }
            (chart::bars(&format!("Requests per {} from {from} through {to}", wanted.by), &requests(&periods), &axis_count))
        }
        h2 { "Customers" }
        (tops(&usage.customers, "Customer", "no customer", total.cost_nanos))
        h2 { "Users" }
        (tops(&usage.users, "User", "", total.cost_nanos))
        h2 { "Request types and models" }
        (types(&usage.types))
    };
    Ok(layout::page("Usage", Some(&session), &content))
}

fn form(wanted: &Wanted<'_>) -> Markup {
    let Span { from, to } = wanted.span;
    let this_month = first_of_month(wanted.today);
    let last_month = this_month - Months::new(1);
    let link = |span: Span, text: &str| html! { a href={ "/usage?from=" (span.from) "&to=" (span.to) } { (text) } };
    html! {
        form method="get" action="/usage" {
            label { "From " input type="date" name="from" value=(from); }
            label { "to, inclusive " input type="date" name="to" value=(to); }
            label { "by " select name="by" {
                @for by in ["day", "week", "month"] { option value=(by) selected[by == wanted.by] { (by) } }
            } }
            label { "customer or user " input type="search" name="q" value=(wanted.search.unwrap_or_default()) maxlength="200"; }
            button class="quiet" { "Show" }
        }
        p class="links" {
            @for days in [7, 30, 90] { (link(Span::last(days, wanted.today), &format!("Last {days} days"))) }
            (link(Span { from: this_month, to: wanted.today }, "This month"))
            (link(Span { from: last_month, to: this_month - Days::new(1) }, "Last month"))
            @let query = format!("from={from}&to={to}&by={}", wanted.by);
            a href={ "/api/usage?" (query) @if let Some(search) = wanted.search { "&q=" (encode(search)) } } { "As JSON" }
        }
    }
}

fn figures(total: &Sums) -> Markup {
    html! {
        dl class="facts card" {
            (figure("Cost", &html! {
                (usd(total.cost_nanos.or((total.request_count == 0).then_some(0))))
                @if total.unpriced_count > 0 { " " span class="warn" { "and " (count(total.unpriced_count)) " requests of unknown cost" } }
            }))
            (figure("Requests", &html! { (count(total.request_count)) }))
            (figure("Succeeded", &html! { (share(total.success_count, total.request_count)) }))
            (figure("Failed", &html! { (count(total.error_count)) }))
            (figure("Tokens in", &html! { (count(total.input_tokens)) }))
            (figure("Tokens out", &html! { (count(total.output_tokens)) }))
            (figure("Mean latency", &html! { @if let Some(ms) = total.latency_ms() { (count(ms)) " ms" } @else { "-" } }))
        }
    }
}

fn costs(periods: &[Period]) -> Vec<Bar> {
    let bar = |period: &Period| Bar {
        label: period.first_date.to_string(),
        amount: period.sums.cost_nanos.unwrap_or(0),
        title: format!("{}: {}", period.first_date, usd(period.sums.cost_nanos.or((period.sums.request_count == 0).then_some(0)))),
    };
    periods.iter().map(bar).collect()
}

fn requests(periods: &[Period]) -> Vec<Bar> {
    let bar = |period: &Period| Bar {
        label: period.first_date.to_string(),
        amount: period.sums.request_count,
        title: format!("{}: {} requests", period.first_date, count(period.sums.request_count)),
    };
    periods.iter().map(bar).collect()
}

fn tops(lines: &[TopLine], kind: &str, without: &str, total_nanos: Option<i128>) -> Markup {
    if lines.is_empty() {
        return html! { p class="soft" { "None." } };
    }
    html! {
        div class="scroll" { table {
            thead { tr { th { (kind) } th { "Id" } th class="number" { "Cost" } th class="number" { "Share" } th class="number" { "Requests" } th class="number" { "Tokens" } } }
            tbody { @for line in lines { tr {
                td {
                    @match (&line.label, &line.id) {
                        (Some(label), _) => (name(label)),
                        (None, Some(_)) => span class="soft" { "unnamed" },
                        (None, None) => span class="soft" { (without) },
                    }
                }
                td { @if let Some(id) = &line.id { code { (name(id)) } } }
                td class="number" { (usd(line.cost_nanos)) }
                td class="number" { (share(line.cost_nanos.unwrap_or(0), total_nanos.unwrap_or(0))) }
                td class="number" { (grouped(line.request_count)) }
                td class="number" { (grouped(line.total_tokens)) }
            } } }
        } }
        @if lines.len() >= LISTED { p class="soft" { "The " (LISTED) " that cost most; search for others above." } }
    }
}

fn types(lines: &[TypeLine]) -> Markup {
    if lines.is_empty() {
        return html! { p class="soft" { "None." } };
    }
    html! {
        div class="scroll" { table {
            thead { tr {
                th { "Request type" } th { "Model" } th class="number" { "Cost" } th class="number" { "Requests" } th class="number" { "Succeeded" }
                th class="number" { "Tokens" } th class="number" { "Mean latency" }
            } }
            tbody { @for line in lines { tr {
                td { (name(&line.request_type)) }
                td { @if let Some(model) = &line.model { (name(model)) } @else { span class="soft" { "unknown" } } }
                td class="number" { (usd(line.sums.cost_nanos)) }
                td class="number" { (count(line.sums.request_count)) }
                td class="number" { (share(line.sums.success_count, line.sums.request_count)) }
                td class="number" { (count(line.sums.total_tokens)) }
                td class="number" { @if let Some(ms) = line.sums.latency_ms() { (count(ms)) " ms" } @else { "-" } }
            } } }
        } }
        @if lines.len() >= LISTED { p class="soft" { "The " (LISTED) " that cost most." } }
    }
}

/// A sum for a person.
fn count(number: i128) -> String {
    i64::try_from(number).map_or_else(|_| number.to_string(), grouped)
}

/// A part of a whole, to a tenth of a percent.
fn share(part: i128, whole: i128) -> String {
    if whole <= 0 {
        return "-".to_owned();
    }
    let tenths = crate::money::div_half_even(part * 1_000, whole);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Dollars beside an axis: whole ones, unless they are few.
fn axis_usd(nanos: i128) -> String {
    let text = usd(Some(nanos));
    if nanos >= 100 * i128::from(crate::money::NANOS_PER_USD) { text.trim_end_matches(".00").to_owned() } else { text }
}

/// A count beside an axis, large ones in thousands or millions.
fn axis_count(number: i128) -> String {
    match number {
        0..10_000 => count(number),
        10_000..10_000_000 => format!("{}k", count(number / 1_000)),
        _ => format!("{}M", count(number / 1_000_000)),
    }
}
