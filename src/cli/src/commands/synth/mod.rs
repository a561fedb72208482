//! `flowmill synth --model DIR --wav REF…`, `--tokens FILE…`: sound of recordings or tokens through an exported model.

mod inputs;
mod sound;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flowmill_family::{Input, Made, Output, Request, Synthesis};
use flowmill_nn::device;
use flowmill_stage_export::{ExportError, Synth, SynthOptions, Synthesized, write_files, write_files_except};
use flowmill_train::Media;
use serde_json::{Map, Value, json};

use inputs::{Inputs, Work};
use sound::{PartFile, Sound};

use super::mel_file::MelFiles;
use super::vocoder;
use crate::args::{DeviceArgs, SynthArgs};
use crate::failure::Failure;
use crate::stages;

/// Does one input after the other. An error of one is printed, and the others are still processed.
pub fn run(arguments: &SynthArgs, out: &mut dyn Write) -> Result<(), Failure> {
    check(arguments)?;
    let to_output = arguments.out.as_os_str() == "-";
    let mels = arguments.mel.as_deref().map(MelFiles::new).transpose()?;
    if mels.as_ref().is_some_and(|mels| to_output && !mels.is_single()) {
        return Err(Failure::usage("--mel needs the name of a file with --out -"));
    }
    let vocoder = vocoder::options(arguments)?;
    let synth = open(&arguments.model, &given(arguments, vocoder), arguments.seed, arguments.device, None)?;
    let voice = arguments.speaker.as_deref().map(|speaker| inputs::voice(&synth, speaker)).transpose()?;
    let Inputs { work, problems, .. } = Inputs::of(arguments, voice.as_deref());
    if mels.as_ref().is_some_and(MelFiles::is_single) && work.len() > 1 {
        return Err(Failure::usage(
            "--mel names the file of one recording or of the tokens of one; `--mel npy` writes a file for each",
        ));
    }
    let mut failed = !problems.is_empty();
    problems.into_iter().for_each(|problem| Failure::Failed(problem).report());
    if !to_output {
        std::fs::create_dir_all(&arguments.out)
            .with_context(|| format!("cannot create the folder {}", arguments.out.display()))
            .map_err(Failure::Failed)?;
    }
    let job = Job { synth: &synth, folder: &arguments.out, mels: mels.as_ref() };
    for Work { label, request } in &work {
        let made = match (to_output, arguments.chunk) {
            // Not `out`, which drops bytes that look like the colors of a terminal.
            (true, _) => job.play(request, &mut std::io::stdout()),
            (false, Some(_)) => job.grow(request),
            (false, None) => job.make(request),
        };
        match made.map_err(|error| Failure::from_any(named(error, label, request))) {
            // The standard output has the sound.
            Ok(made) if to_output => describe(label, &made, &mut anstream::stderr())?,
            Ok(made) => describe(label, &made, out)?,
            Err(Failure::Closed) => return Err(Failure::Closed),
            Err(error) => {
                error.report();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}

/// Checks options that the parser does not check.
fn check(arguments: &SynthArgs) -> Result<(), Failure> {
    let SynthArgs { guidance, strength, chunk, window, .. } = arguments;
    if guidance.is_some_and(|rate| !(0.0..=100.0).contains(&rate)) {
        return Err(Failure::usage("--guidance must be between 0 and 100"));
    }
    if strength.is_some_and(|strength| !(strength > 0.0 && strength <= 100.0)) {
        return Err(Failure::usage("--strength must be above 0 and at most 100"));
    }
    if chunk.is_some_and(|seconds| !(0.1..=3600.0).contains(&seconds)) {
        return Err(Failure::usage("--chunk must be between 0.1 and 3600 seconds"));
    }
    if window.is_some_and(|seconds| !(1.0..=86_400.0).contains(&seconds)) {
        return Err(Failure::usage("--window must be between 1 and 86400 seconds"));
    }
    Ok(())
}

/// Adds the file and the id to an error, which names a recording itself.
fn named(error: anyhow::Error, label: &str, request: &Request) -> anyhow::Error {
    match request.inputs.first() {
        Some(Input::Row(_)) => error.context(label.to_owned()),
        _ => error,
    }
}

/// The model and the places of its outputs.
struct Job<'a> {
    synth: &'a Synth,
    folder: &'a Path,
    mels: Option<&'a MelFiles>,
}

impl Job<'_> {
    /// Does one request, and writes its files.
    fn make(&self, request: &Request) -> anyhow::Result<Synthesized> {
        let Synthesis { made, figures } = self.synth.make(request, &mut |_, _| {})?;
        let mut files = write_files(&made, &request.name, self.folder)?;
        files.extend(self.mel(&made, request)?);
        Ok(Synthesized { files, figures })
    }

    /// Does one request, and writes its sound to a file that grows.
    fn grow(&self, request: &Request) -> anyhow::Result<Synthesized> {
        let mut sound = Sound::File(PartFile::new(self.folder, &request.name));
        let played = self.synth.stream(request, &mut |samples, rate| sound.play(samples, rate));
        let Synthesis { made, figures } = played?;
        let mut files = Vec::new();
        if let Sound::File(file) = sound {
            files.push(file.finish()?);
        }
        files.extend(write_files_except(&made, &request.name, self.folder, Some(Media::Wav))?);
        files.extend(self.mel(&made, request)?);
        Ok(Synthesized { files, figures })
    }

    /// Does one request, and writes its sound to `out` as it is made.
    fn play(&self, request: &Request, out: &mut dyn Write) -> anyhow::Result<Synthesized> {
        let mut closed = false;
        let mut sound = Sound::Raw(out);
        let played = self.synth.stream(request, &mut |samples, rate| {
            sound.play(samples, rate).inspect_err(|error| {
                let error = error.downcast_ref::<std::io::Error>();
                closed = error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
            })
        });
        if closed {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
        }
        let Synthesis { made, figures } = played?;
        Ok(Synthesized { files: self.mel(&made, request)?.into_iter().collect(), figures })
    }

    /// Writes the mel of a result to a file of its own, if it is wanted.
    fn mel(&self, made: &Made, request: &Request) -> anyhow::Result<Option<PathBuf>> {
        let Some(mels) = self.mels else { return Ok(None) };
        let Output::Mel(output) = &made.output else {
            anyhow::bail!("--mel: the model makes no mel");
        };
        Ok(Some(mels.write(&output.mel, self.folder, &request.name)?))
    }
}

/// Returns the options of the model's family, each with its value if it was given.
fn given(arguments: &SynthArgs, vocoder: Option<Value>) -> [(&'static str, Option<Value>); 7] {
    [
        ("vocoder", vocoder),
        ("window", arguments.chunk.or(arguments.window).map(|seconds| json!(seconds))),
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

/// Prints the results for one input.
fn describe(label: &str, made: &Synthesized, out: &mut dyn Write) -> Result<(), Failure> {
    let files: Vec<String> = made.files.iter().map(|file| file.display().to_string()).collect();
    let (first, others) = files.split_first().map_or(("standard output", &[][..]), |(first, others)| (first, others));
    let others = if others.is_empty() { String::new() } else { format!("; also {}", others.join(", ")) };
    writeln!(out, "{label} → {first}  {}{others}", made.figures.join(", "))?;
    Ok(())
}
