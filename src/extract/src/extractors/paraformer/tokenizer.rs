//! The tokenizer from a waveform to tokens.

use flowmill_nn::NnError;

use super::{
    checkpoint::Dimensions,
    cmvn::Cmvn,
    encoder::Encoder,
    frontend::{Frontend, Stacking},
};
use crate::{ExtractError, Matrix, UnusableWeights, nearest::Nearest};

/// The encoder's output for a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// The hidden values, `[frame][channel]`.
    pub hidden: Matrix,
}

/// Encoder, its input, and the centres.
pub struct LinguisticTokenizer {
    frontend: Frontend,
    cmvn: Option<Cmvn>,
    encoder: Encoder,
    nearest: Nearest,
}

impl LinguisticTokenizer {
    /// A tokenizer of these parts.
    ///
    /// # Errors
    /// When they do not fit together.
    pub fn new(
        encoder: Encoder,
        stacking: Stacking,
        cmvn: Option<Cmvn>,
        centres: Matrix,
    ) -> Result<Self, UnusableWeights> {
        Self::check(encoder.dimensions(), stacking, cmvn.as_ref(), &centres)?;
        let inputs = encoder.dimensions().inputs;
        let frontend = Frontend::new(stacking, encoder.chunking().size, inputs / stacking.frames);
        let frontend = frontend.map_err(|error| UnusableWeights(error.to_string()))?;
        Ok(Self { frontend, cmvn, encoder, nearest: Nearest::new(centres) })
    }

    /// Fails unless the parts fit together.
    pub(super) fn check(
        encoder: &Dimensions,
        stacking: Stacking,
        cmvn: Option<&Cmvn>,
        centres: &Matrix,
    ) -> Result<(), UnusableWeights> {
        let Dimensions { inputs, outputs: channels, .. } = *encoder;
        if stacking.frames == 0 || stacking.shift == 0 || !inputs.is_multiple_of(stacking.frames) {
            let message = format!("{inputs} values per frame are not {} filter banks", stacking.frames);
            return Err(UnusableWeights(message));
        }
        if let Some(found) = cmvn.map(|cmvn| cmvn.shift.len()).filter(|found| *found != inputs) {
            let message = format!("the normalization has {found} numbers, the encoder reads {inputs}");
            return Err(UnusableWeights(message));
        }
        if centres.columns() != channels || centres.rows() == 0 || !centres.is_finite() {
            let found = format!("{} centres of {} numbers", centres.rows(), centres.columns());
            return Err(UnusableWeights(format!("{found}; the encoder gives {channels} channels")));
        }
        Ok(())
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The centres, `[token][channel]`.
    pub fn centres(&self) -> &Matrix {
        self.nearest.centres()
    }

    /// Runs the encoder over a recording at 16 kHz, in the chunks of a stream.
    ///
    /// # Errors
    /// When the input cannot be computed.
    pub fn encode(&self, samples: &[f32]) -> Result<Encoded, ExtractError> {
        let mut stacked = self.frontend.stack(samples)?;
        if let Some(cmvn) = &self.cmvn {
            cmvn.apply(&mut stacked.data);
        }
        let hidden = self.encoder.encode(&stacked.data, &stacked.chunks)?;
        Ok(Encoded { hidden: Matrix::new(hidden, self.encoder.dimensions().outputs) })
    }

    /// The nearest centre of every frame.
    ///
    /// # Errors
    /// When the frames are not of this encoder.
    pub fn quantize(&self, encoded: &Encoded) -> Result<Vec<u32>, NnError> {
        let channels = self.centres().columns();
        if encoded.hidden.columns() != channels {
            return Err(NnError::shape("centres", format!("[_, {channels}]"), &[encoded.hidden.columns()]));
        }
        Ok(self.nearest.assign(&encoded.hidden).into_iter().map(|(token, _)| token).collect())
    }

    /// The tokens of a recording at 16 kHz; none when it is shorter than a stack of frames.
    ///
    /// # Errors
    /// The errors of [`encode`](Self::encode).
    pub fn tokens(&self, samples: &[f32]) -> Result<Vec<u32>, ExtractError> {
        Ok(self.quantize(&self.encode(samples)?)?)
    }
}
