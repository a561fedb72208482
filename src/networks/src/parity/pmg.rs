//! PMG: conditions, noisy latents, prediction, loss and the gradients of the soft prompts.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Tape, host};

use super::report::gradient_of;
use super::{GoldenFile, ParityError, Report, Result, llama, settings, stable_diffusion};
use crate::llama::LlamaFileConfig;
use crate::pmg::{Frozen, Pmg, PmgBatch, PmgConfig, PmgSettings};
use crate::stable_diffusion::sampling::ScheduleConfig;
use crate::stable_diffusion::{UNetConfig, channels_first, channels_last};

/// The names of the soft prompts in the file and in the network.
const NAMES: [(&str, &str); 4] = [
    ("soft.image_prompts", "trainable_prompt"),
    ("soft.prefix.weight", "prefix_encoder.embedding.weight"),
    ("soft.mapping.weight", "mapping_layer.weight"),
    ("soft.mapping.bias", "mapping_layer.bias"),
];

fn public_name(name: &str) -> &str {
    NAMES.iter().find(|(file, _)| *file == name).map_or(name, |(_, network)| network)
}

/// Compares everything that the file expects.
pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let language: LlamaFileConfig = settings(file, &["llama"])?;
    let unet: UNetConfig = settings(file, &["unet"])?;
    let config = PmgConfig {
        num_image_prompt: file.size(&["num_image_prompt"])?,
        num_prefix_prompt: file.size(&["num_prefix_prompt"])?,
        max_sequence_length: file.size(&["max_sequence_length"])?,
        ..PmgConfig::default()
    };
    let network = language.network()?;
    llama::refuse_lies(file, "llama.", &network, language.vocab_size)?;
    stable_diffusion::refuse_lies(file, "unet.", &unet)?;
    let prompts = [1, config.num_image_prompt, network.dim];
    file.expect_weight("soft.image_prompts", &prompts)?;
    let table = [config.num_prefix_prompt, 2 * network.layers * network.key_value_width()];
    file.expect_weight("soft.prefix.weight", &table)?;
    let settings = PmgSettings {
        prompts: config,
        llama: network,
        vocabulary: language.vocab_size,
        unet,
        schedule: ScheduleConfig::default(),
    };
    let (model, mut parameters) = Pmg::new(&settings, Frozen::FromFiles, 0)?;
    let renamed = |(name, tensor): (String, Tensor)| (public_name(&name).to_owned(), tensor);
    let weights: BTreeMap<String, Tensor> = file.parameters().into_iter().map(renamed).collect();
    let loaded = parameters.load(&weights)?;
    if !loaded.is_exact() {
        return Err(ParityError::Weights(loaded));
    }
    parameters.to_device(file.device())?;

    let batch = batch(file)?;
    let tape = Tape::new();
    // Blocks are recomputed, as in training at full size.
    let context = Context::training(&parameters, &tape, RngKey::new(0)).with_checkpoints(true);
    let found = model.loss(&context, &batch)?;
    let mut report = Report::default();
    report.output("out.context", found.conditions.tensor(), file.floats("out.context", 3)?)?;
    report.output("out.noisy", &channels_first(&found.noisy)?, file.floats("out.noisy", 4)?)?;
    report.output("out.pred", &channels_first(&found.prediction)?, file.floats("out.pred", 4)?)?;
    report.output("out.loss", &host::fetch(found.loss.tensor())?.reshape(1)?, file.floats("out.loss", 1)?)?;
    let gradients = tape.backward(&found.loss)?;
    for name in file.gradient_names() {
        let full = format!("grad.{name}");
        let gradient = gradient_of(file, &full, public_name(name), &parameters, &gradients)?;
        report.gradient(&full, &gradient, file.tensor(&full)?)?;
    }
    Ok(report)
}

fn batch(file: &GoldenFile) -> Result<PmgBatch> {
    let (ids, lengths) = (file.integers("in.input_ids")?, file.lengths("in.token_len")?);
    let width = file.tensor("in.input_ids")?.dims().last().copied().unwrap_or(0).max(1);
    let text = |(ids, length): (&[i64], &usize)| {
        let ids = ids.get(..*length).ok_or_else(|| {
            ParityError::tensor("in.token_len", format!("holding {length}"), format!("lengths of at most {width}"))
        })?;
        let token = |id: &i64| {
            u32::try_from(*id).map_err(|_| ParityError::tensor("in.input_ids", format!("holding {id}"), "tokens"))
        };
        ids.iter().map(token).collect::<Result<Vec<u32>>>()
    };
    let step = |step: i64| {
        u32::try_from(step).map_err(|_| ParityError::tensor("in.timesteps", format!("holding {step}"), "steps"))
    };
    Ok(PmgBatch {
        texts: ids.chunks_exact(width).zip(&lengths).map(text).collect::<Result<_>>()?,
        latents: channels_last(file.floats("in.latents", 4)?)?,
        noise: channels_last(file.floats("in.noise", 4)?)?,
        steps: file.integers("in.timesteps")?.into_iter().map(step).collect::<Result<_>>()?,
    })
}
