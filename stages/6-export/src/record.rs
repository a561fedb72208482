//! Phase 2: the model card, from the results of all stages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use flowmill_corpus::shard::{AnyShard, ShardIndex, speech};
use flowmill_corpus::{ColumnSpec, DType};
use flowmill_family::Registry;
use flowmill_runner::{Part, PartReport, Phase, PlanContext, StageError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::card::{CardFacts, render};
use crate::model_folder::{self, CONFIG, WEIGHTS};

/// The stages whose configuration is in the card.
const STAGES: [(u8, &str); 7] =
    [(0, "prep"), (1, "embed"), (2, "tokens"), (3, "pack"), (4, "train"), (5, "average"), (6, "export")];

/// Entries of receipts that are not settings of the recipe: digests of folders, stretches of rows, and the paths in
/// lists.
const NO_SETTINGS: [&str; 3] = ["recordings", "rows", "list_prefix"];

/// Plans the card; `model` are the files of the exported model.
///
/// # Errors
/// Returns an error if a stage's receipts cannot be read.
pub fn phase(context: &PlanContext, registry: &Registry, model: Vec<PathBuf>) -> Result<Phase, StageError> {
    let own = context.stage_dir(6);
    let scores = own.join("scores.json");
    let average = context.stage_dir(5).join(flowmill_stage_average::RECORD);
    let indexes = indexes(context)?;
    let configuration = configuration(context)?;
    let name = context.recipe().name().to_owned();
    let part = Part::new("card")
        .config(serde_json::json!({ "name": &name, "configuration": &configuration }))
        .inputs([scores.clone(), average.clone()])
        .inputs(model)
        .inputs(indexes.iter().map(|(_, path)| path.clone()));
    let registry = registry.clone();
    let part = part.work(move |work| {
        let model = model_folder::load(&registry, &own.join(CONFIG), &own.join(WEIGHTS), &Device::Cpu);
        let model = model.map_err(StageError::other)?;
        let card = model.card(&read(&scores)?).map_err(|e| StageError::new(format!("{}: {e}", scores.display())))?;
        let facts = CardFacts {
            recipe: &name,
            parameters: model.parameter_count(),
            recipe_settings: &configuration,
            splits: &splits(&indexes)?,
            averaged_steps: &averaged_steps(&read(&average)?),
            family: model.family().0,
            languages: &languages(&indexes)?,
        };
        let path = work.output("README.md")?;
        fs::write(&path, render(&facts, &card)).map_err(|e| StageError::file(&path, e))?;
        Ok(PartReport::summary())
    });
    Ok(Phase::new("writing the card", vec![part]))
}

/// Returns the index of every packed split.
fn indexes(context: &PlanContext) -> Result<Vec<(String, PathBuf)>, StageError> {
    let receipts = context.receipts(3)?;
    let splits = receipts.iter().filter_map(|receipt| receipt.key.strip_suffix("/index"));
    Ok(splits.map(|split| (split.to_owned(), context.stage_dir(3).join(split).join("index.json"))).collect())
}

fn splits(indexes: &[(String, PathBuf)]) -> Result<Vec<(String, u64, f64)>, StageError> {
    let read = |(split, path): &(String, PathBuf)| {
        let index = ShardIndex::read(path).map_err(StageError::other)?;
        Ok((split.clone(), index.rows, index.seconds))
    };
    indexes.iter().map(read).collect()
}

/// Returns the languages that rows of Parquet shards name, as codes of two or three letters, in the order of the alphabet.
fn languages(indexes: &[(String, PathBuf)]) -> Result<Vec<String>, StageError> {
    let mut codes = BTreeSet::new();
    let columns = [ColumnSpec::new(speech::LANG, DType::Text).optional()];
    for (_, path) in indexes {
        let folder = path.parent().unwrap_or(Path::new(""));
        for entry in ShardIndex::read(path).map_err(StageError::other)?.shards {
            let AnyShard::Parquet(shard) = AnyShard::open(&folder.join(&entry.file)).map_err(StageError::other)? else {
                continue;
            };
            if !shard.schema().iter().any(|(name, _)| name == speech::LANG) {
                continue;
            }
            for row in shard.iter(&columns).map_err(StageError::other)? {
                let row = row.map_err(StageError::other)?;
                codes.extend(row.text(speech::LANG).ok().and_then(language_code));
            }
        }
    }
    Ok(codes.into_iter().collect())
}

/// Returns the language of a code such as `en-US`; `None` for other names of languages.
fn language_code(language: &str) -> Option<String> {
    let code = language.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    ((2..=3).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(code)
}

/// Returns the settings of every stage as recorded in its receipts: the configurations of a stage's parts merged,
/// without entries that hold only for this machine or were not used.
fn configuration(context: &PlanContext) -> Result<Value, StageError> {
    let mut stages = Map::new();
    for (number, name) in STAGES {
        let mut merged = Map::new();
        for receipt in context.receipts(number)? {
            if let Value::Object(config) = &receipt.config {
                merged.extend(config.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        NO_SETTINGS.iter().for_each(|key| drop(merged.shift_remove(*key)));
        if name == "train" {
            // The digests of its corpora. (`prep.data` is a setting.)
            merged.shift_remove("data");
        }
        if let Some(split) = merged.get_mut("split").and_then(Value::as_object_mut) {
            drop_unused(split);
        }
        stages.insert(name.to_owned(), portable(Value::Object(merged)));
    }
    Ok(Value::Object(stages))
}

/// Removes settings that the chosen way of dividing rows into splits does not use, such as the lists of a base
/// recipe.
fn drop_unused(split: &mut Map<String, Value>) {
    let unused: &[&str] = match split.get("by").and_then(Value::as_str) {
        Some("list") => &["fractions", "unit"],
        Some("fraction") => &["lists"],
        Some("given") => &["lists", "fractions", "rest", "unit"],
        _ => &[],
    };
    unused.iter().for_each(|key| drop(split.shift_remove(*key)));
}

/// Replaces absolute paths, which are valid on one machine only, by file names.
fn portable(value: Value) -> Value {
    match value {
        Value::String(text) if Path::new(&text).is_absolute() => {
            let name = Path::new(&text).file_name().map(|name| name.to_string_lossy().into_owned());
            Value::String(name.unwrap_or_default())
        }
        Value::Array(items) => items.into_iter().map(portable).collect(),
        Value::Object(entries) => entries.into_iter().map(|(key, value)| (key, portable(value))).collect(),
        other => other,
    }
}

fn averaged_steps(record: &Value) -> Vec<u64> {
    let checkpoints = record["checkpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    checkpoints.iter().filter_map(|checkpoint| checkpoint["step"].as_u64()).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, StageError> {
    let text = fs::read_to_string(path).map_err(|e| StageError::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| StageError::new(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absolute_paths_become_names_wherever_they_are() {
        let told = json!({"data": [{"dir": "/home/me/corpus/"}, "rel/ative"], "weights": "/data/flow.pt", "lr": 0.1, "none": null});
        let expected = json!({"data": [{"dir": "corpus"}, "rel/ative"], "weights": "flow.pt", "lr": 0.1, "none": null});
        assert_eq!(portable(told), expected);
    }

    #[test]
    fn languages_are_codes() {
        let codes = ["en", "EN-us", "zh_CN", "yue", "English", "", "e1"].map(language_code);
        let [en, us, zh, yue, none @ ..] = codes.map(Option::unwrap_or_default);
        assert_eq!([en, us, zh, yue], ["en", "en", "zh", "yue"]);
        assert!(none.iter().all(String::is_empty));
    }

    #[test]
    fn what_another_way_of_splitting_reads_is_left_out() {
        let split = |by: &str| {
            let mut split = json!({"by": by, "lists": {}, "fractions": {}, "rest": null, "unit": "utterance"});
            drop_unused(split.as_object_mut().unwrap());
            split.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(split("list"), ["by", "lists", "rest"]);
        assert_eq!(split("fraction"), ["by", "fractions", "rest", "unit"]);
        assert_eq!(split("given"), ["by"]);
    }
}
