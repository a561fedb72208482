//! The held-out split, generated, vocoded, scored.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowmill_audio::features::{Features, MelConfig, MelSpectrogram};
use flowmill_audio::{decode_bytes, resample};
use flowmill_corpus::shard::{Shards, speech};
use flowmill_corpus::{DType, Row};
use flowmill_models::flow::GenerationOptions;
use flowmill_nn::device::{self, DeviceName};
use flowmill_nn::random::Draw;
use flowmill_runner::{PartReport, PartWork, StageError};
use flowmill_stage_train::audible::{file_name, waveform};
use rayon::prelude::*;
use serde_json::json;

use crate::baselines::Baselines;
use crate::evaluation::{Comparison, Evaluation, Scores};
use crate::model_folder::{ExportedModel, Samples};
use crate::{ExportConfig, ExportError, audible, card};

/// Memory for decoded rows.
const CACHE_BYTES: usize = 64 << 20;
/// Rows read at a time.
const ROWS_AT_ONCE: usize = 32;

/// What the part reads.
pub struct HeldOut {
    /// Settings of the section.
    pub config: ExportConfig,
    /// Key of the noise.
    pub seed: u64,
    /// What computes the model.
    pub device: DeviceName,
    /// `config.json` of the model.
    pub description: PathBuf,
    /// Its weights.
    pub weights: PathBuf,
    /// The held-out split.
    pub split: String,
    /// Indexes of what the baselines are means of.
    pub train_indexes: Vec<PathBuf>,
    /// Index of the held-out split.
    pub index: PathBuf,
}

/// An utterance with everything that is compared.
struct Generated {
    row: Arc<Row>,
    /// The units that were generated from, one per token.
    units: Vec<i64>,
    real_mel: Features,
    real_wav: Vec<f32>,
    samples: Vec<Features>,
    evaluations: Vec<usize>,
}

/// An utterance made audible.
struct Audible {
    generated: Generated,
    wav: Vec<f32>,
    real_pitch: Vec<Option<f32>>,
    pitch: Vec<Option<f32>>,
}

impl HeldOut {
    /// Writes `samples/UTT.wav`, `samples/UTT.png` and `scores.json`; prints the scores.
    ///
    /// # Errors
    /// When the model or the shards cannot be read; a single utterance that cannot be used is rejected.
    pub fn run(&self, work: &PartWork) -> Result<PartReport, StageError> {
        let device = device::open(self.device).map_err(StageError::other)?;
        let model = ExportedModel::load(&self.description, &self.weights, &device).map_err(StageError::other)?;
        if self.config.sfm_strength.is_some() && !model.has_strength() {
            let message = "export.sfm_strength is set, but the model is no shallow flow: it has no strength";
            return Err(StageError::new(message));
        }
        let (scores, rows) = self.score(work, &model)?;
        let path = work.output("scores.json")?;
        fs::write(&path, format!("{:#}\n", json!(scores))).map_err(|e| StageError::file(&path, e))?;
        card::lines(&scores).iter().for_each(|line| work.message(line));
        Ok(PartReport::rows(rows, scores.utterances as u64)
            .fact("distance_db", round(scores.distance_db.mean_of_samples))
            .fact("best_trivial_db", round(scores.distance_db.best_trivial()))
            .fact("evaluations", round(scores.evaluations_per_sample))
            .fact("spread_ratio", round(scores.spread_ratio))
            .fact("energy_correlation", round(scores.energy_correlation)))
    }

    fn score(&self, work: &PartWork, model: &ExportedModel) -> Result<(Scores, u64), StageError> {
        let shards = open(&self.index)?;
        let mut evaluation = Evaluation::new(self.baselines(work, model)?);
        let wanted = if self.config.max_utterances == 0 { usize::MAX } else { self.config.max_utterances };
        let items: Vec<u32> = (0..shards.len() as u32).take(wanted).collect();
        for items in items.chunks(ROWS_AT_ONCE) {
            let mut batch = Vec::new();
            for row in shards.fetch(items).map_err(StageError::other)? {
                if work.interrupted() {
                    return Err(StageError::Interrupted);
                }
                match self.generate(model, row.clone()) {
                    Ok(generated) => batch.push(generated),
                    Err(error) => work.reject(&row.id, error),
                }
            }
            let audible: Vec<_> = batch.into_par_iter().map(|g| self.make_audible(work, model, g)).collect();
            for one in audible {
                let one = one?;
                if !self.add(&mut evaluation, &one, model) {
                    work.reject(&one.generated.row.id, "its samples cannot be compared with its recording");
                }
                work.advance(1);
            }
        }
        let scores = evaluation.finish(&self.split, self.config.samples, self.config.solver);
        Ok((scores, items.len() as u64))
    }

    fn baselines(&self, work: &PartWork, model: &ExportedModel) -> Result<Baselines, StageError> {
        let mut baselines = Baselines::new(model.mel().n_mels, model.frames_per_unit());
        for index in &self.train_indexes {
            add_means(&mut baselines, &open(index)?, work, model)?;
        }
        Ok(baselines)
    }
    fn generate(&self, model: &ExportedModel, row: Arc<Row>) -> Result<Generated, ExportError> {
        let config = model.mel();
        let real_wav = recording(&row, config)?;
        let real_mel = MelSpectrogram::new(config.clone())?.compute(&real_wav)?;
        let embedding = row.values(model.description().speaker_embedding.column())?;
        let ids = model.token_ids(row.values(speech::SPEECH_TOKEN)?)?;
        let (ids, units) = model.within(&ids, real_mel.frames);
        let options = GenerationOptions {
            solver: self.config.solver(),
            strength: self.config.sfm_strength,
            guidance: self.config.inference_cfg_rate as f32,
            ..model.default_options()
        };
        let draw = Draw::new(self.seed).purpose(&format!("export {}", row.id));
        let Samples { mels: samples, evaluations } =
            model.generate(ids, embedding, &options, &draw, self.config.samples)?;
        Ok(Generated { row, units, real_mel, real_wav, samples, evaluations })
    }

    fn make_audible(
        &self,
        work: &PartWork,
        model: &ExportedModel,
        generated: Generated,
    ) -> Result<Audible, StageError> {
        let config = model.mel();
        let first = &generated.samples[0];
        let make = |name: &str| -> Result<PathBuf, StageError> { work.output(&format!("samples/{name}")) };
        let name = file_name(&generated.row.id);
        let wav = waveform(first, config, self.config.vocoder_iterations).map_err(StageError::other)?;
        audible::write_wav(&make(&format!("{name}.wav"))?, &wav, config.sample_rate).map_err(StageError::other)?;
        let title = format!("{} (speaker {})", generated.row.id, generated.row.group);
        audible::write_picture(&make(&format!("{name}.png"))?, &title, &generated.real_mel, first, config)
            .map_err(StageError::other)?;
        let real_pitch = audible::pitch(&generated.real_wav, config).map_err(StageError::other)?;
        let pitch = audible::pitch(&wav, config).map_err(StageError::other)?;
        Ok(Audible { generated, wav, real_pitch, pitch })
    }

    /// Adds an utterance to the scores; whether it could be compared.
    fn add(&self, evaluation: &mut Evaluation, one: &Audible, model: &ExportedModel) -> bool {
        let Generated { row, units, real_mel, real_wav, samples, evaluations } = &one.generated;
        let comparison = Comparison {
            speaker: &row.group,
            tokens: units,
            real_mel,
            samples,
            real_wav,
            generated_wav: &one.wav,
            evaluations,
            real_pitch: &one.real_pitch,
            generated_pitch: &one.pitch,
            hop_length: model.mel().hop_length,
        };
        evaluation.add(&row.id, &comparison).is_some()
    }
}

/// Adds the mels of a training split to the means.
fn add_means(
    baselines: &mut Baselines,
    shards: &Shards,
    work: &PartWork,
    model: &ExportedModel,
) -> Result<(), StageError> {
    let items: Vec<u32> = (0..shards.len() as u32).collect();
    for items in items.chunks(ROWS_AT_ONCE) {
        if work.interrupted() {
            return Err(StageError::Interrupted);
        }
        for row in shards.fetch(items).map_err(StageError::other)? {
            let tokens = row.values(speech::SPEECH_TOKEN).map_err(StageError::other)?;
            let ids = model.token_ids(tokens).map_err(StageError::other)?;
            let mel = mel_of(&row, model.mel()).map_err(StageError::other)?;
            let (_, units) = model.within(&ids, mel.frames);
            baselines.add(&row.group, &units, &mel);
        }
    }
    Ok(())
}

/// Opens a split with all columns that generating and comparing need.
fn open(index: &Path) -> Result<Shards, StageError> {
    let sound = [speech::WAV, speech::AUDIO_DATA];
    let recording = speech::recording().into_iter().filter(|column| sound.contains(&column.name.as_str()));
    let features = [speech::speech_token(), speech::utt_embedding(), speech::spk_embedding()];
    let columns: Vec<_> = recording.chain(features).chain([speech::mel(DType::F32).optional()]).collect();
    Shards::open(index, &columns, CACHE_BYTES).map_err(StageError::other)
}

/// The recording of a row, at the sample rate of the mel.
fn recording(row: &Row, config: &MelConfig) -> Result<Vec<f32>, ExportError> {
    let audio = decode_bytes(row.bytes(speech::AUDIO_DATA)?, row.text(speech::WAV)?)?;
    Ok(resample(&audio.mono(), audio.sample_rate, config.sample_rate)?)
}

/// The mel of a row: the shard's own, or computed from the recording where the shard holds none (`pack.mel.store: none`).
fn mel_of(row: &Row, config: &MelConfig) -> Result<Features, ExportError> {
    match row.columns.contains_key(speech::MEL) {
        true => {
            let (data, [frames, bins]) = row.matrix::<f32>(speech::MEL)?;
            Ok(Features::new(data.to_vec(), frames, bins)?)
        }
        false => Ok(MelSpectrogram::new(config.clone())?.compute(&recording(row, config)?)?),
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
