//! The dimensions of the network, with those of the published model as defaults.

use super::{FloatError, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest size of a dimension, which keeps products of sizes within range.
const LARGEST: usize = 1 << 20;

/// Dimensions of FLOAT's flow matching transformer. The names are those of the public configuration where it has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FloatConfig {
    /// Channels of the motion of a frame, and of the reference.
    pub dim_w: usize,
    /// Channels of the speech condition of a frame.
    pub dim_a: usize,
    /// Emotions, that is, numbers of the emotion condition.
    pub dim_e: usize,
    /// Speech features per frame, which a learned projection maps to `dim_a`: 9216 for the 12 hidden states of wav2vec 2.0 (base), 768 for
    /// the last one only (`only_last_features`). 0 for features that have `dim_a` channels already and are not projected.
    pub audio_features: usize,
    /// Channels of the transformer.
    pub dim_h: usize,
    /// Blocks of the transformer.
    pub fmt_depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Channels inside the feed-forward layers, as a multiple of `dim_h`.
    pub mlp_ratio: f32,
    /// Frames before the window whose motion and speech are given.
    pub num_prev_frames: usize,
    /// Frames per window. The public configuration gives seconds (`wav2vec_sec`, 2) times frames per second (`fps`, 25).
    pub num_frames: usize,
    /// Frames that attention reaches in both directions.
    pub attention_window: usize,
}

impl Default for FloatConfig {
    fn default() -> Self {
        Self {
            dim_w: 512,
            dim_a: 512,
            dim_e: 7,
            audio_features: 12 * 768,
            dim_h: 1024,
            fmt_depth: 8,
            num_heads: 8,
            mlp_ratio: 4.0,
            num_prev_frames: 10,
            num_frames: 50,
            attention_window: 2,
        }
    }
}

impl FloatConfig {
    /// Checks that the settings are consistent.
    ///
    /// # Errors
    /// [`FloatError::Config`] names the first wrong setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, message: String| Err(FloatError::Config { field, message });
        let sizes = [
            ("dim_w", self.dim_w, 1),
            ("dim_a", self.dim_a, 1),
            ("dim_e", self.dim_e, 1),
            ("audio_features", self.audio_features, 0),
            ("dim_h", self.dim_h, 2),
            ("fmt_depth", self.fmt_depth, 1),
            ("num_heads", self.num_heads, 1),
            ("num_prev_frames", self.num_prev_frames, 0),
            ("num_frames", self.num_frames, 1),
            ("attention_window", self.attention_window, 0),
        ];
        if let Some((field, size, least)) =
            sizes.into_iter().find(|(_, size, least)| !(*least..=LARGEST).contains(size))
        {
            return refuse(field, format!("{size} is not between {least} and {LARGEST}"));
        }
        if !self.dim_h.is_multiple_of(self.num_heads) {
            return refuse(
                "num_heads",
                format!("{} channels cannot be divided among {} heads", self.dim_h, self.num_heads),
            );
        }
        if !self.dim_h.is_multiple_of(2) {
            return refuse("dim_h", format!("{} is odd, but positions are encoded in pairs of channels", self.dim_h));
        }
        if self.num_frames < self.num_prev_frames {
            let message =
                format!("{} frames cannot give the {} previous frames", self.num_frames, self.num_prev_frames);
            return refuse("num_frames", message);
        }
        let inner = f64::from(self.mlp_ratio) * self.dim_h as f64;
        if !(1.0..=LARGEST as f64).contains(&inner) {
            return refuse("mlp_ratio", format!("{} does not give between 1 and {LARGEST} channels", self.mlp_ratio));
        }
        Ok(())
    }

    /// Returns the number of speech features per frame that the model reads.
    pub fn audio_width(&self) -> usize {
        if self.audio_features == 0 { self.dim_a } else { self.audio_features }
    }

    /// Returns the frames of a whole window: the previous and the current ones.
    pub fn window(&self) -> usize {
        self.num_prev_frames + self.num_frames
    }

    /// Returns the channels inside the feed-forward layers.
    pub fn mlp_size(&self) -> usize {
        (f64::from(self.mlp_ratio) * self.dim_h as f64) as usize
    }

    /// Returns the public buffer `alignment_mask` `[query frame, key frame]`, row-major: true for pairs without attention.
    pub fn alignment_mask(&self) -> Vec<bool> {
        let frames = self.window();
        let row = |query: usize| (0..frames).map(move |key| key.abs_diff(query) > self.attention_window);
        (0..frames).flat_map(row).collect()
    }
}
