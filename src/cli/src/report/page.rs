//! The page: its frame, its tables and other parts that sections have in common.
//!
//! HTML is written by maud, which escapes every text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// Colors for light and dark; tables that become cards on a phone.
const STYLE: &str = include_str!("style.css");
/// Values under the pointer, as text below the legend of a curve.
const SCRIPT: &str = include_str!("script.js");

/// A page in the making.
pub struct Page {
    title: String,
    overview: Markup,
    sections: Vec<(&'static str, Markup)>,
}

impl Page {
    /// A page with a title and what is said before the sections.
    pub fn new(title: &str, overview: Markup) -> Self {
        Self { title: printable(title), overview, sections: Vec::new() }
    }

    /// Adds a section. One without a body is left out.
    pub fn section(&mut self, title: &'static str, body: Markup) {
        if !body.0.is_empty() {
            self.sections.push((title, body));
        }
    }

    /// The whole page.
    pub fn finish(self) -> String {
        let id = |title: &str| title.to_lowercase().replace(' ', "-");
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { (self.title) }
                    (self.overview)
                    nav {
                        @for (title, _) in &self.sections { a href={ "#" (id(title)) } { (title) } }
                    }
                    @for (title, body) in &self.sections {
                        section id=(id(title)) { h2 { (title) } (body) }
                    }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        };
        page.into_string() + "\n"
    }
}

/// A text without control characters, which have no place in HTML.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A cell of a table.
pub enum Cell {
    /// Words.
    Text(String),
    /// A number, or its substitute.
    Number(String),
}

impl Cell {
    /// Words.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(printable(text.as_ref()))
    }

    /// A number.
    pub fn number(text: impl ToString) -> Self {
        Self::Number(text.to_string())
    }
}

/// Tables with more columns than this become cards on a phone.
const NARROW: usize = 2;

/// A table; empty without rows.
pub fn table(heads: &[&str], rows: &[Vec<Cell>]) -> Markup {
    if rows.is_empty() {
        return Markup::default();
    }
    let is_number = |column: usize| matches!(rows[0].get(column), Some(Cell::Number(_)));
    html! {
        table class=[(heads.len() > NARROW).then_some("many")] {
            tr {
                @for (column, head) in heads.iter().enumerate() {
                    th class=[is_number(column).then_some("n")] { (head) }
                }
            }
            @for row in rows {
                tr {
                    @for (cell, head) in row.iter().zip(heads) {
                        @match cell {
                            Cell::Text(text) => td data-head=(head) { (text) },
                            Cell::Number(text) => td class="n" data-head=(head) { (text) },
                        }
                    }
                }
            }
        }
    }
}

/// A paragraph in a quiet color.
pub fn remark(text: &str) -> Markup {
    html! { p class="dim" { (printable(text)) } }
}

/// A long text, folded away.
pub fn folded(title: &str, text: &str) -> Markup {
    html! { details { summary { (printable(title)) } pre { (printable(text)) } } }
}

/// A file as an address that holds it.
pub fn data_uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_can_become_markup() {
        let hostile = "<script>alert('x')</script>&\"\u{1b}";
        let row = vec![Cell::text(hostile)];
        let body = html! { (table(&["a"], &[row])) (remark(hostile)) (folded(hostile, hostile)) };
        assert!(!body.0.contains("<script") && !body.0.contains('\u{1b}'), "{}", body.0);
        assert!(Page::new(hostile, body).finish().contains("<h1>&lt;script&gt;"));
    }

    #[test]
    fn only_wide_tables_become_cards() {
        let shown = |heads: &[&str]| table(heads, &[heads.iter().map(Cell::number).collect()]).0;
        assert!(shown(&["a", "b", "c"]).contains("class=\"many\"") && !shown(&["a", "b"]).contains("many"));
        assert_eq!(table(&["a"], &[]).0, "");
    }
}
