//! The recipe: one YAML file, optionally on top of a base recipe and changed from the command line.

mod de;
mod error;
mod keys;
mod node;
mod overlay;
mod parse;
mod pinpoint;
mod rebase;
mod schema;
mod suggest;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use error::RecipeError;
pub use keys::keys_of;
use node::{Node, Place};
pub use schema::{joined_schema, schema, tagged_schema};

use crate::{Stage, StagePaths};

/// Parses one YAML document as a value.
pub(crate) fn parsed(text: &str, origin: &Arc<str>) -> Result<serde_json::Value, RecipeError> {
    de::from_node(&parse::parse(text, origin)?, "")
}

/// The size above which a recipe file is refused.
const MAX_BYTES: u64 = 1 << 20;
/// The number of stacked recipes above which they are refused.
const MAX_BASES: usize = 16;
/// Keys of the recipe itself; all others are sections of stages.
pub(crate) const OWN_KEYS: [&str; 5] = ["name", "seed", "max_rejected", "base", crate::slurm::SECTION];
/// The default share of a stage's rows that may be rejected.
const DEFAULT_MAX_REJECTED: f64 = 0.05;

/// A recipe, read and merged. Its sections become typed when a stage reads them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recipe {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    dir: PathBuf,
    root: Node,
    sections: Vec<String>,
    name: String,
    seed: u64,
    max_rejected: f64,
}

impl Recipe {
    /// Reads the recipe at `path`, a file or a folder with a `recipe.yaml`, applies `base` and then `overrides`
    /// (`train.optim.lr=1e-4`), and checks the top level against `sections`, the names of the stages.
    ///
    /// # Errors
    /// Returns an error for a file that is missing, too large or not UTF-8; YAML that is broken or nested too deeply;
    /// a duplicate or unknown key; a circular `base`; a wrong type among the recipe's own keys.
    pub fn load(path: &Path, overrides: &[String], sections: &[&str]) -> Result<Self, RecipeError> {
        let sections: Vec<_> = sections.iter().map(|&section| (section, StagePaths::default())).collect();
        Self::read(path, overrides, &sections)
    }

    /// Loads a recipe like [`load`](Self::load), with the sections of `stages`. The paths that they declare
    /// ([`Stage::paths`]) are relative to the folder of the file that writes them, so a base may be in another
    /// folder. Paths in `overrides` are relative to the recipe's folder.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn for_stages(path: &Path, overrides: &[String], stages: &[Box<dyn Stage>]) -> Result<Self, RecipeError> {
        let sections: Vec<_> = stages.iter().map(|stage| (stage.name(), stage.paths())).collect();
        Self::read(path, overrides, &sections)
    }

    fn read(path: &Path, overrides: &[String], stages: &[(&str, StagePaths)]) -> Result<Self, RecipeError> {
        let shown = if path.is_dir() { path.join("recipe.yaml") } else { path.to_owned() };
        let sections: Vec<&str> = stages.iter().map(|(name, _)| *name).collect();
        let mut root = load_with_bases(&shown, stages)?;
        for assignment in overrides {
            overlay::set(&mut root, assignment)?;
        }
        check_top_level(&root, &sections)?;
        let file = std::path::absolute(&shown).map_err(|e| unreadable(&shown, &e, None))?;
        let dir = file.parent().map(Path::to_path_buf).unwrap_or_default();
        let name = read_name(&root, &dir)?;
        let seed = read_own(&root, "seed")?.unwrap_or(0);
        let max_rejected = read_max_rejected(&root)?;
        tracing::info!(path = %file.display(), name, seed, changes = overrides.join(" "), "recipe loaded");
        let sections = sections.into_iter().map(str::to_owned).collect();
        Ok(Self { inner: Arc::new(Inner { file, dir, root, sections, name, seed, max_rejected }) })
    }

    /// Returns the name of the recipe and its experiment: the key `name`, or the name of the recipe's folder.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the seed of every random draw; 0 by default.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// Returns the share of a stage's rows, 0 to 1, that may be rejected before the stage fails; 0.05 by default.
    pub fn max_rejected(&self) -> f64 {
        self.inner.max_rejected
    }

    /// Returns the absolute path of the recipe's file.
    pub fn file(&self) -> &Path {
        &self.inner.file
    }

    /// Returns the absolute path of the recipe's folder, to which relative paths are relative. Those of a base were
    /// converted accordingly.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Resolves a path of the recipe. Relative paths start from the recipe's folder.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.inner.dir.join(path)
    }

    /// Returns a stage's section as its type, or the type's default if the section is left out or empty. Unknown keys
    /// are errors, with or without `deny_unknown_fields`.
    ///
    /// # Errors
    /// Returns an error for the first key that is unknown or has a wrong type, with file, line and the nearest
    /// existing key.
    pub fn section<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, RecipeError> {
        match self.inner.root.get(name) {
            Some(entry) if !entry.node.is_null() => de::from_node(&entry.node, name),
            _ => Ok(T::default()),
        }
    }

    /// Returns the value of a dotted key as its type, or the type's default if it is left out or null. For a mapping
    /// that several structs share: keys in `others` belong to them, and any other key that the struct does not have
    /// is an error.
    ///
    /// # Errors
    /// See [`section`](Self::section).
    pub fn shared<T: DeserializeOwned + Default>(&self, key: &str, others: &[&str]) -> Result<T, RecipeError> {
        match self.find(key) {
            Some(found) if found.whole && !found.node.is_null() => de::from_shared(found.node, key, others),
            _ => Ok(T::default()),
        }
    }

    /// Returns the value of one dotted key (`train.train_split`) in a section that another stage owns; none if it is
    /// left out or null.
    ///
    /// # Errors
    /// Returns an error for a value of another type, with file and line.
    pub fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, RecipeError> {
        match self.find(key) {
            Some(found) if found.whole && !found.node.is_null() => de::from_node(found.node, key).map(Some),
            _ => Ok(None),
        }
    }

    /// Returns whether the recipe (or its base, or `--set`) gives this dotted key itself.
    pub fn gives(&self, key: &str) -> bool {
        self.find(key).is_some_and(|found| found.whole)
    }

    /// Returns whether the recipe sets the key to something other than null.
    pub fn sets(&self, key: &str) -> bool {
        self.find(key).is_some_and(|found| found.whole && !found.node.is_null())
    }

    /// Creates an error about a dotted key, with the line of the key or of the nearest key above it.
    pub fn error(&self, key: &str, message: impl std::fmt::Display) -> RecipeError {
        let place = match self.find(key) {
            Some(found) => found.place.clone(),
            None => Place::new(&self.inner.root.place.origin, 0),
        };
        RecipeError::at(Some(place), key, message)
    }

    /// Returns the names of the existing sections, to distinguish them from a stage's own fields.
    pub(crate) fn sections(&self) -> &[String] {
        &self.inner.sections
    }

    /// Returns the deepest value on the path to a dotted key (`prep.sources[0].dir`).
    fn find(&self, key: &str) -> Option<Found<'_>> {
        let mut node = &self.inner.root;
        let mut deepest = None;
        for part in key.split(['.', '[']) {
            let below = match part.strip_suffix(']') {
                Some(index) => index.parse().ok().and_then(|at| node.item(at)).map(|item| (item, &item.place)),
                None => node.get(part).map(|entry| (&entry.node, &entry.key_place)),
            };
            let Some((child, place)) = below else {
                return deepest.map(|place| Found { place, node, whole: false });
            };
            deepest = Some(place);
            node = child;
        }
        deepest.map(|place| Found { place, node, whole: true })
    }
}

/// A value on the path to a dotted key.
struct Found<'a> {
    place: &'a Place,
    node: &'a Node,
    /// True if it is the value of the key itself.
    whole: bool,
}

/// Reads a file and the recipes it extends, each merged over its base.
fn load_with_bases(path: &Path, stages: &[(&str, StagePaths)]) -> Result<Node, RecipeError> {
    let mut layers = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut next = Some(Layer { path: path.to_owned(), folder: PathBuf::new(), asked_by: None });
    while let Some(Layer { path, folder, asked_by }) = next.take() {
        let real = path.canonicalize().map_err(|e| unreadable(&path, &e, asked_by.clone()))?;
        if seen.contains(&real) {
            return Err(RecipeError::at(asked_by, "base", format!("{} extends itself in a circle", path.display())));
        }
        seen.push(real);
        if seen.len() > MAX_BASES {
            return Err(RecipeError::at(
                asked_by,
                "base",
                format!("more than {MAX_BASES} recipes stacked with `base`"),
            ));
        }
        let mut root = read_file(&path, asked_by)?;
        next = base_of(&root, &path, &folder)?;
        rebase::rebase(&mut root, &folder, stages);
        layers.push(root);
    }
    let bottom_up = layers.into_iter().rev().reduce(overlay::merge);
    bottom_up.ok_or_else(|| RecipeError::without_place("no recipe was read"))
}

/// A file to read.
struct Layer {
    path: PathBuf,
    /// The folder, relative to that of the top recipe; empty if they are the same.
    folder: PathBuf,
    /// The place where the recipe above names it.
    asked_by: Option<Place>,
}

fn base_of(root: &Node, path: &Path, folder: &Path) -> Result<Option<Layer>, RecipeError> {
    let Some(entry) = root.get("base").filter(|entry| !entry.node.is_null()) else {
        return Ok(None);
    };
    let base: String = de::from_node(&entry.node, "base")?;
    let here = path.parent().unwrap_or(Path::new(""));
    let base = if here.join(&base).is_dir() { Path::new(&base).join("recipe.yaml") } else { PathBuf::from(base) };
    let folder = folder.join(base.parent().unwrap_or(Path::new("")));
    Ok(Some(Layer { path: here.join(base), folder, asked_by: Some(entry.node.place.clone()) }))
}

fn read_file(path: &Path, asked_by: Option<Place>) -> Result<Node, RecipeError> {
    use std::io::Read;
    let fail = |e: &std::io::Error| unreadable(path, e, asked_by.clone());
    let file = std::fs::File::open(path).map_err(|e| fail(&e))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| fail(&e))?;
    let origin: Arc<str> = path.to_string_lossy().into();
    let place = |line| Place::new(&origin, line);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(RecipeError::new(place(0), format!("larger than {MAX_BYTES} bytes; is this a recipe?")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        RecipeError::new(place(line), "not UTF-8")
    })?;
    let root = parse::parse(text.trim_start_matches('\u{feff}'), &origin)?;
    if root.entries().is_none() {
        let message = format!("a recipe must be a mapping of keys to values; this is {}", root.describe());
        return Err(RecipeError::new(root.place, message));
    }
    Ok(root)
}

fn unreadable(path: &Path, error: &std::io::Error, asked_by: Option<Place>) -> RecipeError {
    let key = if asked_by.is_some() { "base" } else { "" };
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "; give the folder of a recipe or its file".to_owned(),
        _ => String::new(),
    };
    let message = format!("cannot read the recipe {}: {}{hint}", path.display(), crate::error::describe_io(error));
    RecipeError::at(asked_by, key, message)
}

fn check_top_level(root: &Node, sections: &[&str]) -> Result<(), RecipeError> {
    let known: Vec<&str> = OWN_KEYS.iter().chain(sections).copied().collect();
    let Some(entries) = root.entries() else {
        return Err(RecipeError::new(root.place.clone(), "a recipe must be a mapping of keys to values"));
    };
    match entries.iter().find(|entry| !known.contains(&entry.key.as_str())) {
        None => Ok(()),
        Some(entry) => {
            let message = format!("unknown key{}", suggest::hint(&entry.key, &known));
            Err(RecipeError::at(Some(entry.key_place.clone()), &entry.key, message))
        }
    }
}

fn read_own<T: DeserializeOwned>(root: &Node, key: &str) -> Result<Option<T>, RecipeError> {
    match root.get(key) {
        Some(entry) if !entry.node.is_null() => de::from_node(&entry.node, key).map(Some),
        _ => Ok(None),
    }
}

fn read_name(root: &Node, dir: &Path) -> Result<String, RecipeError> {
    let name: Option<String> = read_own(root, "name")?;
    let Some(name) = name else {
        return Ok(name_of_folder(dir));
    };
    if !is_plain_name(&name) {
        let place = root.get("name").map(|entry| entry.node.place.clone());
        let message = format!("`{name}` cannot name a folder; use letters, digits, `-`, `_` and `.`");
        return Err(RecipeError::at(place, "name", message));
    }
    Ok(name)
}

fn is_plain_name(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    plain && !name.is_empty() && !name.starts_with('.') && name.len() <= 200
}

/// Returns the name of the recipe's folder, with `-` in place of characters that cannot be used in a name.
fn name_of_folder(dir: &Path) -> String {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.trim_start_matches('.').chars().map(plain).take(50).collect();
    if name.is_empty() { "experiment".to_owned() } else { name }
}

fn read_max_rejected(root: &Node) -> Result<f64, RecipeError> {
    let share: f64 = read_own(root, "max_rejected")?.unwrap_or(DEFAULT_MAX_REJECTED);
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    let place = root.get("max_rejected").map(|entry| entry.node.place.clone());
    Err(RecipeError::at(place, "max_rejected", format!("expected a share of the rows from 0 to 1, found {share}")))
}
