//! Resynthesis of any recording through an exported model: its units, its voice, a new mel, a waveform.

use std::path::{Path, PathBuf};

use flowmill_audio::Decoder;
use flowmill_audio::features::MelSpectrogram;
use flowmill_audio::measure::log_spectral_distance;
use flowmill_models::extractors::{ExtractError, Extracted, Extractor, Media};
use flowmill_nn::device::{self, DeviceName};
use flowmill_nn::random::Draw;
use flowmill_nn::solvers::Method;
use flowmill_runner::WholeFile;
use flowmill_stage_train::audible::waveform;

use crate::model_folder::{CONFIG, ExportedModel, SPEAKER_EXTRACTOR, TOKEN_EXTRACTOR, WEIGHTS, load_extractor};
use crate::{ExportError, audible};

/// How to resynthesise.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthOptions {
    /// How the flow's ODE is solved; `None`: the model's own way, or by Euler's method where steps are given.
    pub solver: Option<Method>,
    /// Euler steps; `None`: the model's own.
    pub n_timesteps: Option<usize>,
    /// Strength of a shallow flow; `None`: the model's own.
    pub strength: Option<f32>,
    /// Strength of classifier-free guidance; `None`: the model's own.
    pub inference_cfg_rate: Option<f32>,
    /// Iterations of the vocoder.
    pub vocoder_iterations: usize,
    /// Key of the noise.
    pub seed: u64,
    /// What computes the model.
    pub device: DeviceName,
}

impl Default for SynthOptions {
    fn default() -> Self {
        Self {
            solver: None,
            n_timesteps: None,
            strength: None,
            inference_cfg_rate: None,
            vocoder_iterations: 60,
            seed: 0,
            device: DeviceName::Auto,
        }
    }
}

/// What came of one recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthesised {
    /// The waveform.
    pub wav: PathBuf,
    /// The picture of the real mel above the generated one.
    pub picture: PathBuf,
    /// Seconds of audio.
    pub seconds: f64,
    /// Speech units that the recording gave.
    pub tokens: usize,
    /// How often the velocity was evaluated.
    pub evaluations: usize,
    /// Log-spectral distance of the generated mel to the recording's, in dB.
    pub distance_db: f64,
}

/// A model folder opened for resynthesis.
pub struct Synthesiser {
    model: ExportedModel,
    speaker: Box<dyn Extractor>,
    tokens: Box<dyn Extractor>,
    options: SynthOptions,
}

impl Synthesiser {
    /// Opens a folder that stage 6 wrote.
    ///
    /// # Errors
    /// [`ExportError`] naming the file that is missing or wrong, or the device that cannot be used.
    pub fn open(folder: &Path, options: SynthOptions) -> Result<Self, ExportError> {
        let device = device::open(options.device)?;
        let model = ExportedModel::load(&folder.join(CONFIG), &folder.join(WEIGHTS), &device)?;
        if options.strength.is_some() && !model.has_strength() {
            let reason = "it is no shallow flow: it has no strength to choose".to_owned();
            return Err(ExportError::Description { path: folder.join(CONFIG), reason });
        }
        Ok(Self {
            model,
            speaker: load_extractor(&folder.join(SPEAKER_EXTRACTOR), &device)?,
            tokens: load_extractor(&folder.join(TOKEN_EXTRACTOR), &device)?,
            options,
        })
    }

    /// Resynthesises `recording` into `out_dir/STEM.wav` and `.png`.
    ///
    /// # Errors
    /// [`ExportError::Recording`] when it cannot be decoded or is too short; others as their names say.
    pub fn run(&self, recording: &Path, stem: &str, out_dir: &Path) -> Result<Synthesised, ExportError> {
        let rejected = |source: ExtractError| ExportError::Recording { path: recording.to_owned(), source };
        let audio = Decoder::with_ffmpeg().decode_file(recording)?;
        let media = Media::audio(move || Ok::<_, flowmill_audio::AudioError>(audio.clone()));
        let tokens = self.tokens.extract(&media).map_err(rejected)?;
        let embedding = self.speaker.extract(&media).map_err(rejected)?;
        let wrong = || ExportError::Generate { reason: "the extractors give values of another kind".to_owned() };
        let (Extracted::Tokens(tokens), Extracted::Embedding(embedding)) = (tokens, embedding) else {
            return Err(wrong());
        };
        let config = self.model.mel();
        let samples = media.as_audio("synth").and_then(|a| a.mono_at(config.sample_rate)).map_err(rejected)?;
        let real = MelSpectrogram::new(config.clone())?.compute(&samples)?;
        let draw = Draw::new(self.options.seed).purpose("synth");
        let ids = self.model.token_ids(&tokens)?;
        let mut samples = self.model.generate(&ids, &embedding, &self.generation(), &draw, 1)?;
        let generated = samples.mels.pop().ok_or_else(wrong)?;
        let wav = waveform(&generated, config, self.options.vocoder_iterations)?;
        let result = Synthesised {
            wav: out_dir.join(format!("{stem}.wav")),
            picture: out_dir.join(format!("{stem}.png")),
            seconds: wav.len() as f64 / f64::from(config.sample_rate),
            tokens: tokens.len(),
            evaluations: samples.evaluations.into_iter().sum(),
            distance_db: log_spectral_distance(&generated, &real)?,
        };
        whole(&result.wav, |path| audible::write_wav(path, &wav, config.sample_rate))?;
        whole(&result.picture, |path| audible::write_picture(path, stem, &real, &generated, config))?;
        Ok(result)
    }

    fn generation(&self) -> flowmill_models::flow::GenerationOptions {
        let mut options = self.model.default_options();
        if let Some(method) = self.options.solver.or(self.options.n_timesteps.map(|_| Method::Euler)) {
            options.solver.method = method;
        }
        options.strength = self.options.strength;
        options.solver.steps = self.options.n_timesteps.unwrap_or(options.solver.steps);
        options.guidance = self.options.inference_cfg_rate.unwrap_or(options.guidance);
        options
    }
}

/// Lets `write` fill a file that is never seen half-written.
fn whole(path: &Path, write: impl FnOnce(&Path) -> Result<(), ExportError>) -> Result<(), ExportError> {
    let failed = |source| ExportError::file(path, source);
    let file = WholeFile::beside(path).map_err(failed)?;
    write(file.path())?;
    file.put().map_err(failed)
}
