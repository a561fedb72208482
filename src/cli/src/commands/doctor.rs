//! `flowmill doctor [RECIPE]`: prints the resources of this machine, and whether a recipe can run on it.

use std::io::Write;
use std::path::Path;

use crate::args::{DoctorArgs, RecipeArgs};
use crate::doctor::{build, devices, disk, machine, weights};
use crate::experiment;
use crate::failure::Failure;
use crate::human;
use crate::stages;
use crate::style;

/// The free disk space below which the report warns.
const LITTLE_DISK: u64 = 2_000_000_000;
/// The free memory below which the report warns.
const LITTLE_MEMORY: u64 = 2_000_000_000;

/// The mark of a line of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Warning,
    Bad,
}

/// Prints the report. Fails if something that the recipe needs is missing.
pub fn run(arguments: &DoctorArgs, out: &mut dyn Write) -> Result<(), Failure> {
    describe_machine(out)?;
    let named = arguments.recipe.recipe.is_some() || Path::new("recipe.yaml").is_file();
    if !named {
        describe_disk(Path::new("."), out)?;
        return Ok(());
    }
    if describe_recipe(&arguments.recipe, out)? { Ok(()) } else { Err(Failure::Told) }
}

/// Prints one line.
fn line(mark: Mark, subject: &str, text: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let (style, sign) = match mark {
        Mark::Good => (style::GOOD, "ok  "),
        Mark::Warning => (style::WARN, "warn"),
        Mark::Bad => (style::BAD, "bad "),
    };
    Ok(writeln!(out, "{}  {subject:<10}  {text}", style::paint(style, sign))?)
}

/// Processor, memory, threads, devices, build.
fn describe_machine(out: &mut dyn Write) -> Result<(), Failure> {
    let processor = machine::processor();
    let cores = match processor.installed - processor.cores {
        0 => format!("{} cores", processor.cores),
        _ => format!("{} of {} cores", processor.cores, processor.installed),
    };
    line(Mark::Good, "processor", &format!("{cores}, {}", processor.name), out)?;
    line(instruction_mark(&processor.features), "", &processor.features.join(" "), out)?;
    describe_memory(out)?;
    describe_threads(out)?;
    describe_devices(out)?;
    describe_ffmpeg(out)?;
    for (name, value) in build::describe() {
        line(Mark::Good, "build", &format!("{name}: {value}"), out)?;
    }
    Ok(())
}

/// Returns the mark of the instruction sets: without fused multiply-add the kernels are slow.
fn instruction_mark(features: &[&str]) -> Mark {
    let fast = features.contains(&"fma") || features.contains(&"neon");
    if fast { Mark::Good } else { Mark::Warning }
}

/// Prints the memory.
fn describe_memory(out: &mut dyn Write) -> Result<(), Failure> {
    let Some(memory) = machine::memory() else {
        return line(Mark::Warning, "memory", "unknown on this system", out);
    };
    let limit = memory.limit.filter(|limit| *limit < memory.total);
    let usable = limit.map_or(memory.available, |limit| limit.min(memory.available));
    let limited = limit.map_or(String::new(), |limit| format!(", limited to {}", human::bytes(limit)));
    let text = format!("{} of {} available{limited}", human::bytes(memory.available), human::bytes(memory.total));
    line(if usable < LITTLE_MEMORY { Mark::Warning } else { Mark::Good }, "memory", &text, out)
}

/// Prints the thread settings in the environment.
fn describe_threads(out: &mut dyn Write) -> Result<(), Failure> {
    let settings = machine::thread_settings();
    if settings.is_empty() {
        return line(Mark::Good, "threads", "one per core (change it with `run --jobs N`)", out);
    }
    for (name, value) in settings {
        let (mark, note) = match name {
            "RAYON_NUM_THREADS" => (Mark::Good, "used if --jobs is not given"),
            "POLARS_MAX_THREADS" => (Mark::Good, "used for tables"),
            _ => (Mark::Good, "has no effect here"),
        };
        line(mark, "threads", &format!("{name}={value}: {note}"), out)?;
    }
    Ok(())
}

/// Prints the devices that training can run on, and the reasons why others cannot be used.
fn describe_devices(out: &mut dyn Write) -> Result<(), Failure> {
    for device in devices::describe() {
        line(if device.warns { Mark::Warning } else { Mark::Good }, "device", &device.text, out)?;
    }
    Ok(())
}

/// Prints whether there is an `ffmpeg` for `prep.fallback`.
fn describe_ffmpeg(out: &mut dyn Write) -> Result<(), Failure> {
    let text = match flowmill_audio::ffmpeg::version() {
        Some(version) => format!("{version}: decodes formats that Flowmill does not, with `prep.fallback: ffmpeg`"),
        None => "not installed; needed only with `prep.fallback: ffmpeg`".to_owned(),
    };
    line(Mark::Good, "ffmpeg", &text, out)
}

/// Prints the free space on the disk at `folder`.
fn describe_disk(folder: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let room = match disk::room(folder) {
        Ok(room) => room,
        Err(error) => return line(Mark::Warning, "disk", &format!("{}: {error}", folder.display()), out),
    };
    let at = room.at.display();
    let text = format!("{} free of {} at {at}", human::bytes(room.free), human::bytes(room.total));
    match room.writable {
        false => line(Mark::Bad, "disk", &format!("{at} cannot be written to"), out),
        true if room.free < LITTLE_DISK => line(Mark::Warning, "disk", &text, out),
        true => line(Mark::Good, "disk", &text, out),
    }
}

/// Prints the state of a recipe. Returns false if something that it needs is missing.
fn describe_recipe(arguments: &RecipeArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let stages = stages::all();
    let recipe = experiment::load(arguments, &stages)?;
    let folder = experiment::folder(arguments, &recipe)?;
    describe_disk(folder.dir(), out)?;
    let writable = disk::room(folder.dir()).is_ok_and(|room| room.writable);
    let resolved = flowmill_runner::show(&stages, &recipe)?;
    // A missing file ends the report, but the rest is printed first.
    let checked = flowmill_runner::check(&stages, &recipe);
    if checked.is_ok() {
        line(Mark::Good, "recipe", &format!("{} is valid", recipe.file().display()), out)?;
    }
    let there = describe_weights(&resolved, recipe.dir(), out)?;
    checked?;
    Ok(there && writable)
}

/// Prints the weights that the recipe names. Returns false if one is missing.
fn describe_weights(resolved: &serde_json::Value, folder: &Path, out: &mut dyn Write) -> Result<bool, Failure> {
    let named = weights::named_in(resolved, folder);
    if named.is_empty() {
        line(Mark::Good, "weights", "the recipe needs no weight files", out)?;
    }
    for weights in &named {
        let place = weights.path.display();
        match weights.size {
            Some(size) => {
                line(Mark::Good, "weights", &format!("{}: {place}, {}", weights.key, human::bytes(size)), out)?
            }
            None if weights.random => {
                let text = format!("{}: random, for smoke tests only: the results are meaningless", weights.key);
                line(Mark::Warning, "weights", &text, out)?
            }
            None => line(Mark::Bad, "weights", &format!("{}: {place} does not exist", weights.key), out)?,
        }
    }
    Ok(named.iter().all(|weights| weights.size.is_some() || weights.random))
}
