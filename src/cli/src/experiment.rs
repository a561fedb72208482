//! Finds the recipe and the experiment folder of a command; shared by the commands that need them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use flowmill_runner::{Experiment, Recipe, Stage};

use crate::args::{DeviceArgs, RecipeArgs};
use crate::failure::Failure;

/// The key of the device of all stages.
const DEVICE_KEY: &str = "train.device";

/// The keys of stages that may have a device of their own. By default they follow [`DEVICE_KEY`].
const OWN_DEVICE_KEYS: [&str; 2] = ["embed.device", "tokens.device"];

/// Reads the recipe with the changes of the command line. A device on the command line applies to every stage, even
/// to stages that have their own in the recipe.
///
/// # Errors
/// Returns a usage error if there is no such recipe, or it is invalid.
pub fn load_for(arguments: &RecipeArgs, device: DeviceArgs, stages: &[Box<dyn Stage>]) -> Result<Recipe, Failure> {
    let recipe = load(arguments, stages)?;
    let Some(name) = device.device else { return Ok(recipe) };
    let mut arguments = arguments.clone();
    let own = OWN_DEVICE_KEYS.into_iter().filter(|key| recipe.sets(key));
    arguments.changes.set.extend(std::iter::once(DEVICE_KEY).chain(own).map(|key| format!("{key}=\"{name}\"")));
    load(&arguments, stages)
}

/// Reads the recipe with the changes of the command line.
///
/// # Errors
/// Returns a usage error if there is no such recipe, or it is invalid.
pub fn load(arguments: &RecipeArgs, stages: &[Box<dyn Stage>]) -> Result<Recipe, Failure> {
    let path = match &arguments.recipe {
        Some(path) => path.clone(),
        None if Path::new("recipe.yaml").is_file() => PathBuf::from("recipe.yaml"),
        None => return Err(Failure::usage("no recipe was given, and there is no recipe.yaml in this folder")),
    };
    Ok(Recipe::for_stages(&path, &arguments.changes.set, stages)?)
}

/// Returns the command line as it was typed, for the journal and for other processes that find the experiment locked.
pub fn command_line() -> String {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    format!("flowmill {}", words.join(" "))
}

/// Returns the experiment folder: that of the command line, or the recipe's own.
///
/// # Errors
/// Returns an error if the current folder no longer exists.
pub fn folder(arguments: &RecipeArgs, recipe: &Recipe) -> Result<Experiment, Failure> {
    match &arguments.changes.exp {
        Some(folder) => {
            Experiment::at(folder).with_context(|| format!("--exp {}", folder.display())).map_err(Failure::Usage)
        }
        None => Ok(Experiment::of_recipe(recipe)),
    }
}

/// Returns the experiment that a path names: its folder, or its recipe.
///
/// # Errors
/// Returns a usage error if the path does not exist, or the recipe is invalid.
pub fn named(path: &Path) -> Result<Experiment, Failure> {
    if path.is_file() || path.join("recipe.yaml").is_file() {
        return Ok(Experiment::of_recipe(&Recipe::for_stages(path, &[], &crate::stages::all())?));
    }
    if !path.is_dir() {
        return Err(Failure::usage(format!("{} is neither an experiment folder nor a recipe", path.display())));
    }
    Experiment::at(path).with_context(|| path.display().to_string()).map_err(Failure::Usage)
}

/// Sets the size of the shared thread pool, and returns it.
///
/// # Errors
/// Returns an error if the system cannot start the threads.
pub fn threads(jobs: Option<u16>) -> Result<usize, Failure> {
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(jobs) = jobs {
        pool = pool.num_threads(jobs.into());
    }
    pool.build_global().context("cannot start the threads").map_err(Failure::Failed)?;
    Ok(rayon::current_num_threads())
}
