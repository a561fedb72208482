//! The settings of HiFT.

use serde::Deserialize;

use super::super::{Result, VocoderError};

/// The settings of the public `HiFTGenerator` that the shapes of the weights do not tell, under its names. The defaults are the published
/// ones.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct HiftSettings {
    /// Sampling rate, in hertz; by default 24 kHz for 480 samples per frame (CosyVoice 2, Step-Audio) and 22.05 kHz for 256 (CosyVoice 1).
    pub sampling_rate: Option<u32>,
    /// Amplitude of the sines of the source.
    pub nsf_alpha: f32,
    /// Deviation of the source's noise in voiced frames.
    pub nsf_sigma: f32,
    /// Pitch above which a frame is voiced, in hertz.
    pub nsf_voiced_threshold: f32,
    /// Factor of each upsampling; by default half its taps, rounded down.
    pub upsample_rates: Option<Vec<usize>>,
    /// Dilations of each residual block of a level.
    pub resblock_dilation_sizes: Option<Vec<Vec<usize>>>,
    /// Dilations of the residual block of each level's source.
    pub source_resblock_dilation_sizes: Option<Vec<Vec<usize>>>,
    /// The Fourier transform.
    pub istft_params: IstftSettings,
    /// Slope of the leaky rectifiers before upsampling.
    pub lrelu_slope: f32,
    /// Largest sample.
    pub audio_limit: f32,
}

/// The settings of the Fourier transform; its length follows from the weights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IstftSettings {
    /// Samples from one frame to the next; by default a quarter of the length.
    pub hop_len: Option<usize>,
}

impl Default for HiftSettings {
    fn default() -> Self {
        Self {
            sampling_rate: None,
            nsf_alpha: 0.1,
            nsf_sigma: 0.003,
            nsf_voiced_threshold: 10.0,
            upsample_rates: None,
            resblock_dilation_sizes: None,
            source_resblock_dilation_sizes: None,
            istft_params: IstftSettings::default(),
            lrelu_slope: 0.1,
            audio_limit: 0.99,
        }
    }
}

impl HiftSettings {
    /// Checks the numbers.
    pub(super) fn check(&self) -> Result<()> {
        let numbers = [
            ("nsf_alpha", self.nsf_alpha),
            ("nsf_sigma", self.nsf_sigma),
            ("nsf_voiced_threshold", self.nsf_voiced_threshold),
            ("audio_limit", self.audio_limit),
            ("lrelu_slope", self.lrelu_slope),
        ];
        match numbers.into_iter().find(|(_, value)| !(0.0..=1e4).contains(value)) {
            Some((key, value)) => Err(VocoderError::Config(format!("{key} is {value}, not a number of at least 0"))),
            None => Ok(()),
        }
    }

    /// Returns the sampling rate of a model with this number of samples per frame.
    pub(super) fn sample_rate(&self, hop_length: usize) -> Result<u32> {
        let published = match hop_length {
            480 => Some(24_000),
            256 => Some(22_050),
            _ => None,
        };
        let missing =
            || format!("sampling_rate is needed: {hop_length} samples per frame are not those of a published model");
        let rate = self.sampling_rate.or(published).filter(|rate| *rate > 0);
        rate.ok_or_else(|| VocoderError::Config(missing()))
    }
}
