//! The families of a program.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use flowmill_runner::{Recipe, RecipeError, keys_of, tagged_schema};
use flowmill_train::BoxError;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value};

use crate::{Configured, ExplainedScore, Family, FamilyError, TrainSettings};

/// The key of a family's name among the settings of its model.
const FAMILY: &str = "family";

/// The families of a program, the default one first. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Vec<Arc<dyn Registered>>);

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

/// A registered family.
pub trait Registered: Send + Sync {
    /// The family's name.
    fn name(&self) -> &'static str;

    /// See [`Family::SHARD_COLUMNS`].
    fn shard_columns(&self) -> Option<&'static [&'static str]>;

    /// See [`Family::OPTIONAL_COLUMNS`].
    fn optional_columns(&self) -> &'static [&'static str];

    /// See [`Family::RECIPES`].
    fn recipes(&self) -> &'static [&'static str];

    /// The family's own keys of the section `train`.
    fn train_keys(&self) -> &'static [&'static str];

    /// Returns the keys of [`train_keys`](Self::train_keys) that hold paths, and the words that may be in their place.
    fn train_paths(&self) -> (&'static [&'static str], &'static [&'static str]);

    /// Returns the schema of `train.model`, without the family's name.
    fn model_schema(&self, generator: &mut SchemaGenerator) -> Schema;

    /// Returns the schema of the family's own keys of the section `train`.
    fn train_schema(&self, generator: &mut SchemaGenerator) -> Schema;

    /// Returns the schema of the family's own keys of the section `export`.
    fn export_schema(&self, generator: &mut SchemaGenerator) -> Schema;

    /// Reads the settings of a recipe: `train.model`, and the family's own keys of `train`, where `others` are the
    /// other keys. Unchecked.
    ///
    /// # Errors
    /// Returns the first key that is unknown or has a wrong type, with its line.
    fn read(&self, recipe: &Recipe, others: &[&str]) -> Result<Arc<dyn Configured>, RecipeError>;

    /// Returns the settings in a file: those of the model, and options, where missing ones have their default.
    /// Unchecked.
    ///
    /// # Errors
    /// Returns an error if these are not settings of the family.
    fn described(&self, model: Value, options: Map<String, Value>) -> Result<Arc<dyn Configured>, FamilyError>;

    /// See [`Family::explain`].
    ///
    /// # Errors
    /// As [`Family::explain`].
    fn explain(&self, scores: &Value) -> Result<Vec<ExplainedScore>, BoxError>;
}

/// The entry of a family in a registry.
struct Entry<F>(PhantomData<fn() -> F>);

impl<F: Family> Registered for Entry<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn shard_columns(&self) -> Option<&'static [&'static str]> {
        F::SHARD_COLUMNS
    }

    fn optional_columns(&self) -> &'static [&'static str] {
        F::OPTIONAL_COLUMNS
    }

    fn recipes(&self) -> &'static [&'static str] {
        F::RECIPES
    }

    fn train_keys(&self) -> &'static [&'static str] {
        keys_of::<F::TrainOptions>()
    }

    fn train_paths(&self) -> (&'static [&'static str], &'static [&'static str]) {
        (F::PATHS, F::WORDS)
    }

    fn model_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        F::Config::json_schema(generator)
    }

    fn train_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        F::TrainOptions::json_schema(generator)
    }

    fn export_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        F::ExportOptions::json_schema(generator)
    }

    fn read(&self, recipe: &Recipe, others: &[&str]) -> Result<Arc<dyn Configured>, RecipeError> {
        let config = recipe.shared("train.model", &[FAMILY])?;
        let options = recipe.shared("train", others)?;
        Ok(Arc::new(TrainSettings::<F> { config, options }))
    }

    fn described(&self, model: Value, options: Map<String, Value>) -> Result<Arc<dyn Configured>, FamilyError> {
        let config = serde_json::from_value(model).map_err(FamilyError::Settings)?;
        let options = serde_json::from_value(Value::Object(options)).map_err(FamilyError::Options)?;
        Ok(Arc::new(TrainSettings::<F> { config, options }))
    }

    fn explain(&self, scores: &Value) -> Result<Vec<ExplainedScore>, BoxError> {
        F::explain(scores)
    }
}

impl Registry {
    /// Creates a registry without families.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a family.
    #[must_use]
    pub fn with<F: Family>(mut self) -> Self {
        self.0.push(Arc::new(Entry::<F>(PhantomData)));
        self
    }

    /// Returns the families.
    pub fn families(&self) -> impl Iterator<Item = &dyn Registered> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Returns the schema of `train.model`: the settings of the family that it names.
    pub fn model_schema(&self, generator: &mut SchemaGenerator) -> Schema {
        let families = self.families().map(|family| (family.name(), family.model_schema(generator)));
        let description = "A network: its family, and the dimensions of that family. The defaults of a family are its published model.";
        tagged_schema(description, FAMILY, families)
    }

    /// Returns the names of the families.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|family| family.name())
    }

    /// Returns the family with this name, or the default without one.
    ///
    /// # Errors
    /// [`FamilyError::Unknown`].
    pub fn find(&self, name: Option<&str>) -> Result<&dyn Registered, FamilyError> {
        let found = self.0.iter().find(|family| name.is_none_or(|name| family.name() == name));
        found.map(AsRef::as_ref).ok_or_else(|| FamilyError::Unknown {
            name: name.unwrap_or_default().to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }

    /// Returns the family that a recipe names, or the default.
    ///
    /// # Errors
    /// `train.model.family` if there is no such family, `train.model` if it has settings but no family.
    pub fn of_recipe(&self, recipe: &Recipe) -> Result<&dyn Registered, RecipeError> {
        let name: Option<String> = recipe.value("train.model.family")?;
        if name.is_none() && recipe.sets("train.model") {
            let example = self.names().next().unwrap_or_default();
            let reason = format!("a model needs its `family`, such as {{family: {example}}}");
            return Err(recipe.error("train.model", reason));
        }
        self.find(name.as_deref()).map_err(|error| recipe.error("train.model.family", error))
    }

    /// Returns the model that the settings, including the family's name, describe, in the form of sections and
    /// receipts.
    ///
    /// # Errors
    /// Returns an error if there is no such family, or these are not its settings.
    pub fn described(&self, mut model: Value, options: Map<String, Value>) -> Result<Arc<dyn Configured>, FamilyError> {
        let family = model.as_object_mut().and_then(|settings| settings.shift_remove(FAMILY));
        self.find(family.as_ref().and_then(Value::as_str))?.described(model, options)
    }
}

impl dyn Configured {
    /// Returns the settings of the model with the family's name first, as in a recipe.
    pub fn model(&self) -> Value {
        let mut model = Map::from_iter([(FAMILY.to_owned(), Value::from(self.family()))]);
        if let Value::Object(settings) = self.config() {
            model.extend(settings);
        }
        Value::Object(model)
    }
}
