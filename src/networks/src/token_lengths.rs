//! The check that tokens and a mel belong to the same speech, for packing and training.

use flowmill_extract::dual_codebook::{GROUP, SEMANTIC_PER_GROUP, is_mixed_rate};

/// Tokens and frames of one utterance may differ by this number of tokens, because of rounding at both ends …
const SLACK_TOKENS: f64 = 4.0;
/// … and by this share of its frames. A larger difference means that they are from different speech, or that their
/// rates do not match.
const SLACK_SHARE: f64 = 0.02;

/// Returns whether tokens that correspond to `expected` mel frames match a mel of `frames`, at `frames_per_token`.
pub fn go_together(expected: f64, frames: usize, frames_per_token: f64) -> bool {
    (expected - frames as f64).abs() <= SLACK_TOKENS * frames_per_token + SLACK_SHARE * frames as f64
}

/// Returns the model's tokens per second for tokens with this `rate`: for a mixed sequence of two codebooks, that of
/// its paired frames.
pub fn rate_read(rate: f64) -> f64 {
    if is_mixed_rate(rate) { rate * SEMANTIC_PER_GROUP as f64 / GROUP as f64 } else { rate }
}
