//! What the weights generate while they are trained, and how they leave as a model of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use flowmill_audio::features::{Features, MelConfig};
use flowmill_models::TokenToMel;
use flowmill_models::flow::{FlowItem, GenerationRequest};
use flowmill_nn::random::Draw;
use flowmill_nn::{Context, Parameters, host, low_rank};
use flowmill_train::checkpoint::MODEL_FILE;
use flowmill_train::{BoxError, Media, Sample};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use crate::CONFIG_FILE;
use crate::audible::{file_name, waveform, write_picture};

/// The fitted extractor of speaker embeddings in the folder of a model.
pub const SPEAKER_EXTRACTOR: &str = "speaker_embedding.safetensors";
/// The fitted extractor of speech tokens in the folder of a model.
pub const TOKEN_EXTRACTOR: &str = "speech_token.safetensors";
/// Iterations of the vocoder.
const VOCODER_ITERATIONS: usize = 60;

/// Everything beside the weights that it takes to generate and to export.
pub struct Studio {
    /// Validation utterances by id.
    pub utterances: Vec<(String, FlowItem)>,
    /// Key of the noise.
    pub seed: u64,
    /// What `config.json` says of the model.
    pub description: Value,
    /// The scale of the adapters that the weights hold, if they do.
    pub adapter_scale: Option<f32>,
    /// The fitted extractors of speakers and of tokens.
    pub extractors: [PathBuf; 2],
}

impl Studio {
    /// The utterances, generated from noise that is the same every time.
    pub fn samples(&self, model: &dyn TokenToMel, parameters: &Parameters) -> Result<Vec<Sample>, BoxError> {
        if self.utterances.is_empty() {
            return Err("there is no validation split to take utterances from".into());
        }
        let request = |(_, item): &(String, FlowItem)| GenerationRequest {
            tokens: item.tokens.clone(),
            speaker_embedding: item.speaker_embedding.clone(),
            prompt: None,
        };
        let requests: Vec<GenerationRequest> = self.utterances.iter().map(request).collect();
        let numbers: Vec<u64> = (0..requests.len() as u64).collect();
        let (context, draw) = (Context::inference(parameters), Draw::new(self.seed).purpose("samples"));
        let generated = model.generate(&context, &requests, &model.default_options(), &draw, &numbers)?;
        let config = MelConfig::deserialize(&self.description["mel"]["config"])?;
        let pairs: Vec<_> = self.utterances.iter().zip(&generated.mels).collect();
        let made: Vec<[Sample; 2]> = pairs
            .into_par_iter()
            .map(|(utterance, mel)| sample(utterance, mel, &config))
            .collect::<Result<_, BoxError>>()?;
        Ok(made.into_iter().flatten().collect())
    }

    /// Writes a folder that `flowmill synth --model` takes.
    pub fn export(&self, parameters: &Parameters, folder: &Path) -> Result<(), BoxError> {
        let mut tensors: BTreeMap<_, _> = parameters.named_tensors().into_iter().collect();
        if let Some(scale) = self.adapter_scale {
            low_rank::merge(&mut tensors, scale)?;
        }
        let merged: Vec<_> = tensors.into_iter().collect();
        flowmill_weights::write(&folder.join(MODEL_FILE), &merged, &Default::default())?;
        fs::write(folder.join(CONFIG_FILE), format!("{:#}\n", self.description))?;
        for (source, name) in self.extractors.iter().zip([SPEAKER_EXTRACTOR, TOKEN_EXTRACTOR]) {
            flowmill_runner::copy_bytes(source, &folder.join(name))?;
        }
        Ok(())
    }
}

/// A generated mel beside the real one, to be heard and seen.
fn sample(
    (id, item): &(String, FlowItem),
    mel: &candle_core::Tensor,
    config: &MelConfig,
) -> Result<[Sample; 2], BoxError> {
    let (frames, bins) = mel.dims2()?;
    let generated = host::read(mel)?;
    if generated.iter().any(|value| !value.is_finite()) {
        return Err(format!("the mel generated for {id} has a value that is not finite").into());
    }
    let generated = Features::new(generated, frames, bins)?;
    let real = Features::new(item.mel.clone(), item.mel.len() / bins, bins)?;
    let (mut wav, mut png) = (Cursor::new(Vec::new()), Vec::new());
    let samples = waveform(&generated, config, VOCODER_ITERATIONS)?;
    flowmill_audio::write_wav(&mut wav, &samples, config.sample_rate)?;
    write_picture(&mut png, id, &real, &generated, config)?;
    let sample = |media, bytes| Sample { name: file_name(id), media, bytes };
    Ok([sample(Media::Wav, wav.into_inner()), sample(Media::Png, png)])
}
