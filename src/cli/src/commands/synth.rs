//! `flowmill synth --model DIR --wav REF…`: resynthesizes recordings through an exported model.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flowmill_family::{Input, Made, Output, Request, Synthesis};
use flowmill_nn::device;
use flowmill_stage_export::{ExportError, Synth, SynthOptions, Synthesized, file_name, write_files};
use serde_json::{Map, Value, json};

use super::mel_file::MelFile;
use super::vocoder;
use crate::args::{DeviceArgs, SynthArgs};
use crate::failure::Failure;
use crate::stages;

/// Resynthesizes one recording after the other. An error of one is printed, and the others are still processed.
pub fn run(arguments: &SynthArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if arguments.guidance.is_some_and(|rate| !(0.0..=100.0).contains(&rate)) {
        return Err(Failure::usage("--guidance must be between 0 and 100"));
    }
    if arguments.strength.is_some_and(|strength| !(strength > 0.0 && strength <= 100.0)) {
        return Err(Failure::usage("--strength must be above 0 and at most 100"));
    }
    let mel_file = arguments.mel.as_deref().map(MelFile::new).transpose()?;
    if mel_file.is_some() && arguments.wav.len() > 1 {
        return Err(Failure::usage("--mel names the file of one recording; give one --wav for each"));
    }
    let vocoder = vocoder::options(arguments)?;
    let synth = open(&arguments.model, &given(arguments, vocoder), arguments.seed, arguments.device, None)?;
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot create the folder {}", arguments.out.display()))
        .map_err(Failure::Failed)?;
    let mut names = BTreeSet::new();
    let mut failed = false;
    for recording in &arguments.wav {
        let inputs = vec![Input::Audio(recording.clone())];
        let request = Request { inputs, name: free_name(recording, &mut names) };
        match resynthesize(&synth, &request, &arguments.out, mel_file.as_ref()) {
            Ok(made) => describe(recording, &made, out)?,
            Err(error) => {
                Failure::Failed(error).report();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}

/// Does one request, and writes its files in `folder` and its mel to a file of its own.
fn resynthesize(
    synth: &Synth,
    request: &Request,
    folder: &Path,
    mel_file: Option<&MelFile>,
) -> anyhow::Result<Synthesized> {
    let Synthesis { made, figures } = synth.make(request, &mut |_, _| {})?;
    let mut files = write_files(&made, &request.name, folder)?;
    if let Some(file) = mel_file {
        files.push(write_mel(&made, file)?);
    }
    Ok(Synthesized { files, figures })
}

fn write_mel(made: &Made, file: &MelFile) -> anyhow::Result<PathBuf> {
    let Output::Mel(output) = &made.output else {
        anyhow::bail!("--mel: the model makes no mel");
    };
    file.write(&output.mel)
}

/// Returns the options of the model's family, each with its value if it was given.
fn given(arguments: &SynthArgs, vocoder: Option<Value>) -> [(&'static str, Option<Value>); 6] {
    [
        ("vocoder", vocoder),
        ("solver", arguments.solver.map(|solver| json!(solver.name()))),
        ("steps", arguments.steps.map(|steps| json!(steps))),
        ("strength", arguments.strength.map(|strength| json!(strength))),
        ("guidance", arguments.guidance.map(|guidance| json!(guidance))),
        ("streaming", arguments.streaming.then_some(Value::Bool(true))),
    ]
}

/// A use of a model that speaks texts.
pub(super) struct Spoken<'a> {
    /// An adapter that is added to its weights.
    pub adapter: Option<&'a Path>,
}

/// Opens an exported model with the given ones of the options of its family. Fails if its files are damaged.
pub(super) fn open(
    model: &Path,
    options: &[(&str, Option<Value>)],
    seed: u64,
    device: DeviceArgs,
    text: Option<Spoken<'_>>,
) -> Result<Synth, Failure> {
    let given = options.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
    let device = device.device.unwrap_or_default();
    device::open(device).map_err(|error| Failure::Usage(error.into()))?;
    let adapter = text.as_ref().and_then(|spoken| spoken.adapter).map(Path::to_owned);
    let options = given.collect::<Map<_, _>>().into();
    let options = SynthOptions { options, seed, device, speaks: text.is_some(), adapter };
    let synth = Synth::open(&stages::families(), model, options).map_err(|error| match error {
        ExportError::Silent { .. } => {
            Failure::Failed(anyhow::anyhow!("{error}; `flowmill synth` resynthesizes recordings with it"))
        }
        other => Failure::Failed(other.into()),
    })?;
    refuse_damaged(model)?;
    Ok(synth)
}

/// Returns an error for a model in an experiment whose files changed since it was exported.
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

/// Returns a file name based on the recording's that no other recording of this call has.
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

/// Prints the results for one recording.
fn describe(recording: &Path, made: &Synthesized, out: &mut dyn Write) -> Result<(), Failure> {
    let files: Vec<String> = made.files.iter().map(|file| file.display().to_string()).collect();
    let (first, others) = files.split_first().map_or(("nothing", &[][..]), |(first, others)| (first, others));
    let others = if others.is_empty() { String::new() } else { format!("; also {}", others.join(", ")) };
    writeln!(out, "{} → {first}  {}{others}", recording.display(), made.figures.join(", "))?;
    Ok(())
}
