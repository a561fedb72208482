//! Decoding of long mels, piece by piece.

use std::ops::Range;

use super::{MelForm, Result, VocoderError};

/// The length of a piece, in seconds; it bounds the memory of the networks.
const SECONDS: usize = 20;

/// Decodes the frames of a mel piece by piece: `decode` returns the samples of a range of frames, a hop for each. A piece is decoded with
/// `context` frames before and after it, as many as a sample sees, so the result is that of the whole mel.
///
/// # Errors
/// Those of `decode`; [`VocoderError::NotFinite`].
pub(super) fn in_pieces(
    frames: usize,
    context: usize,
    form: &MelForm,
    decode: impl Fn(Range<usize>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let hop = form.hop_length.max(1);
    let piece = (SECONDS * form.sample_rate as usize / hop).max(1);
    decode_pieces(frames, context.max(1), piece, hop, decode)
}

fn decode_pieces(
    frames: usize,
    context: usize,
    piece: usize,
    hop: usize,
    decode: impl Fn(Range<usize>) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let mut samples = Vec::new();
    for start in (0..frames).step_by(piece) {
        let end = frames.min(start + piece);
        let (first, last) = (start.saturating_sub(context), frames.min(end + context));
        let made = decode(first..last)?;
        // The last frames may have fewer samples.
        let [from, to] = [start, end].map(|frame| made.len().min((frame - first) * hop));
        samples.extend_from_slice(&made[from..to]);
    }
    match samples.iter().all(|sample| sample.is_finite()) {
        true => Ok(samples),
        false => Err(VocoderError::NotFinite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        // Each frame has two samples; the last one has none.
        let decode = |frames: Range<usize>| -> Result<Vec<f32>> {
            Ok((2 * frames.start..2 * frames.end - 2).map(|sample| sample as f32).collect())
        };
        let whole: Vec<f32> = (0..18).map(|sample| sample as f32).collect();
        for piece in [1, 3, 4, 9, 10, 20] {
            assert_eq!(decode_pieces(10, 2, piece, 2, decode).unwrap(), whole, "{piece}");
        }
        assert!(decode_pieces(0, 2, 4, 2, decode).unwrap().is_empty());
        assert!(matches!(decode_pieces(1, 1, 1, 1, |_| Ok(vec![f32::NAN])), Err(VocoderError::NotFinite)));
    }
}
