//! Sampling and scoring of the held-out split.

use std::fs;
use std::path::{Path, PathBuf};

use flowmill_corpus::ColumnSpec;
use flowmill_corpus::shard::Shards;
use flowmill_family::{Made, Registry, Report, Scored, Scorer};
use flowmill_nn::device::{self, DeviceName};
use flowmill_runner::{PartReport, PartWork, StageError};
use flowmill_stage_train::file_name;
use rayon::prelude::*;
use serde_json::Value;

use crate::model_folder;

/// Memory for decoded rows.
const CACHE_BYTES: usize = 64 << 20;
/// The number of rows read at a time.
const ROWS_AT_ONCE: usize = 32;

/// The inputs of the part.
pub struct HeldOut {
    /// The families.
    pub registry: Registry,
    /// The family's options of the section.
    pub options: Value,
    /// The number of utterances to sample; 0 for all.
    pub max_utterances: usize,
    /// The seed of the noise.
    pub seed: u64,
    /// The device of the model.
    pub device: DeviceName,
    /// True if products in single precision may be rounded there.
    pub tf32: bool,
    /// `config.json` of the model.
    pub description: PathBuf,
    /// The weights.
    pub weights: PathBuf,
    /// The held-out split.
    pub split: String,
    /// The indexes of the splits from which the trivial answers are learned.
    pub train_indexes: Vec<PathBuf>,
    /// Index of the held-out split.
    pub index: PathBuf,
}

impl HeldOut {
    /// Writes `samples/UTT.*` and `scores.json`; prints the scores.
    ///
    /// # Errors
    /// Returns an error if the model or the shards cannot be read. A single utterance that cannot be used is
    /// rejected.
    pub fn run(&self, work: &PartWork) -> Result<PartReport, StageError> {
        let device = device::open(self.device).map_err(StageError::other)?;
        device::allow_tf32(self.tf32);
        let model = model_folder::load(&self.registry, &self.description, &self.weights, &device);
        let scorer = model.map_err(StageError::other)?.scorer(&self.options, self.seed);
        let mut scorer = scorer.map_err(StageError::other)?;
        for index in &self.train_indexes {
            learn(scorer.as_mut(), index, work)?;
        }
        let rows = self.score(scorer.as_mut(), work)?;
        let Report { scores, lines, facts, rows: scored } = scorer.finish(&self.split);
        let path = work.output("scores.json")?;
        fs::write(&path, format!("{scores:#}\n")).map_err(|e| StageError::file(&path, e))?;
        lines.iter().for_each(|line| work.message(line));
        let report = PartReport::rows(rows, scored);
        Ok(facts.into_iter().fold(report, |report, (name, value)| report.fact(name, round(value))))
    }

    /// Samples and scores the split. Returns the number of its rows.
    fn score(&self, scorer: &mut dyn Scorer, work: &PartWork) -> Result<u64, StageError> {
        let shards = open(&self.index, &scorer.columns())?;
        let wanted = if self.max_utterances == 0 { usize::MAX } else { self.max_utterances };
        let items: Vec<u32> = (0..shards.len() as u32).take(wanted).collect();
        for items in items.chunks(ROWS_AT_ONCE) {
            let rows = shards.fetch(items).map_err(StageError::other)?;
            let scored = scorer.score(&rows, &|| work.interrupted()).map_err(StageError::other)?;
            if work.interrupted() {
                return Err(StageError::Interrupted);
            }
            let publish = |(row, scored)| publish(work, row, scored);
            rows.par_iter().map(|row| row.id.as_str()).zip(scored).try_for_each(publish)?;
        }
        Ok(items.len() as u64)
    }
}

/// Writes the result of a row, or rejects it.
fn publish(work: &PartWork, row: &str, scored: Scored) -> Result<(), StageError> {
    match scored {
        Ok(made) => made.iter().try_for_each(|made| write(work, made))?,
        Err(reason) => work.reject(row, reason),
    }
    work.advance(1);
    Ok(())
}

fn write(work: &PartWork, made: &Made) -> Result<(), StageError> {
    for file in made.files(&file_name(&made.name)).map_err(StageError::other)? {
        let path = work.output(&format!("samples/{}", file.file_name()))?;
        fs::write(&path, &file.bytes).map_err(|e| StageError::file(&path, e))?;
    }
    Ok(())
}

/// Learns the trivial answers from a training split.
fn learn(scorer: &mut dyn Scorer, index: &Path, work: &PartWork) -> Result<(), StageError> {
    let shards = open(index, &scorer.columns())?;
    let items: Vec<u32> = (0..shards.len() as u32).collect();
    for items in items.chunks(ROWS_AT_ONCE) {
        if work.interrupted() {
            return Err(StageError::Interrupted);
        }
        for row in shards.fetch(items).map_err(StageError::other)? {
            scorer.learn(&row).map_err(StageError::other)?;
        }
    }
    Ok(())
}

fn open(index: &Path, columns: &[ColumnSpec]) -> Result<Shards, StageError> {
    Shards::open(index, columns, CACHE_BYTES).map_err(StageError::other)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
