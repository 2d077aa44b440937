//! What the log would cost with other prices, and what of it has none (`docs/semantics.md` section 2). Nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Serialize, Serializer};

use crate::engine::env::Context;
use crate::failure::nearest;
use crate::fold::KEYS;
use crate::fold::intern::NULL_CODE;
use crate::job::OperatorKind;
use crate::measure::{REQUEST_COUNT, TOTAL_COST_NANOS, UNPRICED_COUNT};
use crate::money::format_usd;
use crate::operator::usage_rollup::{Rollup, UsageRollup};
use crate::operator::{self, Operator};
use crate::price::Series;
use crate::price::book::PriceBook;
use crate::sql_text::quote_identifier;
use crate::window::{Window, WindowKind, first_of_month};

/// What a month's requests of a customer to a model cost.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Serialize)]
pub struct Subject {
    pub usage_month: NaiveDate,
    pub customer_id: Option<String>,
    pub model: Option<String>,
}

#[derive(Debug, Default, Clone, Serialize)]
pub struct Repriced {
    pub request_count: i64,
    /// Of the requests whose cost is known; none where no request's is.
    #[serde(rename = "cost_usd", serialize_with = "as_usd")]
    pub nanos: Option<i128>,
    #[serde(rename = "other_cost_usd", serialize_with = "as_usd")]
    pub other_nanos: Option<i128>,
    pub unpriced_count: i64,
    pub other_unpriced_count: i64,
}

impl Repriced {
    pub fn add(&mut self, more: &Self) {
        self.request_count += more.request_count;
        self.unpriced_count += more.unpriced_count;
        self.other_unpriced_count += more.other_unpriced_count;
        for (sum, more) in [(&mut self.nanos, more.nanos), (&mut self.other_nanos, more.other_nanos)] {
            *sum = sum.map_or(more, |sum| Some(sum + more.unwrap_or(0)));
        }
    }

    #[must_use]
    pub fn is_changed(&self) -> bool {
        (self.nanos, self.unpriced_count) != (self.other_nanos, self.other_unpriced_count)
    }
}

/// The raw log of `[from, to)`, rated by the project's price book and by another.
///
/// # Errors
/// What reading the log gives; a cost that does not fit.
pub async fn diff(
    context: &Context,
    other: PriceBook,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
    as_of: DateTime<Utc>,
) -> Result<BTreeMap<Subject, Repriced>> {
    let mut found = BTreeMap::new();
    for job in context.jobs.iter().filter(|job| job.operator == OperatorKind::UsageRollup) {
        let operator = operator::load(&context.project, &context.config, &context.store, &context.storage, &context.jobs, job).await?;
        let Operator::UsageRollup(rollup) = operator else { continue };
        let repriced = Arc::new(UsageRollup { prices: other.clone(), ..UsageRollup::clone(&rollup) });
        let mut days = Vec::new();
        let mut tx = context.store.begin_read().await?;
        for source in &rollup.sources {
            days.extend(rollup.days_with_events(&mut tx, source, from, to).await?);
        }
        drop(tx);
        days.sort_unstable();
        days.dedup();
        for day in days {
            let window = Window::containing(WindowKind::Day, day)?;
            let now = rollup.compute(&context.store, window, as_of, &context.stop).await?;
            let then = repriced.compute(&context.store, window, as_of, &context.stop).await?;
            for (subject, cost) in costs(&now, day)? {
                let sum: &mut Repriced = found.entry(subject).or_default();
                sum.add(&Repriced { other_nanos: None, other_unpriced_count: 0, ..cost });
            }
            for (subject, cost) in costs(&then, day)? {
                let sum: &mut Repriced = found.entry(subject).or_default();
                sum.add(&Repriced { request_count: 0, nanos: None, unpriced_count: 0, ..cost });
            }
        }
    }
    Ok(found)
}

/// What the groups of a day cost, as both of the two.
fn costs(rollup: &Rollup, day: NaiveDate) -> Result<Vec<(Subject, Repriced)>> {
    rollup.groups.check_sums()?;
    let place = |name: &str| KEYS.iter().position(|key| *key == name).unwrap_or_default();
    let (customer, model) = (place("customer_id"), place("model"));
    let groups = rollup.groups.keys().iter().zip(rollup.groups.iter());
    Ok(groups
        .map(|(key, values)| {
            let text = |code: u32, texts: &crate::fold::intern::Interner| (code != NULL_CODE).then(|| texts.text(code).to_owned());
            let subject = Subject {
                usage_month: first_of_month(day),
                customer_id: text(key[customer], &rollup.codes.customers),
                model: text(key[model], &rollup.codes.models),
            };
            let nanos = values.is_known(TOTAL_COST_NANOS).then(|| i128::from(values.of[TOTAL_COST_NANOS]));
            let unpriced_count = values.of[UNPRICED_COUNT];
            let request_count = values.of[REQUEST_COUNT];
            (subject, Repriced { request_count, nanos, other_nanos: nanos, unpriced_count, other_unpriced_count: unpriced_count })
        })
        .collect())
}

#[expect(clippy::ref_option, reason = "serde gives the field")]
fn as_usd<S: Serializer>(nanos: &Option<i128>, serializer: S) -> Result<S::Ok, S::Error> {
    nanos.map(|nanos| format_usd(nanos, 9)).serialize(serializer)
}

/// A model with requests whose cost is not known.
#[derive(Debug, Serialize)]
pub struct Missing {
    pub model: Option<String>,
    pub unpriced_count: i64,
    pub tokens: i64,
    pub first_date: NaiveDate,
    pub last_date: NaiveDate,
    /// Since when the book has a price of the model, if it has one.
    pub priced_from: Option<DateTime<Utc>>,
    /// In place of it: the model with the provider, tier or size of which alone the book has a price.
    pub priced_only_as: Option<String>,
    /// The most similar name in the book, where it has neither.
    pub nearest: Option<String>,
}

/// The models of `usage_daily` that have requests without a known cost, those with the most first.
///
/// # Errors
/// What the database says.
pub async fn missing(context: &Context, book: &PriceBook) -> Result<Vec<Missing>> {
    let mut missing = Vec::new();
    for job in context.jobs.iter().filter(|job| job.operator == OperatorKind::UsageRollup) {
        let sql = format!(
            "SELECT model, CAST(SUM(unpriced_count) AS BIGINT) AS unpriced_count, CAST(SUM(total_tokens - priced_tokens) AS BIGINT) AS tokens, \
                 MIN(usage_date) AS first_date, MAX(usage_date) AS last_date \
             FROM {} WHERE unpriced_count > 0 GROUP BY model ORDER BY SUM(unpriced_count) DESC, model",
            quote_identifier(&job.writes)
        );
        for row in context.store.query(&sql, &[]).await? {
            let model = row.opt_text("model")?;
            let prices = model.as_deref().map(|model| book.of_model(model)).unwrap_or_default();
            let (of_all, of_some): (Vec<&Series>, Vec<&Series>) =
                prices.into_iter().partition(|series| model.as_deref().is_some_and(|model| series.key.is_of_every(model)));
            let priced_from = of_all.iter().filter_map(|series| series.prices.first()).map(|price| price.effective_from).min();
            let priced_only_as = of_some.first().filter(|_| priced_from.is_none()).map(|series| series.key.to_string());
            let names = book.series().iter().map(|series| series.key.model.as_str());
            let is_unknown = priced_from.is_none() && priced_only_as.is_none();
            let nearest = model.as_deref().filter(|_| is_unknown).and_then(|model| nearest(model, names));
            missing.push(Missing {
                unpriced_count: row.int("unpriced_count")?,
                tokens: row.int("tokens")?,
                first_date: row.date("first_date")?,
                last_date: row.date("last_date")?,
                priced_from,
                priced_only_as,
                nearest: nearest.map(str::to_owned),
                model,
            });
        }
    }
    Ok(missing)
}
