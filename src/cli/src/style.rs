//! Colors and the few ways in which lines are marked. Off when not on a terminal, and when `NO_COLOR` is set.

use std::fmt::Display;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};

/// Something went wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Worth knowing, not wrong.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// All is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// A title.
pub const TITLE: Style = Style::new().bold();
/// Less important.
pub const DIM: Style = Style::new().dimmed();

/// `text` in `style`; the stream it is printed to removes the colors where they are not wanted.
pub fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints `error: TEXT`, further lines of the text indented under it.
pub fn error(text: &str) {
    eprintln!("{} {}", paint(BAD, "error:"), indented(text));
}

/// Prints `error[KIND]: TEXT` in the same way.
pub fn error_of_kind(kind: &str, text: &str) {
    eprintln!("{} {}", paint(BAD, format!("error[{kind}]:")), indented(text));
}

/// Prints one cause of the error above.
pub fn cause(text: &str) {
    eprintln!("  {} {}", paint(DIM, "caused by:"), indented(text));
}

/// Prints `warning: TEXT`.
pub fn warning(text: &str) {
    eprintln!("{} {}", paint(WARN, "warning:"), indented(text));
}

/// Prints a line for the person watching.
pub fn note(text: &str) {
    eprintln!("{text}");
}

/// Moves the lines after the first to the right, so that an error of several lines reads as one.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n       ")
}
