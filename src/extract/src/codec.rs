//! The decoder of an extractor of codes: codes in, sound out.

use flowmill_audio::AudioError;
use flowmill_corpus::{Array, ArrayError};
use flowmill_nn::NnError;

/// Turns the codes of an extractor back into sound. It is opened from the extractor's fitted state by
/// [`Registry::codec`](crate::Registry::codec). Pure: the same codes give the same samples, on any thread.
pub trait Codec: Send + Sync {
    /// The number of levels of a row's codes.
    fn levels(&self) -> usize;

    /// The number of different codes of each level: each is less than this.
    fn vocabulary(&self) -> usize;

    /// Frames per second.
    fn frame_rate(&self) -> f64;

    /// The sample rate of the decoded sound, in Hz.
    fn sample_rate(&self) -> u32;

    /// Returns the samples of one channel for codes `i32 [level, frame]`. There may be fewer levels than [`levels`](Self::levels): the
    /// finer ones are then left out. Codes without a frame give no samples.
    ///
    /// # Errors
    /// When the codes are not of this shape and type, or one is not below [`vocabulary`](Self::vocabulary); [`CodecError::TooLong`] above
    /// the length that is decoded at a time; an error of the network.
    fn decode(&self, codes: &Array) -> Result<Vec<f32>, CodecError>;
}

/// The reason why codes cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The codes are not of the type `i32`.
    #[error("the array of codes {0}")]
    Type(#[from] ArrayError),
    /// The codes do not have two axes, or have no level or too many.
    #[error("codes have the shape {found:?}, expected [level, frame] with 1 to {levels} levels")]
    Shape {
        /// The shape.
        found: Vec<usize>,
        /// The number of levels of the codec.
        levels: usize,
    },
    /// A code is not one of the codec's.
    #[error("code {code} at level {level}, frame {frame}: the codec has codes from 0 to below {vocabulary}")]
    Code {
        /// The level, from 0.
        level: usize,
        /// The frame, from 0.
        frame: usize,
        /// The code.
        code: i32,
        /// The number of different codes.
        vocabulary: usize,
    },
    /// There are more frames than are decoded at a time.
    #[error("{seconds:.0} s of codes, at most {most:.0} s are decoded at a time; decode them in pieces")]
    TooLong {
        /// The length of the codes in seconds.
        seconds: f64,
        /// The longest that is decoded.
        most: f64,
    },
    /// A network refused the codes.
    #[error(transparent)]
    Network(#[from] NnError),
    /// The spectrogram of the codes could not be turned into sound.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// The result has a sample that is not finite.
    #[error("the decoder gave a sample that is not finite")]
    NotFinite,
}

/// Checked codes of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codes<'a> {
    codes: &'a [i32],
    /// The number of frames.
    pub(crate) frames: usize,
}

impl<'a> Codes<'a> {
    /// Checks codes for a codec; `longest` is the length that it decodes, in seconds.
    ///
    /// # Errors
    /// [`CodecError::Type`], [`CodecError::Shape`], [`CodecError::Code`], [`CodecError::TooLong`].
    pub(crate) fn check(array: &'a Array, codec: &dyn Codec, longest: f64) -> Result<Self, CodecError> {
        let codes = array.values::<i32>()?;
        let (levels, vocabulary) = (codec.levels(), codec.vocabulary());
        let &[found, frames] = array.shape() else {
            return Err(CodecError::Shape { found: array.shape().to_vec(), levels });
        };
        if !(1..=levels).contains(&found) {
            return Err(CodecError::Shape { found: array.shape().to_vec(), levels });
        }
        let seconds = frames as f64 / codec.frame_rate();
        if seconds > longest {
            return Err(CodecError::TooLong { seconds, most: longest });
        }
        let is_known = |code: i32| usize::try_from(code).is_ok_and(|code| code < vocabulary);
        match codes.iter().position(|code| !is_known(*code)) {
            Some(at) => {
                let (level, frame) = (at / frames.max(1), at % frames.max(1));
                Err(CodecError::Code { level, frame, code: codes[at], vocabulary })
            }
            None => Ok(Self { codes, frames }),
        }
    }

    /// Iterates over the levels, the coarsest first: the code of every frame.
    pub(crate) fn levels(self) -> impl Iterator<Item = impl Iterator<Item = usize> + 'a> {
        // Checked to be at least 0.
        self.codes.chunks_exact(self.frames.max(1)).map(|level| level.iter().map(|code| *code as usize))
    }
}

/// Checks decoded samples.
///
/// # Errors
/// [`CodecError::NotFinite`].
pub(crate) fn finite(samples: Vec<f32>) -> Result<Vec<f32>, CodecError> {
    if samples.iter().all(|sample| sample.is_finite()) { Ok(samples) } else { Err(CodecError::NotFinite) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three levels of four codes at 2 Hz.
    struct Toy;

    impl Codec for Toy {
        fn levels(&self) -> usize {
            3
        }

        fn vocabulary(&self) -> usize {
            4
        }

        fn frame_rate(&self) -> f64 {
            2.0
        }

        fn sample_rate(&self) -> u32 {
            8
        }

        fn decode(&self, codes: &Array) -> Result<Vec<f32>, CodecError> {
            let codes = Codes::check(codes, self, 5.0)?;
            let sum = |frame: usize| codes.levels().filter_map(|mut level| level.nth(frame)).sum::<usize>() as f32;
            finite((0..codes.frames).map(sum).collect())
        }
    }

    #[test]
    fn codes_are_checked_before_they_are_decoded() {
        let decode = |shape: [usize; 2], codes: Vec<i32>| Toy.decode(&Array::new(shape.to_vec(), codes).unwrap());
        assert_eq!(decode([3, 2], vec![0, 1, 2, 3, 3, 3]).unwrap(), [5.0, 7.0]);
        assert_eq!(decode([1, 3], vec![1, 2, 3]).unwrap(), [1.0, 2.0, 3.0]);
        assert!(decode([2, 0], vec![]).unwrap().is_empty());
        assert!(matches!(decode([4, 1], vec![0; 4]), Err(CodecError::Shape { levels: 3, .. })));
        assert!(matches!(decode([0, 3], vec![]), Err(CodecError::Shape { .. })));
        assert!(matches!(
            decode([2, 2], vec![0, 0, 0, 4]),
            Err(CodecError::Code { level: 1, frame: 1, code: 4, vocabulary: 4 })
        ));
        assert!(matches!(decode([1, 2], vec![0, -1]), Err(CodecError::Code { code: -1, .. })));
        assert!(matches!(decode([1, 11], vec![0; 11]), Err(CodecError::TooLong { .. })));
        assert!(matches!(Toy.decode(&Array::vector(vec![0i32])), Err(CodecError::Shape { .. })));
        assert!(matches!(Toy.decode(&Array::new(vec![1, 1], vec![0i64]).unwrap()), Err(CodecError::Type(_))));
    }
}
