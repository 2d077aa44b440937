//! Groups of events, added up in place.
//!
//! Sums are exact: what 64 bits cannot hold is carried beside them, and a sum that does not fit is an error when it is read.

use anyhow::Result;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher as _;

use super::KEYS;
use crate::measure::{COUNT, FIRST_REQUEST_AT, LAST_REQUEST_AT, LATENCY_MS_MAX, MEASURES, SUM_COUNT};
use crate::money::fit_stored;

/// The codes of a group, in the order of [`KEYS`].
pub type Key = [u32; KEYS.len()];

/// A value of each measure, in the order of [`MEASURES`], and which of them are known (a bit each, from the lowest).
#[derive(Debug, Clone, Copy)]
pub struct Values {
    pub of: [i64; COUNT],
    pub known: u32,
}

impl Values {
    /// Of one event: everything is known but what the caller takes back.
    pub const NONE: Self = Self { of: [0; COUNT], known: (1 << COUNT) - 1 };

    /// Marks a measure as not known.
    #[inline]
    pub fn forget(&mut self, measure: usize) {
        self.known &= !(1 << measure);
    }

    #[must_use]
    pub fn is_known(&self, measure: usize) -> bool {
        self.known & (1 << measure) != 0
    }

    /// Takes in more values; the measures whose sums went past 64 bits, as bits.
    #[inline]
    fn add(&mut self, other: &Self) -> u32 {
        let mut overflowed = 0_i64;
        let mut sums = [0_i64; SUM_COUNT];
        for ((sum, old), more) in sums.iter_mut().zip(&self.of).zip(&other.of) {
            *sum = old.wrapping_add(*more);
            overflowed |= (old ^ *sum) & (more ^ *sum);
        }
        let mut overflows = 0;
        if overflowed < 0 {
            for index in 0..SUM_COUNT {
                overflows |= u32::from(self.of[index].checked_add(other.of[index]).is_none()) << index;
            }
        }
        self.of[..SUM_COUNT].copy_from_slice(&sums);
        if other.is_known(LATENCY_MS_MAX) {
            let more = other.of[LATENCY_MS_MAX];
            self.of[LATENCY_MS_MAX] = if self.is_known(LATENCY_MS_MAX) { self.of[LATENCY_MS_MAX].max(more) } else { more };
        }
        self.of[FIRST_REQUEST_AT] = self.of[FIRST_REQUEST_AT].min(other.of[FIRST_REQUEST_AT]);
        self.of[LAST_REQUEST_AT] = self.of[LAST_REQUEST_AT].max(other.of[LAST_REQUEST_AT]);
        self.known |= other.known;
        overflows
    }
}

/// Groups of a block: blocks never move while others are added.
const BLOCK: usize = 4_096;

/// The groups of one window.
#[derive(Debug, Default)]
pub struct Groups {
    /// Numbers of groups by their keys.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    keys: Vec<Key>,
    blocks: Vec<Vec<Values>>,
    /// How often a sum of a group went past 64 bits, upwards less downwards.
    carries: HashMap<(u32, usize), i64>,
}

impl Groups {
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    #[must_use]
    pub fn key(&self, group: usize) -> &Key {
        &self.keys[group]
    }

    #[must_use]
    pub fn values(&self, group: usize) -> &Values {
        &self.blocks[group / BLOCK][group % BLOCK]
    }

    /// The keys of all groups, in the order in which they came.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The values of all groups, in the same order.
    pub fn iter(&self) -> impl Iterator<Item = &Values> {
        (0..self.len()).map(|group| self.values(group))
    }

    /// Adds groups to those of the keys that `key_of` gives for theirs; which group here each of them went to.
    pub fn take(&mut self, other: &Self, key_of: impl Fn(&Key) -> Key) -> Vec<u32> {
        let taken: Vec<u32> = other.keys.iter().zip(other.iter()).map(|(key, values)| self.add(key_of(key), values)).collect();
        for ((group, measure), carry) in &other.carries {
            *self.carries.entry((taken[*group as usize], *measure)).or_default() += carry;
        }
        taken
    }

    /// Adds values to the group of `key`; which group that is.
    pub fn add(&mut self, key: Key, values: &Values) -> u32 {
        let Self { index, hasher, keys, blocks, carries } = self;
        let hash = hasher.hash_one(key);
        if let Some(group) = index.find(hash, |group| keys[*group as usize] == key) {
            let group = *group;
            let mut overflows = blocks[group as usize / BLOCK][group as usize % BLOCK].add(values);
            while overflows != 0 {
                let measure = overflows.trailing_zeros() as usize;
                *carries.entry((group, measure)).or_default() += values.of[measure].signum();
                overflows &= overflows - 1;
            }
            return group;
        }
        // A window that held so many groups would not fit memory.
        let group = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        index.insert_unique(hash, group, |group| hasher.hash_one(keys[*group as usize]));
        keys.push(key);
        if blocks.last().is_none_or(|block| block.len() == BLOCK) {
            blocks.push(Vec::with_capacity(BLOCK));
        }
        if let Some(block) = blocks.last_mut() {
            block.push(*values);
        }
        group
    }

    /// Fails where a sum does not fit the stored 64 bits.
    ///
    /// # Errors
    /// One that names the measure and the sum.
    pub fn check_sums(&self) -> Result<()> {
        for ((group, measure), carry) in &self.carries {
            let stored = self.values(*group as usize).of[*measure];
            fit_stored(i128::from(stored) + (i128::from(*carry) << 64), MEASURES[*measure].name)?;
        }
        Ok(())
    }

    /// What each measure that adds up comes to over all groups.
    #[must_use]
    pub fn sums(&self) -> [i128; SUM_COUNT] {
        let mut sums = [0_i128; SUM_COUNT];
        for values in self.iter() {
            for (sum, value) in sums.iter_mut().zip(&values.of) {
                *sum += i128::from(*value);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{INPUT_TOKENS, RATING_SUM};

    fn values(measure: usize, value: i64) -> Values {
        let mut values = Values::NONE;
        values.of[measure] = value;
        values
    }

    #[test]
    fn sums_past_64_bits_in_all_but_not_in_any_group_are_exact() {
        let mut groups = Groups::default();
        for (group, tokens) in [(0, i64::MAX), (1, 7), (1, i64::MAX - 7)] {
            groups.add([group; 6], &values(INPUT_TOKENS, tokens));
        }
        groups.check_sums().unwrap();
        assert_eq!([groups.values(0).of[INPUT_TOKENS], groups.values(1).of[INPUT_TOKENS]], [i64::MAX; 2]);
        assert_eq!(groups.sums()[INPUT_TOKENS], i128::from(i64::MAX) * 2);
    }

    #[test]
    fn a_sum_past_64_bits_is_an_error_never_a_wrap() {
        let mut groups = Groups::default();
        groups.add([0; 6], &values(INPUT_TOKENS, i64::MAX));
        groups.add([0; 6], &values(INPUT_TOKENS, 1));
        let error = groups.check_sums().unwrap_err();
        assert_eq!(error.to_string(), "The sum of `input_tokens` is 9223372036854775808, which does not fit the stored 64 bits");
    }

    #[test]
    fn a_sum_that_goes_past_64_bits_and_comes_back_is_exact() {
        let mut groups = Groups::default();
        for rating in [i64::MAX, 2, -5, i64::MIN, -1, 4] {
            groups.add([0; 6], &values(RATING_SUM, rating));
        }
        groups.check_sums().unwrap();
        assert_eq!(groups.values(0).of[RATING_SUM], -1);
    }

    #[test]
    fn an_extreme_is_of_what_is_known() {
        let mut groups = Groups::default();
        let mut unknown = values(LATENCY_MS_MAX, 99);
        unknown.forget(LATENCY_MS_MAX);
        for values in [unknown, values(LATENCY_MS_MAX, 3), values(LATENCY_MS_MAX, 5), unknown] {
            groups.add([0; 6], &values);
        }
        assert!(groups.values(0).is_known(LATENCY_MS_MAX));
        assert_eq!(groups.values(0).of[LATENCY_MS_MAX], 5);
    }
}
