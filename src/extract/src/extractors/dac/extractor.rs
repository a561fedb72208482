//! The `dac` extractor, recordings in and codes out; and its decoder.

use candle_core::Device;
use flowmill_audio::loudness::{bring_to_loudness, limit_peak};
use flowmill_corpus::Array;
use flowmill_nn::NnError;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Decoder, Encoder, KIND, Quantizer};
use crate::codec::{Codes, finite};
use crate::waveform::recording;
use crate::weights as taken;
use crate::{Codec, CodecError, Column, ExtractError, Extracted, Extractor, Media, State, StateError, UnusableWeights};

/// The length of recordings and codes that are processed at a time, in seconds; it bounds the memory to some 5 GB.
const LONGEST: f64 = 120.0;

/// The settings in a state; the sizes of the network are read from the shapes of its weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// The sample rate in Hz.
    pub(super) sample_rate: u32,
    /// The loudness that a recording is brought to before it is encoded, in LUFS; `None` leaves it as it is.
    pub(super) loudness: Option<f64>,
}

/// A checkpoint as a state.
pub(super) fn to_state(checkpoint: &Checkpoint, settings: Settings) -> Result<State, UnusableWeights> {
    let mut state = State::new(KIND, serde_json::json!(settings));
    checkpoint.keep(&mut state)?;
    Ok(state)
}

/// The checkpoint in a state, and its sizes.
fn of_state(state: &State) -> Result<(Checkpoint, Shape), StateError> {
    let settings: Settings = state.settings_as(KIND)?;
    let checkpoint = taken::kept(state, "").and_then(Checkpoint::of_plain).map_err(taken::foreign(KIND))?;
    let shape = Shape::of(&checkpoint, settings).map_err(taken::foreign(KIND))?;
    Ok((checkpoint, shape))
}

/// The settings and sizes that define the codes.
#[derive(Debug, Clone, Copy)]
struct Shape {
    settings: Settings,
    levels: usize,
    codes: usize,
    hop_length: usize,
}

impl Shape {
    fn of(checkpoint: &Checkpoint, settings: Settings) -> Result<Self, UnusableWeights> {
        let dimensions = checkpoint.dimensions();
        let hop_length = dimensions.hop_length();
        let hop_length = hop_length.ok_or_else(|| UnusableWeights("the strides of both networks differ".to_owned()))?;
        if settings.sample_rate == 0 {
            return Err(UnusableWeights("a sample rate of 0".to_owned()));
        }
        Ok(Self { settings, levels: dimensions.levels, codes: dimensions.codes, hop_length })
    }

    fn rate(&self) -> f64 {
        f64::from(self.settings.sample_rate) / self.hop_length as f64
    }
}

/// The encoder as an extractor.
pub struct DacExtractor {
    shape: Shape,
    encoder: Encoder,
    quantizer: Quantizer,
}

impl DacExtractor {
    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let (checkpoint, shape) = of_state(state)?;
        let encoder = Encoder::new(&checkpoint, device).map_err(taken::foreign(KIND))?;
        Ok(Self { shape, encoder, quantizer: Quantizer::new(&checkpoint).map_err(taken::foreign(KIND))? })
    }

    /// Returns the codes of samples at the codec's rate, level by level.
    ///
    /// # Errors
    /// When there is no sample, or a device cannot compute it.
    pub fn encode(&self, samples: &[f32]) -> Result<Vec<Vec<u32>>, NnError> {
        let mut samples = samples.to_vec();
        if let Some(loudness) = self.shape.settings.loudness {
            bring_to_loudness(&mut samples, self.shape.settings.sample_rate, loudness);
        }
        limit_peak(&mut samples, 1.0);
        Ok(self.quantizer.quantize(&self.encoder.encode(&samples)?, self.shape.levels)?.codes)
    }
}

impl Extractor for DacExtractor {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        vec![Column::codes(self.shape.levels, self.shape.codes, self.shape.rate())]
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let samples = recording(media, self.shape.settings.sample_rate, self.shape.hop_length, LONGEST, KIND)?;
        Extracted::codes(KIND, &self.encode(&samples)?)
    }
}

/// The decoder of the codes.
pub struct DacDecoder {
    shape: Shape,
    decoder: Decoder,
    quantizer: Quantizer,
}

impl DacDecoder {
    /// The decoder that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let (checkpoint, shape) = of_state(state)?;
        let decoder = Decoder::new(&checkpoint, device).map_err(taken::foreign(KIND))?;
        Ok(Self { shape, decoder, quantizer: Quantizer::new(&checkpoint).map_err(taken::foreign(KIND))? })
    }
}

impl Codec for DacDecoder {
    fn levels(&self) -> usize {
        self.shape.levels
    }

    fn vocabulary(&self) -> usize {
        self.shape.codes
    }

    fn frame_rate(&self) -> f64 {
        self.shape.rate()
    }

    fn sample_rate(&self) -> u32 {
        self.shape.settings.sample_rate
    }

    fn decode(&self, codes: &Array) -> Result<Vec<f32>, CodecError> {
        let codes = Codes::check(codes, self, LONGEST)?;
        if codes.frames == 0 {
            return Ok(Vec::new());
        }
        let levels: Vec<Vec<u32>> = codes.levels().map(|level| level.map(|code| code as u32).collect()).collect();
        finite(self.decoder.decode(&self.quantizer.vectors(&levels)?)?)
    }
}
