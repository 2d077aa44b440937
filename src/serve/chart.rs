//! Charts as SVG, made here: no script, colours by class, so that light and dark are the style sheet's matter.

use maud::{Markup, html};

use super::data::RunLine;
use super::layout::encode;
use super::parts::{cut, duration, tone};

/// A strip of runs, the earliest on the left: colour says how each ended, height how long it took.
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
                    rect class=(tone(&run.state)) x=(index * PITCH) y=(HEIGHT - height) width="8" height=(height) rx="1" {
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
