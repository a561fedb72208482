//! Long mels, generated window after window. Attention over everything takes time and memory that grow with the square of the length; windows
//! of one length take time in proportion to it.
//!
//! A window begins with the last frames of the one before it as a prompt, as public inference code begins with the frames of a recording
//! (`prompt_feat`). It also sees some tokens after its end, whose frames are generated again by the next window. The noise of a frame belongs to
//! its place in the whole mel, not in a window. Models that were trained without prompts see the frames before as the state of the solver
//! ([`GenerationOptions::hold_prompts`]).

use std::ops::Range;

use crate::TokenToMel;
use crate::flow::{ConditionsConfig, Generated, GenerationOptions, GenerationRequest, Prompt, Result};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, host};

/// The division of a mel into windows, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// The longest window.
    pub length: usize,
    /// The end of the window before that a window continues.
    pub context: usize,
    /// The tokens after a window that it sees.
    pub lookahead: usize,
}

/// A part of a mel.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// The frames of the mel that it has.
    pub frames: Range<usize>,
    /// The log-mel `[frame][bin]`.
    pub mel: Vec<f32>,
    /// The number of evaluations of the velocity.
    pub evaluations: usize,
    /// True for the last window.
    pub is_last: bool,
}

impl Windows {
    /// Returns the windows of this number of tokens: as few as possible, of nearly equal lengths.
    pub fn of(&self, tokens: usize) -> Vec<Range<usize>> {
        let count = tokens.div_ceil(self.length.max(1)).max(1);
        (0..count).map(|index| index * tokens / count..(index + 1) * tokens / count).collect()
    }
}

/// Generates a mel window by window, and passes each to `take`. One window is the mel of [`TokenToMel::generate`], bit for bit.
///
/// # Errors
/// See [`TokenToMel::generate_from`]; those of `take`.
pub fn generate_in_windows<E: From<crate::flow::FlowError>>(
    network: &dyn TokenToMel,
    context: &Context<'_>,
    request: &GenerationRequest,
    options: &GenerationOptions,
    rng_key: &RngKey,
    windows: &Windows,
    mut take: impl FnMut(Window) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let flow = network.flow();
    let config = flow.config();
    let (ids, ratio, bins) = (config.ids_per_token(), config.token_mel_ratio, config.output_size);
    let tokens = request.tokens.len() / ids;
    // The public training shows prompts to half of the items.
    let prompted =
        config.conditions == ConditionsConfig::ProjectedSpeakerAndPrompt && config.matching.prompt_rate > 0.0;
    let options = GenerationOptions { hold_prompts: !prompted, ..*options };
    // The last frames that were generated, for the next window.
    let mut before: Vec<f32> = Vec::new();
    let all = windows.of(tokens);
    for (index, window) in all.iter().enumerate() {
        let is_last = index + 1 == all.len();
        let seen = window.start.saturating_sub(windows.context)..tokens.min(window.end + windows.lookahead);
        let own = seen.start..window.start;
        let part = |tokens: Range<usize>| request.tokens[tokens.start * ids..tokens.end * ids].to_vec();
        let mel = before.split_off(before.len() - (own.len() * ratio * bins).min(before.len()));
        let prompt = |mel: &[f32]| -> Result<Option<Prompt>> {
            let mel = host::tensor(mel.to_vec(), &[own.len() * ratio, bins])?;
            Ok((!own.is_empty()).then(|| Prompt { tokens: part(own.clone()), mel }))
        };
        let asked = GenerationRequest {
            // What does not make a whole token is an error of generation.
            tokens: if is_last { request.tokens[window.start * ids..].to_vec() } else { part(window.start..seen.end) },
            speaker_embedding: request.speaker_embedding.clone(),
            prompt: prompt(&mel)?,
        };
        let noise = flow.noise_of(rng_key, 0, seen.start * ratio..seen.end * ratio)?;
        let Generated { mels, evaluations } = network.generate_from(context, &[asked], &options, &[noise])?;
        let frames = window.start * ratio..window.end * ratio;
        let mut made = Vec::new();
        for mel in &mels {
            made.extend(host::read(mel).map_err(crate::flow::FlowError::from)?);
        }
        made.truncate(frames.len() * bins);
        before = mel;
        before.extend_from_slice(&made);
        take(Window { frames, mel: made, evaluations: evaluations.into_iter().sum(), is_last })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_nearly_equal_and_cover_every_token() {
        let windows = Windows { length: 10, context: 3, lookahead: 1 };
        assert_eq!(windows.of(10), vec![0..10; 1]);
        assert_eq!(windows.of(11), [0..5, 5..11]);
        assert_eq!(windows.of(25), [0..8, 8..16, 16..25]);
        assert_eq!(windows.of(0), vec![0..0; 1]);
        assert!(windows.of(1000).iter().all(|window| window.len() == 10));
    }
}
