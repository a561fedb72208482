//! The files of a folder with their sizes.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::facts::View;
use crate::human;
use crate::table::{Align, Cell, Table};

/// The number of files that are shown.
const LISTED: usize = 30;
/// The deepest folder that is searched.
const DEEPEST: usize = 16;

/// A file of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSize {
    /// The path relative to the folder.
    pub path: String,
    /// The size in bytes.
    pub bytes: u64,
}

/// Returns the files below a folder in the order of their paths. Hidden files and links to folders are left out, as is what cannot be read.
pub fn below(folder: &Path) -> Vec<FileSize> {
    let mut found = Vec::new();
    collect(folder, "", 0, &mut |path, bytes| {
        let is_hidden = path.split('/').any(|name| name.starts_with('.'));
        if !is_hidden {
            found.push(FileSize { path, bytes });
        }
    });
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Returns the size of all files below a folder in bytes, without files that cannot be read.
pub fn size_below(folder: &Path) -> u64 {
    let mut size = 0;
    collect(folder, "", 0, &mut |_, bytes| size += bytes);
    size
}

fn collect(root: &Path, relative: &str, depth: usize, take: &mut dyn FnMut(String, u64)) {
    if depth > DEEPEST {
        return;
    }
    let Ok(entries) = std::fs::read_dir(root.join(relative)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if relative.is_empty() { name } else { format!("{relative}/{name}") };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(root, &path, depth + 1, take),
            Ok(_) => {
                // The size of a linked file is that of the file.
                let about = std::fs::metadata(entry.path()).ok().filter(std::fs::Metadata::is_file);
                if let Some(about) = about {
                    take(path, about.len());
                }
            }
            Err(_) => {}
        }
    }
}

/// Prints the files, one per line.
pub fn print(files: &[FileSize], view: View, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[("file", Align::Left), ("size", Align::Right)]);
    let listed = view.items(LISTED);
    for file in files.iter().take(listed) {
        table.row([Cell::from(human::shortened(&file.path, view.text(90))), Cell::from(human::bytes(file.bytes))]);
    }
    table.print(out)?;
    if files.len() > listed {
        writeln!(out, "… {} more", human::count((files.len() - listed) as u64))?;
    }
    Ok(())
}
