//! Lines of text, such as `data.list` or `config.yaml`: the first ones, and their number.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, View, WHOLE_TEXT};
use crate::human;

/// The number of characters of a line that are shown.
const LINE: usize = 160;

/// The content of a text file.
#[derive(Serialize)]
pub struct Text {
    lines: u64,
    /// The first lines, without their ends; of a long one its beginning.
    first_lines: Vec<String>,
}

/// Reads the first lines of the file at `path`, and counts all of them.
pub fn read(path: &Path, view: View) -> Result<Text> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut text = Text { lines: 0, first_lines: Vec::new() };
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(WHOLE_TEXT as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(text);
        }
        if !line.ends_with(b"\n") {
            reader.skip_until(b'\n')?;
        }
        if text.lines < view.rows as u64 {
            text.first_lines.push(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned());
        }
        text.lines += 1;
    }
}

impl Facts for Text {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        for line in &self.first_lines {
            writeln!(out, "  {}", human::shortened(line, view.text(LINE)))?;
        }
        if self.lines > self.first_lines.len() as u64 {
            writeln!(out, "  …")?;
        }
        writeln!(out, "{} lines", human::count(self.lines))?;
        Ok(())
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}
