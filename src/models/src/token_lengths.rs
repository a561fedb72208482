//! The check that tokens and a mel are of the same speech, for packing and training.

use flowmill_extract::dual_codebook::{GROUP, SEMANTIC_PER_GROUP, is_mixed_rate};

/// Tokens and frames of one utterance may differ by this many tokens, as rounding at both ends makes them …
const SLACK_TOKENS: f64 = 4.0;
/// … and by this share of its frames; more means that they are not of the same speech, or that their rates do not fit.
const SLACK_SHARE: f64 = 0.02;

/// Returns whether tokens that stand for `expected` mel frames go together with a mel of `frames`, at `frames_per_token`.
pub fn go_together(expected: f64, frames: usize, frames_per_token: f64) -> bool {
    (expected - frames as f64).abs() <= SLACK_TOKENS * frames_per_token + SLACK_SHARE * frames as f64
}

/// Returns the model's tokens per second for tokens that come at `rate`: of a mixed sequence of two codebooks paired frames.
pub fn rate_read(rate: f64) -> f64 {
    if is_mixed_rate(rate) { rate * SEMANTIC_PER_GROUP as f64 / GROUP as f64 } else { rate }
}
