//! What the demo is made of: names, and numbers that are the same for the same seed.

use uuid::Uuid;

pub(super) const CUSTOMERS: [&str; 24] = [
    "Acme Freight",
    "Birch & Sons",
    "Cobalt Labs",
    "Dune Travel",
    "Ember Health",
    "Fjord Bank",
    "Grove Foods",
    "Harbor Legal",
    "Iris Media",
    "Juniper Energy",
    "Kite Robotics",
    "Lumen Optics",
    "Maple Schools",
    "Nimbus Air",
    "Orchard Retail",
    "Pike Mining",
    "Quill Press",
    "Rowan Homes",
    "Slate Insurance",
    "Tern Marine",
    "Umber Studio",
    "Vale Pharma",
    "Willow Care",
    "Zephyr Wind",
];

/// Sebastiano Vigna's `SplitMix64`: a handful of lines that give the same numbers in every version of every library.
pub(super) struct SplitMix64(pub(super) u64);

impl SplitMix64 {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    /// Small numbers more often than large ones, all below `end`.
    pub(super) fn skewed(&mut self, end: u64) -> u64 {
        let first = self.below(end);
        self.below(first + 1)
    }

    pub(super) fn small(&mut self, end: u64) -> i64 {
        self.skewed(end).cast_signed()
    }

    pub(super) fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes((u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes()).into_uuid()
    }
}
