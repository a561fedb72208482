//! HiFT, the vocoder of CosyVoice and Step-Audio (Li, Han, Jiang and Mesgarani, "HiFTNet: a fast high-quality neural vocoder with
//! harmonic-plus-noise filter and inverse short time Fourier transform", 2023).
//!
//! A network predicts the pitch of each mel frame. Sines of the pitch and its multiples, with noise, are merged into a source signal. A
//! HiFi-GAN with the activation Snake takes the spectra of the source in at each of its levels, and ends in magnitudes and angles of a
//! short-time Fourier transform. The pitch and the source are computed for a whole mel, the rest in pieces. The causal form of CosyVoice 3
//! is not supported.

mod pitch;
mod settings;
mod source;
mod stream;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use flowmill_audio::features::Features;
use flowmill_audio::stft::{FramePosition, Stft};
use flowmill_extract::UnusableWeights;
use flowmill_extract::waveform::{Convolution, reflected, sum};
use flowmill_nn::ops::Convolution as ConvolutionSettings;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Value, host};

use pitch::PitchPredictor;
pub use settings::{HiftSettings, IstftSettings};
pub use source::{Source, SourceDraws};

use super::pieces::in_pieces;
use super::residual::{Block, BlockForm};
use super::spectrum::{from_polar, of_rows};
use super::trunk::{LARGEST_FACTOR, Trunk, TrunkSettings};
use super::weights::{Loaded, Tensors};
use super::{MelForm, Result, Vocoder, VocoderError, VocoderStream};
use stream::HiftStream;

/// The part that takes the spectra of the source in at a level.
struct Fusion {
    reduction: Convolution,
    block: Block,
}

impl Fusion {
    /// Takes the weights of a level; `factor` is the number of spectra for each of its frames.
    fn new(
        tensors: &mut Tensors<'_>,
        level: usize,
        channels: usize,
        inputs: usize,
        factor: usize,
        dilations: Option<&[usize]>,
    ) -> Loaded<Self> {
        let taps = if factor == 1 { 1 } else { 2 * factor };
        let padding = if factor == 1 { [0, 0] } else { [factor / 2, factor / 2] };
        let settings = ConvolutionSettings { stride: factor, padding, ..ConvolutionSettings::default() };
        let reduction = tensors.convolution(&format!("source_downs.{level}"), [channels, inputs, taps], settings)?;
        let name = format!("source_resblocks.{level}");
        Ok(Self { reduction, block: Block::new(tensors, &name, channels, BlockForm::Snake, dilations)? })
    }
}

/// The generator with its pitch predictor and source.
pub struct Hift {
    pitch: PitchPredictor,
    source: Source,
    trunk: Trunk,
    fusions: Vec<Fusion>,
    stft: Stft,
    audio_limit: f32,
    form: MelForm,
    context: usize,
}

impl Hift {
    /// Creates the vocoder of a state dict, to run on a device.
    ///
    /// # Errors
    /// [`VocoderError::Weights`] if a weight is missing, of another shape, or of no part of the network; [`VocoderError::Config`].
    pub fn new(tensors: BTreeMap<String, Tensor>, settings: &HiftSettings, device: &Device) -> Result<Self> {
        settings.check()?;
        let mut tensors = Tensors::new(tensors, device)?;
        let outputs = tensors.needed_axis("conv_post.weight", 0)?;
        let n_fft = outputs.saturating_sub(2);
        let hop = settings.istft_params.hop_len.unwrap_or(n_fft / 4);
        let stft = Stft::new(n_fft, hop, FramePosition::Center)?;
        let trunk = TrunkSettings {
            slope: settings.lrelu_slope,
            form: BlockForm::Snake,
            rates: settings.upsample_rates.as_deref(),
            dilations: settings.resblock_dilation_sizes.as_deref(),
        };
        let trunk = Trunk::new(&mut tensors, outputs, trunk)?;
        let dilations = settings.source_resblock_dilation_sizes.as_ref();
        if let Some(dilations) = dilations.filter(|dilations| dilations.len() != trunk.levels.len()) {
            let (found, levels) = (dilations.len(), trunk.levels.len());
            let reason = format!("source_resblock_dilation_sizes has {found} lists for {levels} levels");
            return Err(VocoderError::Config(reason));
        }
        let scale = trunk.factor().and_then(|factor| factor.checked_mul(hop)).filter(|scale| *scale <= LARGEST_FACTOR);
        let scale = scale.ok_or_else(|| UnusableWeights("the upsampling factors are too large".to_owned()))?;
        let mut fusions = Vec::new();
        let mut context = trunk.context();
        let (mut done, factor) = (1, scale / hop);
        for (number, level) in trunk.levels.iter().enumerate() {
            done *= level.rate;
            let dilations = dilations.map(|dilations| dilations[number].as_slice());
            let fusion = Fusion::new(&mut tensors, number, level.channels, outputs, factor / done, dilations)?;
            // The block and the reduction see frames of the level, and the transform some spectra.
            context += (fusion.block.reach() + 2).div_ceil(done) + (n_fft / hop).div_ceil(factor);
            fusions.push(fusion);
        }
        let source = Source::new(&mut tensors, settings, scale)?;
        let pitch = PitchPredictor::new(&mut tensors, trunk.bands)?;
        tensors.finish()?;
        let form = MelForm {
            sample_rate: settings.sample_rate(scale)?,
            hop_length: scale,
            n_mels: trunk.bands,
            n_fft: None,
            win_length: None,
            fmin: None,
            fmax: None,
            mel_scale: None,
        };
        Ok(Self { pitch, source, trunk, fusions, stft, audio_limit: settings.audio_limit, form, context })
    }

    /// Returns the source.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the pitch of each frame of a mel `[frame, band]`, in hertz.
    ///
    /// # Errors
    /// When the shape does not fit, or a device cannot compute it.
    pub fn pitch(&self, mel: &Value) -> Result<Vec<f32>> {
        Ok(self.pitch.forward(mel)?)
    }

    /// Decodes a mel `[frame, band]` as a whole, with the signal of its source.
    ///
    /// # Errors
    /// When the shapes do not fit, or a device cannot compute it.
    pub fn decode(&self, mel: &Value, source: &[f32]) -> Result<Vec<f32>> {
        let spectra = self.spectra(source)?;
        let mut x = self.trunk.first.forward(mel)?;
        let last = self.trunk.levels.len() - 1;
        for (number, (level, fusion)) in self.trunk.levels.iter().zip(&self.fusions).enumerate() {
            x = level.raise(&x)?;
            if number == last {
                // A signal has one spectrum more than hops.
                x = reflected(&x, [1, 0])?;
            }
            x = sum(&x, &fusion.block.forward(&fusion.reduction.forward(&spectra)?)?)?;
            x = level.refine(&x)?;
        }
        let rows = host::read(self.trunk.last(&x)?.tensor())?;
        let samples = self.stft.inverse(&of_rows(&rows, self.stft.bins(), f32::sin))?;
        Ok(samples.into_iter().map(|sample| sample.clamp(-self.audio_limit, self.audio_limit)).collect())
    }

    /// Returns the spectra of a source, in each row the real and then the imaginary parts.
    fn spectra(&self, source: &[f32]) -> Result<Value> {
        let (spectra, bins) = (self.stft.forward(source)?, self.stft.bins());
        let mut rows = Vec::with_capacity(2 * spectra.len());
        for frame in spectra.chunks_exact(bins) {
            rows.extend(frame.iter().map(|[re, _]| re));
            rows.extend(frame.iter().map(|[_, im]| im));
        }
        Ok(Value::from_vec(rows, &[spectra.len() / bins, 2 * bins])?)
    }

    /// Returns the signal of magnitudes and angles `[frame][bin]`: the last step of [`decode`](Self::decode), without its limit.
    ///
    /// # Errors
    /// When the numbers are not those of whole frames.
    pub fn inverse_transform(&self, magnitudes: &[f32], angles: &[f32]) -> Result<Vec<f32>> {
        let spectra: Vec<[f32; 2]> = magnitudes.iter().zip(angles).map(|(m, angle)| from_polar(*m, *angle)).collect();
        Ok(self.stft.inverse(&spectra)?)
    }
}

impl Vocoder for Hift {
    fn mel_form(&self) -> &MelForm {
        &self.form
    }

    fn vocode(&self, mel: &Features, rng_key: &RngKey) -> Result<Vec<f32>> {
        self.form.check_features(mel)?;
        if mel.frames == 0 {
            return Ok(Vec::new());
        }
        let rows = |start: usize, end: usize| {
            let rows = mel.data[start * mel.bins..end * mel.bins].to_vec();
            Value::from_vec(rows, &[end - start, mel.bins])
        };
        let pitch = self.pitch(&rows(0, mel.frames)?)?;
        let source = self.source.signal(&pitch, &SourceDraws::Seeded(*rng_key))?;
        let hop = self.form.hop_length;
        in_pieces(mel.frames, self.context, &self.form, |frames| {
            let source = &source[frames.start * hop..frames.end * hop];
            self.decode(&rows(frames.start, frames.end)?, source)
        })
    }

    fn stream(&self, rng_key: &RngKey) -> Box<dyn VocoderStream + '_> {
        Box::new(HiftStream::new(self, *rng_key))
    }
}
