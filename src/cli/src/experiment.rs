//! From what was typed to a recipe and its experiment folder; shared by the commands that need them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use flowmill_runner::{Experiment, Recipe, Stage};
use serde_json::{Value, json};

use crate::args::RecipeArgs;
use crate::failure::Failure;
use crate::stages;

/// Reads the recipe with the changes of the command line.
///
/// # Errors
/// A usage error when there is no such recipe, or it is wrong.
pub fn load(arguments: &RecipeArgs, stages: &[Box<dyn Stage>]) -> Result<Recipe, Failure> {
    let path = match &arguments.recipe {
        Some(path) => path.clone(),
        None if Path::new("recipe.yaml").is_file() => PathBuf::from("recipe.yaml"),
        None => return Err(Failure::usage("no recipe was given, and there is no recipe.yaml in this folder")),
    };
    let names = stages::names(stages);
    let sections: Vec<&str> = names.iter().map(|stage| stage.1).collect();
    Ok(Recipe::load(&path, &arguments.set, &sections)?)
}

/// The experiment folder: that of the command line, or the recipe's own.
///
/// # Errors
/// When the folder this program was started in is gone.
pub fn folder(arguments: &RecipeArgs, recipe: &Recipe) -> Result<Experiment, Failure> {
    match &arguments.exp {
        Some(folder) => {
            Experiment::at(folder).with_context(|| format!("--exp {}", folder.display())).map_err(Failure::Usage)
        }
        None => Ok(Experiment::of_recipe(recipe)),
    }
}

/// Checks the recipe and gives it with every default filled in.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_and_resolve(recipe: &Recipe, stages: &[Box<dyn Stage>]) -> Result<Value, Failure> {
    for stage in stages {
        stage.check(recipe)?;
    }
    let mut resolved = json!({
        "name": recipe.name(),
        "seed": recipe.seed(),
        "max_rejected": recipe.max_rejected(),
    });
    for stage in stages {
        resolved[stage.name()] = stage.show(recipe)?;
    }
    Ok(resolved)
}
