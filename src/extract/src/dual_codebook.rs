//! Two streams of speech tokens in one: the interleaving of Step-Audio's codebooks, and the form in which its flow
//! reads them.
//!
//! The *linguistic* tokens (vq02, 16.7 Hz, nearest centers of Paraformer's encoder) and the *semantic* ones (vq06, 25
//! Hz, S3 tokenizer v1) are stored as one *mixed sequence*: groups of two linguistic and three semantic tokens, 120
//! ms each. The semantic tokens are offset by the size of the linguistic codebook. The flow reads *paired frames* at
//! 25 Hz, three per group: the linguistic tokens and one padding next to the semantic tokens. The offset of the
//! latter is one larger here, for the padding.

/// The number of linguistic tokens in a group.
pub const LINGUISTIC_PER_GROUP: usize = 2;

/// The number of semantic tokens in a group.
pub const SEMANTIC_PER_GROUP: usize = 3;

/// The number of tokens in a group.
pub const GROUP: usize = LINGUISTIC_PER_GROUP + SEMANTIC_PER_GROUP;

/// The number of tokens of the mixed sequence per second: five for every three semantic tokens at 25 Hz.
pub const MIXED_RATE: f64 = 25.0 * GROUP as f64 / SEMANTIC_PER_GROUP as f64;

/// Returns whether tokens with this rate are a mixed sequence.
pub fn is_mixed_rate(rate: f64) -> bool {
    (rate - MIXED_RATE).abs() < 0.5
}

/// An error about tokens that are not a mixed sequence of two codebooks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DualCodebookError {
    /// The sequence ends inside a group.
    #[error(
        "{length} tokens are not whole groups of {GROUP}, two of the linguistic and three of the semantic codebook: not a mixed \
         sequence of two codebooks"
    )]
    Ragged {
        /// The number of tokens of the sequence.
        length: usize,
    },
    /// A token is outside the codebook of its place.
    #[error("token {token} at position {position} is not in the {codebook} codebook, which is {least} to {most} there")]
    Foreign {
        /// The token.
        token: i64,
        /// The index in the sequence.
        position: usize,
        /// The codebook of that place.
        codebook: &'static str,
        /// The codebook's first token.
        least: usize,
        /// The codebook's last token.
        most: usize,
    },
}

/// The sizes of the two codebooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DualCodebook {
    /// The number of entries of the linguistic codebook (vq02).
    pub linguistic: usize,
    /// The number of entries of the semantic codebook (vq06).
    pub semantic: usize,
}

impl Default for DualCodebook {
    /// The published sizes.
    fn default() -> Self {
        Self { linguistic: 1024, semantic: 4096 }
    }
}

impl DualCodebook {
    /// Returns the number of different tokens of a mixed sequence.
    pub fn mixed_vocabulary(self) -> usize {
        self.linguistic + self.semantic
    }

    /// Returns the number of different indices in paired frames: those of a mixed sequence, and the padding.
    pub fn frame_vocabulary(self) -> usize {
        self.linguistic + 1 + self.semantic
    }

    /// Returns the index of the padding next to the last semantic token of a group.
    pub fn padding(self) -> usize {
        self.linguistic
    }

    /// Returns the mixed sequence of two streams: as many groups as both fill. Remaining tokens are dropped.
    ///
    /// # Errors
    /// Returns an error for a token outside its codebook.
    pub fn mix(self, linguistic: &[u32], semantic: &[u32]) -> Result<Vec<i64>, DualCodebookError> {
        let groups = linguistic.chunks_exact(LINGUISTIC_PER_GROUP).zip(semantic.chunks_exact(SEMANTIC_PER_GROUP));
        let offset = self.linguistic as i64;
        let mixed: Vec<i64> = groups
            .flat_map(|(linguistic, semantic)| {
                let semantic = semantic.iter().map(move |token| i64::from(*token) + offset);
                linguistic.iter().map(|token| i64::from(*token)).chain(semantic)
            })
            .collect();
        self.check(&mixed)?;
        Ok(mixed)
    }

    /// Returns the two streams of a mixed sequence, linguistic and semantic, each counted from 0.
    ///
    /// # Errors
    /// Returns an error if it is not a mixed sequence.
    pub fn split(self, mixed: &[i64]) -> Result<(Vec<u32>, Vec<u32>), DualCodebookError> {
        self.check(mixed)?;
        let offset = self.linguistic as i64;
        let groups = || mixed.chunks_exact(GROUP);
        // The tokens were checked to be in their codebooks, which are far smaller than 2^32.
        let linguistic = groups().flat_map(|group| &group[..LINGUISTIC_PER_GROUP]).map(|token| *token as u32);
        let semantic = groups().flat_map(|group| &group[LINGUISTIC_PER_GROUP..]).map(|token| (*token - offset) as u32);
        Ok((linguistic.collect(), semantic.collect()))
    }

    /// Returns the paired frames of a mixed sequence, three per group: `[linguistic or padding, semantic]`.
    ///
    /// # Errors
    /// Returns an error if it is not a mixed sequence.
    pub fn frames(self, mixed: &[i64]) -> Result<Vec<[u32; 2]>, DualCodebookError> {
        let (linguistic, semantic) = self.split(mixed)?;
        let (padding, offset) = (self.padding() as u32, self.linguistic as u32 + 1);
        let groups = linguistic.chunks_exact(LINGUISTIC_PER_GROUP).zip(semantic.chunks_exact(SEMANTIC_PER_GROUP));
        let frames = groups.flat_map(|(linguistic, semantic)| {
            let first = linguistic.iter().copied().chain([padding]);
            first.zip(semantic).map(move |(linguistic, semantic)| [linguistic, semantic + offset])
        });
        Ok(frames.collect())
    }

    /// Checks that `mixed` consists of whole groups of tokens from the codebooks of their places.
    ///
    /// # Errors
    /// Returns the first problem.
    pub fn check(self, mixed: &[i64]) -> Result<(), DualCodebookError> {
        if !mixed.len().is_multiple_of(GROUP) {
            return Err(DualCodebookError::Ragged { length: mixed.len() });
        }
        for (position, &token) in mixed.iter().enumerate() {
            let (codebook, range) = if position % GROUP < LINGUISTIC_PER_GROUP {
                ("linguistic", 0..self.linguistic)
            } else {
                ("semantic", self.linguistic..self.mixed_vocabulary())
            };
            if !usize::try_from(token).is_ok_and(|token| range.contains(&token)) {
                let (least, most) = (range.start, range.end.saturating_sub(1));
                return Err(DualCodebookError::Foreign { token, position, codebook, least, most });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_mixed_in_groups_of_two_and_three() {
        let mixed = DualCodebook::default().mix(&[1, 2, 3, 4, 5], &[6, 7, 8, 9, 10, 4095, 0, 0, 0]).unwrap();
        assert_eq!(mixed, [1, 2, 1030, 1031, 1032, 3, 4, 1033, 1034, 5119]);
    }

    #[test]
    fn the_shorter_stream_ends_the_sequence() {
        let codebook = DualCodebook::default();
        assert_eq!(codebook.mix(&[1, 2, 3, 4], &[6, 7, 8, 9, 10]).unwrap().len(), 5);
        assert!(codebook.mix(&[1], &[6, 7, 8]).unwrap().is_empty());
    }

    #[test]
    fn splitting_undoes_mixing() {
        let codebook = DualCodebook { linguistic: 16, semantic: 40 };
        let (linguistic, semantic) = (vec![0, 15, 3, 4], vec![0, 39, 1, 2, 3, 4]);
        let mixed = codebook.mix(&linguistic, &semantic).unwrap();
        assert_eq!(codebook.split(&mixed).unwrap(), (linguistic, semantic));
    }

    #[test]
    fn paired_frames_have_the_padding_beside_every_third_semantic_token() {
        let codebook = DualCodebook::default();
        let frames = codebook.frames(&[1, 2, 1030, 1031, 1032]).unwrap();
        assert_eq!(frames, [[1, 1031], [2, 1032], [1024, 1033]]);
        assert_eq!(codebook.frame_vocabulary(), 5121);
    }

    #[test]
    fn what_is_not_a_mixed_sequence_is_refused() {
        let codebook = DualCodebook::default();
        assert_eq!(codebook.split(&[1, 2, 1030]), Err(DualCodebookError::Ragged { length: 3 }));
        for (mixed, position) in
            [([1, 1024, 1030, 1030, 1030], 1), ([1, 2, 1023, 1030, 1030], 2), ([-1, 2, 1030, 1030, 5120], 0)]
        {
            match codebook.frames(&mixed) {
                Err(DualCodebookError::Foreign { position: found, .. }) => assert_eq!(found, position),
                other => panic!("{other:?}"),
            }
        }
        assert!(codebook.mix(&[1, 1024], &[0, 0, 0]).is_err());
    }
}
