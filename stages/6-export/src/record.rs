//! Phase 2: the model card, from what the stages left.

use std::fs;
use std::path::{Path, PathBuf};

use flowmill_corpus::shard::ShardIndex;
use flowmill_runner::{Part, PartReport, Phase, PlanContext, StageError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::card::{CardFacts, render};
use crate::evaluation::Scores;
use crate::model_folder::{CONFIG, ExportedModel, WEIGHTS};

/// Stages whose configuration the card repeats.
const STAGES: [(u8, &str); 7] =
    [(0, "prep"), (1, "embed"), (2, "tokens"), (3, "pack"), (4, "train"), (5, "average"), (6, "export")];

/// Plans the card; `model` are the files of the exported model.
///
/// # Errors
/// When a stage's receipts cannot be read.
pub fn phase(context: &PlanContext, model: Vec<PathBuf>) -> Result<Phase, StageError> {
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
    let part = part.work(move |work| {
        let model = ExportedModel::load(&own.join(CONFIG), &own.join(WEIGHTS)).map_err(StageError::other)?;
        let scores: Scores = read(&scores)?;
        let facts = CardFacts {
            recipe: &name,
            parameters: model.parameter_count(),
            units: model.units(),
            resolved_recipe: &configuration,
            splits: &splits(&indexes)?,
            departures: &model.departures(),
            averaged_steps: &averaged_steps(&read(&average)?),
        };
        let path = work.output("README.md")?;
        fs::write(&path, render(&facts, &scores)).map_err(|e| StageError::file(&path, e))?;
        Ok(PartReport::summary())
    });
    Ok(Phase::new("writing the card", vec![part]))
}

/// The index of every packed split.
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

/// What every stage was told, as its receipts recorded it: the configurations of a stage's parts laid over each other.
fn configuration(context: &PlanContext) -> Result<Value, StageError> {
    let mut stages = Map::new();
    for (number, name) in STAGES {
        let mut merged = Map::new();
        for receipt in context.receipts(number)? {
            if let Value::Object(config) = &receipt.config {
                merged.extend(config.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
        }
        stages.insert(name.to_owned(), Value::Object(merged));
    }
    Ok(Value::Object(stages))
}

fn averaged_steps(record: &Value) -> Vec<u64> {
    let checkpoints = record["checkpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    checkpoints.iter().filter_map(|checkpoint| checkpoint["step"].as_u64()).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, StageError> {
    let text = fs::read_to_string(path).map_err(|e| StageError::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| StageError::new(format!("{}: {e}", path.display())))
}
