//! The scorer: generates, vocodes and scores a split.

use std::sync::Arc;

use flowmill_audio::features::{Features, MelSpectrogram};
use flowmill_corpus::shard::speech;
use flowmill_corpus::{ColumnSpec, DType, Row};
use flowmill_family::{BoxError, Made, MelOutput, Output, Report, Scored, Scorer};
use flowmill_networks::flow::GenerationOptions;
use flowmill_nn::random::RngKey;
use rayon::prelude::*;
use serde_json::json;

use super::baselines::Baselines;
use super::error::UseError;
use super::evaluation::{Comparison, Evaluation};
use super::example::{mel_of, recording, sound};
use super::exported::{ExportedModel, Samples};
use super::{ExportOptions, card, waveform};

/// Samples a model and compares it with recordings and with mean mels.
pub struct MelScorer {
    model: ExportedModel,
    options: ExportOptions,
    seed: u64,
    evaluation: Evaluation,
    /// The computation of the model's mel.
    spectrogram: MelSpectrogram,
}

/// An utterance with all data that are compared.
struct Generated {
    row: Arc<Row>,
    /// The units from which the samples were generated, one per token.
    units: Vec<u32>,
    real_mel: Features,
    real_wav: Vec<f32>,
    samples: Vec<Features>,
    evaluations: Vec<usize>,
}

/// An utterance with its waveforms.
struct Audible {
    generated: Generated,
    output: MelOutput,
    real_pitch: Vec<Option<f32>>,
    pitch: Vec<Option<f32>>,
}

impl MelScorer {
    /// Creates a scorer of a model.
    ///
    /// # Errors
    /// Returns an error for a strength if the model has none, and for a mel that cannot be computed.
    pub fn new(model: ExportedModel, options: ExportOptions, seed: u64) -> Result<Self, UseError> {
        if options.sfm_strength.is_some() && !model.has_strength() {
            let reason = "is set, but the model is not a shallow flow and has no strength".to_owned();
            return Err(UseError::Option { option: "export.sfm_strength", reason });
        }
        let evaluation = Evaluation::new(Baselines::new(model.mel.n_mels, model.frames_per_unit()));
        let spectrogram = MelSpectrogram::new(model.mel.clone())?;
        Ok(Self { model, options, seed, evaluation, spectrogram })
    }

    fn generate(&self, row: Arc<Row>) -> Result<Generated, UseError> {
        let real_wav = recording(&row, &self.model.mel)?;
        let real_mel = self.spectrogram.compute(&real_wav)?;
        let embedding = row.values(self.model.speaker_embedding.column())?;
        let ids = self.model.token_ids(row.values(speech::SPEECH_TOKEN)?)?;
        let (ids, units) = self.model.within(&ids, real_mel.frames);
        let options = GenerationOptions {
            solver: self.options.solver(),
            strength: self.options.sfm_strength,
            guidance: self.options.inference_cfg_rate as f32,
            ..self.model.options
        };
        let rng_key = RngKey::new(self.seed).purpose(&format!("export {}", row.id));
        let Samples { mels: samples, evaluations } =
            self.model.generate(ids, embedding, &options, &rng_key, self.options.samples)?;
        Ok(Generated { row, units, real_mel, real_wav, samples, evaluations })
    }

    fn make_audible(&self, generated: Generated) -> Result<Audible, BoxError> {
        let mel = &self.model.mel;
        let output = waveform::output(generated.samples[0].clone(), mel, self.options.vocoder_iterations)?;
        let real_pitch = waveform::pitch(&generated.real_wav, mel)?;
        let pitch = waveform::pitch(&output.waveform, mel)?;
        Ok(Audible { generated, output, real_pitch, pitch })
    }

    /// Adds an utterance to the scores.
    fn add(&mut self, audible: Audible) -> Scored {
        let Audible { generated, output, real_pitch, pitch } = audible;
        let Generated { row, units, real_mel, real_wav, samples, evaluations } = generated;
        let comparison = Comparison {
            speaker: &row.group,
            tokens: &units,
            real_mel: &real_mel,
            samples: &samples,
            real_wav: &real_wav,
            generated_wav: &output.waveform,
            evaluations: &evaluations,
            real_pitch: &real_pitch,
            generated_pitch: &pitch,
            hop_length: self.model.mel.hop_length,
        };
        if self.evaluation.add(&row.id, &comparison).is_none() {
            return Err("its samples cannot be compared with its recording".to_owned());
        }
        let title = format!("{} (speaker {})", row.id, row.group);
        let made = Made { name: row.id.clone(), title, output: Output::Mel(output), real: Some(real_mel) };
        Ok(vec![made])
    }
}

impl Scorer for MelScorer {
    fn columns(&self) -> Vec<ColumnSpec> {
        let features = [speech::speech_token(), speech::utt_embedding(), speech::spk_embedding()];
        let mel = speech::mel(DType::F32).optional();
        sound().into_iter().chain(features).chain([mel]).collect()
    }

    fn learn(&mut self, row: &Row) -> Result<(), BoxError> {
        let ids = self.model.token_ids(row.values(speech::SPEECH_TOKEN)?)?;
        let mel = mel_of(row, &self.spectrogram)?;
        let (_, units) = self.model.within(&ids, mel.frames);
        self.evaluation.baselines().add(&row.group, &units, &mel);
        Ok(())
    }

    fn score(&mut self, rows: &[Arc<Row>], interrupted: &dyn Fn() -> bool) -> Result<Vec<Scored>, BoxError> {
        let rows = rows.iter().take_while(|_| !interrupted());
        let generated: Vec<_> = rows.map(|row| self.generate(row.clone()).map_err(|error| error.to_string())).collect();
        let make_audible = |generated| match generated {
            Ok(generated) => self.make_audible(generated).map(Ok),
            Err(reason) => Ok(Err(reason)),
        };
        let audible: Vec<Result<Audible, String>> =
            generated.into_par_iter().map(make_audible).collect::<Result<_, BoxError>>()?;
        Ok(audible.into_iter().map(|audible| audible.and_then(|audible| self.add(audible))).collect())
    }

    fn finish(self: Box<Self>, split: &str) -> Report {
        let scores = self.evaluation.finish(split, self.options.samples, self.options.solver);
        let facts = [
            ("distance_db", scores.distance_db.mean_of_samples),
            ("best_trivial_db", scores.distance_db.best_trivial()),
            ("evaluations", scores.evaluations_per_sample),
            ("spread_ratio", scores.spread_ratio),
            ("energy_correlation", scores.energy_correlation),
        ];
        Report {
            scores: json!(scores),
            lines: card::lines(&scores),
            facts: facts.to_vec(),
            rows: scores.utterances as u64,
        }
    }
}
