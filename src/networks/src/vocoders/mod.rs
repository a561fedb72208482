//! Neural vocoders: networks from a log-mel spectrogram to sound, with the weights of their public implementations. They run forward only,
//! on any device.
//!
//! | kind | network | public weights |
//! |---|---|---|
//! | [`hift`] | HiFT (Li et al., 2023): a harmonic source, a HiFi-GAN and an inverse Fourier transform | `hift.pt` of CosyVoice, Step-Audio |
//! | [`hifigan`] | HiFi-GAN (Kong et al., 2020), versions 1 to 3 | jik876/hifi-gan's `generator_v1`, `g_02500000` |
//! | [`vocos`] | Vocos (Siuzdak, 2023): ConvNeXt blocks and an inverse Fourier transform | `pytorch_model.bin` of charactr/vocos-mel-24khz |
//!
//! Sizes follow from the shapes of the weights; what shapes do not tell is in the public configuration, whose published values are the
//! defaults. A new kind implements [`Vocoder`] and gets a line in [`VocoderKind`]. Long mels are decoded in pieces, so memory is bounded.

mod error;
mod form;
pub mod hifigan;
pub mod hift;
mod pieces;
mod residual;
mod spectrum;
mod stream;
mod trunk;
pub mod vocos;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use flowmill_audio::features::Features;
use flowmill_nn::random::RngKey;
use flowmill_weights::WeightError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use error::VocoderError;
pub use form::MelForm;
pub use stream::VocoderStream;

/// The result of fallible functions of this module.
pub type Result<T> = std::result::Result<T, VocoderError>;

/// A vocoder with its weights.
pub trait Vocoder: Send + Sync {
    /// Returns the mels that it decodes.
    fn mel_form(&self) -> &MelForm;

    /// Returns the sound of a log-mel; `rng_key` keys the random numbers of a vocoder that needs some.
    ///
    /// # Errors
    /// [`VocoderError::Mel`] if the mel has another number of bands, [`VocoderError::NotFinite`], an error of the device.
    fn vocode(&self, mel: &Features, rng_key: &RngKey) -> Result<Vec<f32>>;

    /// Begins the sound of a mel that arrives in parts: that of [`vocode`](Self::vocode) for the whole mel, as far as numbers of single
    /// precision agree.
    fn stream(&self, rng_key: &RngKey) -> Box<dyn VocoderStream + '_>;
}

/// The kinds of neural vocoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VocoderKind {
    /// HiFT, the vocoder of CosyVoice and Step-Audio.
    Hift,
    /// HiFi-GAN.
    Hifigan,
    /// Vocos.
    Vocos,
}

impl VocoderKind {
    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hift => "hift",
            Self::Hifigan => "hifigan",
            Self::Vocos => "vocos",
        }
    }

    /// Returns the file name of the public configuration, which lies next to the weights.
    pub fn config_file(self) -> Option<&'static str> {
        match self {
            Self::Hift => None,
            Self::Hifigan => Some("config.json"),
            Self::Vocos => Some("config.yaml"),
        }
    }

    /// Returns the kind of a state dict by tensors that only this kind has.
    fn of(tensors: &BTreeMap<String, Tensor>) -> Option<Self> {
        let has = |name: &str| tensors.contains_key(name) || tensors.contains_key(&format!("generator.{name}"));
        if has("m_source.l_linear.weight") {
            return Some(Self::Hift);
        }
        if has("backbone.embed.weight") {
            return Some(Self::Vocos);
        }
        (has("conv_post.bias") && has("resblocks.0.convs1.0.bias") || has("resblocks.0.convs.0.bias"))
            .then_some(Self::Hifigan)
    }
}

/// Opens a vocoder for a device: the weights in a PyTorch or safetensors file, and the settings of its public configuration, of which null
/// has none.
///
/// # Errors
/// [`VocoderError::File`] if the file cannot be read or has other weights, [`VocoderError::Config`].
pub fn open(kind: VocoderKind, weights: &Path, config: &Value, device: &Device) -> Result<Box<dyn Vocoder>> {
    let unusable = |reason: String| VocoderError::File { path: weights.to_owned(), reason };
    let file = flowmill_weights::read(weights).map_err(|error| match error {
        WeightError::File { message, .. } => unusable(message),
        other => unusable(other.to_string()),
    })?;
    if let Some(found) = VocoderKind::of(&file.tensors).filter(|found| *found != kind) {
        let (found, kind) = (found.name(), kind.name());
        return Err(unusable(format!("the weights are those of the vocoder {found}, not of {kind}")));
    }
    let opened: Result<Box<dyn Vocoder>> = match kind {
        VocoderKind::Hift => hift::Hift::new(file.tensors, &settings(config)?, device).map(|it| Box::new(it) as _),
        VocoderKind::Hifigan => {
            hifigan::Hifigan::new(file.tensors, &settings(config)?, device).map(|it| Box::new(it) as _)
        }
        VocoderKind::Vocos => {
            let settings = vocos::VocosSettings::from_config(config)?;
            vocos::Vocos::new(file.tensors, &settings, device).map(|it| Box::new(it) as _)
        }
    };
    opened.map_err(|error| match error {
        VocoderError::Weights(error) => unusable(error.0),
        other => other,
    })
}

/// Reads the settings of a public configuration; its other keys are ignored.
fn settings<T: Default + serde::de::DeserializeOwned>(config: &Value) -> Result<T> {
    if config.is_null() {
        return Ok(T::default());
    }
    serde_json::from_value(config.clone()).map_err(|error| VocoderError::Config(error.to_string()))
}
