//! Stage 6, `export`: averaged weights in, a self-contained model with its card, samples and scores out.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | model | `model` | `model.safetensors`, `flow.pt`, `config.json`, the fitted extractors; of adapters `adapter_model.safetensors` and `adapter_config.json` |
//! | samples | `samples` | `samples/UTT.wav`, `samples/UTT.png`, `scores.json` |
//! | card | `card` | `README.md` |
//!
//! [`synth`] resynthesises any recording through such a folder.

mod adapters;
mod audible;
mod baselines;
mod card;
mod config;
mod description;
mod error;
mod evaluation;
mod held_out;
mod model_folder;
mod record;
mod scores;
mod synth;

use std::path::{Path, PathBuf};

use flowmill_corpus::shard::ShardIndex;
use flowmill_runner::{
    Part, PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, Stage, StageError, copy_bytes,
};
use flowmill_stage_train::{TrainSection, scored_split, training_indexes};
use flowmill_train::lora::ADAPTER_MODEL;
use flowmill_weights::{Archive, Target, write_archive};
use serde_json::{Value, json};

pub use config::ExportConfig;
pub use error::ExportError;
pub use flowmill_nn::solvers::Method;
pub use flowmill_stage_train::audible::file_name;
pub use synth::{SynthOptions, Synthesised, Synthesiser};

use description::{Adapters, Sampling};
use held_out::HeldOut;
use model_folder::{CONFIG, SPEAKER_EXTRACTOR, TOKEN_EXTRACTOR, TORCH_WEIGHTS, WEIGHTS};

/// The section's name.
const SECTION: &str = "export";

/// The stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Export;

impl Stage for Export {
    fn number(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        SECTION
    }

    fn title(&self) -> &'static str {
        "export the model, sample and score it"
    }

    fn version(&self) -> u32 {
        3
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let config = read(recipe)?;
        if let Some(split) = &config.split {
            flowmill_stage_prep::check_split(recipe, "export.split", split)?;
        }
        if config.sfm_strength.is_some() && !TrainSection::read(recipe)?.model.has_strength() {
            let message = "only a shallow flow (family: sfm-flow) has a strength";
            return Err(recipe.error("export.sfm_strength", message));
        }
        Ok(())
    }

    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        TrainSection::read(recipe)?.check_device(recipe)
    }

    fn warnings(&self, recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
        let (split, section) = (read(recipe)?.split, TrainSection::read(recipe)?);
        let trained = split.filter(|split| *split == section.train_split);
        let warning = |split| {
            format!(
                "export.split: stage 6 samples and scores `{split}`, which is trained on: the scores say how well the model remembers, not \
                 how good it is; name a split that is held out"
            )
        };
        Ok(trained.map(warning).into_iter().collect())
    }

    fn show(&self, recipe: &Recipe) -> Result<Value, RecipeError> {
        Ok(json!(read(recipe)?))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let config = read(context.recipe())?;
        Ok(match phase {
            0 => Some(model(context, &config)?),
            1 => Some(samples(context, config)?),
            2 => Some(record::phase(context, model_files(context, &config)?)?),
            _ => None,
        })
    }
}

/// The section, checked and with its split.
fn read(recipe: &Recipe) -> Result<ExportConfig, RecipeError> {
    let mut config: ExportConfig = recipe.section(SECTION)?;
    config.split = Some(scored_split(&TrainSection::read(recipe)?, recipe));
    config.check().map_err(|(key, reason)| recipe.error(&format!("{SECTION}.{key}"), format!("{key} {reason}")))?;
    Ok(config)
}

/// Whether adapters were trained.
fn has_adapters(context: &PlanContext) -> Result<bool, StageError> {
    Ok(TrainSection::read(context.recipe())?.lora.is_some())
}

/// What it takes to load the exported model.
fn model_files(context: &PlanContext, config: &ExportConfig) -> Result<Vec<PathBuf>, StageError> {
    let mut names = vec![CONFIG, WEIGHTS];
    if has_adapters(context)? && !config.merge_adapters {
        names.push(ADAPTER_MODEL);
    }
    Ok(names.into_iter().map(|name| context.stage_dir(6).join(name)).collect())
}

/// Phase 0: everything it takes to generate, in one folder; with `write_pt` also what public inference code loads.
fn model(context: &PlanContext, config: &ExportConfig) -> Result<Phase, StageError> {
    let (trained, adapted) = (context.stage_dir(4), has_adapters(context)?);
    let weights = context.stage_dir(5).join(flowmill_stage_average::WEIGHTS);
    let description = trained.join(flowmill_stage_train::CONFIG_FILE);
    let base = adapted.then(|| trained.join(flowmill_stage_train::BASE_FILE));
    let extractors = [
        (context.stage_dir(1).join(flowmill_stage_embed::EXTRACTOR), SPEAKER_EXTRACTOR),
        (context.stage_dir(2).join(flowmill_stage_tokens::CODEBOOK), TOKEN_EXTRACTOR),
    ];
    let (write_pt, merge) = (config.write_pt, config.merge_adapters);
    let sampling = Sampling::of(config.solver());
    let mut settings = json!({ "write_pt": write_pt, "sampling": &sampling });
    if adapted {
        settings["merge_adapters"] = json!(merge);
    }
    let part = Part::new("model").config(json!({ "export": settings }));
    let part =
        part.inputs([&weights, &description]).inputs(base.clone()).inputs(extractors.iter().map(|(path, _)| path));
    let part = part.work(move |work| {
        match (&base, adapters::described(&description)?) {
            (Some(base), Some(adapted)) => adapters::write(base, &weights, &adapted, merge, work)?,
            _ => copy_bytes(&weights, &work.output(WEIGHTS)?)?,
        }
        let apart = if base.is_some() && !merge { Adapters::Apart } else { Adapters::Merged };
        description::write(&description, &work.output(CONFIG)?, &sampling, apart)?;
        for (source, name) in &extractors {
            copy_bytes(source, &work.output(name)?)?;
        }
        if write_pt {
            let mut archive = Archive::open(&work.output(WEIGHTS)?).map_err(StageError::other)?;
            write_archive(&work.output(TORCH_WEIGHTS)?, &mut archive, Target::Torch).map_err(StageError::other)?;
        }
        Ok(PartReport::summary())
    });
    Ok(Phase::new("collecting the model", vec![part]))
}

/// Phase 1: samples and scores of the held-out split.
fn samples(context: &PlanContext, config: ExportConfig) -> Result<Phase, StageError> {
    let own = |name: &str| context.stage_dir(6).join(name);
    let section = TrainSection::read(context.recipe())?;
    let split = scored_split(&section, context.recipe());
    let held_out = context.stage_dir(3).join(&split).join("index.json");
    let train = training_indexes(&section, context.recipe(), &|number| context.stage_dir(number));
    if !held_out.exists() {
        let receipts = context.receipts(3)?;
        let splits: Vec<&str> = receipts.iter().filter_map(|receipt| receipt.key.strip_suffix("/index")).collect();
        let message = format!("stage 3 packed no split {split:?}; there are: {}", splits.join(", "));
        return Err(context.recipe().error("export.split", message).into());
    }
    let rows = ShardIndex::read(&held_out).map_err(StageError::other)?.rows;
    let rows = if config.max_utterances == 0 { rows } else { rows.min(config.max_utterances as u64) };
    let seed = context.recipe().seed();
    let mut part = Part::new("samples")
        .config(json!({ "export": sampling(&config), "seed": seed }))
        .inputs(model_files(context, &config)?)
        .inputs(shard_files(&held_out)?)
        .rows(rows);
    for index in &train {
        part = part.inputs(shard_files(index)?);
    }
    let (description, weights) = (own(CONFIG), own(WEIGHTS));
    let device = section.device;
    let work = HeldOut { config, split, seed, device, description, weights, train_indexes: train, index: held_out };
    Ok(Phase::new("sampling", vec![part.work(move |part: &PartWork| work.run(part))]))
}

/// The settings that samples depend on: all but the form of the weights.
fn sampling(config: &ExportConfig) -> Value {
    let mut settings = json!(config);
    if let Some(settings) = settings.as_object_mut() {
        settings.shift_remove("write_pt");
        settings.shift_remove("merge_adapters");
    }
    settings
}

/// An index and its shards.
fn shard_files(index: &Path) -> Result<Vec<PathBuf>, StageError> {
    let shards = ShardIndex::read(index).map_err(StageError::other)?.shards;
    let folder = index.parent().unwrap_or(Path::new(""));
    Ok(std::iter::once(index.to_owned()).chain(shards.into_iter().map(|shard| folder.join(shard.file))).collect())
}
