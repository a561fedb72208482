//! The `encodec` extractor, recordings in and codes out; and its decoder.

use candle_core::Device;
use flowmill_corpus::Array;
use flowmill_nn::{Value, host};

use super::network::quantizer;
use super::{Checkpoint, Decoder, Dimensions, Encoder, KIND, SAMPLE_RATE};
use crate::codec::{Codes, finite};
use crate::residual_quantizer::ResidualQuantizer;
use crate::waveform::recording;
use crate::weights as taken;
use crate::{
    Codec, CodecError, Column, ExtractError, Extracted, Extractor, Matrix, Media, State, StateError, UnusableWeights,
};

/// The length of recordings and codes that are processed at a time, in seconds; it bounds the memory to some 4 GB.
const LONGEST: f64 = 300.0;

/// A checkpoint as a state.
pub(super) fn to_state(checkpoint: &Checkpoint) -> Result<State, UnusableWeights> {
    let Dimensions { filters, hidden, strides, levels, codes } = *checkpoint.dimensions();
    // For people; the sizes are read from the shapes.
    let settings = serde_json::json!({
        "filters": filters, "hidden": hidden, "strides": strides, "levels": levels, "codebook_size": codes,
    });
    let mut state = State::new(KIND, settings);
    checkpoint.keep(&mut state)?;
    Ok(state)
}

/// The checkpoint in a state.
fn of_state(state: &State) -> Result<Checkpoint, StateError> {
    state.expect_kind(KIND)?;
    taken::kept(state, "").and_then(Checkpoint::of_plain).map_err(taken::foreign(KIND))
}

/// The encoder as an extractor.
pub struct EncodecExtractor {
    dimensions: Dimensions,
    encoder: Encoder,
    quantizer: ResidualQuantizer,
}

impl EncodecExtractor {
    /// The extractor of a checkpoint, to run on a device.
    ///
    /// # Errors
    /// When the weights cannot be copied to the device.
    pub fn new(checkpoint: &Checkpoint, device: &Device) -> Result<Self, UnusableWeights> {
        let (encoder, quantizer) = (Encoder::new(checkpoint, device)?, quantizer(checkpoint)?);
        Ok(Self { dimensions: *checkpoint.dimensions(), encoder, quantizer })
    }

    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        Self::new(&of_state(state)?, device).map_err(taken::foreign(KIND))
    }

    /// Returns the encoder's output for samples at 24 kHz, `[frame, channel]`.
    ///
    /// # Errors
    /// When there is no sample, or a device cannot compute it.
    pub fn encode(&self, samples: &[f32]) -> Result<Matrix, flowmill_nn::NnError> {
        let frames = self.encoder.encode(samples)?;
        Ok(Matrix::new(host::read(frames.tensor())?, self.dimensions.hidden))
    }

    /// Returns the codes of the encoder's output, level by level.
    pub fn quantize(&self, frames: &Matrix) -> Vec<Vec<u32>> {
        self.quantizer.quantize(frames)
    }
}

impl Extractor for EncodecExtractor {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        let Dimensions { levels, codes, .. } = self.dimensions;
        vec![Column::codes(levels, codes, rate(&self.dimensions))]
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let samples = recording(media, SAMPLE_RATE, self.encoder.hop_length(), LONGEST, KIND)?;
        let frames = self.encode(&samples)?;
        if !frames.is_finite() {
            return Err(ExtractError::NotFinite { extractor: KIND });
        }
        Extracted::codes(KIND, &self.quantize(&frames))
    }
}

/// Frames per second.
fn rate(dimensions: &Dimensions) -> f64 {
    f64::from(SAMPLE_RATE) / dimensions.hop_length() as f64
}

/// The decoder of the codes.
pub struct EncodecDecoder {
    dimensions: Dimensions,
    decoder: Decoder,
    quantizer: ResidualQuantizer,
}

impl EncodecDecoder {
    /// The decoder of a checkpoint, to run on a device.
    ///
    /// # Errors
    /// When the weights cannot be copied to the device.
    pub fn new(checkpoint: &Checkpoint, device: &Device) -> Result<Self, UnusableWeights> {
        let (decoder, quantizer) = (Decoder::new(checkpoint, device)?, quantizer(checkpoint)?);
        Ok(Self { dimensions: *checkpoint.dimensions(), decoder, quantizer })
    }

    /// The decoder that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        Self::new(&of_state(state)?, device).map_err(taken::foreign(KIND))
    }
}

impl Codec for EncodecDecoder {
    fn levels(&self) -> usize {
        self.dimensions.levels
    }

    fn vocabulary(&self) -> usize {
        self.dimensions.codes
    }

    fn frame_rate(&self) -> f64 {
        rate(&self.dimensions)
    }

    fn sample_rate(&self) -> u32 {
        SAMPLE_RATE
    }

    fn decode(&self, codes: &Array) -> Result<Vec<f32>, CodecError> {
        let codes = Codes::check(codes, self, LONGEST)?;
        if codes.frames == 0 {
            return Ok(Vec::new());
        }
        let frames = Value::from_vec(self.quantizer.sum(codes), &[codes.frames, self.dimensions.hidden])?;
        finite(self.decoder.decode(&frames)?)
    }
}
