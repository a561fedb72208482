//! The columns of shards, and the stages whose tables contain them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowmill_corpus::ColumnSpec;
use flowmill_corpus::shard::{GROUP, ID, MelStore, ShardReader, speech};
use flowmill_extract::Registry;
use flowmill_runner::{PlanContext, Recipe, RecipeError, StageError};
use flowmill_stage_embed::Embed;
use flowmill_stage_prep::PrepConfig;
use flowmill_stage_prep::columns::{self, MEDIA_BYTES};
use flowmill_stage_tokens::Tokens;

use crate::PackConfig;

/// The columns of shards in the order of the file.
#[derive(Debug, Clone)]
pub struct Wanted {
    columns: Vec<ColumnSpec>,
    /// The stage whose tables contain a column, by the column's name. Columns made from recordings and from the rows
    /// of stage 0 are not included.
    stages: BTreeMap<String, u8>,
    /// The stages whose columns are taken from the packed shards that the rows come from, because these have them already.
    packed: BTreeMap<u8, Vec<ColumnSpec>>,
}

/// The names of the columns that a family reads.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    /// Those without which it cannot be trained.
    pub required: &'static [&'static str],
    /// Those that are packed if a stage provides them.
    pub optional: &'static [&'static str],
}

/// Returns whether a column is one of the speech flows'.
pub fn is_of_speech(name: &str) -> bool {
    has(&speech::columns(MelStore::Float32), name)
}

fn has(columns: &[ColumnSpec], name: &str) -> bool {
    columns.iter().any(|column| column.name == name)
}

impl Wanted {
    /// Returns the columns in `pack.columns`; by default those that the family needs, or those of the speech flows, and
    /// those in `prep.columns`.
    ///
    /// # Errors
    /// Returns an error about the key `pack.columns` for a column that no stage provides, or if a table of stages 1
    /// and 2 cannot be read.
    pub fn of(
        config: &PackConfig,
        extractors: &Registry,
        needed: Option<Needed>,
        context: &PlanContext,
    ) -> Result<Self, StageError> {
        let recipe = context.recipe();
        let of_data = of_data(recipe)?;
        let of_speech = speech::columns(config.mel.store);
        let packed = packed(extractors, recipe)?;
        let mut wanted = Self { columns: Vec::new(), stages: BTreeMap::new(), packed };
        let own = config.columns.as_ref().map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        let of_speech_only = own.is_none() && needed.is_none();
        let required = needed.map(|needed| needed.required);
        let names = own.as_deref().or(required).unwrap_or_default();
        let is_wanted = |column: &&ColumnSpec| of_speech_only || names.contains(&column.name.as_str());
        of_speech.iter().filter(is_wanted).for_each(|column| wanted.add_of_speech(column.clone()));
        for &name in names.iter().filter(|name| !has(&of_speech, name)) {
            if let Some((role, _)) = MEDIA_BYTES.iter().find(|(_, column)| *column == name) {
                wanted.add(columns::bytes_of(*role), None);
            } else if let Some(column) = of_data.iter().find(|column| column.name == *name) {
                wanted.add(column.clone(), Some(0));
            } else {
                let (column, stage) = wanted
                    .extracted(name, context)?
                    .ok_or_else(|| no_such_column(recipe, name, &of_speech, &of_data))?;
                wanted.add(column, Some(stage));
            }
        }
        if recipe.gives("prep") && !PrepConfig::of(recipe)?.speed_perturb.is_empty() {
            wanted.add(speech::speed(), None);
        }
        let optional = needed.filter(|_| own.is_none()).map_or(&[][..], |needed| needed.optional);
        for name in optional {
            if let Some((column, stage)) = wanted.extracted(name, context)? {
                wanted.add(column, Some(stage));
            }
        }
        if config.columns.is_none() {
            of_data.into_iter().for_each(|column| wanted.add(column, Some(0)));
        }
        Ok(wanted)
    }

    fn add_of_speech(&mut self, column: ColumnSpec) {
        let stage = match column.name.as_str() {
            speech::UTT_EMBEDDING | speech::SPK_EMBEDDING => Some(1),
            speech::SPEECH_TOKEN => Some(2),
            _ => None,
        };
        self.add(column, stage);
    }

    fn add(&mut self, column: ColumnSpec, stage: Option<u8>) {
        self.stages.extend(stage.map(|stage| (column.name.clone(), stage)));
        if !has(&self.columns, &column.name) {
            self.columns.push(column);
        }
    }

    /// Returns the columns.
    pub fn columns(&self) -> &[ColumnSpec] {
        &self.columns
    }

    /// Returns whether there is a column of this name.
    pub fn has(&self, name: &str) -> bool {
        has(&self.columns, name)
    }

    /// Returns the columns in tables of a stage.
    pub fn given_by(&self, stage: u8) -> Vec<ColumnSpec> {
        self.columns.iter().filter(|column| self.stages.get(&column.name) == Some(&stage)).cloned().collect()
    }

    /// Returns whether a table of a stage is needed.
    pub fn needs(&self, stage: u8) -> bool {
        !self.is_packed(stage) && self.stages.values().any(|own| *own == stage)
    }

    /// Returns whether the columns of a stage are those of the packed shards that rows come from.
    pub fn is_packed(&self, stage: u8) -> bool {
        self.packed.contains_key(&stage)
    }

    /// Returns the columns that are taken from the packed shards that rows come from, in the form that these have.
    pub fn taken_from_shards(&self) -> Vec<ColumnSpec> {
        let of_stage = |(stage, known): (&u8, &Vec<ColumnSpec>)| {
            let own = self.given_by(*stage).into_iter();
            own.map(|own| known.iter().find(|column| column.name == own.name).cloned().unwrap_or(own))
                .collect::<Vec<_>>()
        };
        self.packed.iter().flat_map(of_stage).collect()
    }

    /// Returns a column that stage 1 or 2 has in addition to those of the speech flows, and the stage.
    fn extracted(&self, name: &str, context: &PlanContext) -> Result<Option<(ColumnSpec, u8)>, StageError> {
        for (stage, columns) in &self.packed {
            if let Some(column) = columns.iter().find(|column| column.name == name) {
                return Ok(Some((column.clone(), *stage)));
            }
        }
        extracted(name, context)
    }

    /// Returns whether the bytes of media other than recordings are packed.
    pub fn has_media(&self) -> bool {
        MEDIA_BYTES.iter().any(|(_, name)| self.has(name))
    }

    /// Returns the columns as text, if they differ from those of the speech flows.
    pub fn beyond_speech(&self) -> Option<Vec<String>> {
        let mut of_speech = speech::columns(MelStore::None);
        of_speech.retain(|column| !self.has(&column.name) && column.name != ID && column.name != GROUP);
        let is_speech = of_speech.is_empty() && self.columns.iter().all(|column| is_of_speech(&column.name));
        (!is_speech).then(|| self.columns.iter().map(ToString::to_string).collect())
    }
}

/// Returns the columns of stages 1 and 2 that the packed shards have which the rows come from, by stage.
fn packed(extractors: &Registry, recipe: &Recipe) -> Result<BTreeMap<u8, Vec<ColumnSpec>>, RecipeError> {
    let mut packed = BTreeMap::new();
    if flowmill_stage_prep::packed_sources(recipe)?.is_none() {
        return Ok(packed);
    }
    for (stage, section) in [(1, Embed::section(extractors, recipe)?), (2, Tokens::section(extractors, recipe)?)] {
        if section.is_packed() {
            let mut columns: Vec<ColumnSpec> = section.columns().into_iter().map(|column| column.spec).collect();
            let of_row = columns.iter().find(|column| column.name == speech::UTT_EMBEDDING).cloned();
            // The embedding of a row's speaker comes from the same network.
            columns.extend(of_row.map(|column| ColumnSpec { name: speech::SPK_EMBEDDING.to_owned(), ..column }));
            packed.insert(stage, columns);
        }
    }
    Ok(packed)
}

/// Returns the columns and references that stage 0 copies from the data.
fn of_data(recipe: &Recipe) -> Result<Vec<ColumnSpec>, RecipeError> {
    // A recipe that continues with packed data may have no section of stage 0.
    if !recipe.gives("prep") {
        return Ok(Vec::new());
    }
    let config = PrepConfig::of(recipe)?;
    let references = config.references.iter().map(|name| columns::reference(name));
    Ok(config.column_specs().into_iter().chain(references).collect())
}

/// Returns a column that a table of stage 1 or 2 has in addition to those of the speech flows, and the stage.
fn extracted(name: &str, context: &PlanContext) -> Result<Option<(ColumnSpec, u8)>, StageError> {
    for stage in [1, 2] {
        let folder = context.stage_dir(stage);
        let is_table = |path: &PathBuf| {
            let name = path.strip_prefix(&folder).ok().and_then(Path::to_str).unwrap_or_default();
            name.ends_with(".parquet") && name.contains("/part-")
        };
        // An unfinished stage provides nothing.
        let Ok(receipts) = context.receipts(stage) else { continue };
        let Some(path) = receipts.iter().flat_map(|receipt| receipt.outputs()).find(is_table) else { continue };
        let (columns, _) = ShardReader::open_table(&path).map_err(StageError::other)?.columns();
        if let Some(column) = columns.into_iter().find(|column| column.name == name) {
            return Ok(Some((ColumnSpec { required: true, ..column }, stage)));
        }
    }
    Ok(None)
}

fn no_such_column(recipe: &Recipe, name: &str, of_speech: &[ColumnSpec], of_data: &[ColumnSpec]) -> RecipeError {
    let have = of_speech.iter().chain(of_data).map(|column| column.name.as_str());
    let have: Vec<&str> = have.chain(MEDIA_BYTES.iter().map(|(_, name)| *name)).collect();
    let problem =
        format!("no stage provides the column `{name}`; there are {}, and those in prep.columns", have.join(", "));
    recipe.error("pack.columns", problem)
}
