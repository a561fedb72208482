//! Lines of text, such as `data.list` or `config.yaml`: the first ones, and their number.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::Result;

use crate::human;

/// The number of characters of a line that are shown.
const LINE: usize = 160;
/// The number of bytes of a line that are read for showing it.
const READ: u64 = 4096;

/// Prints the first `rows` lines.
pub fn show(path: &Path, rows: usize, out: &mut dyn Write) -> Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut lines = 0_u64;
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(READ).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if !line.ends_with(b"\n") {
            reader.skip_until(b'\n')?;
        }
        if lines < rows as u64 {
            let text = String::from_utf8_lossy(&line);
            writeln!(out, "  {}", human::shortened(text.trim_end_matches(['\n', '\r']), LINE))?;
        }
        lines += 1;
    }
    if lines > rows as u64 {
        writeln!(out, "  …")?;
    }
    writeln!(out, "{} lines", human::count(lines))?;
    Ok(())
}
