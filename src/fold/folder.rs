//! Groups folded to fewer: by some of their keys.

use anyhow::{Context, Result};
use hashbrown::HashSet;

use super::KEYS;
use super::groups::{Groups, Key, Values};
use super::intern::NULL_CODE;
use crate::measure::SUM_COUNT;

/// Groups folded by some of their keys.
#[derive(Debug)]
pub struct Folder {
    /// Which of [`KEYS`] it folds by.
    positions: Vec<usize>,
    groups: Groups,
}

/// The rows of a rollup: a group each, and its unique counts.
#[derive(Debug, Default)]
pub struct Rows {
    pub groups: Groups,
    pub unique: Vec<Vec<i64>>,
}

impl Folder {
    /// Folds by `keys`, which are some of [`KEYS`].
    ///
    /// # Errors
    /// A key that groups do not have.
    pub fn new(keys: &[&str]) -> Result<Self> {
        Ok(Self { positions: positions(keys)?, groups: Groups::default() })
    }

    /// Groups held.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Takes in one group, whose key has codes of the keys that it folds by alone.
    pub fn add(&mut self, key: Key, values: &Values) {
        self.groups.add(key, values);
    }

    /// What each measure that adds up comes to.
    #[must_use]
    pub fn sums(&self) -> [i128; SUM_COUNT] {
        self.groups.sums()
    }

    /// Takes in groups, in place of each code of a key (by its position in [`KEYS`]) the one that `recode` gives for it.
    pub fn take(&mut self, groups: &Groups, recode: impl Fn(usize, u32) -> u32) {
        let Self { positions, groups: own } = self;
        own.take(groups, |key| fewer(key, positions, &recode));
    }

    /// What everything taken in comes to by `grain`, some of the keys, with how many codes that are not NULL each of `unique` has.
    ///
    /// # Errors
    /// A sum that does not fit 64 bits; a key that groups do not have.
    pub fn rows(&self, grain: &[&str], unique: &[&str]) -> Result<Rows> {
        let (grain, unique) = (positions(grain)?, positions(unique)?);
        let mut rows = Rows::default();
        let row_of = rows.groups.take(&self.groups, |key| fewer(key, &grain, &|_, code| code));
        rows.groups.check_sums()?;
        for position in unique {
            let mut counts = vec![0; rows.groups.len()];
            let mut seen: HashSet<(u32, u32)> = HashSet::new();
            for (group, row) in row_of.iter().enumerate() {
                let code = self.groups.key(group)[position];
                if code != NULL_CODE && seen.insert((*row, code)) {
                    counts[*row as usize] += 1;
                }
            }
            rows.unique.push(counts);
        }
        Ok(rows)
    }
}

impl Rows {
    /// The code of a key in each row.
    ///
    /// # Errors
    /// A key that groups do not have.
    pub fn codes(&self, key: &str) -> Result<impl Iterator<Item = u32>> {
        let position = position(key)?;
        Ok(self.groups.keys().iter().map(move |key: &Key| key[position]))
    }
}

/// The codes of some keys, the others without any.
fn fewer(key: &Key, positions: &[usize], recode: &impl Fn(usize, u32) -> u32) -> Key {
    let mut folded = [NULL_CODE; KEYS.len()];
    for position in positions {
        folded[*position] = recode(*position, key[*position]);
    }
    folded
}

fn position(key: &str) -> Result<usize> {
    KEYS.iter().position(|known| *known == key).with_context(|| format!("Groups have no key `{key}`"))
}

fn positions(keys: &[&str]) -> Result<Vec<usize>> {
    keys.iter().map(|key| position(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{INPUT_COST_NANOS, INPUT_TOKENS, LATENCY_MS_MAX};

    fn groups(rows: &[(u32, u32, i64)]) -> Groups {
        let mut groups = Groups::default();
        for (user, customer, tokens) in rows {
            let mut values = Values::NONE;
            values.of[INPUT_TOKENS] = *tokens;
            values.forget(LATENCY_MS_MAX);
            if *tokens % 2 == 0 {
                values.of[INPUT_COST_NANOS] = 7;
            } else {
                values.forget(INPUT_COST_NANOS);
            }
            groups.add([0, *user, *customer, 0, NULL_CODE, NULL_CODE], &values);
        }
        groups
    }

    #[test]
    fn groups_fold_by_fewer_keys_and_count_what_is_unique() {
        let mut folder = Folder::new(&["user_id", "customer_id"]).unwrap();
        for rows in [[(1, 4, 3), (1, 5, 5), (1, NULL_CODE, 1)], [(2, NULL_CODE, 2), (1, 4, 4), (2, NULL_CODE, 1)]] {
            folder.take(&groups(&rows), |_, code| code);
        }
        let rows = folder.rows(&["user_id"], &["customer_id"]).unwrap();
        let users: Vec<u32> = rows.codes("user_id").unwrap().collect();
        let tokens = |row: usize| rows.groups.values(row).of[INPUT_TOKENS];
        assert_eq!((users, [tokens(0), tokens(1)], &rows.unique[0]), (vec![1, 2], [13, 3], &vec![2, 0]));
        let all = folder.rows(&[], &["user_id", "customer_id"]).unwrap();
        let values = all.groups.values(0);
        assert_eq!((values.of[INPUT_TOKENS], &all.unique[0], &all.unique[1]), (16, &vec![2], &vec![2]));
        assert_eq!((values.is_known(INPUT_COST_NANOS), values.of[INPUT_COST_NANOS]), (true, 14));
        assert!(!values.is_known(LATENCY_MS_MAX));
    }

    #[test]
    fn sums_past_64_bits_in_all_but_not_in_any_group_are_exact() {
        let mut folder = Folder::new(&["user_id"]).unwrap();
        for row in [(0, 0, i64::MAX), (1, 0, 7), (1, 0, i64::MAX - 7)] {
            folder.take(&groups(&[row]), |_, code| code);
        }
        let rows = folder.rows(&["user_id"], &[]).unwrap();
        assert_eq!([0, 1].map(|row| rows.groups.values(row).of[INPUT_TOKENS]), [i64::MAX; 2]);
        let error = folder.rows(&[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "The sum of `input_tokens` is 18446744073709551614, which does not fit the stored 64 bits");
    }

    #[test]
    fn a_sum_that_went_past_64_bits_before_the_fold_comes_back_exact() {
        let mut folder = Folder::new(&["user_id"]).unwrap();
        folder.take(&groups(&[(0, 0, i64::MAX), (0, 0, 9), (1, 0, -11)]), |_, code| code);
        let rows = folder.rows(&[], &[]).unwrap();
        assert_eq!(rows.groups.values(0).of[INPUT_TOKENS], i64::MAX - 2);
    }
}
