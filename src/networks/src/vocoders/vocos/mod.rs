//! Vocos (Siuzdak, "Vocos: closing the gap between time-domain and Fourier-based neural vocoders for high-quality audio synthesis", 2023):
//! ConvNeXt blocks at the rate of the frames, and an inverse short-time Fourier transform of the magnitudes and angles that they end in.
//! One form decodes mels; another one decodes the codes of EnCodec, with a bandwidth as condition.

mod backbone;
mod settings;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use flowmill_audio::features::{Features, MelScale};
use flowmill_audio::stft::{FramePosition, Stft};
use flowmill_extract::UnusableWeights;
use flowmill_nn::inference::Linear;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, NnError, Value, host};

use backbone::Backbone;
pub use settings::VocosSettings;

use super::pieces::in_pieces;
use super::spectrum::of_rows;
use super::stream::PieceStream;
use super::weights::{Loaded, Tensors};
use super::{MelForm, Result, Vocoder, VocoderError, VocoderStream};

/// Least value of a mel band before the logarithm.
const LOG_FLOOR: f32 = 1e-7;
/// Largest deviation of the stored window from the one that is computed.
const WINDOW_TOLERANCE: f32 = 1e-5;

/// The input of a model.
enum Input {
    /// Mels; the filters `[bin, band]` if the file has them.
    Mel(Option<Vec<f32>>),
    /// Sums of the entries of codebooks, `[codebook, code, channel]`.
    Codes(Vec<f32>),
}

/// The backbone and the head.
pub struct Vocos {
    input: Input,
    backbone: Backbone,
    head: Linear,
    stft: Stft,
    codes: usize,
    form: MelForm,
}

impl Vocos {
    /// Creates the vocoder of a state dict, to run on a device.
    ///
    /// # Errors
    /// [`VocoderError::Weights`] if a weight is missing, of another shape, or of no part of the network; [`VocoderError::Config`].
    pub fn new(tensors: BTreeMap<String, Tensor>, settings: &VocosSettings, device: &Device) -> Result<Self> {
        let mut tensors = Tensors::new(tensors, device)?;
        // The codec that made the codes is not needed to decode them.
        tensors.drop_prefix("feature_extractor.encodec.");
        let backbone = Backbone::new(&mut tensors)?;
        let outputs = tensors.needed_axis("head.out.weight", 0)?;
        let n_fft = outputs.saturating_sub(2);
        let head = tensors.linear("head.out", [outputs, backbone.channels])?;
        let input = Self::input(&mut tensors, &backbone, n_fft, settings.codes)?;
        for window in ["head.istft.window", "feature_extractor.mel_spec.spectrogram.window"] {
            refuse_other_window(&mut tensors, window, n_fft)?;
        }
        tensors.finish()?;
        let position = settings.padding.unwrap_or(match input {
            Input::Mel(_) => FramePosition::Center,
            Input::Codes(_) => FramePosition::Same,
        });
        let hop_length = settings.hop_length.unwrap_or(n_fft / 4);
        let stft = Stft::new(n_fft, hop_length, position)?;
        let form = MelForm {
            sample_rate: settings.sample_rate,
            hop_length,
            n_mels: backbone.inputs,
            n_fft: Some(n_fft),
            win_length: Some(n_fft),
            fmin: Some(0.0),
            fmax: Some(settings.sample_rate as f32 / 2.0),
            mel_scale: Some(MelScale::Htk),
        };
        Ok(Self { input, backbone, head, stft, codes: settings.codes, form })
    }

    fn input(tensors: &mut Tensors<'_>, backbone: &Backbone, n_fft: usize, codes: usize) -> Loaded<Input> {
        let (codebooks, filters) = ("feature_extractor.codebook_weights", "feature_extractor.mel_spec.mel_scale.fb");
        let entries = tensors.axis(codebooks, 0);
        if entries > 0 {
            if !entries.is_multiple_of(codes) {
                let reason = format!("`{codebooks}` has {entries} entries, which are no codebooks of {codes} codes");
                return Err(UnusableWeights(reason));
            }
            return Ok(Input::Codes(tensors.elements(codebooks, &[entries, backbone.inputs])?));
        }
        if !tensors.has(filters) {
            return Ok(Input::Mel(None));
        }
        Ok(Input::Mel(Some(tensors.elements(filters, &[n_fft / 2 + 1, backbone.inputs])?)))
    }

    /// Returns the log-mel of samples, as the model was trained on it.
    ///
    /// # Errors
    /// [`VocoderError::Mel`] if the file has no filters, or for a model of codes; if there are too few samples.
    pub fn features_of_audio(&self, samples: &[f32]) -> Result<Features> {
        let Input::Mel(Some(filters)) = &self.input else {
            return Err(VocoderError::Mel("the weights have no mel filters".to_owned()));
        };
        let (spectra, bands) = (self.stft.forward(samples)?, self.form.n_mels);
        let frames = spectra.len() / self.stft.bins();
        let mut data = vec![0.0f32; frames * bands];
        for (row, spectrum) in data.chunks_exact_mut(bands).zip(spectra.chunks_exact(self.stft.bins())) {
            for ([re, im], weights) in spectrum.iter().zip(filters.chunks_exact(bands)) {
                let magnitude = re.hypot(*im);
                row.iter_mut().zip(weights).for_each(|(band, weight)| *band += weight * magnitude);
            }
            row.iter_mut().for_each(|band| *band = band.max(LOG_FLOOR).ln());
        }
        Ok(Features::new(data, frames, bands)?)
    }

    /// Returns the features `[frame, channel]` of codes, given as the code of every frame for each codebook. There may be fewer codebooks
    /// than the model has.
    ///
    /// # Errors
    /// [`VocoderError::Mel`] for a model of mels; if there are no or too many codebooks, their lengths differ, or a code is too large.
    pub fn features_of_codes(&self, codes: &[Vec<u32>]) -> Result<Value> {
        let Input::Codes(entries) = &self.input else {
            return Err(VocoderError::Mel("the vocoder decodes mels, not codes".to_owned()));
        };
        let channels = self.backbone.inputs;
        let codebooks = entries.len() / (self.codes * channels).max(1);
        let frames = codes.first().map_or(0, Vec::len);
        let fits = |codes: &Vec<u32>| codes.len() == frames && codes.iter().all(|code| (*code as usize) < self.codes);
        if codes.is_empty() || codes.len() > codebooks || !codes.iter().all(fits) {
            let expected = format!("1 to {codebooks} codebooks of {} codes, each with as many frames", self.codes);
            return Err(NnError::shape("vocos", expected, &[codes.len(), frames]).into());
        }
        let mut features = vec![0.0f32; frames * channels];
        for (codebook, codes) in codes.iter().enumerate() {
            for (row, code) in features.chunks_exact_mut(channels).zip(codes) {
                let entry = &entries[(codebook * self.codes + *code as usize) * channels..][..channels];
                row.iter_mut().zip(entry).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(Value::from_vec(features, &[frames, channels])?)
    }

    /// Returns the frames `[frame, channel]` before the head, of features `[frame, channel]`. `bandwidth` is the index of the bandwidth of
    /// a model of codes; a model of mels ignores it.
    ///
    /// # Errors
    /// When the shape does not fit, there is no such bandwidth, or a device cannot compute it.
    pub fn backbone(&self, features: &Value, bandwidth: usize) -> Result<Value> {
        Ok(self.backbone.forward(features, bandwidth)?)
    }

    /// Returns the sound of frames of the backbone.
    ///
    /// # Errors
    /// When the shape does not fit, or a device cannot compute it.
    pub fn head(&self, frames: &Value) -> Result<Vec<f32>> {
        let rows = host::read(self.head.forward(frames, Activation::Identity)?.tensor())?;
        Ok(self.stft.inverse(&of_rows(&rows, self.stft.bins(), |angle| angle))?)
    }

    /// Returns the number of frames before and after a sample that it depends on.
    fn context(&self) -> usize {
        self.backbone.reach() + self.stft.n_fft().div_ceil(self.stft.hop_length())
    }

    /// Decodes features like [`backbone`](Self::backbone) and [`head`](Self::head), as a whole.
    ///
    /// # Errors
    /// See there.
    pub fn decode(&self, features: &Value, bandwidth: usize) -> Result<Vec<f32>> {
        self.head(&self.backbone(features, bandwidth)?)
    }
}

fn decodes_codes() -> VocoderError {
    VocoderError::Mel("the vocoder decodes codes of EnCodec, not mels".to_owned())
}

/// Takes the window in a file, if there is one; it must be the one that is computed.
fn refuse_other_window(tensors: &mut Tensors<'_>, name: &str, n_fft: usize) -> Loaded<()> {
    if !tensors.has(name) {
        return Ok(());
    }
    let window = tensors.elements(name, &[n_fft])?;
    let hann = |at: usize| 0.5 - 0.5 * (std::f64::consts::TAU * at as f64 / n_fft as f64).cos();
    match window.iter().enumerate().all(|(at, value)| (value - hann(at) as f32).abs() <= WINDOW_TOLERANCE) {
        true => Ok(()),
        false => Err(UnusableWeights(format!("`{name}` is not a periodic Hann window"))),
    }
}

impl Vocoder for Vocos {
    fn mel_form(&self) -> &MelForm {
        &self.form
    }

    fn vocode(&self, mel: &Features, _: &RngKey) -> Result<Vec<f32>> {
        if let Input::Codes(_) = self.input {
            return Err(decodes_codes());
        }
        self.form.check_features(mel)?;
        in_pieces(mel.frames, self.context(), &self.form, |frames| {
            let rows = mel.data[frames.start * mel.bins..frames.end * mel.bins].to_vec();
            self.decode(&Value::from_vec(rows, &[frames.len(), mel.bins])?, 0)
        })
    }

    fn stream(&self, _: &RngKey) -> Box<dyn VocoderStream + '_> {
        let decode = |mel: &Value| match self.input {
            Input::Mel(_) => self.decode(mel, 0),
            Input::Codes(_) => Err(decodes_codes()),
        };
        Box::new(PieceStream::new(&self.form, self.context(), decode))
    }
}
