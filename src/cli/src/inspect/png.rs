//! PNG: width, height and pixel format, from the first chunk.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, View};

/// The size of a picture.
#[derive(Serialize)]
pub struct Png {
    width: u32,
    height: u32,
    /// Bits per channel.
    bits: u8,
    colors: &'static str,
}

/// Reads the size of the picture at `path`.
pub fn read(path: &Path) -> Result<Png> {
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
    Ok(Png { width: number(16), height: number(20), bits: head[24], colors })
}

impl Facts for Png {
    fn print(&self, _view: View, out: &mut dyn Write) -> Result<()> {
        let Self { width, height, bits, colors } = self;
        Ok(writeln!(out, "{width} × {height} pixels, {bits} bits, {colors}")?)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}
