//! `flowmill synth --model DIR --wav REF…`: recordings through an exported model and back.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use flowmill_nn::device;
use flowmill_stage_export::{SynthOptions, Synthesised, Synthesiser, file_name};

use crate::args::SynthArgs;
use crate::failure::Failure;
use crate::human;

/// Resynthesises one recording after the other; one that cannot be read is told and does not stop the rest.
pub fn run(arguments: &SynthArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if arguments.guidance.is_some_and(|rate| !(0.0..=100.0).contains(&rate)) {
        return Err(Failure::usage("--guidance lies between 0 and 100"));
    }
    if arguments.strength.is_some_and(|strength| !(strength > 0.0 && strength <= 100.0)) {
        return Err(Failure::usage("--strength lies above 0, up to 100"));
    }
    let options = SynthOptions {
        solver: arguments.solver.map(Into::into),
        strength: arguments.strength,
        n_timesteps: arguments.steps.map(usize::from),
        inference_cfg_rate: arguments.guidance,
        seed: arguments.seed,
        device: arguments.device.device.unwrap_or_default(),
        ..SynthOptions::default()
    };
    device::open(options.device).map_err(|error| Failure::Usage(error.into()))?;
    let synthesiser = Synthesiser::open(&arguments.model, options).map_err(|error| Failure::Failed(error.into()))?;
    refuse_damaged(&arguments.model)?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make the folder {}", arguments.out.display()))
        .map_err(Failure::Failed)?;
    let mut names = BTreeSet::new();
    let mut failed = false;
    for recording in &arguments.wav {
        match synthesiser.run(recording, &free_name(recording, &mut names), &arguments.out) {
            Ok(made) => describe(recording, &made, out)?,
            Err(error) => {
                Failure::Failed(error.into()).report();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}

/// Refuses a model in an experiment whose files are not what they were when it was exported.
fn refuse_damaged(model: &Path) -> Result<(), Failure> {
    let files = std::fs::read_dir(model).into_iter().flatten().flatten().map(|entry| entry.path());
    match files.filter(|file| file.is_file()).find_map(|file| flowmill_runner::damage(&file)) {
        Some(damage) => {
            let what = "damaged, or changed since it was exported";
            Err(Failure::Failed(anyhow::anyhow!("{}: {what}: {damage}; run the recipe again", model.display())))
        }
        None => Ok(()),
    }
}

/// A file name after the recording's that no other recording of this call has.
fn free_name(recording: &Path, names: &mut BTreeSet<String>) -> String {
    let stem = recording.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = match file_name(&stem) {
        safe if safe.is_empty() => "recording".to_string(),
        safe => safe,
    };
    let mut name = stem.clone();
    let mut number = 2;
    while !names.insert(name.clone()) {
        name = format!("{stem}-{number}");
        number += 1;
    }
    name
}

/// Prints what came of one recording.
fn describe(recording: &Path, made: &Synthesised, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(
        out,
        "{} → {}  {:.2} s, {} units, {} evaluations, {:.1} dB from the recording; picture {}",
        recording.display(),
        made.wav.display(),
        made.seconds,
        human::count(made.tokens as u64),
        human::count(made.evaluations as u64),
        made.distance_db,
        made.picture.display()
    )?;
    Ok(())
}
