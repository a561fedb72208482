//! Columns that packed shards have already, in place of those that an extractor would make.

use flowmill_corpus::packed::{self, Sample};
use flowmill_corpus::shard::speech;
use flowmill_extract::extractors::packed::{PackedColumn, PackedConfig};
use flowmill_extract::{Chosen, Column};
use flowmill_runner::{Part, PartReport, Phase, Recipe, RecipeError, StageError};
use serde_json::json;

use crate::Extraction;

/// The key that names the shards.
const DATA: &str = "prep.data";

/// Returns the columns of an extractor as the shards of a recipe have them; `None` if its sources are not all shards, or not all shards have
/// the columns.
///
/// # Errors
/// The key of the section `prep` that is wrong; `prep.data` if the shards cannot be read or contradict each other, `prep.speed_perturb` if
/// copies of rows would have the columns of the originals.
pub(crate) fn columns(recipe: &Recipe, extractor: &Chosen) -> Result<Option<PackedConfig>, RecipeError> {
    let Some(sources) = flowmill_stage_prep::packed_sources(recipe)? else { return Ok(None) };
    let mut known: Option<(String, PackedConfig)> = None;
    for source in sources {
        let sample = match packed::sample(recipe.dir(), &source) {
            Ok(sample) => sample,
            Err(error) if recipe.resolve(&source).exists() => return Err(recipe.error(DATA, error)),
            // Stage 0 reports sources that are not there, if it runs.
            Err(_) => return Ok(None),
        };
        let wrong = |problem: String| recipe.error(DATA, format!("{source}: {problem}"));
        let Some(config) = of_sample(&extractor.columns(), &sample).map_err(wrong)? else { return Ok(None) };
        known = Some(match known {
            None => (source, config),
            Some((first, merged)) => {
                let config = together(merged, config).map_err(|(ours, theirs)| {
                    let problem =
                        format!("{source} has {theirs}, but {first} has {ours}: name sources with the same columns");
                    recipe.error(DATA, problem)
                })?;
                (first, config)
            }
        });
    }
    let Some((_, config)) = known else { return Ok(None) };
    if recipe.sets("prep.speed_perturb")
        && recipe.value::<Vec<f64>>("prep.speed_perturb")?.is_some_and(|speeds| !speeds.is_empty())
    {
        let problem = "copies at other speeds need columns of their own, but those of packed shards are taken as they are: leave it out, or read only \
                       the recordings (`format: huggingface` or `format: webdataset`)";
        return Err(recipe.error("prep.speed_perturb", problem));
    }
    Ok(Some(config))
}

/// Returns the columns of an extractor in a sample; `None` if it lacks one.
fn of_sample(columns: &[Column], sample: &Sample) -> Result<Option<PackedConfig>, String> {
    let mut config = PackedConfig::default();
    for column in columns {
        let Some(found) = sample.columns.get(column.name()) else { return Ok(None) };
        let own =
            PackedColumn::of(column, found).map_err(|problem| format!("its column `{}` {problem}", column.name()))?;
        config.columns.push(own);
    }
    // The embedding of a row's speaker comes with that of the row.
    let needs_speaker = columns.iter().any(|column| column.name() == speech::UTT_EMBEDDING);
    let has_speaker = sample.columns.contains_key(speech::SPK_EMBEDDING);
    Ok((!config.columns.is_empty() && (!needs_speaker || has_speaker)).then_some(config))
}

/// Returns the columns of two sources.
///
/// # Errors
/// The first columns that differ, in words.
fn together(mut ours: PackedConfig, theirs: PackedConfig) -> Result<PackedConfig, (String, String)> {
    let told = |column: &PackedColumn| match column.rate {
        0.0 => format!("{}: {}", column.name, column.values),
        rate => format!("{}: {}, {rate:.1} per second", column.name, column.values),
    };
    for (own, other) in ours.columns.iter_mut().zip(&theirs.columns) {
        if own.values != other.values || own.rate != other.rate {
            return Err((told(own), told(other)));
        }
        own.vocabulary = own.vocabulary.max(other.vocabulary);
    }
    Ok(ours)
}

/// Plans the only part: the state that stands for the extractor.
pub(crate) fn phase<S: Extraction>(extractor: &Chosen, seed: u64, root: &std::path::Path) -> Result<Phase, StageError> {
    let fit = extractor.fit(seed, root).map_err(StageError::other)?;
    let told: Vec<String> = extractor.columns().iter().map(|column| column.spec.to_string()).collect();
    let told = told.join(", ");
    let part = Part::new("shards").config(json!({ "extractor": extractor })).work(move |work| {
        work.message(format!("taken from the shards: {told}"));
        let fitted = flowmill_extract::fit_parts(&*fit, &[]).map_err(StageError::other)?;
        fitted.state.save(&work.output(S::FITTED)?).map_err(StageError::other)?;
        Ok(PartReport::summary())
    });
    Ok(Phase::new(format!("{} of packed shards", S::VALUES), vec![part]))
}
