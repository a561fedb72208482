//! The extractors that a program knows.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use flowmill_corpus::Role;
use flowmill_runner::{Recipe, RecipeError, StagePaths, tagged_schema};
use schemars::{Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::extractors::import::ImportConfig;
use crate::{Codec, Column, ConfigError, Extractor, Fit, Kind, Renderer, State, StateError, Weights};

/// The key of an extractor's name among its settings.
const KIND: &str = "kind";

/// The extractors that a program knows, in the order of the reference. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Vec<Arc<dyn Registered>>);

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

/// A registered kind of extractor.
trait Registered: Send + Sync {
    fn name(&self) -> &'static str;
    fn about(&self) -> &'static str;
    fn paths(&self) -> &'static [&'static str];
    fn words(&self) -> &'static [&'static str];
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema;
    fn default(&self) -> Chosen;
    fn read(&self, recipe: &Recipe, key: &str) -> Result<Chosen, RecipeError>;
    fn open(&self, state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError>;
    fn codec(&self, state: &State, device: &Device) -> Result<Option<Box<dyn Codec>>, StateError>;
    fn renderer(&self, state: &State, device: &Device) -> Result<Option<Box<dyn Renderer>>, StateError>;
}

/// The entry of a kind in a registry.
struct Entry<K>(PhantomData<fn() -> K>);

impl<K: Kind> Registered for Entry<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn about(&self) -> &'static str {
        K::ABOUT
    }

    fn paths(&self) -> &'static [&'static str] {
        K::PATHS
    }

    fn words(&self) -> &'static [&'static str] {
        K::WORDS
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        K::json_schema(generator)
    }

    fn default(&self) -> Chosen {
        Chosen::new(K::default())
    }

    fn read(&self, recipe: &Recipe, key: &str) -> Result<Chosen, RecipeError> {
        Ok(Chosen::new(recipe.shared::<K>(key, &[KIND])?))
    }

    fn open(&self, state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        K::open(state, device)
    }

    fn codec(&self, state: &State, device: &Device) -> Result<Option<Box<dyn Codec>>, StateError> {
        K::codec(state, device)
    }

    fn renderer(&self, state: &State, device: &Device) -> Result<Option<Box<dyn Renderer>>, StateError> {
        K::renderer(state, device)
    }
}

impl Registry {
    /// A registry without an extractor.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one more kind of extractor.
    #[must_use]
    pub fn with<K: Kind>(mut self) -> Self {
        self.0.push(Arc::new(Entry::<K>(PhantomData)));
        self
    }

    /// The names of the kinds.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|kind| kind.name())
    }

    /// The keys of a section that hold paths, where `key` is that of the extractor in the section.
    pub fn paths(&self, key: &str) -> StagePaths {
        let keys = self.0.iter().flat_map(|kind| kind.paths()).map(|path| format!("{key}.{path}"));
        StagePaths { keys: keys.collect(), words: self.0.iter().flat_map(|kind| kind.words()).copied().collect() }
    }

    /// The schema of an extractor's settings, of the kind that they name.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        let kinds = self.0.iter().map(|kind| {
            let mut schema = kind.schema(generator);
            schema.insert("description".to_owned(), json!(kind.about()));
            (kind.name(), schema)
        });
        tagged_schema("An extractor: its kind, and the settings of that kind. The kind comes first.", KIND, kinds)
    }

    /// The default settings of the first kind that gives columns which `takes` accepts.
    pub fn first(&self, takes: impl Fn(&[Column]) -> bool) -> Option<Chosen> {
        self.0.iter().map(|kind| kind.default()).find(|chosen| takes(&chosen.columns()))
    }

    /// The extractor that a recipe names under `key`, its settings unchecked; none if it names none.
    ///
    /// # Errors
    /// The key that is wrong: of a kind that is not known, of a setting that the kind does not have.
    pub fn read(&self, recipe: &Recipe, key: &str) -> Result<Option<Chosen>, RecipeError> {
        if !recipe.sets(key) {
            return Ok(None);
        }
        let Some(name) = recipe.value::<String>(&format!("{key}.{KIND}"))? else {
            let example = self.names().next().unwrap_or_default();
            let reason = format!("an extractor needs its `kind`, such as {{kind: {example}}}");
            return Err(recipe.error(key, reason));
        };
        let kind = self.find(&name).ok_or_else(|| recipe.error(&format!("{key}.{KIND}"), self.unknown(&name)))?;
        kind.read(recipe, key).map(Some)
    }

    /// The extractor that a fitted state describes, whatever its kind: the state alone is enough to use it elsewhere. Networks run on the
    /// device.
    ///
    /// # Errors
    /// When the state is of no known kind, or incomplete.
    pub fn open(&self, state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        self.find(state.kind()).ok_or_else(|| self.foreign(state.kind()))?.open(state, device)
    }

    /// Opens the decoder of codes that a fitted state describes, whatever the extractor's kind; none if its values are not codes. The state
    /// alone is enough. Networks run on the device.
    ///
    /// # Errors
    /// When the state is of no known kind, or incomplete.
    pub fn codec(&self, state: &State, device: &Device) -> Result<Option<Box<dyn Codec>>, StateError> {
        self.find(state.kind()).ok_or_else(|| self.foreign(state.kind()))?.codec(state, device)
    }

    /// Opens the renderer of motion that a fitted state describes, whatever the extractor's kind; none if its values are no motion that can
    /// be rendered. The state alone is enough. Networks run on the device.
    ///
    /// # Errors
    /// When the state is of no known kind, or incomplete.
    pub fn renderer(&self, state: &State, device: &Device) -> Result<Option<Box<dyn Renderer>>, StateError> {
        self.find(state.kind()).ok_or_else(|| self.foreign(state.kind()))?.renderer(state, device)
    }

    fn find(&self, name: &str) -> Option<&dyn Registered> {
        self.0.iter().find(|kind| kind.name() == name).map(AsRef::as_ref)
    }

    fn known(&self, separator: &str) -> String {
        self.names().collect::<Vec<_>>().join(separator)
    }

    fn unknown(&self, name: &str) -> String {
        format!("there is no extractor `{name}`; there are {}", self.known(", "))
    }

    fn foreign(&self, found: &str) -> StateError {
        StateError::Foreign { wanted: self.known(" or "), found: found.to_owned() }
    }
}

/// An extractor that a recipe chose, with its settings. Cheap to clone. As JSON it is its settings with the kind first.
#[derive(Clone, Debug)]
pub struct Chosen(Arc<dyn Configured>);

/// The settings of some kind of extractor, see [`Kind`].
trait Configured: fmt::Debug + Send + Sync {
    fn kind(&self) -> &'static str;
    fn media(&self) -> &'static [Role];
    fn reads_text(&self) -> bool;
    fn reads_columns(&self) -> &'static [&'static str];
    fn is_network(&self) -> bool;
    fn settings(&self) -> Value;
    fn columns(&self) -> Vec<Column>;
    fn check(&self) -> Result<(), ConfigError>;
    fn learning(&self) -> Option<Value>;
    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError>;
    fn weights(&self) -> Vec<&Weights>;
    fn other_files(&self) -> Vec<&Path>;
    fn other_files_read(&self, root: &Path) -> Vec<PathBuf>;
    fn reads_seed(&self) -> bool;
    fn has_centers(&self) -> bool;
    fn import(&self) -> Option<&ImportConfig>;
}

/// Settings of a kind.
#[derive(Debug)]
struct Settings<K>(K);

impl<K: Kind> Configured for Settings<K> {
    fn kind(&self) -> &'static str {
        K::NAME
    }

    fn media(&self) -> &'static [Role] {
        K::MEDIA
    }

    fn reads_text(&self) -> bool {
        K::TEXT
    }

    fn reads_columns(&self) -> &'static [&'static str] {
        K::COLUMNS
    }

    fn is_network(&self) -> bool {
        K::NETWORK
    }

    fn settings(&self) -> Value {
        json!(self.0)
    }

    fn columns(&self) -> Vec<Column> {
        self.0.columns()
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.0.check()
    }

    fn learning(&self) -> Option<Value> {
        self.0.learning()
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        self.0.fit(seed, root)
    }

    fn weights(&self) -> Vec<&Weights> {
        self.0.weights()
    }

    fn other_files(&self) -> Vec<&Path> {
        self.0.other_files()
    }

    fn other_files_read(&self, root: &Path) -> Vec<PathBuf> {
        self.0.other_files_read(root)
    }

    fn reads_seed(&self) -> bool {
        self.0.reads_seed()
    }

    fn has_centers(&self) -> bool {
        self.0.has_centers()
    }

    fn import(&self) -> Option<&ImportConfig> {
        self.0.import()
    }
}

impl Serialize for Chosen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut settings = Map::from_iter([(KIND.to_owned(), Value::from(self.kind()))]);
        if let Value::Object(own) = self.0.settings() {
            settings.extend(own);
        }
        settings.serialize(serializer)
    }
}

impl Chosen {
    /// Chooses the kind of these settings.
    pub fn new<K: Kind>(settings: K) -> Self {
        Self(Arc::new(Settings(settings)))
    }

    /// The name of the kind.
    pub fn kind(&self) -> &'static str {
        self.0.kind()
    }

    /// The media of a row that it reads.
    pub fn media(&self) -> &'static [Role] {
        self.0.media()
    }

    /// Returns true if it reads the text of a row and its language.
    pub fn reads_text(&self) -> bool {
        self.0.reads_text()
    }

    /// The columns of stage 0 that it reads.
    pub fn reads_columns(&self) -> &'static [&'static str] {
        self.0.reads_columns()
    }

    /// Returns true if it is a network, which a device computes.
    pub fn is_network(&self) -> bool {
        self.0.is_network()
    }

    /// The columns that it gives.
    pub fn columns(&self) -> Vec<Column> {
        self.0.columns()
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.0.check()
    }

    /// The settings that measuring reads, if it learns from rows; see [`Kind::learning`].
    pub fn learning(&self) -> Option<Value> {
        self.0.learning()
    }

    /// Prepares to fit it; see [`Kind::fit`].
    ///
    /// # Errors
    /// The field that cannot be used.
    pub fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        self.0.fit(seed, root)
    }

    /// The weight files that fitting reads, relative to the recipe's folder.
    pub fn weight_files(&self) -> Vec<&Path> {
        self.0.weights().into_iter().filter_map(Weights::file).chain(self.0.other_files()).collect()
    }

    /// Returns all files that fitting reads below `root`, the recipe's folder: the weight files, and those that they keep tensors in.
    pub fn files_read(&self, root: &Path) -> Vec<PathBuf> {
        let weights = self.0.weights().into_iter().filter_map(Weights::file);
        let files = weights.flat_map(|file| flowmill_weights::files(&root.join(file)));
        files.chain(self.0.other_files_read(root)).collect()
    }

    /// Returns true if fitting draws random numbers, so that the result depends on the seed.
    pub fn reads_seed(&self) -> bool {
        self.0.reads_seed()
    }

    /// Returns true if its tokens are centers of log-mel.
    pub fn has_centers(&self) -> bool {
        self.0.has_centers()
    }

    /// The settings of values that another tool made, which a stage looks up instead of extracting.
    pub fn import(&self) -> Option<&ImportConfig> {
        self.0.import()
    }
}
