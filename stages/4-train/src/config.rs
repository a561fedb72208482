//! The recipe's `train` section.

use std::sync::Arc;

use flowmill_corpus::sampling::{BatchSize, Order, Phase, SamplingOptions, curriculum};
use flowmill_family::{Configured, FamilyError, Registry};
use flowmill_nn::Precision;
use flowmill_nn::device::{self, DeviceName};
use flowmill_runner::{Recipe, RecipeError, joined_schema, keys_of};
use flowmill_train::lora::AdapterFiles;
use flowmill_train::{LoraConfig, LossScaleConfig, RunLength, TrainConfig, TrainError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::foreign;
use crate::init_weights;
use crate::mixture::{self, MixtureEntry};

/// The section's name.
pub const SECTION: &str = "train";
/// The default number of epochs, if the recipe gives neither steps nor epochs.
const DEFAULT_EPOCHS: u64 = 100;
/// The largest number of utterances that are generated at a time while training waits.
const MOST_SAMPLES: usize = 100;

/// The section `train`, which several structs read: model, data and settings of a training.
#[derive(Debug, Clone)]
pub struct TrainSection {
    /// The model, with the family's own keys of the section.
    pub model: Arc<dyn Configured>,
    /// Data of the training, and the weights it starts from.
    pub settings: StageSettings,
    /// The loop.
    pub run: TrainConfig,
}

/// The keys of the section `train` about the data and the initial weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StageSettings {
    /// Initial weights: `.pt`, `.pth`, `.bin` or `.safetensors`, an index of shards, or the folder of a checkpoint,
    /// of an exported model or of a published one (`pytorch_model.bin`; for CosyVoice, recognized by its
    /// `cosyvoice*.yaml`, `flow.pt`). All must match by name and shape, unless `init_partial` is set. A prefix
    /// (`module.`, `_orig_mod.`, `model.`, `ema_model.`) or a wrapper inside names is removed if all names match
    /// without it, and the log says so.
    ///
    /// Counterparts: `--ckpt_file`, `--checkpoint`.
    pub init_from: Option<String>,
    /// Loads the weights of `init_from` that match by name and shape, lists the others, and starts the rest at
    /// random.
    ///
    /// Counterparts: `load_state_dict(strict=False)`.
    pub init_partial: bool,
    /// Trains low-rank adapters on the weights of `init_from` instead of the weights themselves.
    ///
    /// Counterparts: VALL-E's `--lora`, PEFT's `LoraConfig`.
    pub lora: Option<LoraConfig>,
    /// The training split. Stage 3 computes the statistics of mels from it, and stage 6 its trivial answers.
    ///
    /// Counterparts: `--train_data`.
    pub train_split: String,
    /// The validation split. With `null` there is no validation: stage 5 averages the last checkpoints, and stage 6
    /// scores the training split unless `export.split` names another.
    ///
    /// Counterparts: `--cv_data`.
    pub validation_split: Option<String>,
    /// Shuffling and batching of utterances.
    pub batch: BatchConfig,
    /// The order of utterances in each epoch, as phases such as `[{epochs: 1, order: sorted}, {order: shuffled}]`.
    /// The last phase continues to the end.
    ///
    /// Counterparts: VALL-E: sorted by duration first, then shuffled, then by speaker.
    pub curriculum: Vec<Phase>,
    /// Several corpora by weight, such as `[{weight: 1}, {index: ../other/exp/other/3-pack/train, weight: 3}]`. An
    /// epoch has as many utterances as all corpora together, shared by weight. If empty, only the training split of
    /// this recipe.
    ///
    /// Counterparts: concatenated `data.list`.
    #[serde(deserialize_with = "mixture::null_is_none")]
    #[schemars(with = "Option<Vec<MixtureEntry>>")]
    pub mixture: Vec<MixtureEntry>,
    /// Number of utterances that are generated at a time (also by the command `sample`): the first ones of the
    /// validation split, 1 to 100.
    ///
    /// Counterparts: `--num-samples`.
    pub sample_count: usize,
    /// Seed of every random draw of the training (initial weights, order, dropout, noise); by default the recipe's
    /// `seed`.
    pub seed: Option<u64>,
    /// The device for training and sampling. `--device` of `run`, `train` and `synth` overrides it and those of
    /// stages 1 and 2. GPUs need a build that supports them (docs/DEVICES.md).
    ///
    /// Counterparts: `CUDA_VISIBLE_DEVICES`, `--gpu`, `device`.
    pub device: DeviceName,
    /// Lets NVIDIA GPUs round the factors of single-precision products to TF32: faster, with 11 significant bits.
    /// Also applies to the samples of stage 6.
    ///
    /// Counterparts: `torch.set_float32_matmul_precision`, `allow_tf32`.
    pub tf32: bool,
}

impl Default for StageSettings {
    fn default() -> Self {
        Self {
            init_from: None,
            init_partial: false,
            lora: None,
            train_split: flowmill_stage_prep::TRAIN_SPLIT.to_owned(),
            validation_split: Some("dev".to_owned()),
            batch: BatchConfig::default(),
            curriculum: SamplingOptions::default().curriculum,
            mixture: Vec::new(),
            sample_count: 2,
            seed: None,
            device: DeviceName::Auto,
            tf32: false,
        }
    }
}

/// Shuffling and batching of utterances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// Maximum cost of a batch after padding: its longest utterance times its number of utterances, in mel frames or
    /// in the family's unit (tokens, pixels).
    ///
    /// Counterparts: `max_frames_in_batch` with `batch_type: dynamic`; VALL-E's batches by total duration.
    pub max_frames_in_batch: u32,
    /// Maximum number of utterances in a batch; 0 for no limit.
    pub max_utterances_in_batch: u32,
    /// Number of utterances in every batch, whatever their lengths, instead of the two limits. Validation has batches
    /// of the same size.
    ///
    /// Counterparts: `batch_type: static`, `batch_size`, `train_batch_size`, `val_batch_size`.
    pub batch_size: Option<u32>,
    /// Size of the windows, in utterances, that are shuffled.
    ///
    /// Counterparts: `shuffle_size`.
    pub shuffle_size: u32,
    /// Size of the windows, in utterances, that are sorted by length before they are cut into batches; 1 for no
    /// sorting.
    ///
    /// Counterparts: `sort_size`.
    pub sort_size: u32,
    /// Width of the buckets of `order: bucketed`, in the same unit; 50 mel frames are a second.
    ///
    /// Counterparts: VALL-E's buckets of 1 s.
    pub bucket_frames: u32,
}

impl Default for BatchConfig {
    fn default() -> Self {
        let options = SamplingOptions::default();
        Self {
            max_frames_in_batch: 10_000,
            max_utterances_in_batch: 0,
            batch_size: None,
            shuffle_size: options.shuffle_size,
            sort_size: options.sort_size,
            bucket_frames: options.bucket_width,
        }
    }
}

impl BatchConfig {
    /// Returns the invalid key, and the reason.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match self {
            Self { max_frames_in_batch: 0, .. } => Err(("max_frames_in_batch", "must be at least 1")),
            Self { batch_size: Some(0), .. } => Err(("batch_size", "must be at least 1, or null")),
            Self { batch_size: Some(_), max_utterances_in_batch: 1.., .. } => {
                Err(("batch_size", "and max_utterances_in_batch set the same limit; remove one of them"))
            }
            Self { bucket_frames: 0, .. } => Err(("bucket_frames", "must be at least 1")),
            _ => Ok(()),
        }
    }

    fn size(&self) -> BatchSize {
        match self.batch_size {
            Some(size) => BatchSize::Static(size),
            None => BatchSize::Dynamic { budget: self.max_frames_in_batch, utterances: self.max_utterances_in_batch },
        }
    }
}

/// Returns the keys of the section that are the same for all families.
fn own_keys() -> Vec<&'static str> {
    [&["model"], keys_of::<StageSettings>(), keys_of::<TrainConfig>()].concat()
}

/// Returns the schema of the section with these families.
pub(crate) fn schema(registry: &Registry, generator: &mut SchemaGenerator) -> Schema {
    let model = registry.model_schema(generator);
    let default = registry.names().next();
    let model = json_schema!({
        "properties": {
            "model": {
                "description": "The network: its family and its dimensions. The defaults of a family are its published model.",
                "default": { "family": default },
                "allOf": [model],
            },
        },
    });
    let mut parts = vec![model];
    parts.extend(registry.families().map(|family| family.train_schema(generator)));
    parts.extend([StageSettings::json_schema(generator), TrainConfig::json_schema(generator)]);
    joined_schema("Settings of stage 4, `train`: the model, the data, and how it is trained.", parts)
}

/// Removes the keys of a struct from a section and returns the struct.
fn taken<T: DeserializeOwned>(section: &mut Map<String, Value>) -> Result<T, FamilyError> {
    let take = |key: &&str| Some(((*key).to_owned(), section.shift_remove(*key)?));
    let own: Map<String, Value> = keys_of::<T>().iter().filter_map(take).collect();
    serde_json::from_value(Value::Object(own)).map_err(FamilyError::Options)
}

/// Returns the adapters that the recipe describes, as `lora` or in the family's own form, with the layers that the
/// family adapts if it names none.
fn adapters(
    model: &dyn Configured,
    given: Option<LoraConfig>,
    recipe: &Recipe,
) -> Result<Option<LoraConfig>, RecipeError> {
    let with_layers = |mut lora: LoraConfig| {
        if lora.targets.is_empty() {
            lora.targets = model.adapted_layers().iter().map(|&layer| layer.to_owned()).collect();
        }
        lora
    };
    let own = model.adapters().map_err(|error| error.in_recipe(recipe))?.map(with_layers);
    match (given.map(with_layers), own) {
        (Some(given), Some(own)) if given != own => {
            let reason = "describes other adapters than the family's own keys; remove one of the two";
            Err(recipe.error(&format!("{SECTION}.lora"), reason))
        }
        (given, own) => Ok(given.or(own)),
    }
}

/// Returns the loss scale of half precision: the recipe's settings, and for the others the family's.
fn loss_scale(run: &TrainConfig, model: &dyn Configured, recipe: &Recipe) -> Option<LossScaleConfig> {
    if run.precision != Precision::Fp16 {
        return run.loss_scale.clone();
    }
    let own = model.loss_scale();
    let Some(given) = run.loss_scale.clone() else { return Some(own) };
    let sets = |key: &str| recipe.sets(&format!("{SECTION}.loss_scale.{key}"));
    Some(LossScaleConfig {
        dynamic: if sets("dynamic") { given.dynamic } else { own.dynamic },
        initial: if sets("initial") { given.initial } else { own.initial },
        window: if sets("window") { given.window } else { own.window },
        hysteresis: if sets("hysteresis") { given.hysteresis } else { own.hysteresis },
        floor: if sets("floor") { given.floor } else { own.floor },
        ceiling: if sets("ceiling") { given.ceiling } else { own.ceiling },
    })
}

impl TrainSection {
    /// Reads, completes and checks the section.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn read(recipe: &Recipe, registry: &Registry) -> Result<Self, RecipeError> {
        let family = registry.of_recipe(recipe)?;
        let known = [own_keys(), family.train_keys().to_vec()].concat();
        let mut settings: StageSettings = recipe.shared(SECTION, &known)?;
        let mut run: TrainConfig = recipe.shared(SECTION, &known)?;
        let model = family.read(recipe, &known)?;
        settings.lora = adapters(model.as_ref(), settings.lora.take(), recipe)?;
        run.seed = *settings.seed.get_or_insert(recipe.seed());
        if let Some(wandb) = &mut run.wandb {
            wandb.name.get_or_insert(recipe.name().to_owned());
        }
        if run.max_steps.is_none() {
            run.max_epochs.get_or_insert(DEFAULT_EPOCHS);
        }
        let mut section = Self { model, settings, run };
        section.run.references = section.model.references();
        section.run.loss_scale = loss_scale(&section.run, section.model.as_ref(), recipe);
        section.check(recipe)?;
        section.run.loss_scale = section.run.loss_scale();
        section.run.described = section.described();
        Ok(section)
    }

    /// Reads the section from JSON as written by [`to_json`](Self::to_json); missing keys have their defaults.
    ///
    /// # Errors
    /// Returns an error if a key is unknown or has a wrong type.
    pub fn from_json(registry: &Registry, mut section: Map<String, Value>) -> Result<Self, FamilyError> {
        let model = section.shift_remove("model").unwrap_or_else(|| json!({}));
        let settings: StageSettings = taken(&mut section)?;
        let run = TrainConfig { seed: settings.seed.unwrap_or_default(), ..taken(&mut section)? };
        // The remaining keys are the family's.
        Ok(Self { model: registry.described(model, section)?, settings, run })
    }

    /// Returns the section with all keys.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut section = Map::from_iter([("model".to_owned(), self.model.model())]);
        section.extend(self.model.options());
        for keys in [json!(self.settings), json!(self.run)] {
            section.extend(keys.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        }
        section
    }

    fn check(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let Self { model, settings, run } = self;
        let refuse = |key: &str, reason: &str| Err(recipe.error(&format!("{SECTION}.{key}"), reason));
        let given = |key: &str| recipe.sets(&format!("{SECTION}.{key}"));
        let checked = run.schedule.refuse_foreign(&given).and_then(|()| run.check());
        match checked.and_then(|()| settings.lora.as_ref().map_or(Ok(()), LoraConfig::check)) {
            Ok(()) => {}
            Err(TrainError::Config { key, reason }) => return refuse(key, &reason),
            Err(other) => return refuse("optim", &other.to_string()),
        }
        model.check().map_err(|error| error.in_recipe(recipe))?;
        let least = model.least_loss_scale();
        if let Some(scale) = run.loss_scale.as_ref().filter(|scale| scale.floor < least) {
            let reason =
                format!("{} is below {least}: a smaller scale ruins pretrained weights of this family", scale.floor);
            return refuse("loss_scale.floor", &reason);
        }
        if !(1..=MOST_SAMPLES).contains(&settings.sample_count) {
            return refuse("sample_count", &format!("must be between 1 and {MOST_SAMPLES}"));
        }
        if let Err((key, reason)) = settings.batch.check() {
            return refuse(&format!("batch.{key}"), reason);
        }
        if let Err((key, reason)) = curriculum::check(&settings.curriculum) {
            return refuse(&format!("curriculum{key}"), &reason);
        }
        if let Err((key, reason)) = mixture::check(&settings.mixture, &|path| recipe.resolve(path)) {
            return refuse(&format!("mixture{key}"), &reason);
        }
        let validation = settings.validation_split.as_ref().map(|split| ("validation_split", split));
        for (key, split) in [("train_split", &settings.train_split)].into_iter().chain(validation) {
            let plain = !split.is_empty() && split.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
            if !plain || split.starts_with('.') {
                return refuse(
                    key,
                    &format!("\"{split}\" is not a valid name of a split; use only letters, digits, -, _ and ."),
                );
            }
        }
        self.check_start(recipe)?;
        if run.early_stopping.is_some() && settings.validation_split.is_none() {
            let reason =
                "ends the run by the validation loss, but train.validation_split is null: name a validation split";
            return refuse("early_stopping", reason);
        }
        if settings.validation_split.as_ref() == Some(&settings.train_split) {
            return refuse(
                "validation_split",
                "is also the training split: the validation loss would measure memorization",
            );
        }
        Ok(())
    }

    /// Checks that there is exactly one source of initial weights where one is needed.
    fn check_start(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let refuse = |key: &str, reason: &str| Err(recipe.error(&format!("{SECTION}.{key}"), reason));
        if self.settings.init_from.is_none() {
            if self.settings.init_partial {
                return refuse("init_partial", "applies to `init_from`, but `init_from` is not set");
            }
            if self.settings.lora.is_some() {
                let reason = "adapters need trained weights: set train.init_from to them";
                let key = if recipe.sets("train.lora") { "lora" } else { "loras" };
                return refuse(key, reason);
            }
            return Ok(());
        }
        if self.settings.init_partial {
            return Ok(());
        }
        self.model.check_initial_weights().map_err(|error| error.in_recipe(recipe))
    }

    /// Checks that this build and this machine have the device.
    ///
    /// # Errors
    /// Returns an error about `train.device`, and how to get the device.
    pub fn check_device(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let opened = device::open(self.settings.device).map(drop);
        opened.map_err(|error| recipe.error(&format!("{SECTION}.device"), error))
    }

    /// Checks that the corpora exist.
    ///
    /// # Errors
    /// Returns the key that names the first missing one.
    pub fn check_corpora(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        mixture::check_files(&self.settings.mixture, &|path| recipe.resolve(path))
            .map_err(|(key, reason)| recipe.error(&format!("{SECTION}.mixture{key}"), reason))?;
        foreign::corpora(self, recipe).iter().try_for_each(|corpus| corpus.check(self, recipe))
    }

    /// Checks that the initial weights exist.
    ///
    /// # Errors
    /// Returns the key that names them.
    pub fn check_weights(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        match self.settings.init_from.as_ref().map(|path| init_weights::check_weight_file(&recipe.resolve(path))) {
            Some(Err(reason)) => Err(recipe.error(&format!("{SECTION}.init_from"), reason)),
            _ => Ok(()),
        }
    }

    /// Checks that the files with initial weights and the corpora exist.
    ///
    /// # Errors
    /// Returns the key that names the first missing one.
    pub fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        self.check_corpora(recipe)?;
        self.check_weights(recipe)?;
        let refuse = |key: &str, reason: &str| Err(recipe.error(&format!("{SECTION}.{key}"), reason));
        let adapter = init_weights::adapter_files(self, recipe);
        let mut files = adapter.iter().flat_map(AdapterFiles::iter);
        if let Some(file) = files.find(|file| !file.is_file()) {
            return refuse("lora.init_from", &format!("there is no file {}", file.display()));
        }
        Ok(())
    }

    /// Returns warnings about settings that will not have the expected effect, as far as that is known without the
    /// data.
    pub fn warnings(&self) -> Vec<String> {
        let length = RunLength::limits(&self.run);
        let mut found = self.run.warnings(length, self.settings.validation_split.is_some());
        let mut begins = 0u64;
        for (at, phase) in self.settings.curriculum.iter().enumerate() {
            if let Some(epochs) = length.epochs.filter(|epochs| at > 0 && begins >= *epochs) {
                found.push(format!(
                    "train.curriculum[{at}]: begins after {begins} epochs, but the run has only {epochs}: it is never reached"
                ));
                break;
            }
            begins = begins.saturating_add(phase.epochs.unwrap_or(u64::MAX));
        }
        found
    }

    /// Returns the section for display in Weights & Biases, without entries that differ between machines. The name of
    /// the run's file follows from it.
    fn described(&self) -> Value {
        let mut fields = self.to_json();
        for without_effect in ["prefetch", "num_workers", "max_seconds", "gradient_checkpointing", "device", "tf32"] {
            fields.shift_remove(without_effect);
        }
        Value::Object(fields)
    }

    /// Returns the options of the sampler.
    pub fn sampling(&self) -> SamplingOptions {
        let BatchConfig { shuffle_size, sort_size, bucket_frames, .. } = self.settings.batch;
        let (curriculum, seed) = (self.settings.curriculum.clone(), self.settings.seed.unwrap_or_default());
        SamplingOptions {
            size: self.settings.batch.size(),
            shuffle_size,
            sort_size,
            bucket_width: bucket_frames,
            curriculum,
            seed,
        }
    }

    /// Returns whether the order of some epoch needs the speakers.
    pub fn balances_speakers(&self) -> bool {
        self.settings.curriculum.iter().any(|phase| phase.order == Order::BySpeaker)
    }
}
