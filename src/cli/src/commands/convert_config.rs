//! `flowmill convert-config CONFIG`: writes a recipe from the configuration of the public VALL-E trainer, of a FLOAT training
//! ([`float_config`](super::float_config)), or of the public PMG code ([`pmg_config`](super::pmg_config)); or a part of a recipe from a
//! configuration of Accelerate or DeepSpeed ([`distributed_config`](super::distributed_config)).
//!
//! [`TABLE`] says what becomes of every key of the trainer (`vall_e/config.py`); keys that it lacks are listed as keys without a counterpart.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use flowmill_runner::{from_yaml, to_yaml};
use serde_json::{Map, Value, json};

use super::report::write;
use super::{distributed_config, float_config, pmg_config};
use crate::args::ConvertConfigArgs;
use crate::failure::Failure;

/// The largest configuration that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Tasks that need recordings, to which noise is added.
const NOISY_TASKS: [&str; 2] = ["ns", "sr"];

/// The counterpart of a key.
enum To {
    /// This key of the recipe has the same value.
    Key(&'static str),
    /// This key of the recipe has the value that the function returns.
    By(&'static str, fn(&Value) -> Option<Value>),
    /// The key has no counterpart; its value must be one for which the function returns true.
    Only(fn(&Value) -> bool),
    /// The key is read together with others; see [`combine`].
    Combined,
    /// Nothing is to be set, for this reason.
    Always(&'static str),
}

use To::{Always, By, Combined, Key, Only};

/// The counterparts of the trainer's keys; `model` is the model that is trained, `lora` the adapter. A name that ends in `*` stands for all keys that
/// begin like it.
const TABLE: &[(&str, To)] = &[
    ("sample_rate", Combined),
    ("audio_backend", Combined),
    ("device", By("train.device", device)),
    ("tokenizer_path", Key("train.tokenizer")),
    ("tokenizer", Always("the tokenizer is the one of tokenizer_path")),
    ("weights_format", Always("exports have the weights in safetensors and as a state dict")),
    ("weights_name", Always("exports have the weights in safetensors and as a state dict")),
    ("dataset.training", Combined),
    ("dataset.validation", Combined),
    ("dataset.use_hdf5", Combined),
    ("dataset.hdf5_name", Combined),
    ("dataset.duration_range", Combined),
    ("dataset.sample_type", Combined),
    ("dataset.sample_order", Combined),
    ("dataset.sample_shuffle", Combined),
    ("dataset.sample_max_duration_batch", Combined),
    ("dataset.tasks_list", Combined),
    ("dataset.workers", Key("train.num_workers")),
    ("dataset.prompt_duration_range", Key("train.prompt_seconds")),
    ("dataset.prompt_max_samples", Key("train.prompt_utterances")),
    ("dataset.prompt_similar_p", Key("train.similar_prompts.probability")),
    ("dataset.prompt_similar_top_k", Key("train.similar_prompts.among")),
    ("dataset.prompt_similar_top_k_offset", Key("train.similar_prompts.after")),
    ("dataset.use_metadata", Always("stage 0 reads the metadata once")),
    ("dataset.cache", Always("every stage keeps its results")),
    ("dataset.hdf5_flag", Always("files of data are only read")),
    ("dataset.validate", Always("utterances outside of the durations are always rejected")),
    ("dataset.strict_validate", Always("damaged utterances are always rejected")),
    ("dataset.retokenize_text", Always("phonemes become symbols when they are read")),
    ("model.name", By("name", name)),
    ("model.size", Combined),
    ("model.size.*", Combined),
    ("model.resp_levels", Combined),
    ("model.langs", Key("train.model.languages")),
    ("model.tones", Key("train.model.tones")),
    ("model.tasks", Key("train.model.tasks")),
    ("model.dropout", Key("train.model.attention_dropout")),
    ("model.version", Combined),
    ("model.arch_type", Combined),
    ("model.training", Combined),
    ("model.attention", Always("the fastest attention of the device is used")),
    ("model.path", Key("train.init_from")),
    ("model.capabilities", Always("the tasks decide what is trained")),
    ("model.experimental.masking_train_p", Key("train.draws.masked_rate")),
    ("model.experimental.masking_ratio", By("train.draws.mask_ratio", mask_ratio)),
    ("model.experimental.cfg_cond_dropout_p", Key("train.draws.condition_dropout")),
    ("model.experimental.cfg_prom_dropout_p", Key("train.draws.prompt_dropout")),
    ("model.experimental.rvq_levels_p", By("train.draws.level_weights", level_weights)),
    ("model.experimental.audio_embedding_sums", Only(|on| on == true)),
    ("model.experimental.unified_position_ids", Only(|on| on == false)),
    ("model.experimental.split_classifiers", Only(|on| on == true)),
    ("lora.name", Combined),
    ("lora.rank", Combined),
    ("lora.alpha", Combined),
    ("lora.training", Combined),
    ("lora.path", Combined),
    ("lora.embeddings", Only(|on| on == false)),
    ("lora.parametrize", Only(|on| on == false)),
    ("lora.rvq_levels", Only(|levels| levels.as_array().is_some_and(Vec::is_empty))),
    ("hyperparameters.batch_size", Combined),
    ("hyperparameters.gradient_accumulation_steps", Key("train.accum_grad")),
    ("hyperparameters.gradient_clipping", Key("train.grad_clip")),
    ("hyperparameters.optimizer", By("train.optim.name", optimizer)),
    ("hyperparameters.learning_rate", Key("train.optim.lr")),
    ("hyperparameters.warmup_steps", Combined),
    ("hyperparameters.scheduler", Only(|name| name == "")),
    ("hyperparameters.torch_optimizer", Always("optimizers are Flowmill's own")),
    ("hyperparameters.torch_scheduler", Always("schedules are Flowmill's own")),
    ("hyperparameters.optimizer_params.weight_decay", Key("train.optim.weight_decay")),
    ("hyperparameters.optimizer_params.betas", Key("train.optim.betas")),
    ("hyperparameters.optimizer_params.eps", Key("train.optim.eps")),
    ("hyperparameters.optimizer_params.d_coef", Key("train.optim.d_coef")),
    ("evaluation.frequency", Key("train.validate_every")),
    ("evaluation.size", By("train.sample_count", |size| Some(json!(size.as_u64()?.clamp(1, 100))))),
    ("evaluation.batch_size", Always("validation has the batches of training")),
    ("evaluation.kwargs.max_ar_steps", Key("export.speech.max_frames")),
    ("evaluation.kwargs.max_steps", Key("export.speech.max_frames")),
    ("evaluation.kwargs.max_nar_levels", Key("export.speech.levels")),
    ("evaluation.kwargs.ar_temperature", Key("export.speech.first_level.autoregressive.sampling.temperature")),
    ("evaluation.kwargs.ar_temp", Key("export.speech.first_level.autoregressive.sampling.temperature")),
    ("evaluation.kwargs.top_k", Key("export.speech.first_level.autoregressive.sampling.top_k")),
    ("evaluation.kwargs.top_p", Key("export.speech.first_level.autoregressive.sampling.top_p")),
    ("evaluation.kwargs.min_p", Key("export.speech.first_level.autoregressive.sampling.min_p")),
    (
        "evaluation.kwargs.repetition_penalty",
        Key("export.speech.first_level.autoregressive.sampling.repetition_penalty"),
    ),
    (
        "evaluation.kwargs.repetition_penalty_decay",
        Key("export.speech.first_level.autoregressive.sampling.repetition_decay"),
    ),
    ("evaluation.kwargs.nar_temperature", Key("export.speech.level_sampling.temperature")),
    ("evaluation.kwargs.nar_temp", Key("export.speech.level_sampling.temperature")),
    ("trainer.iterations", Key("train.max_steps")),
    ("trainer.save_frequency", Key("train.save_every")),
    (
        "trainer.keep_last_checkpoints",
        By("train.keep.last", |count| Some(json!(count.as_u64().filter(|count| *count > 0)?))),
    ),
    ("trainer.gradient_checkpointing", Key("train.gradient_checkpointing")),
    ("trainer.activation_checkpointing", Key("train.gradient_checkpointing")),
    ("trainer.weight_dtype", By("train.precision", precision)),
    ("trainer.amp", Always("weights and optimizer are always of single precision")),
    ("trainer.deepspeed.loss_scale_window", Combined),
    ("trainer.deepspeed.min_loss_scale", Combined),
    ("trainer.deepspeed.max_loss_scale", Combined),
    ("trainer.deepspeed.amp", Always("weights and optimizer are always of single precision")),
    ("trainer.backend", Always("there is one backend")),
    ("trainer.save_tag", Always("checkpoints have the number of their step")),
    ("trainer.save_on_quit", Always("training saves when it ends")),
    ("trainer.save_on_oom", Always("training saves at regular steps")),
    ("trainer.export_on_save", Always("`flowmill ctl RECIPE export` exports while training goes on")),
    ("trainer.export_on_quit", Always("stage 6 exports")),
    ("trainer.load_states", Always("training continues from its last checkpoint")),
    (
        "trainer.strict_loading",
        Always("weights of train.init_from that do not fit are an error; see train.init_partial"),
    ),
    ("trainer.load_webui", Always("`flowmill ctl` and `flowmill report` work while training goes on")),
    ("trainer.wandb", By("train.wandb.project", |on| (on == true).then(|| json!("vall-e")))),
    ("inference.*", Always("`flowmill speak` has options of its own")),
    ("optimizations.*", Always("the layers are Flowmill's own")),
];

/// A recipe, and the keys of the configuration that are not in it.
pub(super) struct Converted {
    pub(super) recipe: Value,
    /// Keys of the configuration without a counterpart, each with its value.
    pub(super) without: Vec<(String, Value)>,
    /// Keys that need no counterpart, each with the reason.
    pub(super) not_needed: Vec<(String, &'static str)>,
}

/// Reads the configuration, writes the recipe, and lists the keys without a counterpart.
pub fn run(arguments: &ConvertConfigArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let input = &arguments.config;
    let size = fs::metadata(input).with_context(|| format!("cannot read {}", input.display()));
    if size.map_err(Failure::Usage)?.len() > LARGEST {
        return Err(Failure::usage(format!("{}: larger than {LARGEST} bytes, so no configuration", input.display())));
    }
    let text = fs::read_to_string(input).with_context(|| format!("cannot read {}", input.display()));
    let config = from_yaml(&text.map_err(Failure::Usage)?, &input.display().to_string())?;
    let Value::Object(config) = with_plain_numbers(config) else {
        return Err(Failure::usage(format!("{}: a list or a single value, no configuration", input.display())));
    };
    let is_float = float_config::is_one(&config);
    let is_pmg = !is_float && pmg_config::is_one(&config);
    let distributed = distributed_config::Kind::of(&config).filter(|_| !is_float && !is_pmg);
    if !is_float
        && !is_pmg
        && distributed.is_none()
        && !["models", "dataset", "hyperparameters", "trainer"].iter().any(|key| config.contains_key(*key))
    {
        let problem = "it has neither `models` nor `dataset`, so it is no configuration of the public VALL-E trainer, none of FLOAT's \
                       options (`fmt_depth`, `data_root` …), none of PMG (`pmg`), and is neither Accelerate's (`distributed_type`) nor \
                       DeepSpeed's (`zero_optimization`, `train_micro_batch_size_per_gpu`)";
        return Err(Failure::usage(format!("{}: {problem}", input.display())));
    }
    if let Some(problem) = unsupported(&config).filter(|_| !is_pmg) {
        return Err(Failure::usage(format!("{}: {problem}", input.display())));
    }
    let folder = input.parent().unwrap_or(Path::new(""));
    let output = arguments.output.clone().unwrap_or_else(|| folder.join("recipe.yaml"));
    if output.exists() {
        return Err(Failure::usage(format!("{} exists; name another file, or delete it", output.display())));
    }
    let below = match output.parent().unwrap_or(Path::new("")) == folder {
        true => String::new(),
        false => format!("{}/", std::path::absolute(folder)?.display()),
    };
    let (trainer, converted) = match distributed {
        Some(kind) => (kind.name(), distributed_config::convert(kind, &config)),
        None if is_float => ("a FLOAT training", float_config::convert(&config, &below)),
        None if is_pmg => ("the public PMG code", pmg_config::convert(&config, &below)),
        None => ("the public VALL-E trainer", convert(config, &below)),
    };
    let Converted { recipe, without, not_needed } = converted;
    let listed: String = without.iter().map(|(key, value)| format!("#   {key}: {value}\n")).collect();
    let rest = if listed.is_empty() { String::new() } else { format!("# Keys without a counterpart:\n{listed}") };
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let text = format!("# Made from {name} of {trainer} by `flowmill convert-config`.\n{}{rest}", to_yaml(&recipe));
    write(&output, text.as_bytes()).map_err(Failure::Failed)?;
    writeln!(out, "{}", output.display())?;
    for (key, reason) in &not_needed {
        writeln!(out, "  not needed: {key}: {reason}")?;
    }
    for (key, value) in &without {
        writeln!(out, "  no counterpart: {key}: {value}")?;
    }
    Ok(())
}

/// Returns why a configuration of another version of the trainer, or of another network, cannot become a recipe.
fn unsupported(config: &Map<String, Value>) -> Option<String> {
    let models = match &config.get("models")? {
        Value::Object(_) => {
            return Some("`models` is a mapping, as in versions of the trainer before 2024; write a list".to_owned());
        }
        Value::Array(models) => models,
        _ => return Some("`models` is no list".to_owned()),
    };
    let trained = models.iter().position(|model| model["training"] == true).unwrap_or(0);
    let model = models.get(trained)?;
    let (version, kind) = (&model["version"], &model["arch_type"]);
    if !version.is_null() && *version != 5 {
        return Some(format!("models[{trained}].version is {version}, but only models of version 5 are known"));
    }
    if !kind.is_null() && kind != "llama" {
        return Some(format!("models[{trained}].arch_type is {kind}, but only `llama` is known"));
    }
    None
}

/// Converts a configuration; `below` comes before its paths.
fn convert(mut config: Map<String, Value>, below: &str) -> Converted {
    let (mut without, mut not_needed) = (Vec::new(), Vec::new());
    for (list, name) in [("models", "model"), ("loras", "lora")] {
        let entries = match config.remove(list) {
            Some(Value::Array(entries)) => entries,
            Some(Value::Null) | None => continue,
            Some(other) => vec![other],
        };
        let trained = entries.iter().position(|entry| entry["training"] == true).unwrap_or(0);
        for (at, entry) in entries.into_iter().enumerate() {
            match at == trained {
                true => drop(config.insert(name.to_owned(), entry)),
                false => without.push((format!("{list}[{at}]"), entry)),
            }
        }
    }
    let mut recipe = json!({
        "name": "vall-e",
        "prep": { "data": [], "format": "codes", "columns": { "phonemes": "text" } },
        "embed": { "extractor": { "kind": "phonemes", "backend": "espeak-ng" } },
        "tokens": {},
        "pack": { "columns": ["text", "codes", "phonemes", "language"] },
        "train": { "model": { "family": "vall-e" } },
    });
    let mut leaves = Vec::new();
    flatten("", &Value::Object(config.clone()), &mut leaves);
    for (key, value) in leaves {
        let fits = |name: &str| name == key || name.strip_suffix('*').is_some_and(|begin| key.starts_with(begin));
        let converted = match TABLE.iter().find(|(name, _)| fits(name)).map(|(_, to)| to) {
            Some(Key(to)) => Some((*to, value.clone())),
            Some(By(to, convert)) => convert(&value).map(|value| (*to, value)),
            Some(Only(is_right)) if is_right(&value) => continue,
            Some(Combined) => continue,
            Some(Always(reason)) => {
                not_needed.push((key, *reason));
                continue;
            }
            Some(Only(_)) | None => None,
        };
        match converted {
            Some((to, value)) => set(&mut recipe, to, value),
            None => without.push((key, value)),
        }
    }
    let tasks = config.get("dataset").and_then(|dataset| dataset["tasks_list"].as_array());
    let noisy = tasks.into_iter().flatten().filter(|task| NOISY_TASKS.contains(&task.as_str().unwrap_or_default()));
    without.extend(noisy.map(|task| ("dataset.tasks_list".to_owned(), task.clone())));
    combine(&Value::Object(config), &mut recipe, below);
    without.sort_by(|a, b| a.0.cmp(&b.0));
    Converted { recipe, without, not_needed }
}

/// Sets what several keys decide together.
fn combine(config: &Value, recipe: &mut Value, below: &str) {
    let (dataset, model) = (&config["dataset"], &config["model"]);
    let (levels, vocabulary, rate) = codec(config["audio_backend"].as_str().unwrap_or("vocos"));
    let levels = model["resp_levels"].as_u64().unwrap_or(levels);
    set(
        recipe,
        "tokens.extractor",
        json!({ "kind": "import-codes", "levels": levels, "vocabulary": vocabulary, "rate": rate }),
    );
    recipe["prep"]["data"] = sources(dataset, below);
    set(recipe, "prep.split.by", json!("given"));
    if let Some([least, most]) = dataset["duration_range"].as_array().map(Vec::as_slice) {
        set(recipe, "prep.min_duration", least.clone());
        set(recipe, "prep.max_duration", most.clone());
    }
    for (key, value) in [("levels", levels), ("audio_tokens", vocabulary)] {
        set(recipe, &format!("train.model.{key}"), json!(value));
    }
    for (key, value) in dimensions(&model["size"]) {
        set(recipe, &format!("train.model.{key}"), value);
    }
    if let Some(tasks) = dataset["tasks_list"].as_array() {
        // A task that is listed twice is drawn twice as often. Imported codes cannot be mixed with noise.
        let mut weights = Map::from_iter([("tts".to_owned(), json!(0))]);
        for task in tasks.iter().filter_map(Value::as_str).filter(|task| !NOISY_TASKS.contains(task)) {
            let weight = weights.get(task).and_then(Value::as_u64).unwrap_or(0) + 1;
            weights.insert(task.to_owned(), json!(weight));
        }
        set(recipe, "train.tasks", Value::Object(weights));
    }
    let batch = config["hyperparameters"]["batch_size"].as_u64().unwrap_or(8);
    match dataset["sample_max_duration_batch"].as_f64().filter(|seconds| *seconds > 0.0) {
        Some(seconds) => {
            set(recipe, "train.batch.max_frames_in_batch", json!((seconds * rate).round() as u64));
            set(recipe, "train.batch.max_utterances_in_batch", json!(batch));
        }
        None => set(recipe, "train.batch.batch_size", json!(batch)),
    }
    set(recipe, "train.batch.bucket_frames", json!(rate.round() as u64));
    let order = match (dataset["sample_order"].as_str(), dataset["sample_type"].as_str()) {
        (_, Some("speaker")) => "by_speaker",
        (Some("duration"), _) if dataset["sample_shuffle"] == false => "sorted",
        (Some("duration"), _) => "bucketed",
        _ => "shuffled",
    };
    set(recipe, "train.curriculum", json!([{ "order": order }]));
    let schedule = match config["hyperparameters"]["warmup_steps"].as_u64().unwrap_or(0) {
        0 => json!({ "name": "constant" }),
        steps => json!({ "name": "warmup_constant", "warmup_steps": steps }),
    };
    set(recipe, "train.schedule", schedule);
    if recipe["train"]["precision"] == "fp16" {
        let own = &config["trainer"]["deepspeed"];
        let number = |name: &str, default: u64| own.get(name).cloned().unwrap_or(json!(default));
        let (floor, ceiling) = (number("min_loss_scale", 32_768), number("max_loss_scale", 1_048_576));
        let window = number("loss_scale_window", 1000);
        set(recipe, "train.loss_scale", json!({ "window": window, "floor": floor, "ceiling": ceiling }));
    }
    let lora = &config["lora"];
    if lora.is_object() && lora["training"] != false {
        let number = |name: &str| lora[name].as_u64().unwrap_or(128);
        let name = lora["name"].as_str().unwrap_or("lora");
        let mut adapter = json!({ "name": name, "rank": number("rank"), "alpha": number("alpha"), "training": true });
        if let Some(path) = lora["path"].as_str() {
            adapter["path"] = json!(format!("{below}{path}"));
        }
        set(recipe, "train.loras", json!([adapter]));
    }
}

/// The levels, the codes per level and the frames per second of the trainer's codecs.
fn codec(name: &str) -> (u64, u64, f64) {
    match name {
        "dac" => (9, 1024, 44_100.0 / 512.0),
        "nemo" => (8, 1000, 86.1),
        _ => (8, 1024, 75.0),
    }
}

/// The sources of `dataset.training` and `dataset.validation`: folders below `data`, or groups of the HDF5 file.
fn sources(dataset: &Value, below: &str) -> Value {
    let hdf5 = dataset["hdf5_name"].as_str().unwrap_or("data.h5");
    let mut sources = Vec::new();
    for (list, split) in [("training", "train"), ("validation", "dev")] {
        let folders = dataset[list].as_array().map(Vec::as_slice).unwrap_or_default();
        for folder in folders.iter().filter_map(Value::as_str) {
            // `GROUP/*` is every speaker of a group, which is a folder too.
            let folder = folder.trim_end_matches('*').trim_matches('/');
            let dir = match dataset["use_hdf5"] == true {
                true => format!("{below}{hdf5}#{list}/{folder}"),
                false => format!("{below}data/{folder}"),
            };
            let prefix: String = folder.chars().map(|c| if c == '/' || c.is_whitespace() { '-' } else { c }).collect();
            sources.push(json!({ "dir": dir.trim_end_matches('/'), "split": split, "prefix": format!("{prefix}-") }));
        }
    }
    Value::Array(sources)
}

/// The published size of this name, or the dimensions that a mapping names.
fn dimensions(size: &Value) -> Vec<(&'static str, Value)> {
    match size {
        Value::String(name) if name == "extended" => vec![("size", json!("full")), ("layers", json!(16))],
        Value::String(name) if ["quarter", "half", "double"].contains(&name.as_str()) => vec![("size", json!(name))],
        Value::Object(_) => {
            let names = [
                ("dim", "dim"),
                ("heads", "heads"),
                ("layers", "layers"),
                ("ffn", "ffn_multiple"),
                ("audio_tokens", "audio_tokens"),
                ("phoneme_tokens", "phoneme_tokens"),
                ("resp_levels", "levels"),
            ];
            names.into_iter().filter_map(|(name, own)| Some((own, json!(size[name].as_u64()?)))).collect()
        }
        _ => vec![("size", json!("full"))],
    }
}

/// The name of a model with the characters that the name of an experiment may have.
fn name(name: &Value) -> Option<Value> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = name.as_str()?.trim().chars().map(plain).collect();
    (!name.is_empty()).then(|| json!(name))
}

fn device(name: &Value) -> Option<Value> {
    match name.as_str()? {
        "cuda" => Some(json!("auto")),
        name @ "cpu" => Some(json!(name)),
        name => name.starts_with("cuda:").then(|| json!(name)),
    }
}

fn optimizer(name: &Value) -> Option<Value> {
    let name = name.as_str()?.to_lowercase();
    let own = match name.trim_end_matches("opt").trim_end_matches('_') {
        "adam" => "adam",
        "adamw" => "adamw",
        "sgd" => "sgd",
        "adafactor" => "adafactor",
        "prodigy" => "prodigy",
        "muon" => "muon",
        _ => return None,
    };
    Some(json!(own))
}

fn precision(name: &Value) -> Option<Value> {
    match name.as_str()? {
        "float32" => Some(json!("fp32")),
        "float16" => Some(json!("fp16")),
        "bfloat16" => Some(json!("bf16")),
        _ => None,
    }
}

fn mask_ratio(ratio: &Value) -> Option<Value> {
    // A drawn ratio is the cosine of a time, as in inference.
    if ratio == "random" { Some(json!(0.0)) } else { Some(json!(ratio.as_f64()?)) }
}

fn level_weights(weights: &Value) -> Option<Value> {
    if weights == "auto" { Some(json!([])) } else { weights.is_array().then(|| weights.clone()) }
}

/// Turns texts such as `1_000_000` into numbers: YAML 1.1, which the trainer reads, has them.
fn with_plain_numbers(value: Value) -> Value {
    match value {
        Value::String(text)
            if text.contains('_') && text.bytes().all(|b| b.is_ascii_digit() || b == b'_' || b == b'.') =>
        {
            let digits = text.replace('_', "");
            let number = digits.parse::<u64>().map(Value::from).or_else(|_| digits.parse::<f64>().map(Value::from));
            number.unwrap_or(Value::String(text))
        }
        Value::Array(items) => items.into_iter().map(with_plain_numbers).collect(),
        Value::Object(entries) => entries.into_iter().map(|(key, value)| (key, with_plain_numbers(value))).collect(),
        other => other,
    }
}

/// Collects the values of a tree by the paths of their keys. Empty mappings and null are left out.
pub(super) fn flatten(prefix: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, leaves);
            }
        }
        Value::Null => {}
        value => leaves.push((prefix.to_owned(), value.clone())),
    }
}

/// Sets a key of the recipe, given as a path.
pub(super) fn set(recipe: &mut Value, path: &str, value: Value) {
    let mut place = recipe;
    for key in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[key];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(yaml: &str, below: &str) -> Converted {
        let Value::Object(config) = with_plain_numbers(from_yaml(yaml, "config.yaml").unwrap()) else { panic!() };
        convert(config, below)
    }

    const CONFIG: &str = "
sample_rate: 44_100
audio_backend: dac
models:
- {name: old, size: full}
- {name: ar+nar, size: half, langs: 6, dropout: 0.2, training: True, version: 5, arch_type: llama, loss_factors: {text: 0.1},
   experimental: {rvq_levels_p: auto, masking_train_p: 0.25, split_classifiers: True, unified_position_ids: True}}
loras:
- {name: x, rank: 64, alpha: 32, training: True}
hyperparameters: {batch_size: 16, gradient_accumulation_steps: 4, optimizer: Prodigy, learning_rate: 1.0, warmup_steps: 100}
evaluation: {frequency: 5000, size: 8, kwargs: {ar_temp: 0.95, nar_temp: 0.25, beam_width: 4}}
trainer:
  iterations: 1_000_000
  save_frequency: 250
  keep_last_checkpoints: 4
  weight_dtype: float16
  deepspeed: {loss_scale_window: 500, zero_optimization_level: 1}
dataset:
  use_hdf5: True
  duration_range: [3.0, 5.0]
  sample_order: duration
  sample_max_duration_batch: 120
  tasks_list: [tts, tts, stt]
  training: [LibriTTS-R/1034, 'LibriVox/*']
  validation: [LibriTTS-R/7]
";

    #[test]
    fn a_configuration_becomes_a_recipe() {
        let Converted { recipe, without, .. } = converted(CONFIG, "");
        let at = |path: &str| recipe.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null);
        let data = json!([
            {"dir": "data.h5#training/LibriTTS-R/1034", "split": "train", "prefix": "LibriTTS-R-1034-"},
            {"dir": "data.h5#training/LibriVox", "split": "train", "prefix": "LibriVox-"},
            {"dir": "data.h5#validation/LibriTTS-R/7", "split": "dev", "prefix": "LibriTTS-R-7-"},
        ]);
        for (key, value) in [
            ("name", json!("ar-nar")),
            ("prep.data", data),
            ("prep.min_duration", json!(3.0)),
            ("tokens.extractor.levels", json!(9)),
            ("train.model.levels", json!(9)),
            ("train.model.size", json!("half")),
            ("train.model.languages", json!(6)),
            ("train.model.attention_dropout", json!(0.2)),
            ("train.draws.masked_rate", json!(0.25)),
            ("train.draws.level_weights", json!([])),
            ("train.tasks", json!({"tts": 2, "stt": 1})),
            ("train.loras", json!([{"name": "x", "rank": 64, "alpha": 32, "training": true}])),
            ("train.optim.name", json!("prodigy")),
            ("train.accum_grad", json!(4)),
            ("train.schedule", json!({"name": "warmup_constant", "warmup_steps": 100})),
            ("train.batch.max_frames_in_batch", json!(10336)),
            ("train.batch.max_utterances_in_batch", json!(16)),
            ("train.curriculum", json!([{"order": "bucketed"}])),
            ("train.max_steps", json!(1_000_000)),
            ("train.precision", json!("fp16")),
            ("train.loss_scale", json!({"window": 500, "floor": 32768, "ceiling": 1048576})),
            ("export.speech.first_level.autoregressive.sampling.temperature", json!(0.95)),
        ] {
            assert_eq!(*at(key), value, "{key}");
        }
        let keys: Vec<&str> = without.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "evaluation.kwargs.beam_width",
                "model.experimental.unified_position_ids",
                "model.loss_factors.text",
                "models[0]",
                "trainer.deepspeed.zero_optimization_level",
            ]
        );
    }

    #[test]
    fn other_versions_and_networks_are_refused() {
        let refused = |yaml: &str| {
            let Value::Object(config) = from_yaml(yaml, "config.yaml").unwrap() else { panic!() };
            unsupported(&config)
        };
        assert_eq!(refused(CONFIG), None);
        assert_eq!(refused("dataset: {}"), None);
        for (yaml, word) in [
            ("models: [{name: ar+nar, version: 3}]", "version is 3"),
            ("models: [{name: ar+nar, arch_type: retnet}]", "retnet"),
            ("models: [{version: 5}, {version: 7, training: True}]", "models[1].version is 7"),
            ("models: {_max_levels: 8, _models: [{name: ar}]}", "mapping"),
        ] {
            assert!(refused(yaml).unwrap().contains(word), "{yaml}");
        }
    }

    #[test]
    fn an_optimizer_is_known_under_its_spellings() {
        for name in ["Prodigy", "prodigyopt", "prodigy_opt"] {
            assert_eq!(optimizer(&json!(name)), Some(json!("prodigy")), "{name}");
        }
        assert_eq!(optimizer(&json!("adagrad")), None);
    }

    #[test]
    fn folders_are_below_the_configuration() {
        let recipe = converted("dataset: {training: [a/b]}", "/far/").recipe;
        let data = json!([{"dir": "/far/data/a/b", "split": "train", "prefix": "a-b-"}]);
        assert_eq!((&recipe["prep"]["data"], &recipe["train"]["batch"]["batch_size"]), (&data, &json!(8)));
        assert_eq!(recipe["train"]["model"]["size"], json!("full"));
    }

    #[test]
    fn every_key_of_the_table_is_there_once() {
        let mut keys: Vec<&str> = TABLE.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
