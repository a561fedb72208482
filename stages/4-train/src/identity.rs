//! The settings that determine the result of a training, by name. All other settings may change at any time.
//!
//! Inputs count by their content, so paths are not in the list. Corpora are identified by a digest of the columns
//! that training reads ([`DATA`]), all other files by roles, which the runner compares.

use std::path::Path;

use flowmill_corpus::shard::{ShardIndex, SplitContent};
use flowmill_family::{Registered, Registry};
use flowmill_runner::StageError;
use flowmill_train::{Identity, Limits};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{TrainSection, data};

/// Keys of the section that determine the weights after every step and the data on which they are measured, except
/// those of the family.
pub const DECIDING: [&str; 17] = [
    "model",
    "init_partial",
    "lora",
    "train_split",
    "validation_split",
    "batch",
    "curriculum",
    "mixture",
    "optim",
    "schedule",
    "accum_grad",
    "grad_clip",
    "grad_clip_value",
    "precision",
    "loss_scale",
    "ema_decay",
    "seed",
];

/// The key of the corpora's identity; not a setting.
pub const DATA: &str = "data";

/// Keys that determine where a training ends; they can be extended.
pub const ENDS: [&str; 3] = ["max_steps", "max_epochs", "early_stopping"];

/// Keys that do not change the weights: the intervals of measuring, writing and keeping, the prefetching of data,
/// recomputation and the device, and the stopping of a process. Also `init_from`, whose content counts instead.
#[cfg(test)]
const FREE: [&str; 21] = [
    "init_from",
    "device",
    "tf32",
    "gradient_checkpointing",
    "zero",
    "max_seconds",
    "validate_every",
    "save_every",
    "log_every",
    "log_groups",
    "log_gradients",
    "sample_every",
    "sample_count",
    "wandb",
    "wall_clock",
    "plain_tags",
    "keep",
    "prefetch",
    "num_workers",
    "skipped_weights",
    "max_skipped_in_a_row",
];

/// The identity of the corpora of a training.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DataIdentity {
    /// The training corpora, in order; `None` for a missing corpus.
    pub training: Vec<Option<CorpusIdentity>>,
    /// The validation corpus.
    pub validation: Option<CorpusIdentity>,
}

/// The identity of a corpus. Corpora are the same if their content is the same, or else if their index is the same,
/// which has the checksums of the shards.
#[derive(Debug, Clone, Serialize)]
pub struct CorpusIdentity {
    /// The number of utterances, and a digest of the data that training reads; `None` for shards that were packed
    /// without digests.
    content: Option<String>,
    /// The checksum of the index.
    index: String,
}

impl CorpusIdentity {
    /// Returns the identity of the corpus with this index; `None` if there is none. Without digests, or if the index
    /// cannot be parsed, the content is unknown.
    ///
    /// # Errors
    /// Returns an error if the index exists and cannot be read.
    pub fn of(path: &Path, section: &TrainSection) -> Result<Option<Self>, StageError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StageError::file(path, error)),
        };
        let content = || {
            let (index, digests) = (ShardIndex::read(path).ok()?, SplitContent::of(path)?);
            let columns = data::columns_read(&index, section)?;
            let digest = digests.digest(&index, &columns.iter().map(String::as_str).collect::<Vec<_>>())?;
            let derived = section.model.derived(&index).map(|derived| {
                let by = blake3::hash(derived.by.to_string().as_bytes()).to_hex();
                format!(", {} {}", derived.what, &by[..16])
            });
            Some(format!("{} utterances, {digest}{}", index.rows, derived.unwrap_or_default()))
        };
        Ok(Some(Self { content: content(), index: blake3::hash(&bytes).to_hex().to_string() }))
    }
}

/// Returns the identity of a training from its section and its corpora.
pub fn of_section(section: &TrainSection, data: &DataIdentity) -> Value {
    let mut fields = listed(section);
    fields.insert(DATA.to_owned(), json!(data));
    Value::Object(fields)
}

/// Replaces missing corpora of a mixture by those in the receipt of a finished training, which no longer needs them.
pub fn take_over_gone_data(config: &mut Value, recorded: &Value) {
    let corpora = config[DATA]["training"].as_array_mut().into_iter().flatten();
    for (at, corpus) in corpora.enumerate().filter(|(_, corpus)| corpus.is_null()) {
        *corpus = recorded[DATA]["training"][at].clone();
    }
}

/// Returns the configuration `now` with the settings with which a run of the loop started.
pub fn of_run(now: &Value, run: &Identity, limits: Option<&Limits>) -> Value {
    let mut config = now.clone();
    let Some(fields) = config.as_object_mut() else { return config };
    let mut known = json!(run);
    if let Some(limits) = limits {
        (known["max_steps"], known["max_epochs"]) = (json!(limits.max_steps), json!(limits.max_epochs));
    }
    for (key, value) in known.as_object_mut().into_iter().flat_map(std::mem::take) {
        if fields.contains_key(&key) {
            fields.insert(key, value);
        }
    }
    config
}

/// Returns the identity for a recorded configuration: settings that were added since have their defaults, and
/// irrelevant ones are left out. `now` is the present configuration.
pub fn of_record(registry: &Registry, then: &Value, now: &Value) -> Value {
    let family = registry.find(then["model"]["family"].as_str());
    let options = family.map_or(&[][..], Registered::train_keys);
    let counts = |key: &str| [&DECIDING, &ENDS[..], options].iter().any(|keys| keys.contains(&key));
    let fields = then.as_object().into_iter().flatten().filter(|(key, _)| counts(key));
    let mut known: Map<String, Value> = fields.map(|(key, value)| (key.clone(), value.clone())).collect();
    // Earlier versions stored the identity of the corpora of a mixture with the entries; the files themselves are
    // compared in any case.
    if let Some(Value::Array(entries)) = known.get_mut("mixture") {
        entries.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove(DATA)));
    }
    let read = TrainSection::from_json(registry, known.clone());
    let mut fields = read.map_or(known, |section| listed(&section));
    fields.insert(DATA.to_owned(), data_of_record(then.get(DATA), &now[DATA]));
    serde_json::from_str(&Value::Object(fields).to_string()).unwrap_or_default()
}

/// Returns the identity of the corpora in a record, unless it is that of the present ones: the same content is the
/// same corpus whatever its files are, and if a content is unknown the index decides.
fn data_of_record(then: Option<&Value>, now: &Value) -> Value {
    // Earlier versions recorded the files.
    let Some(then) = then else { return now.clone() };
    let same = |then: &Value, now: &Value| {
        let is = |key: &str| !then[key].is_null() && then[key] == now[key];
        let unknown = then["content"].is_null() || now["content"].is_null();
        is("content") || (unknown && is("index"))
    };
    let corpus = |then: &Value, now: &Value| {
        let mut corpus = if same(then, now) { now.clone() } else { then.clone() };
        if !then["content"].is_null() && !now["content"].is_null() {
            // The content decides, so the files do not matter.
            corpus["index"] = now["index"].clone();
        }
        corpus
    };
    let mut data = then.clone();
    data["validation"] = corpus(&then["validation"], &now["validation"]);
    let training = then["training"].as_array().into_iter().flatten().enumerate();
    data["training"] = training.map(|(at, then)| corpus(then, &now["training"][at])).collect();
    data
}

/// Returns the listed settings of a section, without paths.
fn listed(section: &TrainSection) -> Map<String, Value> {
    let all = section.to_json();
    let mut fields = Map::new();
    for key in DECIDING.iter().chain(&ENDS) {
        fields.insert((*key).to_owned(), all.get(*key).cloned().unwrap_or_default());
    }
    fields.extend(section.model.options());
    let without = |value: Option<&mut Value>, path: &str| {
        if let Some(settings) = value.and_then(Value::as_object_mut) {
            settings.remove(path);
        }
    };
    without(fields.get_mut("lora"), "init_from");
    if let Some(Value::Array(entries)) = fields.get_mut("mixture") {
        entries.iter_mut().for_each(|entry| without(Some(entry), "index"));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        flowmill_families::registry()
    }

    fn section(json: Value) -> TrainSection {
        TrainSection::from_json(&registry(), json.as_object().unwrap().clone()).unwrap()
    }

    fn published() -> TrainSection {
        section(json!({}))
    }

    fn same(then: &Value, now: &Value) -> bool {
        of_record(&registry(), then, now) == of_record(&registry(), now, now)
    }

    #[test]
    fn every_setting_is_known_to_decide_or_not() {
        let section = published();
        let options = section.model.options();
        let own = options.keys().map(String::as_str);
        let mut all: Vec<&str> = DECIDING.iter().chain(&ENDS).chain(&FREE).copied().chain(own).collect();
        let mut fields: Vec<String> = section.to_json().keys().cloned().collect();
        all.sort_unstable();
        fields.sort_unstable();
        assert_eq!(all, fields, "a new setting belongs into one of the lists");
    }

    #[test]
    fn a_record_of_another_version_means_the_same() {
        let now = of_section(&published(), &DataIdentity::default());
        // A record of an earlier version: all settings, including some that no longer exist.
        let mut then = json!(published().to_json());
        then["log_every"] = json!(77);
        then["keep"]["last"] = json!(99);
        for added in ["grad_clip_value", "speaker_embedding"] {
            then.as_object_mut().unwrap().remove(added);
        }
        then["optim"].as_object_mut().unwrap().remove("decay_matrices_only");
        assert!(same(&then, &now));
        then["optim"]["lr"] = json!(0.5);
        assert!(!same(&then, &now));
        then["optim"]["lr"] = now["optim"]["lr"].clone();
        then["speaker_embedding"] = json!("speaker");
        assert!(!same(&then, &now), "keys of the family count too");
    }

    fn corpus(content: Option<&str>, index: &str) -> Option<CorpusIdentity> {
        Some(CorpusIdentity { content: content.map(str::to_owned), index: index.to_owned() })
    }

    fn of(training: [Option<CorpusIdentity>; 2]) -> Value {
        let mixture = json!([{"index": "a", "weight": 1.0}, {"index": "b", "weight": 2.0}]);
        let section = section(json!({"mixture": mixture, "init_from": "a"}));
        of_section(&section, &DataIdentity { training: training.into(), validation: corpus(Some("v"), "0") })
    }

    #[test]
    fn the_same_content_is_the_same_corpus_and_without_digests_the_same_index() {
        let (one, two) = (corpus(Some("1"), "x"), corpus(None, "y"));
        let then = of([one.clone(), two.clone()]);
        let is_same = |now: Value| same(&then, &now);
        assert!(is_same(of([corpus(Some("1"), "other file"), two.clone()])));
        assert!(is_same(of([corpus(None, "x"), corpus(Some("2"), "y")])), "packed again with digests, or without");
        assert!(!is_same(of([corpus(Some("3"), "x"), two.clone()])), "a content that is known decides");
        assert!(!is_same(of([one.clone(), corpus(None, "z")])));
        assert!(!is_same(of([two, one.clone()])), "their order counts");
        assert!(!is_same(of([one, None])));
    }

    #[test]
    fn paths_do_not_count() {
        let section = |first: &str| section(json!({"mixture": [{"index": first, "weight": 1.0}], "init_from": first}));
        let now = of_section(&section("a"), &DataIdentity::default());
        assert_eq!(now, of_section(&section("x/a"), &DataIdentity::default()));
        assert!(same(&json!(section("a").to_json()), &now), "a record with paths");
    }
}
