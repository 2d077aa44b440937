//! Charts as SVG, without scripts. Colours are classes, so that the style sheet decides about light and dark.

pub(super) mod steps;

use maud::{Markup, html};

use super::data::RunLine;
use super::html::{cut, duration, encode};
use super::states::Shown as _;

/// A strip of runs, the earliest on the left: the colour shows how each ended, the height how long it took.
pub(super) fn run_strip(label: &str, newest_first: &[RunLine]) -> Markup {
    const PITCH: usize = 10;
    const HEIGHT: i64 = 24;
    let longest_ms = newest_first.iter().filter_map(|run| run.duration_ms).max().unwrap_or(0).max(1);
    let width = newest_first.len() * PITCH;
    html! {
        svg class="strip" role="group" aria-label=(label) viewBox=(format!("0 0 {width} {HEIGHT}")) width=(width) height=(HEIGHT) {
            @for (index, run) in newest_first.iter().rev().enumerate() {
                @let took_ms = run.duration_ms.unwrap_or(longest_ms).clamp(0, longest_ms);
                @let height = 6 + (HEIGHT - 6) * took_ms / longest_ms;
                a href={ "/runs/" (encode(&run.run_id)) } {
                    rect class=(run.state.tone()) x=(index * PITCH) y=(HEIGHT - height) width="8" height=(height) rx="1" {
                        title {
                            (run.state) ", " (run.started_at.format("%Y-%m-%d %H:%M:%S")) " UTC"
                            @if let Some(ms) = run.duration_ms { ", " (duration(ms)) }
                            @if let Some(error) = &run.error_text { ": " (cut(error, 120)) }
                        }
                    }
                }
            }
        }
    }
}

/// A bar: its label, its amount, and the text that a pointer shows.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) amount: i128,
    pub(super) title: String,
}

/// Units of a chart's drawing area; it is scaled to the page, and scrolls on a phone.
pub(super) const WIDTH: i64 = 900;
pub(super) const HEIGHT: i64 = 240;
/// Where the amounts are written, and the days.
pub(super) const LEFT: i64 = 70;
pub(super) const BOTTOM: i64 = 24;
pub(super) const TOP: i64 = 8;
/// Labels below a chart, at most.
const LABELS: usize = 8;
/// A label needs this part of a chart's width to its right.
const LABEL_PART: usize = 12;

/// Whether the one at `index` of `count` has a label below it: not all have, and none whose label would be cut off at the end.
pub(super) fn is_labelled(index: usize, count: usize) -> bool {
    index.is_multiple_of(count.div_ceil(LABELS).max(1)) && (count - index) * LABEL_PART >= count
}

/// Amounts one beside the other.
pub(super) fn bars(label: &str, bars: &[Bar], shown: &dyn Fn(i128) -> String) -> Markup {
    let largest = bars.iter().map(|bar| bar.amount).max().unwrap_or(0).max(1);
    let ticks = ticks(largest);
    let top = ticks.last().copied().unwrap_or(largest).max(1);
    let count = i128::try_from(bars.len()).unwrap_or(1).max(1);
    // In hundredths of a unit: hundreds of bars are thin.
    let x = |index: usize| hundredths(i128::from(LEFT) * 100 + i128::try_from(index).unwrap_or(0) * i128::from(WIDTH - LEFT) * 100 / count);
    let pitch = i128::from(WIDTH - LEFT) * 100 / count;
    let width = hundredths((pitch * 8 / 10).max(40));
    html! {
        div class="scroll chart" {
            svg role="img" aria-label=(label) viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) {
                (amounts(&ticks, top, shown))
                @for (index, bar) in bars.iter().enumerate() {
                    @let y = height_of(bar.amount, top);
                    rect class="bar" x=(x(index)) y=(hundredths(y)) width=(width) height=(hundredths(i128::from(HEIGHT - BOTTOM) * 100 - y)) {
                        title { (bar.title) }
                    }
                    @if is_labelled(index, bars.len()) { text x=(x(index)) y=(HEIGHT - 8) { (bar.label) } }
                }
            }
        }
    }
}

/// The lines of the amounts' axis, each with its amount.
pub(super) fn amounts(ticks: &[i128], top: i128, shown: &dyn Fn(i128) -> String) -> Markup {
    html! {
        @for tick in ticks {
            @let y = hundredths(height_of(*tick, top));
            line class="grid" x1=(LEFT) x2=(WIDTH) y1=(y) y2=(y) {}
            text x=(LEFT - 8) y=(y) text-anchor="end" dominant-baseline="middle" { (shown(*tick)) }
        }
    }
}

/// Where an amount lies, in hundredths of a unit from above.
pub(super) fn height_of(amount: i128, top: i128) -> i128 {
    let (floor, room) = (i128::from(HEIGHT - BOTTOM) * 100, i128::from(HEIGHT - BOTTOM - TOP) * 100);
    floor - amount.clamp(0, top) * room / top.max(1)
}

/// `1234` hundredths as `12.34`.
pub(super) fn hundredths(number: i128) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let number = number.unsigned_abs();
    format!("{sign}{}.{:02}", number / 100, number % 100)
}

/// Round amounts from 0 to at least `largest`, four or five of them.
pub(super) fn ticks(largest: i128) -> Vec<i128> {
    const STEPS: i128 = 4;
    let least = (largest + STEPS - 1) / STEPS;
    let mut unit: i128 = 1;
    while unit * 10 <= least {
        unit *= 10;
    }
    let step = [1, 2, 5, 10].into_iter().map(|factor| factor * unit).find(|step| *step >= least).unwrap_or(unit * 10);
    (0..=STEPS).map(|index| index * step).take_while(|tick| *tick < largest + step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_round_amounts_that_reach_the_largest() {
        assert_eq!(ticks(1), [0, 1]);
        assert_eq!(ticks(7), [0, 2, 4, 6, 8]);
        assert_eq!(ticks(100), [0, 50, 100]);
        for largest in 1..5_000 {
            let ticks = ticks(largest);
            assert!(*ticks.last().unwrap() >= largest && ticks.len() <= 5, "{largest}: {ticks:?}");
        }
        assert!(*ticks(i128::from(i64::MAX)).last().unwrap() >= i128::from(i64::MAX));
    }

    #[test]
    fn an_amount_stays_inside_the_chart() {
        assert_eq!(height_of(0, 10), 21_600);
        assert_eq!(height_of(10, 10), 800);
        assert_eq!(height_of(-5, 10), 21_600);
        assert_eq!(hundredths(-1), "-0.01");
    }
}
