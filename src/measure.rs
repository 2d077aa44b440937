//! The measures of usage: what every summary counts and adds up, declared once (`docs/semantics.md` section 4).

/// How a measure of several rows becomes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    Sum,
    /// A sum of what is known: NULL where nothing is.
    SumOfKnown,
    Min,
    Max,
}

/// A column that every usage summary has.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    pub fold: Fold,
    /// An instant, not a number.
    pub is_instant: bool,
}

macro_rules! measures {
    ($($position:ident = $name:literal, $fold:ident $($instant:ident)?;)*) => {
        #[expect(non_camel_case_types, reason = "it only counts the constants below")]
        enum Position { $($position),* }
        $(pub const $position: usize = Position::$position as usize;)*
        /// Every measure: first those that add up, then the extremes.
        pub const MEASURES: [Measure; COUNT] = [$(Measure { name: $name, fold: Fold::$fold, is_instant: measures!(@ $($instant)?) }),*];
    };
    (@ instant) => { true };
    (@) => { false };
}

/// How many measures there are, and how many of them add up.
pub const COUNT: usize = 25;
pub const SUM_COUNT: usize = 22;

measures! {
    REQUEST_COUNT = "request_count", Sum;
    SUCCESS_COUNT = "success_count", Sum;
    ERROR_COUNT = "error_count", Sum;
    UNPRICED_COUNT = "unpriced_count", Sum;
    INPUT_TOKENS = "input_tokens", Sum;
    OUTPUT_TOKENS = "output_tokens", Sum;
    TOTAL_TOKENS = "total_tokens", Sum;
    INPUT_COST_NANOS = "input_cost_nanos", SumOfKnown;
    OUTPUT_COST_NANOS = "output_cost_nanos", SumOfKnown;
    TOTAL_COST_NANOS = "total_cost_nanos", SumOfKnown;
    SUCCESS_TOTAL_TOKENS = "success_total_tokens", Sum;
    SUCCESS_COST_NANOS = "success_cost_nanos", SumOfKnown;
    SUCCESS_LATENCY_MS_SUM = "success_latency_ms_sum", Sum;
    SUCCESS_LATENCY_COUNT = "success_latency_count", Sum;
    SUCCESS_PRICED_COUNT = "success_priced_count", Sum;
    PRICED_TOKENS = "priced_tokens", Sum;
    TOOL_TURNS = "tool_turns", Sum;
    RATING_SUM = "rating_sum", Sum;
    RATING_COUNT = "rating_count", Sum;
    CACHED_INPUT_TOKENS = "cached_input_tokens", Sum;
    CACHE_WRITE_TOKENS = "cache_write_tokens", Sum;
    REASONING_TOKENS = "reasoning_tokens", Sum;
    LATENCY_MS_MAX = "latency_ms_max", Max;
    FIRST_REQUEST_AT = "first_request_at", Min instant;
    LAST_REQUEST_AT = "last_request_at", Max instant;
}

impl Measure {
    /// Whether a row may lack it.
    #[must_use]
    pub fn is_nullable(&self) -> bool {
        self.fold == Fold::SumOfKnown || (self.fold == Fold::Max && !self.is_instant)
    }

    /// The SQL that folds it over the rows of a group.
    #[must_use]
    pub fn sql(&self) -> String {
        let name = self.name;
        match self.fold {
            Fold::Sum | Fold::SumOfKnown => format!("CAST(SUM({name}) AS BIGINT) AS {name}"),
            Fold::Min => format!("MIN({name}) AS {name}"),
            Fold::Max => format!("MAX({name}) AS {name}"),
        }
    }
}

/// The measures that came with the source `usage_event`: what was logged elsewhere has none of them.
const OF_USAGE_EVENT: [usize; 3] = [CACHED_INPUT_TOKENS, CACHE_WRITE_TOKENS, REASONING_TOKENS];

/// The measures that there were before.
pub fn first_ones() -> impl Iterator<Item = &'static Measure> {
    MEASURES.iter().enumerate().filter(|(index, _)| !OF_USAGE_EVENT.contains(index)).map(|(_, measure)| measure)
}

/// And those that came since.
pub fn since_the_first() -> impl Iterator<Item = &'static Measure> {
    OF_USAGE_EVENT.iter().map(|index| &MEASURES[*index])
}

/// The measures that add up over any grouping.
#[must_use]
pub fn sums() -> &'static [Measure] {
    MEASURES.split_at(SUM_COUNT).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_come_first() {
        let is_sum = |measure: &Measure| matches!(measure.fold, Fold::Sum | Fold::SumOfKnown);
        assert!(sums().iter().all(is_sum) && !MEASURES[SUM_COUNT..].iter().any(is_sum));
        assert_eq!(MEASURES[LAST_REQUEST_AT].name, "last_request_at");
    }
}
