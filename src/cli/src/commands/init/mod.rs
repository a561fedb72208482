//! `flowmill init DIR`: says what a folder of data is, and writes a recipe for it.

mod text;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flowmill_corpus::Role;
use flowmill_extract::Chosen;
use flowmill_runner::{Experiment, Recipe, Reporter, RunOptions};
use flowmill_stage_prep::{Survey, survey};

use super::report::write;
use crate::args::InitArgs;
use crate::doctor::weights;
use crate::failure::Failure;
use crate::{human, stages, style};

/// The number of languages, splits and kinds of recordings that are named.
const NAMED: usize = 6;

/// Looks at the folder, writes the recipe, and prints what would run.
pub fn run(arguments: &InitArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let families = stages::families();
    let recipe = arguments.out.clone().unwrap_or_else(|| PathBuf::from("recipe.yaml"));
    let recipe = if recipe.is_dir() { recipe.join("recipe.yaml") } else { recipe };
    if fs::symlink_metadata(&recipe).is_ok() {
        let problem =
            format!("{} is there already and is not overwritten; name another file with --out", recipe.display());
        return Err(Failure::usage(problem));
    }
    let family = families.find(arguments.family.as_deref()).map_err(Failure::usage)?;
    if family.recipes().is_empty() {
        let known: Vec<&str> =
            families.families().filter(|family| !family.recipes().is_empty()).map(|family| family.name()).collect();
        return Err(Failure::usage(format!(
            "there is no recipe of {} to begin with; there are {}",
            family.name(),
            known.join(", ")
        )));
    }
    let dir = arguments.dir.to_str().ok_or_else(|| Failure::usage("the path is not UTF-8"))?;
    let found = survey(Path::new(""), dir).map_err(Failure::usage)?;
    tell(&arguments.dir, &found, out)?;
    let data = data_path(&arguments.dir, &recipe)?;
    let made = text::Made { name: &text::name_of(&arguments.dir), data: &data, survey: &found };
    let text = made.recipe(family.recipes());
    if let Some(folder) = recipe.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)
            .map_err(|error| Failure::usage(format!("cannot create {}: {error}", folder.display())))?;
    }
    write(&recipe, text.as_bytes()).map_err(Failure::Failed)?;
    writeln!(out, "{:<12} {} (family {}, at its published setting)", "recipe", recipe.display(), family.name())?;
    what_would_run(&recipe, family.name(), &found, out)
}

/// Returns the media that the extractors of a recipe read and no row of the data has, with the kinds of these extractors. The sound of a
/// video is a recording.
fn missing_media(recipe: &Recipe, found: &Survey) -> Vec<(&'static str, &'static str)> {
    let extractors = stages::extractors();
    let has = |role: &Role| {
        found.media.contains(role.name()) || (*role == Role::Audio && found.media.contains(Role::Video.name()))
    };
    let chosen = ["embed.extractor", "tokens.extractor"].map(|key| extractors.read(recipe, key).ok().flatten());
    let lacks = |chosen: &Chosen| {
        let kind = chosen.kind();
        chosen.media().iter().filter(|role| !has(role)).map(|role| (role.name(), kind)).collect::<Vec<_>>()
    };
    chosen.iter().flatten().flat_map(lacks).collect()
}

/// Prints what was found.
fn tell(dir: &Path, found: &Survey, out: &mut dyn Write) -> Result<(), Failure> {
    let mut line = |what: &str, text: String| writeln!(out, "{what:<12} {text}");
    line("data", format!("{}: {}; it is read with `format: {}`", dir.display(), found.what, found.format.name()))?;
    let rejected = if found.rejected == 0 {
        String::new()
    } else {
        let reasons: Vec<String> =
            found.reasons.iter().map(|(reason, count)| format!("{}x {reason}", human::count(*count))).collect();
        format!(", and {} that are rejected ({})", human::count(found.rejected), reasons.join(", "))
    };
    line("rows", format!("{}{rejected}; {} with a transcript", human::count(found.rows), human::count(found.texts)))?;
    let media: Vec<&str> = found.media.iter().copied().collect();
    line("media", media.join(", "))?;
    line("speakers", format!("{} speakers or other groups", human::count(found.groups)))?;
    let counted = |counts: &std::collections::BTreeMap<String, u64>| {
        let mut counts: Vec<(&String, &u64)> = counts.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let more = counts.len().saturating_sub(NAMED);
        let named = counts.iter().take(NAMED).map(|(name, count)| format!("{name} ({})", human::count(**count)));
        let named = named.collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{named} and {more} more") } else { named }
    };
    if !found.languages.is_empty() {
        line("languages", counted(&found.languages))?;
    }
    if !found.splits.is_empty() {
        line("splits", counted(&found.splits))?;
    }
    if found.opened > 0 {
        let opened = human::count(found.opened);
        line("recordings", format!("{} ({opened} of them were opened)", counted(&found.recordings)))?;
    }
    if let Some((count, problem)) = &found.unreadable {
        line("unreadable", format!("{count} of the opened recordings, such as: {problem}"))?;
    }
    if let Some(seconds) = found.mean_seconds {
        let all = human::duration(seconds * found.rows as f64);
        line("duration", format!("about {all}, {} per row", human::duration(seconds)))?;
    }
    found.warnings.iter().for_each(|warning| style::warning(warning));
    Ok(())
}

/// Returns the path of the data as the recipe names it: relative if the recipe is in this folder, and absolute otherwise.
fn data_path(dir: &Path, recipe: &Path) -> Result<String, Failure> {
    let is_here = recipe.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder == Path::new("."));
    let path = match is_here || dir.is_absolute() {
        true => dir.to_path_buf(),
        false => dir.canonicalize().map_err(|error| Failure::usage(format!("{}: {error}", dir.display())))?,
    };
    path.to_str().map(str::to_owned).ok_or_else(|| Failure::usage("the path is not UTF-8"))
}

/// Prints what a run of the recipe would do, and what it lacks.
fn what_would_run(path: &Path, family: &str, found: &Survey, out: &mut dyn Write) -> Result<(), Failure> {
    let stages = stages::all();
    let lacks = |out: &mut dyn Write, problem: &dyn std::fmt::Display| {
        writeln!(out, "{:<12} the recipe cannot run as it is: {problem}", "to do")
    };
    let read = Recipe::for_stages(path, &[], &stages)
        .and_then(|recipe| Ok((flowmill_runner::show(&stages, &recipe)?, recipe)));
    let (resolved, recipe) = match read {
        Ok(read) => read,
        Err(problem) => return Ok(lacks(out, &problem)?),
    };
    let missing = missing_media(&recipe, found);
    if let Some((role, kind)) = missing.first() {
        let has: Vec<&str> = found.media.iter().copied().collect();
        return Ok(lacks(
            out,
            &format!(
                "{family} needs {role} (for its extractor {kind}), but the rows have {} only; give other data, or choose another --family",
                has.join(" and ")
            ),
        )?);
    }
    for weights in
        weights::named_in(&resolved, recipe.dir()).iter().filter(|weights| weights.size.is_none() && !weights.random)
    {
        writeln!(out, "{:<12} {} names {}, which is not there", "to do", weights.key, weights.path.display())?;
    }
    let options = RunOptions {
        dry_run: true,
        jobs: 1,
        command: crate::experiment::command_line(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..RunOptions::default()
    };
    writeln!(out, "{:<12} `flowmill run {}` would run:", "next", path.display())?;
    out.flush()?;
    let experiment = Experiment::of_recipe(&recipe);
    match flowmill_runner::run(&stages, &recipe, &experiment, &options, &Reporter::new()) {
        Ok(_) => Ok(()),
        Err(problem) => Ok(lacks(out, &problem)?),
    }
}
