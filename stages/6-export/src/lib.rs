//! Stage 6, `export`: reads averaged weights and writes a self-contained model with its card, samples and scores.
//!
//! | phase | parts | outputs |
//! |---|---|---|
//! | model | `model` | `model.safetensors`, the weights for public code (`flow.pt`), on demand a graph for other runtimes (`flow.decoder.estimator.fp32.onnx`), `config.json`, the fitted extractors; for adapters `adapter_model.safetensors` and `adapter_config.json`, and the public form of the family |
//! | samples | `samples` | `samples/UTT.wav`, `samples/UTT.png` (or other outputs of the family), `scores.json` |
//! | card | `card` | `README.md` |
//!
//! [`Synth`] loads such a folder.

mod adapters;
mod card;
mod config;
mod description;
mod error;
mod held_out;
mod model_folder;
mod record;
mod synth;

use std::path::{Path, PathBuf};

use flowmill_corpus::shard::ShardIndex;
use flowmill_family::Registry;
use flowmill_runner::{
    Part, PartReport, PartWork, Phase, PlanContext, Recipe, RecipeError, Stage, StageError, copy_bytes,
};
use flowmill_stage_train::training_indexes;
use flowmill_train::lora::ADAPTER_MODEL;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

pub use config::{ExportSection, StageSettings};
pub use error::ExportError;
pub use flowmill_stage_train::file_name;
pub use synth::{Synth, SynthOptions, Synthesized, write_files, write_files_except, write_whole};

use config::SECTION;
use description::Adapters;
use held_out::HeldOut;
use model_folder::{CONFIG, WEIGHTS};

/// The stage.
#[derive(Debug, Clone)]
pub struct Export {
    registry: Registry,
}

impl Export {
    /// Creates the stage with the families that a recipe can name.
    pub fn new(registry: Registry) -> Self {
        Self { registry }
    }

    fn read(&self, recipe: &Recipe) -> Result<ExportSection, RecipeError> {
        ExportSection::read(recipe, &self.registry)
    }
}

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
        4
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        config::schema(&self.registry, generator)
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let ExportSection { settings, train, .. } = self.read(recipe)?;
        if settings.write_onnx && train.model.onnx_file().is_none() {
            let family = train.model.family();
            let message = format!("the family {family} has no ONNX export; token-to-mel flows have one");
            return Err(recipe.error("export.write_onnx", message));
        }
        settings.split.map_or(Ok(()), |split| flowmill_stage_prep::check_split(recipe, "export.split", &split))
    }

    fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        self.read(recipe)?.train.check_device(recipe)
    }

    fn warnings(&self, recipe: &Recipe) -> Result<Vec<String>, RecipeError> {
        let ExportSection { settings, train, .. } = self.read(recipe)?;
        let trained = settings.split.filter(|split| *split == train.settings.train_split);
        let warning = |split| {
            format!(
                "export.split: stage 6 samples and scores `{split}`, which is the training split: the scores measure how well the model remembers, not \
                 how good it is; name a held-out split"
            )
        };
        Ok(trained.map(warning).into_iter().collect())
    }

    fn show(&self, recipe: &Recipe) -> Result<Value, RecipeError> {
        Ok(json!(self.read(recipe)?.to_json()))
    }

    fn plan(&self, phase: usize, context: &PlanContext) -> Result<Option<Phase>, StageError> {
        let section = self.read(context.recipe())?;
        Ok(match phase {
            0 => Some(self.model(context, &section)?),
            1 => Some(self.samples(context, section)?),
            2 => Some(record::phase(context, &self.registry, model_files(context, &section))?),
            _ => None,
        })
    }
}

/// Returns the files that are needed to load the exported model.
fn model_files(context: &PlanContext, section: &ExportSection) -> Vec<PathBuf> {
    let mut names = vec![CONFIG, WEIGHTS];
    if section.train.settings.lora.is_some() && !section.settings.merge_adapters {
        names.push(ADAPTER_MODEL);
    }
    names.into_iter().map(|name| context.stage_dir(6).join(name)).collect()
}

impl Export {
    /// Plans phase 0: everything that is needed to generate, in one folder; with `write_pt` also the weights for
    /// public inference code, with `write_onnx` also a graph for its runtime.
    fn model(&self, context: &PlanContext, section: &ExportSection) -> Result<Phase, StageError> {
        let ExportSection { settings, options, train } = section;
        let (trained, adapted) = (context.stage_dir(4), train.settings.lora.is_some());
        let weights = context.stage_dir(5).join(flowmill_stage_average::WEIGHTS);
        let description = trained.join(flowmill_stage_train::CONFIG_FILE);
        let base = adapted.then(|| trained.join(flowmill_stage_train::BASE_FILE));
        let extractors = flowmill_stage_train::extractors(train, &|number| context.stage_dir(number));
        let (write_pt, merge) = (settings.write_pt, settings.merge_adapters);
        let sampling = train.model.sampling(options).map_err(StageError::other)?;
        let mut config = json!({ "write_pt": write_pt, "sampling": &sampling });
        let onnx_file = train.model.onnx_file().filter(|_| settings.write_onnx);
        if onnx_file.is_some() {
            config["write_onnx"] = json!(true);
        }
        if adapted {
            config["merge_adapters"] = json!(merge);
        }
        let part = Part::new("model").config(json!({ SECTION: config }));
        let part =
            part.inputs([&weights, &description]).inputs(base.clone()).inputs(extractors.iter().map(|(path, _)| path));
        let model = train.model.clone();
        let part = part.work(move |work| {
            match (&base, adapters::described(&description)?) {
                (Some(base), Some(adapted)) => adapters::write(model.as_ref(), base, &weights, &adapted, merge, work)?,
                _ => copy_bytes(&weights, &work.output(WEIGHTS)?)?,
            }
            let apart = if base.is_some() && !merge { Adapters::Apart } else { Adapters::Merged };
            description::write(&description, &work.output(CONFIG)?, &sampling, apart)?;
            for (source, name) in &extractors {
                copy_bytes(source, &work.output(name)?)?;
            }
            if write_pt {
                let exported = model.export(&work.output(WEIGHTS)?, &mut |name| Ok(work.output(name)?));
                exported.map_err(StageError::other)?;
            }
            if let Some(file) = onnx_file {
                let exported = model.export_onnx(&work.output(WEIGHTS)?, &work.output(file)?);
                exported.map_err(StageError::other)?;
            }
            Ok(PartReport::summary())
        });
        Ok(Phase::new("collecting the model", vec![part]))
    }

    /// Plans phase 1: samples and scores of the held-out split.
    fn samples(&self, context: &PlanContext, section: ExportSection) -> Result<Phase, StageError> {
        let own = |name: &str| context.stage_dir(6).join(name);
        let split = section.settings.split.clone().unwrap_or_default();
        let held_out = context.stage_dir(3).join(&split).join("index.json");
        let train = training_indexes(&section.train, context.recipe(), &|number| context.stage_dir(number));
        if !held_out.exists() {
            let receipts = context.receipts(3)?;
            let splits: Vec<&str> = receipts.iter().filter_map(|receipt| receipt.key.strip_suffix("/index")).collect();
            let message = format!("stage 3 packed no split {split:?}; existing splits: {}", splits.join(", "));
            return Err(context.recipe().error("export.split", message).into());
        }
        let max_utterances = section.settings.max_utterances;
        let rows = ShardIndex::read(&held_out).map_err(StageError::other)?.rows;
        let rows = if max_utterances == 0 { rows } else { rows.min(max_utterances as u64) };
        let seed = context.recipe().seed();
        let mut part = Part::new("samples")
            .config(json!({ SECTION: sampling(&section), "seed": seed }))
            .inputs(model_files(context, &section))
            .inputs(shard_files(&held_out)?)
            .rows(rows);
        for index in &train {
            part = part.inputs(shard_files(index)?);
        }
        let work = HeldOut {
            registry: self.registry.clone(),
            device: section.train.settings.device,
            tf32: section.train.settings.tf32,
            options: section.options,
            max_utterances,
            seed,
            description: own(CONFIG),
            weights: own(WEIGHTS),
            split,
            train_indexes: train,
            index: held_out,
        };
        Ok(Phase::new("sampling", vec![part.work(move |part: &PartWork| work.run(part))]))
    }
}

/// Returns the settings that samples depend on: all except the form of the weights.
fn sampling(section: &ExportSection) -> Map<String, Value> {
    let mut settings = section.to_json();
    settings.retain(|key, _| !["write_pt", "write_onnx", "merge_adapters"].contains(&key.as_str()));
    settings
}

/// Returns an index and its shards.
fn shard_files(index: &Path) -> Result<Vec<PathBuf>, StageError> {
    let shards = ShardIndex::read(index).map_err(StageError::other)?.shards;
    let folder = index.parent().unwrap_or(Path::new(""));
    Ok(std::iter::once(index.to_owned()).chain(shards.into_iter().map(|shard| folder.join(shard.file))).collect())
}
