//! The use of a model: from symbols and a prompt to codes, and from codes to sound.

use std::ops::ControlFlow;
use std::path::Path;

use candle_core::Device;
use flowmill_corpus::Array;
use flowmill_extract::extractors::registry;
use flowmill_extract::{Codec, State};
use flowmill_family::{Audio, BoxError};
use flowmill_networks::vall_e::{Codes, Result as NetworkResult, SpeakOptions, SpeakRequest, Speaker};
use flowmill_nn::random::RngKey;

use super::rows::Symbols;

/// Largest absolute value of a sample: codecs may be louder than a WAV file can represent.
const PEAK: f32 = 0.98;

/// A codec's decoder.
pub struct Decoder(Box<dyn Codec>);

impl Decoder {
    /// Opens the decoder of the extractor that is fitted in the file `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or is that of an extractor without a decoder.
    pub fn open(path: &Path, device: &Device) -> Result<Self, BoxError> {
        Self::of(&State::load(path)?, path, device)
    }

    /// Opens the decoder of an extractor with the fitted `state`; `path` is used in messages.
    ///
    /// # Errors
    /// Returns an error if the extractor has no decoder.
    pub fn of(state: &State, path: &Path, device: &Device) -> Result<Self, BoxError> {
        let codec = registry().codec(state, device)?;
        let codec =
            codec.ok_or_else(|| format!("{}: `{}` cannot turn codes into sound", path.display(), state.kind()))?;
        Ok(Self(codec))
    }

    /// Returns the frames of codes per second.
    pub fn rate(&self) -> f64 {
        self.0.frame_rate()
    }

    /// Returns the sound of codes, no louder than full scale.
    ///
    /// # Errors
    /// Returns an error if they are not codes of this codec.
    pub fn sound(&self, codes: &Codes) -> Result<Audio, BoxError> {
        let values = codes.values().iter().map(|&code| i32::try_from(code)).collect::<Result<Vec<i32>, _>>()?;
        let mut samples = self.0.decode(&Array::new(vec![codes.levels(), codes.frames()], values)?)?;
        let loudest = samples.iter().fold(0f32, |peak, sample| peak.max(sample.abs()));
        if loudest > PEAK {
            samples.iter_mut().for_each(|sample| *sample *= PEAK / loudest);
        }
        Ok(Audio { samples, sample_rate: self.0.sample_rate() })
    }
}

/// A text and a voice, to be spoken.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The text.
    pub symbols: Symbols,
    /// The voice.
    pub prompt: Option<Codes>,
    /// Identifies the line in random draws.
    pub sample: u64,
}

/// Speaks lines.
///
/// # Errors
/// Returns an error for a line that does not match the model.
pub fn speak(
    speaker: &Speaker,
    lines: Vec<Line>,
    options: &SpeakOptions,
    rng_key: &RngKey,
) -> NetworkResult<Vec<Codes>> {
    let request = |Line { symbols: Symbols { phonemes, language }, prompt, sample }| SpeakRequest {
        phonemes,
        language,
        prompt,
        sample,
        ..SpeakRequest::default()
    };
    let requests: Vec<SpeakRequest> = lines.into_iter().map(request).collect();
    speaker.speak(&requests, options, rng_key, &mut |_| ControlFlow::Continue(()))
}
