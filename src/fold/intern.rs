//! Texts as small numbers, by which groups are found, and the latest label of each.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, StringArray, UInt32Array};
use arrow::datatypes::UInt32Type;
use hashbrown::HashMap;

use crate::source::EventId;

/// The code of NULL.
pub const NULL_CODE: u32 = u32::MAX;

/// Gives each distinct text a code, counted from 0.
#[derive(Debug, Default)]
pub struct Interner {
    codes: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Interner {
    pub fn code(&mut self, text: &str) -> u32 {
        if let Some(code) = self.codes.get(text) {
            return *code;
        }
        let code = u32::try_from(self.texts.len()).unwrap_or(NULL_CODE - 1);
        self.codes.insert(text.to_owned(), code);
        self.texts.push(text.to_owned());
        code
    }

    /// The code of each row of a dictionary column.
    pub fn codes(&mut self, column: &DictionaryArray<UInt32Type>) -> Vec<u32> {
        let of_value = self.codes_of_values(column);
        let keys = column.keys();
        (0..column.len()).map(|row| if keys.is_valid(row) { of_value[keys.value(row) as usize] } else { NULL_CODE }).collect()
    }

    fn codes_of_values(&mut self, column: &DictionaryArray<UInt32Type>) -> Vec<u32> {
        let values = column.values().as_string::<i32>();
        (0..values.len()).map(|index| self.code(values.value(index))).collect()
    }

    /// The texts of all codes, in their order.
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }

    pub fn text(&self, code: u32) -> &str {
        self.texts.get(code as usize).map_or("", String::as_str)
    }

    /// Codes as an Arrow dictionary of the texts.
    fn column(&self, codes: impl Iterator<Item = u32>) -> arrow::error::Result<ArrayRef> {
        let keys: UInt32Array = codes.map(|code| (code != NULL_CODE).then_some(code)).collect();
        let values = StringArray::from_iter_values(&self.texts);
        Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(values))?))
    }
}

/// The latest label of each key, by (`occurred_at`, `event_id`).
#[derive(Debug, Default)]
pub struct Labels {
    names: Interner,
    latest: Vec<Option<Latest>>,
}

#[derive(Debug)]
struct Latest {
    occurred_micros: i64,
    event_id: EventId<'static>,
    name: u32,
}

impl Labels {
    /// Takes in the label of one event.
    pub fn see(&mut self, key: u32, occurred_micros: i64, event_id: impl FnOnce() -> EventId<'static>, name: &str) {
        let index = key as usize;
        if index >= self.latest.len() {
            self.latest.resize_with(index + 1, || None);
        }
        let latest = self.latest[index].take();
        self.latest[index] = Some(match latest {
            None => Latest { occurred_micros, event_id: event_id(), name: self.names.code(name) },
            Some(latest) if occurred_micros < latest.occurred_micros => latest,
            Some(mut latest) => {
                let event_id = event_id();
                if occurred_micros > latest.occurred_micros || event_id.is_after(&latest.event_id) {
                    // A label seldom changes, and comparing is cheaper than looking up.
                    if self.names.text(latest.name) != name {
                        latest.name = self.names.code(name);
                    }
                    latest.occurred_micros = occurred_micros;
                    latest.event_id = event_id;
                }
                latest
            }
        });
    }

    /// Takes in the label that a key had on a day.
    pub fn see_of_day(&mut self, key: u32, day: i64, name: &str) {
        self.see(key, day, || EventId::Text("".into()), name);
    }

    /// Each key that has a label, with it.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        let label = |(key, latest): (u32, &'_ Option<Latest>)| latest.as_ref().map(|latest| (key, latest.name));
        (0..).zip(&self.latest).filter_map(label).map(|(key, name)| (key, self.names.text(name)))
    }

    /// The label of each key, as an Arrow dictionary.
    fn column(&self, keys: impl Iterator<Item = u32>) -> arrow::error::Result<ArrayRef> {
        self.names.column(keys.map(|key| self.latest.get(key as usize).and_then(Option::as_ref).map_or(NULL_CODE, |latest| latest.name)))
    }
}

/// The texts behind the codes of groups.
#[derive(Debug, Default)]
pub struct Codes {
    pub sources: Interner,
    pub users: Interner,
    pub customers: Interner,
    pub request_types: Interner,
    pub categories: Interner,
    pub models: Interner,
    pub user_labels: Labels,
    pub customer_labels: Labels,
}

impl Codes {
    fn texts(&self, key: &str) -> Option<&Interner> {
        match key {
            "source" => Some(&self.sources),
            "user_id" => Some(&self.users),
            "customer_id" => Some(&self.customers),
            "request_type" => Some(&self.request_types),
            "category" => Some(&self.categories),
            "model" => Some(&self.models),
            _ => None,
        }
    }

    fn texts_mut(&mut self, key: &str) -> Option<&mut Interner> {
        match key {
            "source" => Some(&mut self.sources),
            "user_id" => Some(&mut self.users),
            "customer_id" => Some(&mut self.customers),
            "request_type" => Some(&mut self.request_types),
            "category" => Some(&mut self.categories),
            "model" => Some(&mut self.models),
            _ => None,
        }
    }

    /// The labels of a key, where it has any.
    #[must_use]
    pub fn labels(&self, key: &str) -> Option<&Labels> {
        match key {
            "user_id" => Some(&self.user_labels),
            "customer_id" => Some(&self.customer_labels),
            _ => None,
        }
    }

    /// As [`Self::labels`].
    pub fn labels_mut(&mut self, key: &str) -> Option<&mut Labels> {
        match key {
            "user_id" => Some(&mut self.user_labels),
            "customer_id" => Some(&mut self.customer_labels),
            _ => None,
        }
    }

    /// The code of each row of a key's column.
    ///
    /// # Errors
    /// A name that is none of [`super::KEYS`].
    pub fn of_column(&mut self, key: &str, column: &ArrayRef) -> Result<Vec<u32>> {
        Ok(self.texts_mut(key).with_context(|| no_key(key))?.codes(column.as_dictionary::<UInt32Type>()))
    }

    /// Takes in what another's codes of a key stand for; the code here of each code there.
    ///
    /// # Errors
    /// A name that is none of [`super::KEYS`].
    pub fn take_codes(&mut self, key: &str, other: &Self) -> Result<Vec<u32>> {
        let texts = self.texts_mut(key).with_context(|| no_key(key))?;
        Ok(other.texts(key).into_iter().flat_map(Interner::texts).map(|text| texts.code(text)).collect())
    }

    /// A column of a result table: the texts behind the codes of a key, or the labels of that key.
    ///
    /// # Errors
    /// A name that is neither one of [`super::KEYS`] nor a label.
    pub fn column(&self, name: &str, codes: impl Iterator<Item = u32>) -> Result<ArrayRef> {
        match (name, self.texts(name)) {
            (_, Some(texts)) => Ok(texts.column(codes)?),
            ("user_email", _) => Ok(self.user_labels.column(codes)?),
            ("customer_name", _) => Ok(self.customer_labels.column(codes)?),
            _ => bail!(no_key(name)),
        }
    }
}

fn no_key(name: &str) -> String {
    format!("There is no key and no label `{name}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_label_wins_and_a_tie_goes_to_the_larger_event_id() {
        let mut labels = Labels::default();
        let id = |text: &'static str| move || EventId::Text(text.into());
        labels.see(1, 10, id("b"), "second");
        labels.see(1, 9, id("z"), "first");
        labels.see(1, 10, id("a"), "tie, smaller id");
        labels.see(2, 10, id("a"), "read first");
        labels.see(2, 10, id("b"), "tie, larger id");
        labels.see(3, 1, id(""), "other");
        let column = labels.column([0, 1, 2, 3, NULL_CODE].into_iter()).unwrap();
        let column = column.as_dictionary::<UInt32Type>().downcast_dict::<StringArray>().unwrap();
        let read: Vec<Option<&str>> = column.into_iter().collect();
        assert_eq!(read, [None, Some("second"), Some("tie, larger id"), Some("other"), None]);
    }
}
