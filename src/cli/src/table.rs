//! Plain tables: aligned columns, no frames, cells of several lines allowed.

use std::io::{self, Write};

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

use crate::style;

/// A cell: its text and style.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Creates a cell in `style`.
    pub fn styled(text: impl ToString, style: Style) -> Self {
        Self { text: text.to_string(), style }
    }

    /// Returns the lines of the cell, at least one.
    fn lines(&self) -> Vec<&str> {
        if self.text.is_empty() { vec![""] } else { self.text.lines().collect() }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// The alignment of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table that is filled row by row.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
}

impl Table {
    /// Creates an empty table with these column titles. If no column has a title, the title line is left out.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), indent: 0 }
    }

    /// Indents the whole table by `spaces`.
    #[must_use]
    pub fn indented(mut self, spaces: usize) -> Self {
        self.indent = spaces;
        self
    }

    /// Adds a row; missing cells are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = cells.into_iter().collect();
        row.resize(self.columns.len(), Cell::from(""));
        self.rows.push(row);
    }

    /// Returns whether no row was added.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints the table.
    ///
    /// # Errors
    /// Returns the errors of the stream.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let titles: Vec<Cell> = self.columns.iter().map(|(title, _)| Cell::styled(title, style::TITLE)).collect();
        let titled = self.columns.iter().any(|(title, _)| !title.is_empty());
        let shown = titled.then_some(&titles).into_iter().chain(&self.rows);
        let widths = self.widths(&titles);
        for row in shown {
            self.print_row(row, &widths, out)?;
        }
        Ok(())
    }

    /// Returns the width of every column in terminal cells.
    fn widths(&self, titles: &Vec<Cell>) -> Vec<usize> {
        let widest = |column: usize| {
            let rows = std::iter::once(titles).chain(&self.rows);
            rows.flat_map(|row| row[column].lines().into_iter().map(UnicodeWidthStr::width)).max().unwrap_or(0)
        };
        (0..self.columns.len()).map(widest).collect()
    }

    /// Prints one row, with as many lines as its tallest cell.
    fn print_row(&self, row: &[Cell], widths: &[usize], out: &mut dyn Write) -> io::Result<()> {
        let height = row.iter().map(|cell| cell.lines().len()).max().unwrap_or(1);
        for line in 0..height {
            let last = row.iter().rposition(|cell| cell.lines().get(line).is_some_and(|text| !text.is_empty()));
            write!(out, "{:1$}", "", self.indent)?;
            for (column, cell) in row.iter().enumerate().take(last.map_or(0, |last| last + 1)) {
                let text = cell.lines().get(line).copied().unwrap_or("");
                let space = widths[column].saturating_sub(text.width());
                let painted = if text.is_empty() { String::new() } else { style::paint(cell.style, text) };
                let gap = if column == 0 { "" } else { "  " };
                match self.columns[column].1 {
                    Align::Right => write!(out, "{gap}{:space$}{painted}", "")?,
                    Align::Left if Some(column) == last => write!(out, "{gap}{painted}")?,
                    Align::Left => write!(out, "{gap}{painted}{:space$}", "")?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// Prints `name  value` lines with aligned names.
///
/// # Errors
/// Returns the errors of the stream.
pub fn print_pairs(pairs: &[(String, String)], indent: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]).indented(indent);
    for (name, value) in pairs {
        table.row([Cell::styled(name, style::DIM), Cell::from(value)]);
    }
    table.print(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(table: &Table) -> String {
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string()
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = Table::new(&[("stage", Align::Left), ("rows", Align::Right), ("why", Align::Left)]);
        table.row(["prep".into(), 60.into(), "".into()]);
        table.row(["métal".into(), 12345.into(), "first\nsecond".into()]);
        assert_eq!(printed(&table), "stage   rows  why\nprep      60\nmétal  12345  first\n              second\n");
    }

    #[test]
    fn wide_characters_count_twice() {
        let mut table = Table::new(&[("", Align::Left), ("", Align::Left)]);
        table.row(["音".into(), "x".into()]);
        table.row(["ab".into(), "y".into()]);
        assert_eq!(printed(&table), "音  x\nab  y\n");
    }
}
