//! HiFi-GAN (Kong et al., "HiFi-GAN: generative adversarial networks for efficient and high fidelity speech synthesis", 2020): levels of
//! transposed convolutions, each followed by the mean of residual blocks with several receptive fields.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use flowmill_audio::features::{Features, MelScale};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Value, host};
use serde::Deserialize;

use super::pieces::in_pieces;
use super::residual::BlockForm;
use super::stream::PieceStream;
use super::trunk::{Trunk, TrunkSettings};
use super::weights::Tensors;
use super::{MelForm, Result, Vocoder, VocoderError, VocoderStream};

/// Slope of the leaky rectifiers.
const SLOPE: f32 = 0.1;

/// The settings in the public `config.json` that the shapes of the weights do not tell. The defaults are those of the published models of
/// 22.05 kHz.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct HifiganSettings {
    /// Sampling rate, in hertz.
    pub sampling_rate: u32,
    /// Factor of each upsampling; by default half its taps.
    pub upsample_rates: Option<Vec<usize>>,
    /// Dilations of each residual block of a level; by default the published ones.
    pub resblock_dilation_sizes: Option<Vec<Vec<usize>>>,
    /// Samples of a frame.
    pub hop_size: Option<usize>,
    /// Length of the Fourier transform of the mel.
    pub n_fft: Option<usize>,
    /// Length of the window of the mel.
    pub win_size: Option<usize>,
    /// Lower edge of the mel bands, in hertz.
    pub fmin: Option<f32>,
    /// Upper edge of the mel bands, in hertz.
    pub fmax: Option<f32>,
}

impl Default for HifiganSettings {
    fn default() -> Self {
        Self {
            sampling_rate: 22_050,
            upsample_rates: None,
            resblock_dilation_sizes: None,
            hop_size: None,
            n_fft: None,
            win_size: None,
            fmin: None,
            fmax: None,
        }
    }
}

/// The generator.
pub struct Hifigan {
    trunk: Trunk,
    form: MelForm,
}

impl Hifigan {
    /// Creates the generator of a state dict, to run on a device.
    ///
    /// # Errors
    /// [`VocoderError::Weights`] if a weight is missing, of another shape, or of no part of the network; [`VocoderError::Config`].
    pub fn new(tensors: BTreeMap<String, Tensor>, settings: &HifiganSettings, device: &Device) -> Result<Self> {
        let mut tensors = Tensors::new(tensors, device)?;
        let is_single = tensors.has("resblocks.0.convs.0.weight");
        let form = if is_single { BlockForm::Single(SLOPE) } else { BlockForm::Double(SLOPE) };
        let trunk = TrunkSettings {
            slope: SLOPE,
            form,
            rates: settings.upsample_rates.as_deref(),
            dilations: settings.resblock_dilation_sizes.as_deref(),
        };
        let trunk = Trunk::new(&mut tensors, 1, trunk)?;
        tensors.finish()?;
        let factor = trunk.factor();
        let hop_length = factor.filter(|hop| settings.hop_size.is_none_or(|stated| stated == *hop));
        let hop_length = hop_length.ok_or_else(|| {
            let stated = settings.hop_size.unwrap_or_default();
            VocoderError::Config(format!("hop_size is {stated}, but the upsampling makes {factor:?} samples per frame"))
        })?;
        let form = MelForm {
            sample_rate: settings.sampling_rate,
            hop_length,
            n_mels: trunk.bands,
            n_fft: settings.n_fft,
            win_length: settings.win_size,
            fmin: settings.fmin,
            fmax: settings.fmax,
            mel_scale: Some(MelScale::Slaney),
        };
        Ok(Self { trunk, form })
    }

    /// Decodes a mel `[frame, band]` as a whole.
    ///
    /// # Errors
    /// When the shape does not fit, or a device cannot compute it.
    pub fn decode(&self, mel: &Value) -> Result<Vec<f32>> {
        let mut x = self.trunk.first.forward(mel)?;
        for level in &self.trunk.levels {
            x = level.refine(&level.raise(&x)?)?;
        }
        let samples = host::read(self.trunk.last(&x)?.tensor())?;
        Ok(samples.into_iter().map(f32::tanh).collect())
    }
}

impl Vocoder for Hifigan {
    fn mel_form(&self) -> &MelForm {
        &self.form
    }

    fn vocode(&self, mel: &Features, _: &RngKey) -> Result<Vec<f32>> {
        self.form.check_features(mel)?;
        in_pieces(mel.frames, self.trunk.context(), &self.form, |frames| {
            let rows = mel.data[frames.start * mel.bins..frames.end * mel.bins].to_vec();
            self.decode(&Value::from_vec(rows, &[frames.len(), mel.bins])?)
        })
    }

    fn stream(&self, _: &RngKey) -> Box<dyn VocoderStream + '_> {
        Box::new(PieceStream::new(&self.form, self.trunk.context(), |mel| self.decode(mel)))
    }
}
