//! The codes of an audio codec.

use super::{Result, VallEError};
use std::ops::Range;

/// Codes `[level, frame]`, row-major.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Codes {
    levels: usize,
    frames: usize,
    values: Vec<u32>,
}

impl Codes {
    /// Creates codes from row-major values.
    ///
    /// # Errors
    /// [`VallEError::Sample`] if the number of values does not match.
    pub fn new(levels: usize, frames: usize, values: Vec<u32>) -> Result<Self> {
        if levels.checked_mul(frames) != Some(values.len()) {
            let message = format!("{} codes for {levels} levels of {frames} frames", values.len());
            return Err(VallEError::Sample { item: 0, message });
        }
        Ok(Self { levels, frames, values })
    }

    /// Creates codes from the codes of each level.
    ///
    /// # Errors
    /// [`VallEError::Sample`] if the levels have different numbers of frames.
    pub fn from_levels(levels: &[Vec<u32>]) -> Result<Self> {
        let frames = levels.first().map_or(0, Vec::len);
        if let Some(other) = levels.iter().find(|level| level.len() != frames) {
            let message = format!("levels of {frames} and {} frames", other.len());
            return Err(VallEError::Sample { item: 0, message });
        }
        Ok(Self { levels: levels.len(), frames, values: levels.concat() })
    }

    /// Returns the number of levels.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Returns the number of frames.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Returns all values, row-major.
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// Returns the codes of a level; empty if there is no such level.
    pub fn level(&self, level: usize) -> &[u32] {
        self.values.get(level * self.frames..(level + 1) * self.frames).unwrap_or_default()
    }

    /// Returns some frames of all levels. Frames beyond the end are left out.
    #[must_use]
    pub fn cut(&self, frames: Range<usize>) -> Self {
        let end = frames.end.min(self.frames);
        let frames = frames.start.min(end)..end;
        let values = (0..self.levels).flat_map(|level| &self.level(level)[frames.clone()]).copied().collect();
        Self { levels: self.levels, frames: frames.len(), values }
    }

    /// Appends the frames of other codes.
    ///
    /// # Errors
    /// [`VallEError::Sample`] if the numbers of levels differ.
    pub fn append(&self, other: &Self) -> Result<Self> {
        if self.levels != other.levels {
            let message = format!("codes of {} and {} levels", self.levels, other.levels);
            return Err(VallEError::Sample { item: 0, message });
        }
        let joined: Vec<Vec<u32>> =
            (0..self.levels).map(|level| [self.level(level), other.level(level)].concat()).collect();
        Self::from_levels(&joined)
    }

    /// Appends a level.
    ///
    /// # Errors
    /// [`VallEError::Sample`] if the number of frames differs.
    pub fn push_level(&mut self, codes: &[u32]) -> Result<()> {
        if self.levels > 0 && codes.len() != self.frames {
            let message = format!("a level of {} frames after levels of {}", codes.len(), self.frames);
            return Err(VallEError::Sample { item: 0, message });
        }
        self.frames = codes.len();
        self.values.extend_from_slice(codes);
        self.levels += 1;
        Ok(())
    }
}
