//! The common parts of the golden files of all token-to-mel flows: encoder, prediction, loss, every gradient, and
//! inference from a prompt.

use candle_core::Tensor;
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::{Solver, TimeSchedule};
use flowmill_nn::{Context, Parameters, Tape};
use serde::Deserialize;

use super::{GoldenFile, ParityError, Report, Result};
use crate::TokenToMel;
use crate::flow::{
    ConditionsConfig, EncoderConfig, Extent, Flow, FlowBatch, FlowConfig, FlowDraws, GenerationOptions,
    GenerationRequest, MatchingConfig, Prompt,
};

/// The largest number of steps; a file with more is invalid.
const MOST_STEPS: usize = 10_000;

/// Runs the flow with the given settings and compares everything that the file expects.
pub(super) fn check(file: &GoldenFile, config: &FlowConfig) -> Result<Report> {
    let (flow, mut parameters) = Flow::new(config, 0)?;
    let mut report = check_model(file, &flow, &mut parameters)?;
    if let Some(expected) = file.find("out.pred") {
        report.output("out.pred", &predicted(file, &flow, &parameters)?, expected)?;
    }
    Ok(report)
}

/// Loads the weights of the file and compares the results of any token-to-mel model: losses and gradients, encoder,
/// inference.
pub(super) fn check_model(file: &GoldenFile, model: &dyn TokenToMel, parameters: &mut Parameters) -> Result<Report> {
    file.load(parameters)?;
    let mut report = Report::default();
    if file.find("out.loss").is_some() || file.gradient_names().next().is_some() {
        check_loss(file, model, parameters, &mut report)?;
    }
    if let Some(expected) = file.find("out.encoder") {
        report.output("out.encoder", &encoded(file, model.flow(), parameters)?, expected)?;
    }
    for (name, unfinished) in [("out.infer_mel", false), ("out.infer_mel_unfinished", true)] {
        if let Some(expected) = file.find(name) {
            report.output(name, &generated(file, model, parameters, unfinished)?, expected)?;
        }
    }
    Ok(report)
}

/// Returns the encoder's settings, without dropout: the reference was computed with dropout switched off.
pub(super) fn encoder(file: &GoldenFile) -> Result<EncoderConfig> {
    let size = |key| file.size(&["encoder", key]);
    Ok(EncoderConfig {
        attention_heads: size("attention_heads")?,
        linear_units: size("linear_units")?,
        num_blocks: size("num_blocks")?,
        num_up_blocks: size("num_up_blocks")?,
        static_chunk_size: optional(
            file,
            &["encoder", "static_chunk_size"],
            EncoderConfig::default().static_chunk_size,
        )?,
        dropout_rate: 0.0,
        positional_dropout_rate: 0.0,
        attention_dropout_rate: 0.0,
    })
}

/// Returns the settings of the objective and of inference.
pub(super) fn matching(file: &GoldenFile) -> Result<MatchingConfig> {
    let defaults = MatchingConfig::default();
    Ok(MatchingConfig {
        sigma_min: optional(file, &["sigma_min"], defaults.sigma_min)?,
        t_scheduler: optional(file, &["t_scheduler"], TimeSchedule::Cosine)?,
        inference_cfg_rate: optional(file, &["inference_cfg_rate"], defaults.inference_cfg_rate)?,
        ..defaults
    })
}

/// Returns a value that files may omit because it is always the same in the published model.
pub(super) fn optional<T: for<'de> Deserialize<'de>>(file: &GoldenFile, path: &[&str], default: T) -> Result<T> {
    let Some(value) = file.value(path) else { return Ok(default) };
    T::deserialize(value).map_err(|error| ParityError::config(path, format!("is {value}: {error}")))
}

/// Returns whether the file was computed with chunk-causal masks.
fn streaming(file: &GoldenFile) -> Result<bool> {
    optional(file, &["streaming"], false)
}

/// Compares the settings that determine the size of the model, tokens and estimator aside, with the weights in the
/// file.
pub(super) fn refuse_lies(file: &GoldenFile, config: &FlowConfig) -> Result<()> {
    let FlowConfig { input_size, output_size, encoder, .. } = config;
    file.expect_weight("encoder_proj.weight", &[*output_size, *input_size])?;
    if config.conditions == ConditionsConfig::ProjectedSpeakerAndPrompt {
        file.expect_weight("spk_embed_affine_layer.weight", &[*output_size, config.spk_embed_dim])?;
    }
    let lookahead = config.pre_lookahead_len.saturating_add(1);
    file.expect_weight("encoder.pre_lookahead_layer.conv1.weight", &[*input_size, *input_size, lookahead])?;
    for (list, count) in [("encoder.encoders", encoder.num_blocks), ("encoder.up_encoders", encoder.num_up_blocks)] {
        file.expect_modules(list, count)?;
        if count > 0 {
            let units = [encoder.linear_units, *input_size];
            file.expect_weight(&format!("{list}.0.feed_forward.w_1.weight"), &units)?;
        }
    }
    Ok(())
}

fn check_loss(file: &GoldenFile, model: &dyn TokenToMel, parameters: &Parameters, report: &mut Report) -> Result<()> {
    let (batch, draws) = (batch(file, model.flow())?, draws(file, model.flow())?);
    let tape = Tape::new();
    let context = Context::training(parameters, &tape, RngKey::new(0));
    let loss = model.loss(&context, &batch, &draws)?;
    if let Some(expected) = file.find("out.loss") {
        let found = loss.total.tensor().reshape(vec![1; expected.rank()])?;
        report.output("out.loss", &found, expected)?;
    }
    for (part, value) in &loss.parts {
        let name = format!("out.{part}_loss");
        if let Some(expected) = file.find(&name) {
            let found = Tensor::new(*value as f32, expected.device())?.reshape(vec![1; expected.rank()])?;
            report.output(&name, &found, expected)?;
        }
    }
    report.gradients(file, parameters, &tape.backward(&loss.total)?)
}

/// Returns the inputs as a batch. The frames of an item are those of its tokens, because the public loss masks by the
/// tokens alone.
fn batch(file: &GoldenFile, flow: &Flow) -> Result<FlowBatch> {
    let token_lengths = file.lengths("in.speech_token_len")?;
    let mel = file.floats("in.speech_feat", 3)?;
    let (items, _, bins) = mel.dims3()?;
    if (items, bins) != (token_lengths.len(), flow.config().output_size) {
        let wanted = format!("[{}, frame, {}]", token_lengths.len(), flow.config().output_size);
        return Err(ParityError::tensor("in.speech_feat", format!("{:?}", mel.dims()), wanted));
    }
    let (mel, frames) = rows(mel)?;
    Ok(FlowBatch {
        tokens: file.integers("in.speech_token")?.into_iter().map(token_id).collect(),
        mel,
        mel_rows: vec![frames; token_lengths.len()],
        mel_lengths: token_lengths.iter().map(|tokens| tokens.saturating_mul(flow.config().token_mel_ratio)).collect(),
        speaker_embedding: file.floats("in.embedding", 2)?.clone(),
        samples: (0..token_lengths.len() as u64).collect(),
        token_lengths,
    })
}

fn draws(file: &GoldenFile, flow: &Flow) -> Result<FlowDraws> {
    let items = file.lengths("in.speech_token_len")?.len();
    Ok(FlowDraws {
        t: file.shaped("in.t", &[items])?.to_vec1()?,
        noise: rows(&bins_last(file, "in.z")?)?.0,
        condition_keep: file.shaped("in.cfg_keep", &[items])?.to_vec1()?,
        prompt_lengths: match flow.config().conditions {
            ConditionsConfig::ProjectedSpeakerAndPrompt => file.lengths("in.cond_len")?,
            ConditionsConfig::Speaker => vec![0; items],
        },
        streaming: streaming(file)?,
    })
}

/// Returns the rows of a padded tensor `[item, frame, bin]`, and the number of rows of each item.
fn rows(tensor: &Tensor) -> Result<(Tensor, usize)> {
    let (items, frames, bins) = tensor.dims3()?;
    Ok((tensor.reshape((items * frames, bins))?, frames))
}

/// Returns a tensor `[item, bin, frame]` as `[item, frame, bin]`.
fn bins_last(file: &GoldenFile, name: &str) -> Result<Tensor> {
    Ok(file.floats(name, 3)?.transpose(1, 2)?.contiguous()?)
}

/// Returns the encoder's frames `[item, frame, channel]`, including those of the padding.
fn encoded(file: &GoldenFile, flow: &Flow, parameters: &Parameters) -> Result<Tensor> {
    let tensor = file.tensor("in.speech_token")?;
    let &[items, longest, ..] = tensor.dims() else {
        return Err(ParityError::tensor("in.speech_token", format!("{:?}", tensor.dims()), "[item, token]"));
    };
    let tokens: Vec<u32> = file.integers("in.speech_token")?.into_iter().map(token_id).collect();
    let lengths = file.lengths("in.speech_token_len")?;
    let context = Context::inference(parameters);
    let (frames, _) = flow.encode(&context, &tokens, &lengths, streaming(file)?, Extent::Padded)?;
    let config = flow.config();
    Ok(frames.tensor().reshape((items, longest * config.token_mel_ratio, config.input_size))?)
}

/// Returns the id of a token. Padding may be negative; the public implementation takes it as 0.
fn token_id(token: i64) -> u32 {
    u32::try_from(token.max(0)).unwrap_or(u32::MAX)
}

/// Returns the estimated velocity `[item, bin, frame]` at the point of the loss.
fn predicted(file: &GoldenFile, flow: &Flow, parameters: &Parameters) -> Result<Tensor> {
    let (batch, draws) = (batch(file, flow)?, draws(file, flow)?);
    let velocity = flow.predict(&Context::inference(parameters), &batch, &draws)?;
    Ok(velocity.transpose(1, 2)?.contiguous()?)
}

/// Returns the mel of item 0 after its prompt, `[1, bin, frame]`. The last tokens of an `unfinished` item are only
/// looked ahead at.
fn generated(file: &GoldenFile, model: &dyn TokenToMel, parameters: &Parameters, unfinished: bool) -> Result<Tensor> {
    let flow = model.flow();
    let steps = file.size(&["n_timesteps"])?;
    if !(1..=MOST_STEPS).contains(&steps) {
        return Err(ParityError::config(&["n_timesteps"], format!("is {steps}, not in 1..={MOST_STEPS}")));
    }
    let matching = &flow.config().matching;
    let options = GenerationOptions {
        solver: Solver { steps, ..Solver::default() },
        strength: None,
        guidance: matching.inference_cfg_rate,
        temperature: 1.0,
        streaming: streaming(file)?,
        unfinished,
        hold_prompts: false,
    };
    let request = request(file, flow)?;
    // The public implementation draws more noise than it uses.
    let noise = bins_last(file, "in.infer_noise")?.get(0)?;
    let frames = noise.dim(0)?.min(flow.frames(&request, &options));
    let noise = noise.narrow(0, 0, frames)?;
    let context = Context::inference(parameters);
    let mels = model.generate_from(&context, &[request], &options, &[noise])?.mels;
    Ok(Tensor::stack(&mels, 0)?.transpose(1, 2)?.contiguous()?)
}

/// Returns the request of item 0: its first tokens and their frames as the prompt, the others to be generated.
fn request(file: &GoldenFile, flow: &Flow) -> Result<GenerationRequest> {
    let prompt = file.size(&["prompt_token_len"])?;
    let length = file.lengths("in.speech_token_len")?.first().copied().unwrap_or(0);
    let tokens = file.integers("in.speech_token")?;
    let ids = flow.config().ids_per_token();
    if prompt >= length || length > tokens.len() / ids {
        let problem = format!("is {prompt}: item 0 has {length} tokens, of which some must be left to generate");
        return Err(ParityError::config(&["prompt_token_len"], problem));
    }
    let mut tokens: Vec<u32> = tokens[..length * ids].iter().copied().map(token_id).collect();
    let rest = tokens.split_off(prompt * ids);
    let mel = file.floats("in.speech_feat", 3)?.get(0)?;
    let mel = mel.narrow(0, 0, prompt * flow.config().token_mel_ratio)?;
    let prompt = (prompt > 0).then_some(Prompt { tokens, mel });
    let speaker_embedding = file.floats("in.embedding", 2)?.get(0)?.to_vec1()?;
    Ok(GenerationRequest { tokens: rest, speaker_embedding, prompt })
}
