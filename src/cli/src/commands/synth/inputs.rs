//! The inputs of `flowmill synth`: recordings, files of tokens, and the voice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use flowmill_corpus::CorpusError;
use flowmill_corpus::extracted::{ExtractedRow, is_embedding_file, read_embedding, read_tokens};
use flowmill_family::{Input, Request};
use flowmill_stage_export::{Synth, file_name};

use crate::args::SynthArgs;
use crate::failure::Failure;

/// A request with the words for its input in messages.
pub struct Work {
    pub label: String,
    pub request: Request,
}

/// The requests of a command line, and the problems of inputs that cannot be used.
#[derive(Default)]
pub struct Inputs {
    pub work: Vec<Work>,
    pub problems: Vec<anyhow::Error>,
    names: BTreeSet<String>,
}

impl Inputs {
    /// Reads the inputs. One that cannot be used is a problem, and does not keep the others from being used.
    pub fn of(arguments: &SynthArgs, voice: Option<&[f32]>) -> Self {
        let mut inputs = Self::default();
        for recording in &arguments.wav {
            let stem = recording.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            inputs.add(recording.display().to_string(), &stem, Input::Audio(recording.clone()), voice);
        }
        let mut missing: BTreeSet<&str> = arguments.utt.iter().map(String::as_str).collect();
        for file in &arguments.tokens {
            match read_tokens(file) {
                Ok(rows) => inputs.add_rows(file, rows, &arguments.utt, &mut missing, voice),
                Err(error) => inputs.problems.push(error.into()),
            }
        }
        if !missing.is_empty() {
            let files: Vec<String> = arguments.tokens.iter().map(|file| file.display().to_string()).collect();
            let ids: Vec<String> = missing.iter().map(|id| format!("`{id}`")).collect();
            inputs.problems.push(anyhow!("--utt {}: no such id in {}", ids.join(", "), files.join(", ")));
        }
        inputs
    }

    /// Adds the rows of a file; with `wanted`, those with these ids.
    fn add_rows(
        &mut self,
        file: &Path,
        rows: Vec<ExtractedRow>,
        wanted: &[String],
        missing: &mut BTreeSet<&str>,
        voice: Option<&[f32]>,
    ) {
        for ExtractedRow { id, row } in rows {
            if !wanted.is_empty() && !wanted.contains(&id) {
                continue;
            }
            missing.remove(id.as_str());
            let label = format!("{}: `{id}`", file.display());
            match row {
                Ok(row) => self.add(label, &id, Input::Row(Box::new(row)), voice),
                Err(problem) => self.problems.push(anyhow!("{label}: {problem}")),
            }
        }
    }

    fn add(&mut self, label: String, name: &str, input: Input, voice: Option<&[f32]>) {
        let voice = voice.map(|voice| Input::Voice(voice.to_vec()));
        let inputs = std::iter::once(input).chain(voice).collect();
        let request = Request { inputs, name: self.free_name(name) };
        self.work.push(Work { label, request });
    }

    /// Returns a file name based on an input's that no other input of this call has.
    fn free_name(&mut self, name: &str) -> String {
        let stem = match file_name(name) {
            safe if safe.is_empty() => "recording".to_string(),
            safe => safe,
        };
        let mut name = stem.clone();
        let mut number = 2;
        while !self.names.insert(name.clone()) {
            name = format!("{stem}-{number}");
            number += 1;
        }
        name
    }
}

/// Reads the voice of `FILE[:ID]`: a recording, or an embedding of a file.
///
/// # Errors
/// Returns an error that names the file if it cannot be read, has no such id, or its embedding is not one for this model.
pub fn voice(synth: &Synth, option: &str) -> Result<Vec<f32>, Failure> {
    let (file, id) = split(option);
    let read = || -> anyhow::Result<Vec<f32>> {
        if !is_embedding_file(&file) {
            if let Some(id) = id {
                anyhow::bail!("{} is a recording, which has no `{id}`", file.display());
            }
            return Ok(synth.voice(&file)?);
        }
        let voice = read_embedding(&file, id)?;
        let named = id.map(|id| format!(": `{id}`")).unwrap_or_default();
        synth.check_voice(&voice).with_context(|| format!("{}{named}", file.display()))?;
        Ok(voice)
    };
    let with_option = |error: anyhow::Error| match error.downcast_ref::<CorpusError>() {
        Some(_) => error.context("--speaker"),
        None => error.context(format!("--speaker {option}")),
    };
    read().map_err(|error| Failure::Failed(with_option(error)))
}

/// Splits `FILE[:ID]`. A path that exists is a file, whatever colons it has.
fn split(option: &str) -> (PathBuf, Option<&str>) {
    if Path::new(option).exists() {
        return (PathBuf::from(option), None);
    }
    let colons: Vec<usize> = option.match_indices(':').map(|(at, _)| at).collect();
    let there = colons.iter().find(|at| Path::new(&option[..**at]).is_file());
    match there.or(colons.last()) {
        Some(&at) if at > 0 => (PathBuf::from(&option[..at]), Some(&option[at + 1..])),
        _ => (PathBuf::from(option), None),
    }
}
