//! A family with its settings, behind an interface without type parameters.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use flowmill_corpus::shard::{RowSizes, ShardIndex};
use flowmill_corpus::{ColumnSpec, Row};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use flowmill_runner::{Recipe, RecipeError, keys_of};
use flowmill_train::metrics::Reference;
use flowmill_train::{BoxError, LoraConfig, Loss, LossScaleConfig};
use serde_json::{Map, Value, json};

use crate::{
    AnyExported, Artifacts, Columns, Derived, ExtractorFiles, Family, FamilyError, FittedExtractor, KeyError, Loaded,
    Made, Model, TrainSettings,
};

/// A batch of some family.
pub struct Batch(Box<dyn Any + Send>);

/// A reader of one split of some family.
pub struct Reader(Box<dyn Any + Send + Sync>);

/// Examples of some family, with their ids.
pub struct Examples(Box<dyn Any + Send + Sync>);

/// A row with its reader.
#[derive(Clone, Copy)]
pub struct ReaderRow<'a> {
    /// The row.
    pub row: &'a Row,
    /// The reader of its split.
    pub reader: &'a Reader,
    /// Number that identifies it in random draws.
    pub sample: u64,
    /// The random choices of its example.
    pub rng_key: RngKey,
}

/// A family with the settings of a recipe or of an exported model. See [`Family`] for what the functions do; errors are the family's, or
/// [`FamilyError::Foreign`] for readers of another one.
#[allow(clippy::missing_errors_doc, missing_docs)]
pub trait Configured: Debug + Send + Sync {
    fn family(&self) -> &'static str;
    /// `train.model` without `family`.
    fn config(&self) -> Value;
    /// The family's own keys of the section `train`.
    fn options(&self) -> Map<String, Value>;
    /// See [`Family::SPEAKS`].
    fn speaks(&self) -> bool;
    /// See [`Family::USED_BY`].
    fn used_by(&self) -> Option<(&'static str, &'static str)>;
    /// See [`Family::REFERENCES`].
    fn references(&self) -> &'static [Reference];
    fn loss_scale(&self) -> LossScaleConfig;
    /// See [`Family::LEAST_LOSS_SCALE`].
    fn least_loss_scale(&self) -> f64;
    fn extractors(&self) -> &'static [FittedExtractor];
    fn check(&self) -> Result<(), KeyError>;
    fn check_columns(&self, columns: &Columns) -> Result<(), KeyError>;
    fn check_initial_weights(&self) -> Result<(), KeyError>;
    /// See [`Family::check_files`].
    fn check_files(&self, root: &Path) -> Result<(), KeyError>;
    fn adapters(&self) -> Result<Option<LoraConfig>, KeyError>;
    /// See [`Family::ADAPTED_LAYERS`].
    fn adapted_layers(&self) -> &'static [&'static str];
    /// The family's own keys of the section `export`, checked; `others` are keys of that section that are not the family's.
    fn export_options(&self, recipe: &Recipe, others: &[&str]) -> Result<Value, RecipeError>;
    /// Returns these keys of the family.
    fn export_keys(&self) -> &'static [&'static str];
    fn sampling(&self, export_options: &Value) -> Result<Value, BoxError>;
    fn inputs(&self, artifacts: &Artifacts) -> Vec<(String, PathBuf)>;
    fn completed(&self, artifacts: &Artifacts) -> Result<Arc<dyn Configured>, BoxError>;
    fn columns(&self, index: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError>;
    fn derived(&self, index: &ShardIndex) -> Option<Derived>;
    fn check_splits(&self, splits: &[(&Path, &ShardIndex)]) -> Result<(), BoxError>;
    fn reader(&self, path: &Path, index: &ShardIndex) -> Result<Reader, BoxError>;
    fn notes(&self, reader: &Reader) -> Vec<String>;
    fn cost(&self, sizes: &RowSizes<'_>) -> u32;
    fn cost_unit(&self) -> &'static str;
    fn elements_per_cost(&self) -> usize;
    /// Returns the batch of some rows.
    fn batch(&self, rows: &[ReaderRow<'_>], device: &Device) -> Result<Batch, BoxError>;
    /// Returns the examples of some rows, with their ids.
    fn examples(&self, rows: &[ReaderRow<'_>]) -> Result<Examples, BoxError>;
    fn variants(&self) -> Vec<Arc<dyn Configured>>;
    /// Gives examples the texts of others, one after the other. Fails if examples have no text.
    fn with_texts_of(&self, examples: Examples, others: &Examples) -> Result<Examples, BoxError>;
    fn build(&self, seed: u64) -> Result<(Box<dyn AnyModel>, Parameters), BoxError>;
    fn initialize(&self, parameters: &mut Parameters, artifacts: &Artifacts, seed: u64) -> Result<(), BoxError>;
    fn describe(&self, index: &ShardIndex) -> Result<Value, BoxError>;
    fn export(&self, weights: &Path, file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>) -> Result<(), BoxError>;
    /// Returns the file of the graph that [`export_onnx`](Self::export_onnx) writes, if the family can export one.
    fn onnx_file(&self) -> Option<&'static str>;
    fn export_onnx(&self, weights: &Path, path: &Path) -> Result<(), BoxError>;
    fn export_adapters(
        &self,
        adapters: &BTreeMap<String, Tensor>,
        lora: &LoraConfig,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError>;
    /// Loads the model that `description` describes: `load` fills the parameters. See [`Loaded`].
    fn load(
        &self,
        description: &Value,
        folder: &Path,
        device: &Device,
        load: &mut dyn FnMut(&mut Parameters) -> Result<(), BoxError>,
    ) -> Result<Box<dyn AnyExported>, BoxError>;
}

/// A [`Model`] of any family.
pub trait AnyModel: Send + Sync {
    /// See [`Model::loss`].
    ///
    /// # Errors
    /// See [`Model::loss`]; also an error if the batch belongs to another family.
    fn loss(&self, context: &Context<'_>, batch: &Batch, rng_key: RngKey) -> Result<Loss, BoxError>;

    /// See [`Model::is_optional`].
    fn is_optional(&self, parameter: &str) -> bool;

    /// See [`Model::preview`].
    ///
    /// # Errors
    /// See [`Model::preview`]; also an error if the examples or the description belong to another family.
    fn preview(
        &self,
        context: &Context<'_>,
        examples: &Examples,
        description: &Value,
        extractors: &ExtractorFiles,
        rng_key: RngKey,
    ) -> Result<Vec<Made>, BoxError>;

    /// See [`Model::distances`].
    ///
    /// # Errors
    /// See [`Model::distances`].
    fn distances(&self, made: &[Made]) -> Result<Vec<(String, f64)>, BoxError>;
}

/// The model of a family.
struct ModelOf<F: Family>(F::Model);

impl<F: Family> AnyModel for ModelOf<F> {
    fn loss(&self, context: &Context<'_>, batch: &Batch, rng_key: RngKey) -> Result<Loss, BoxError> {
        let batch = batch.0.downcast_ref().ok_or_else(|| foreign::<F>("batches"))?;
        self.0.loss(context, batch, rng_key)
    }

    fn is_optional(&self, parameter: &str) -> bool {
        self.0.is_optional(parameter)
    }

    fn preview(
        &self,
        context: &Context<'_>,
        examples: &Examples,
        description: &Value,
        extractors: &ExtractorFiles,
        rng_key: RngKey,
    ) -> Result<Vec<Made>, BoxError> {
        let examples: &Vec<_> = examples.0.downcast_ref().ok_or_else(|| foreign::<F>("examples"))?;
        let description = serde_json::from_value(description.clone()).map_err(FamilyError::Settings)?;
        self.0.preview(context, examples, &description, extractors, rng_key)
    }

    fn distances(&self, made: &[Made]) -> Result<Vec<(String, f64)>, BoxError> {
        self.0.distances(made)
    }
}

fn foreign<F: Family>(what: &'static str) -> FamilyError {
    FamilyError::Foreign { what, family: F::NAME }
}

impl<F: Family> TrainSettings<F> {
    fn example(&self, row: &ReaderRow<'_>) -> Result<F::Example, BoxError> {
        let reader = row.reader.0.downcast_ref().ok_or_else(|| foreign::<F>("readers"))?;
        F::example(self, reader, row.row, row.sample, row.rng_key)
    }
}

impl<F: Family> Configured for TrainSettings<F> {
    fn family(&self) -> &'static str {
        F::NAME
    }

    fn config(&self) -> Value {
        json!(self.config)
    }

    fn options(&self) -> Map<String, Value> {
        match json!(self.options) {
            Value::Object(options) => options,
            _ => Map::new(),
        }
    }

    fn speaks(&self) -> bool {
        F::SPEAKS
    }

    fn used_by(&self) -> Option<(&'static str, &'static str)> {
        F::USED_BY
    }

    fn references(&self) -> &'static [Reference] {
        F::REFERENCES
    }

    fn loss_scale(&self) -> LossScaleConfig {
        F::loss_scale()
    }

    fn least_loss_scale(&self) -> f64 {
        F::LEAST_LOSS_SCALE
    }

    fn extractors(&self) -> &'static [FittedExtractor] {
        F::EXTRACTORS
    }

    fn check(&self) -> Result<(), KeyError> {
        F::check(self)
    }

    fn check_columns(&self, columns: &Columns) -> Result<(), KeyError> {
        F::check_columns(self, columns)
    }

    fn check_initial_weights(&self) -> Result<(), KeyError> {
        F::check_initial_weights(self)
    }

    fn check_files(&self, root: &Path) -> Result<(), KeyError> {
        F::check_files(self, root)
    }

    fn adapters(&self) -> Result<Option<LoraConfig>, KeyError> {
        F::adapters(&self.options)
    }

    fn adapted_layers(&self) -> &'static [&'static str] {
        F::ADAPTED_LAYERS
    }

    fn export_options(&self, recipe: &Recipe, others: &[&str]) -> Result<Value, RecipeError> {
        let options: F::ExportOptions = recipe.shared("export", others)?;
        F::check_export(&self.config, &options).map_err(|error| error.in_recipe(recipe))?;
        Ok(json!(options))
    }

    fn export_keys(&self) -> &'static [&'static str] {
        keys_of::<F::ExportOptions>()
    }

    fn sampling(&self, export_options: &Value) -> Result<Value, BoxError> {
        let options = serde_json::from_value(export_options.clone()).map_err(FamilyError::Options)?;
        Ok(F::sampling(&options))
    }

    fn inputs(&self, artifacts: &Artifacts) -> Vec<(String, PathBuf)> {
        F::inputs(self, artifacts)
    }

    fn completed(&self, artifacts: &Artifacts) -> Result<Arc<dyn Configured>, BoxError> {
        let mut settings = self.clone();
        F::complete(&mut settings, artifacts)?;
        F::check(&settings)?;
        Ok(Arc::new(settings))
    }

    fn columns(&self, index: &ShardIndex) -> Result<Vec<ColumnSpec>, BoxError> {
        F::columns(self, index)
    }

    fn derived(&self, index: &ShardIndex) -> Option<Derived> {
        F::derived(self, index)
    }

    fn check_splits(&self, splits: &[(&Path, &ShardIndex)]) -> Result<(), BoxError> {
        F::check_splits(self, splits)
    }

    fn reader(&self, path: &Path, index: &ShardIndex) -> Result<Reader, BoxError> {
        Ok(Reader(Box::new(F::reader(self, path, index)?)))
    }

    fn notes(&self, reader: &Reader) -> Vec<String> {
        reader.0.downcast_ref().map_or_else(Vec::new, |reader| F::notes(self, reader))
    }

    fn cost(&self, sizes: &RowSizes<'_>) -> u32 {
        F::cost(self, sizes)
    }

    fn cost_unit(&self) -> &'static str {
        F::COST_UNIT
    }

    fn elements_per_cost(&self) -> usize {
        F::elements_per_cost(self)
    }

    fn batch(&self, rows: &[ReaderRow<'_>], device: &Device) -> Result<Batch, BoxError> {
        let examples = rows.iter().map(|row| self.example(row)).collect::<Result<_, _>>()?;
        Ok(Batch(Box::new(F::collate(self, examples, device)?)))
    }

    fn examples(&self, rows: &[ReaderRow<'_>]) -> Result<Examples, BoxError> {
        let named = |row: &ReaderRow<'_>| Ok((row.row.id.clone(), self.example(row)?));
        let examples: Vec<(String, F::Example)> = rows.iter().map(named).collect::<Result<_, BoxError>>()?;
        Ok(Examples(Box::new(examples)))
    }

    fn variants(&self) -> Vec<Arc<dyn Configured>> {
        F::variants(self).into_iter().map(|settings| Arc::new(settings) as Arc<dyn Configured>).collect()
    }

    fn with_texts_of(&self, examples: Examples, others: &Examples) -> Result<Examples, BoxError> {
        let mut own: Box<Vec<(String, F::Example)>> = examples.0.downcast().map_err(|_| foreign::<F>("examples"))?;
        let others: &Vec<(String, F::Example)> = others.0.downcast_ref().ok_or_else(|| foreign::<F>("examples"))?;
        for ((_, example), (_, other)) in own.iter_mut().zip(others) {
            if !F::take_text(example, other) {
                return Err(format!("models of the family `{}` do not speak texts", F::NAME).into());
            }
        }
        Ok(Examples(own))
    }

    fn build(&self, seed: u64) -> Result<(Box<dyn AnyModel>, Parameters), BoxError> {
        let (model, parameters) = F::build(&self.config, seed)?;
        Ok((Box::new(ModelOf::<F>(model)), parameters))
    }

    fn initialize(&self, parameters: &mut Parameters, artifacts: &Artifacts, seed: u64) -> Result<(), BoxError> {
        F::initialize(self, parameters, artifacts, seed)
    }

    fn describe(&self, index: &ShardIndex) -> Result<Value, BoxError> {
        Ok(json!(F::describe(self, index)?))
    }

    fn export(&self, weights: &Path, file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>) -> Result<(), BoxError> {
        F::export(&self.config, weights, file)
    }

    fn onnx_file(&self) -> Option<&'static str> {
        F::ONNX_FILE
    }

    fn export_onnx(&self, weights: &Path, path: &Path) -> Result<(), BoxError> {
        F::export_onnx(&self.config, weights, path)
    }

    fn export_adapters(
        &self,
        adapters: &BTreeMap<String, Tensor>,
        lora: &LoraConfig,
        file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>,
    ) -> Result<(), BoxError> {
        F::export_adapters(adapters, lora, file)
    }

    fn load(
        &self,
        description: &Value,
        folder: &Path,
        device: &Device,
        load: &mut dyn FnMut(&mut Parameters) -> Result<(), BoxError>,
    ) -> Result<Box<dyn AnyExported>, BoxError> {
        let description = serde_json::from_value(description.clone())?;
        let (model, mut parameters) = F::build(&self.config, 0)?;
        load(&mut parameters)?;
        let (config, folder, device) = (self.config.clone(), folder.to_owned(), device.clone());
        Ok(Box::new(Loaded::<F> { config, description, model, parameters, folder, device }))
    }
}
