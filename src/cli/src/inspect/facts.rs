//! What a file contains, for people and for programs.

use std::io::Write;

use anyhow::Result;
use serde_json::Value;

/// The number of characters of a text that are shown in full mode, in JSON, and of reasons.
pub const WHOLE_TEXT: usize = 1 << 20;

/// How much of a file is shown.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The largest number of rows, lines or members.
    pub rows: usize,
    /// Show long values and lists in full.
    pub full: bool,
}

impl View {
    /// Returns the number of characters of a text that are shown, given the number without `--full`.
    pub fn text(self, limit: usize) -> usize {
        if self.full { WHOLE_TEXT } else { limit }
    }

    /// Returns the number of items of a list that are shown, given the number without `--full`.
    pub fn items(self, limit: usize) -> usize {
        if self.full { usize::MAX } else { limit }
    }
}

/// The content of a file, read and ready to be shown.
pub trait Facts {
    /// Prints the facts for people.
    ///
    /// # Errors
    /// Returns the errors of the stream.
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()>;

    /// Returns the same facts for programs: a JSON object whose keys are those of `docs/FORMATS.md`.
    ///
    /// # Errors
    /// Returns an error for facts that JSON cannot express.
    fn json(&self) -> Result<Value>;

    /// Returns the place and kind of damage, after which nothing of the file was read.
    fn damage(&self) -> Option<&str> {
        None
    }
}
