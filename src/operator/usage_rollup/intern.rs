//! Texts as small numbers: keys that polars groups by, and the latest label of each.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int64Array, StringArray, UInt32Array};
use arrow::datatypes::UInt32Type;
use hashbrown::HashMap;

/// The code of NULL.
pub(super) const NULL_CODE: u32 = u32::MAX;

/// Gives each distinct text a code, counted from 0.
#[derive(Debug, Default)]
pub(super) struct Interner {
    codes: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Interner {
    pub(super) fn code(&mut self, text: &str) -> u32 {
        if let Some(code) = self.codes.get(text) {
            return *code;
        }
        let code = u32::try_from(self.texts.len()).unwrap_or(NULL_CODE - 1);
        self.codes.insert(text.to_owned(), code);
        self.texts.push(text.to_owned());
        code
    }

    /// The code of each row of a dictionary column.
    pub(super) fn codes(&mut self, column: &DictionaryArray<UInt32Type>) -> Vec<u32> {
        let of_value = self.codes_of_values(column);
        let keys = column.keys();
        (0..column.len()).map(|row| if keys.is_valid(row) { of_value[keys.value(row) as usize] } else { NULL_CODE }).collect()
    }

    fn codes_of_values(&mut self, column: &DictionaryArray<UInt32Type>) -> Vec<u32> {
        let values = column.values().as_string::<i32>();
        (0..values.len()).map(|index| self.code(values.value(index))).collect()
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(String::as_str)
    }

    pub(super) fn text(&self, code: u32) -> &str {
        self.texts.get(code as usize).map_or("", String::as_str)
    }

    /// Codes as an Arrow dictionary of the texts.
    pub(super) fn column(&self, codes: impl Iterator<Item = u32>) -> arrow::error::Result<ArrayRef> {
        let keys: UInt32Array = codes.map(|code| (code != NULL_CODE).then_some(code)).collect();
        let values = StringArray::from_iter_values(&self.texts);
        Ok(Arc::new(DictionaryArray::try_new(keys, Arc::new(values))?))
    }
}

/// Gives each distinct id a code, counted from 0.
#[derive(Debug, Default)]
pub(super) struct Ids {
    codes: HashMap<i64, u32>,
    ids: Vec<i64>,
}

impl Ids {
    pub(super) fn code(&mut self, id: Option<i64>) -> u32 {
        let Some(id) = id else { return NULL_CODE };
        *self.codes.entry(id).or_insert_with(|| {
            self.ids.push(id);
            u32::try_from(self.ids.len() - 1).unwrap_or(NULL_CODE - 1)
        })
    }

    pub(super) fn column(&self, codes: impl Iterator<Item = u32>) -> ArrayRef {
        let ids: Int64Array = codes.map(|code| self.ids.get(code as usize).copied()).collect();
        Arc::new(ids)
    }
}

/// The latest label of each key, by (`occurred_at`, `event_id`).
#[derive(Debug, Default)]
pub(super) struct Labels {
    names: Interner,
    latest: Vec<Option<Latest>>,
}

#[derive(Debug)]
struct Latest {
    occurred_micros: i64,
    event_id: String,
    name: u32,
}

impl Labels {
    /// Takes in the label of one event.
    pub(super) fn see(&mut self, key: u32, occurred_micros: i64, event_id: &str, name: &str) {
        let index = key as usize;
        if index >= self.latest.len() {
            self.latest.resize_with(index + 1, || None);
        }
        match &mut self.latest[index] {
            Some(latest) if (occurred_micros, event_id) <= (latest.occurred_micros, latest.event_id.as_str()) => {}
            Some(latest) => {
                latest.occurred_micros = occurred_micros;
                event_id.clone_into(&mut latest.event_id);
                // A label seldom changes, and comparing is cheaper than looking up.
                if self.names.text(latest.name) != name {
                    latest.name = self.names.code(name);
                }
            }
            empty => {
                *empty = Some(Latest { occurred_micros, event_id: event_id.to_owned(), name: self.names.code(name) });
            }
        }
    }

    /// The label of each key, as an Arrow dictionary.
    pub(super) fn column(&self, keys: impl Iterator<Item = u32>) -> arrow::error::Result<ArrayRef> {
        self.names.column(keys.map(|key| self.latest.get(key as usize).and_then(Option::as_ref).map_or(NULL_CODE, |latest| latest.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_label_wins_and_a_tie_goes_to_the_larger_event_id() {
        let mut labels = Labels::default();
        labels.see(1, 10, "b", "second");
        labels.see(1, 9, "z", "first");
        labels.see(1, 10, "a", "tie, smaller id");
        labels.see(3, 1, "", "other");
        let column = labels.column([0, 1, 2, 3, NULL_CODE].into_iter()).unwrap();
        let column = column.as_dictionary::<UInt32Type>().downcast_dict::<StringArray>().unwrap();
        let read: Vec<Option<&str>> = column.into_iter().collect();
        assert_eq!(read, [None, Some("second"), None, Some("other"), None]);
    }
}
