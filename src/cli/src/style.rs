//! Colors and marks of lines. Off without a terminal, and if `NO_COLOR` is set.

use std::fmt::Display;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};

/// The style of errors.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// The style of warnings.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// The style of success.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// The style of titles.
pub const TITLE: Style = Style::new().bold();
/// The style of less important text.
pub const DIM: Style = Style::new().dimmed();

/// Returns `text` in `style`. The stream it is printed to removes colors if they are off.
pub fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints `error: TEXT`, with further lines of the text indented.
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

/// Indents the lines after the first, so that an error of several lines is recognizable as one.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n       ")
}
