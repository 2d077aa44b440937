//! How a state looks: its word in the colour of how it is meant.

use maud::{Markup, html};

use crate::seats::calendar::State as MonthState;
use crate::store::runs::RunState;
use crate::store::windows::WindowState;

/// A state of a run, a window or a month.
pub(super) trait Shown: Copy {
    fn word(self) -> &'static str;

    /// The class of its colour in the style sheet.
    fn tone(self) -> &'static str;
}

pub(super) fn state(state: impl Shown) -> Markup {
    html! { span class={ "state " (state.tone()) } { (state.word()) } }
}

impl Shown for RunState {
    fn word(self) -> &'static str {
        self.name()
    }

    fn tone(self) -> &'static str {
        match self {
            Self::Success => "good",
            Self::Failed => "bad",
            Self::Interrupted => "warn",
            Self::Running => "busy",
        }
    }
}

impl Shown for WindowState {
    fn word(self) -> &'static str {
        self.name()
    }

    fn tone(self) -> &'static str {
        match self {
            Self::Done => "good",
            Self::Failed => "bad",
            Self::Due | Self::Kept => "warn",
            Self::Future => "soft",
        }
    }
}

impl Shown for MonthState {
    fn word(self) -> &'static str {
        self.name()
    }

    fn tone(self) -> &'static str {
        match self {
            Self::Final => "good",
            Self::Provisional => "warn",
            Self::Open => "soft",
        }
    }
}
