//! Recordings longer than a tokenizer takes at once.
//!
//! The first version cuts the samples into pieces of 30 s, each with a log-mel of its own, as Step-Audio does. Later versions move a
//! window of 30 s over the log-mel of the whole recording, 26 s at a time, and keep of every overlap the halves that lie further
//! from the windows' ends, as the S3Tokenizer package does; but not through a window that lies within the one before it, where the
//! package (0.3.0) loses up to two seconds of tokens.

use std::ops::Range;

/// Samples per second.
pub const SAMPLE_RATE: u32 = 16_000;

/// Samples of a piece at most: 30 s.
const PIECE: usize = 30 * SAMPLE_RATE as usize;

/// Shorter pieces are dropped: there is nothing to hear in 30 ms.
pub const SHORTEST: usize = 480;

/// Log-mel frames of a window: 30 s.
const WINDOW: usize = 3000;

/// Frames from one window to the next.
const STRIDE: usize = 2600;

/// Tokens of half an overlap.
const HALF_OVERLAP: usize = 50;

/// Returns the pieces of a recording with this number of samples.
pub fn pieces(samples: usize) -> impl Iterator<Item = Range<usize>> {
    let piece = move |start: usize| start..samples.min(start + PIECE);
    (0..samples).step_by(PIECE).map(piece).filter(|piece| piece.len() >= SHORTEST)
}

/// Returns the windows over a log-mel with this number of frames.
pub fn windows(frames: usize) -> Vec<Range<usize>> {
    let mut windows = public_windows(frames);
    if let [.., before, last] = windows.as_slice()
        && last.end <= before.end
    {
        windows.pop();
    }
    windows
}

/// The windows that the S3Tokenizer package takes: the last may lie within the one before it.
pub fn public_windows(frames: usize) -> Vec<Range<usize>> {
    let until = if frames <= WINDOW { frames.min(1) } else { frames };
    (0..until).step_by(STRIDE).map(|start| start..frames.min(start + WINDOW)).collect()
}

/// The tokens of a recording from those of its windows.
pub fn merge_windows(windows: Vec<Vec<u32>>) -> Vec<u32> {
    let last = windows.len().saturating_sub(1);
    let mut merged = Vec::with_capacity(windows.iter().map(Vec::len).sum());
    for (index, tokens) in windows.iter().enumerate() {
        let from = if index == 0 { 0 } else { HALF_OVERLAP.min(tokens.len()) };
        let to = if index == last { tokens.len() } else { tokens.len().saturating_sub(HALF_OVERLAP) };
        merged.extend_from_slice(&tokens[from..to.max(from)]);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_recording_but_for_a_rest_too_short_to_hear() {
        assert!(pieces(PIECE + 479).eq(std::iter::once(0..PIECE)));
        assert_eq!(pieces(PIECE + 480).collect::<Vec<_>>(), [0..PIECE, PIECE..PIECE + 480]);
        assert_eq!(pieces(479).count() + pieces(0).count(), 0);
    }

    #[test]
    fn windows_end_with_the_recording() {
        assert!(windows(3000).into_iter().eq(std::iter::once(0..3000)));
        assert_eq!(windows(3001), [0..3000, 2600..3001]);
        assert_eq!(windows(5600), [0..3000, 2600..5600]);
        assert_eq!(windows(5601), [0..3000, 2600..5600, 5200..5601]);
        assert!(windows(0).is_empty());
        assert_eq!(public_windows(5300), [0..3000, 2600..5300, 5200..5300]);
        assert!([0, 1, 2601, 3000, 3001, 5200, 5601].iter().all(|frames| public_windows(*frames) == windows(*frames)));
    }

    /// Tokens that say where they are: merged windows give every token of the recording once.
    #[test]
    fn merging_loses_and_repeats_nothing() {
        for frames in [1, 2999, 3000, 3001, 3400, 5599, 5601, 9000] {
            let token = |window: Range<usize>| (window.start / 4..window.end.div_ceil(4)).map(|at| at as u32).collect();
            let merged = merge_windows(windows(frames).into_iter().map(token).collect());
            assert!(merged.into_iter().eq(0..frames.div_ceil(4) as u32), "{frames}");
        }
    }
}
