//! PNG: width, height and pixel format, from the first chunk.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Prints the size of the picture.
pub fn show(path: &Path, out: &mut dyn Write) -> Result<()> {
    let mut head = [0_u8; 26];
    File::open(path)?.read_exact(&mut head).context("it ends before its first chunk")?;
    if &head[12..16] != b"IHDR" {
        bail!("its first chunk is not IHDR");
    }
    let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let colors = match head[25] {
        0 => "gray",
        2 => "RGB",
        3 => "palette",
        4 => "gray and alpha",
        6 => "RGB and alpha",
        other => bail!("color type {other} does not exist"),
    };
    writeln!(out, "{} × {} pixels, {} bits, {colors}", number(16), number(20), head[24])?;
    Ok(())
}
