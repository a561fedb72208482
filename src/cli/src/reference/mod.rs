//! The reference as Markdown: every key of a recipe and every command, from their own documentation.

mod commands;
mod recipe;

pub use commands::commands;
pub use recipe::recipe;

/// Formats text for a cell of a table: one line, with bars escaped.
fn cell(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("<br>").replace('|', "\\|")
}

/// Returns text as code.
fn code(text: &str) -> String {
    format!("`{text}`")
}
