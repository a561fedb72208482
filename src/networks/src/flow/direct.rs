//! A linear path from token and speaker embeddings directly to the mel, parallel to the encoder. The public models
//! have none.

use super::{FlowConfig, Result};
use flowmill_nn::init::{Builder, Init};
use flowmill_nn::layers::{Conv1d, Linear};
use flowmill_nn::ops::Convolution;
use flowmill_nn::{Context, Ragged, Value};

/// The linear path, which learns the sound of each unit among its neighbors, and the deviation of each speaker.
#[derive(Debug, Clone)]
pub(super) struct DirectMel {
    units: Conv1d,
    speaker: Linear,
    ratio: usize,
    bins: usize,
}

impl DirectMel {
    /// Creates the path if the settings have one.
    pub(super) fn new(mut builder: Builder, config: &FlowConfig) -> Result<Option<Self>> {
        let (kernel, ratio, bins) = (config.direct_mel_kernel, config.token_mel_ratio, config.output_size);
        if kernel == 0 {
            return Ok(None);
        }
        let centered = Convolution { padding: [kernel / 2, kernel / 2], ..Convolution::default() };
        let units = Conv1d::new(builder.scope("units"), config.input_size, ratio * bins, kernel, centered)?;
        let (width, zero) = (config.spk_embed_dim, Init::Constant(0.0));
        let speaker = Linear::with_init(builder.scope("speaker"), width, bins, zero, None)?;
        Ok(Some(Self { units, speaker, ratio, bins }))
    }

    /// Returns mel frames `[frame row, bin]` for embedded tokens `[token row, channel]` and speakers of unit length
    /// `[item, value]`.
    pub(super) fn forward(&self, context: &Context, tokens: &Value, items: &Ragged, speakers: &Value) -> Result<Value> {
        let frames = [items.total() * self.ratio, self.bins];
        let mels = self.units.forward_packed(context, tokens, items)?.reshape(&frames)?;
        Ok(mels.add_items(&self.speaker.forward(context, speakers)?, &items.repeated(self.ratio))?)
    }
}
