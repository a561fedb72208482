//! The commands that a person is likely to type after a run.

use std::path::Path;

use flowmill_runner::{Experiment, Recipe, RunSummary, quoted};
use flowmill_stage_train::TrainSection;

use crate::args::RecipeArgs;
use crate::stages;

/// Returns up to three commands for what a run has made; none if it did nothing.
pub fn commands(arguments: &RecipeArgs, recipe: &Recipe, experiment: &Experiment, done: &RunSummary) -> Vec<String> {
    let Some(last) = done.stages.last().filter(|_| done.stages.iter().any(|stage| stage.ran > 0)) else {
        return Vec::new();
    };
    let number = last.stage.split('-').next().and_then(|number| number.parse::<u8>().ok()).unwrap_or(0);
    let (recipe_words, folder) = (words(arguments), quoted(&shown(experiment.dir())));
    let in_folder = |rest: &str| quoted(&shown(&experiment.dir().join(rest)));
    let run = |stage: &str| format!("flowmill run{recipe_words} --stage {stage}");
    let next = stages::all().iter().find(|stage| stage.number() == number + 1).map(|stage| stage.name().to_owned());
    let next = run(&next.unwrap_or_default());
    match number {
        6 => {
            let mut commands = vec![format!("flowmill report {folder}")];
            let section = TrainSection::read(recipe, &stages::families()).ok();
            let used_by = section.and_then(|section| section.model.used_by());
            commands.extend(
                used_by.map(|(command, rest)| format!("flowmill {command} --model {} {rest}", in_folder("6-export"))),
            );
            let weights = "6-export/model.safetensors";
            if experiment.dir().join(weights).exists() {
                commands.push(format!("flowmill inspect {}", in_folder(weights)));
            }
            commands
        }
        4 | 5 => vec![format!("flowmill report {folder}"), next, format!("flowmill status{recipe_words}")],
        3 => {
            vec![format!("flowmill train{recipe_words} --plan-memory"), next, format!("flowmill status{recipe_words}")]
        }
        _ => vec![next, format!("flowmill status{recipe_words}"), format!("flowmill recipe show{recipe_words}")],
    }
}

/// Returns the recipe and its changes as words of a command line, each after a blank.
fn words(arguments: &RecipeArgs) -> String {
    let path = arguments.recipe.as_deref().map(|path| path.to_string_lossy().into_owned());
    let exp = arguments.changes.exp.as_deref().map(|path| path.to_string_lossy().into_owned());
    let changes = arguments.changes.set_words();
    let exp = exp.into_iter().flat_map(|path| ["--exp".to_owned(), path]);
    path.into_iter().chain(exp).chain(changes).map(|word| format!(" {}", quoted(&word))).collect()
}

/// Returns a path from the current folder, if it lies below that.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    below.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| path.to_path_buf()).display().to_string()
}
