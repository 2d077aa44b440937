//! A count over time as a step line, with marks: a seat ledger.

use maud::{Markup, html};

use super::{BOTTOM, HEIGHT, LEFT, TOP, WIDTH, amounts, height_of, hundredths, is_labelled, ticks};
use crate::serve::html::grouped;

/// Something at an instant, in microseconds.
pub(in crate::serve) struct Mark {
    pub(in crate::serve) at: i64,
    pub(in crate::serve) label: String,
    pub(in crate::serve) seats: i64,
}

/// The most steps that are drawn. If there are more, each piece of the line keeps its ends and its extremes.
const STEPS_MAX: usize = 1_000;
const PIECES: i64 = 250;

/// The counts in order, each an instant and the number from then on; `span` is what the chart covers.
pub(in crate::serve) fn chart(
    label: &str,
    span: (i64, i64),
    counts: &[(i64, i64)],
    bounds: &[Mark],
    peaks: &[Mark],
    level: Option<i64>,
) -> Markup {
    let counts = thinned(counts, span);
    let largest = counts.iter().map(|(_, seats)| *seats).chain(peaks.iter().map(|peak| peak.seats)).chain(level).max();
    let ticks = ticks(largest.unwrap_or(0).max(1).into());
    let top = ticks.last().copied().unwrap_or(1);
    let count = |number: i128| grouped(i64::try_from(number).unwrap_or(i64::MAX));
    html! {
        div class="scroll chart" {
            svg role="img" aria-label=(label) viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) {
                title { (label) }
                (amounts(&ticks, top, &count))
                @for (index, bound) in bounds.iter().enumerate() {
                    @let at = hundredths(x(bound.at, span));
                    line class="month" x1=(at) x2=(at) y1=(TOP) y2=(HEIGHT - BOTTOM) {}
                    @if is_labelled(index, bounds.len()) { text x=(at) y=(HEIGHT - 8) { (bound.label) } }
                }
                @if let Some(level) = level {
                    @let y = hundredths(height_of(level.into(), top));
                    line class="level" x1=(LEFT) x2=(WIDTH) y1=(y) y2=(y) { title { (grouped(level)) " committed" } }
                }
                path class="step" d=(path(&counts, span, top)) {}
                @for peak in peaks {
                    circle class="peak" cx=(hundredths(x(peak.at, span))) cy=(hundredths(height_of(peak.seats.into(), top))) r="3.5" {
                        title { (peak.label) }
                    }
                }
            }
        }
    }
}

/// Where an instant lies, in hundredths of a unit from the left.
fn x(at: i64, (start, end): (i64, i64)) -> i128 {
    let (at, length) = (i128::from(at.clamp(start, end) - start), i128::from((end - start).max(1)));
    i128::from(LEFT) * 100 + at * i128::from(WIDTH - LEFT) * 100 / length
}

fn path(counts: &[(i64, i64)], span: (i64, i64), top: i128) -> String {
    let at = |(at, seats): (i64, i64)| (hundredths(x(at, span)), hundredths(height_of(seats.into(), top)));
    let Some((first, rest)) = counts.split_first() else { return String::new() };
    let (x0, y0) = at(*first);
    let steps: String = rest.iter().map(|count| at(*count)).flat_map(|(x, y)| ["H".to_owned(), x, "V".to_owned(), y]).collect();
    format!("M{x0} {y0}{steps}H{}", hundredths(x(span.1, span)))
}

/// Few enough steps to draw: of each piece of the span the first, the lowest, the highest and the last.
fn thinned(counts: &[(i64, i64)], span: (i64, i64)) -> Vec<(i64, i64)> {
    if counts.len() <= STEPS_MAX {
        return counts.to_vec();
    }
    let length = i128::from((span.1 - span.0).max(1));
    let piece = |at: i64| i128::from(at.clamp(span.0, span.1) - span.0) * i128::from(PIECES - 1) / length;
    let mut kept = Vec::new();
    for piece in counts.chunk_by(|left, right| piece(left.0) == piece(right.0)) {
        let extreme = |index: Option<(usize, &(i64, i64))>| index.map_or(0, |(index, _)| index);
        let lowest = extreme(piece.iter().enumerate().min_by_key(|(_, count)| count.1));
        let highest = extreme(piece.iter().enumerate().rev().max_by_key(|(_, count)| count.1));
        let mut indexes = vec![0, lowest, highest, piece.len() - 1];
        indexes.sort_unstable();
        indexes.dedup();
        kept.extend(indexes.into_iter().map(|index| piece[index]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_ledger_keeps_its_extremes_and_its_order() {
        let mut counts: Vec<(i64, i64)> = (0..100_000).map(|at| (at, 50 + at % 7)).collect();
        counts[77_777].1 = 9_999;
        counts[33_333].1 = 0;
        let kept = thinned(&counts, (0, 100_000));
        assert!(kept.len() <= STEPS_MAX, "{}", kept.len());
        assert!(kept.contains(&(77_777, 9_999)) && kept.contains(&(33_333, 0)));
        assert!(kept.is_sorted() && kept[0] == counts[0] && kept.last() == counts.last());
        assert_eq!(thinned(&counts[..10], (0, 10)), counts[..10]);
    }

    #[test]
    fn a_count_from_before_the_chart_begins_at_its_left_side() {
        let path = path(&[(-5, 1), (50, 2)], (0, 100), 2);
        assert_eq!(path, "M70.00 112.00H485.00V8.00H900.00");
    }
}
