//! Colour, where someone sees it, and text that cannot drive a terminal.

use crate::args::When;
use anstyle::{AnsiColor, Style};
use std::fmt::Display;

/// Applies styles, or nothing.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const RED: Style = AnsiColor::Red.on_default().bold();
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
pub const GREEN: Style = AnsiColor::Green.on_default();
pub const CYAN: Style = AnsiColor::Cyan.on_default();

impl Paint {
    /// `terminal`: whether the output goes to one.
    pub fn new(when: When, terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let on = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && !dumb && !set("NO_COLOR"),
        };
        Self { on }
    }

    #[cfg(test)]
    pub const fn off() -> Self {
        Self { on: false }
    }

    pub fn with(self, style: Style, text: impl Display) -> String {
        if self.on { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// Text from a report as it may be shown: names of files and programs can hold escape sequences.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}
