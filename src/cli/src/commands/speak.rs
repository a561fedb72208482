//! `flowmill speak --model DIR --text TEXT --prompt REF`: speaks texts in the voice of a recording.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use flowmill_family::{Input, Request};
use flowmill_stage_export::{ExportError, Synth, Synthesized, file_name};
use serde_json::{Value, json};

use super::synth::{Spoken, open};
use crate::args::{SpeakArgs, SpeakTask};
use crate::failure::Failure;

/// Codes or steps between two lines of progress.
const BETWEEN_LINES: usize = 25;

/// A text to speak, with the file that is written.
struct Line {
    text: String,
    prompt: Option<PathBuf>,
    folder: PathBuf,
    name: String,
}

/// Speaks one text after the other, or transcribes a recording. An error of one text is printed, and the others are still
/// spoken.
pub fn run(arguments: &SpeakArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let work = work(arguments)?;
    let SpeakArgs { model, lora, seed, device, .. } = arguments;
    let spoken = Spoken { adapter: lora.as_deref() };
    let synth = open(model, &given(arguments), *seed, *device, Some(spoken))?;
    let lines = match work {
        Work::Transcribe(recording) => {
            let phonemes = synth.transcribe(&recording).map_err(|error| Failure::Failed(error.into()))?;
            return Ok(writeln!(out, "{phonemes}")?);
        }
        Work::Speak(lines) => lines,
    };
    let mut failed = false;
    for line in &lines {
        std::fs::create_dir_all(&line.folder)
            .with_context(|| format!("cannot create the folder {}", line.folder.display()))
            .map_err(Failure::Failed)?;
        match speak(&synth, line) {
            Ok(made) => describe(line, &made, out)?,
            Err(error) => {
                Failure::Failed(anyhow!(error).context(format!("`{}`", line.text.escape_debug()))).report();
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}

/// The work of one command: texts to speak, or a recording to transcribe.
enum Work {
    Speak(Vec<Line>),
    Transcribe(PathBuf),
}

fn work(arguments: &SpeakArgs) -> Result<Work, Failure> {
    let SpeakArgs { text, lines, prompt, out, task, .. } = arguments;
    match (task, text, lines) {
        (SpeakTask::Stt, None, None) => match prompt {
            Some(recording) => Ok(Work::Transcribe(recording.clone())),
            None => Err(Failure::usage("--task stt needs --prompt RECORDING")),
        },
        (SpeakTask::Stt, ..) => {
            Err(Failure::usage("--task stt takes no text: it transcribes the recording of --prompt"))
        }
        (SpeakTask::Tts, Some(text), _) => {
            if text.trim().is_empty() {
                return Err(Failure::usage("--text is empty"));
            }
            let name = out.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            if out.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("wav")) || name.is_empty() {
                return Err(Failure::usage("--out must be the name of a .wav file"));
            }
            let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(Work::Speak(vec![Line { text: text.clone(), prompt: prompt.clone(), folder: folder.to_owned(), name }]))
        }
        (SpeakTask::Tts, None, Some(file)) => {
            let content = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
            let content = content.map_err(Failure::Usage)?;
            let lines = (1..).zip(content.lines()).filter(|(_, line)| !line.trim().is_empty());
            let lines: Vec<Line> =
                lines.map(|(number, line)| parsed(line, number, arguments)).collect::<Result<_, _>>()?;
            if lines.is_empty() {
                return Err(Failure::usage("the file of --lines has no text"));
            }
            Ok(Work::Speak(lines))
        }
        (SpeakTask::Tts, None, None) => Err(Failure::usage("give a text: --text TEXT, or --lines FILE")),
    }
}

/// Reads a line of a file of texts.
fn parsed(line: &str, number: usize, arguments: &SpeakArgs) -> Result<Line, Failure> {
    let wrong =
        |problem: &str| Failure::usage(format!("--lines, line {number}: {problem}: NAME<TAB>TEXT[<TAB>RECORDING]"));
    let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
    let (name, text, prompt) = match fields.as_slice() {
        [name, text] => (name, text, arguments.prompt.clone()),
        [name, text, prompt] => (name, text, Some(PathBuf::from(prompt))),
        _ => return Err(wrong("expected two or three fields")),
    };
    let name = file_name(name);
    if name.is_empty() || text.is_empty() {
        return Err(wrong("a name or a text is empty"));
    }
    Ok(Line { text: (*text).to_owned(), prompt, folder: arguments.out.clone(), name })
}

/// Speaks a line; progress is shown on a terminal.
fn speak(synth: &Synth, line: &Line) -> Result<Synthesized, ExportError> {
    let prompt = line.prompt.iter().map(|prompt| Input::Audio(prompt.clone()));
    let inputs = std::iter::once(Input::Text(line.text.clone())).chain(prompt).collect();
    let request = Request { inputs, name: line.name.clone() };
    let mut terminal = std::io::stderr();
    let shows = terminal.is_terminal();
    let mut shown = false;
    let made = synth.run_observed(&request, &line.folder, &mut |done, limit| {
        if shows && done.is_multiple_of(BETWEEN_LINES) {
            // Progress that cannot be shown is no failure.
            let _ = write!(terminal, "\r{}: {done} of at most {limit} steps ", line.name);
            shown = true;
        }
    });
    if shown {
        let _ = write!(terminal, "\r\x1b[K");
    }
    made
}

/// Returns the options of the model's family, each with its value if it was given.
fn given(arguments: &SpeakArgs) -> [(&'static str, Option<Value>); 11] {
    [
        ("path", arguments.path.map(|path| json!(path.name()))),
        ("steps", arguments.steps.map(|steps| json!(steps))),
        ("temperature", arguments.temperature.map(|temperature| json!(temperature))),
        ("top_k", arguments.top_k.map(|count| json!(count))),
        ("top_p", arguments.top_p.map(|share| json!(share))),
        ("min_p", arguments.min_p.map(|share| json!(share))),
        ("repetition_penalty", arguments.repetition_penalty.map(|penalty| json!(penalty))),
        ("repetition_decay", arguments.repetition_decay.map(|decay| json!(decay))),
        ("max_seconds", arguments.max_seconds.map(|seconds| json!(seconds))),
        ("guidance", arguments.guidance.map(|strength| json!(strength))),
        ("language", arguments.language.as_ref().map(|language| json!(language))),
    ]
}

/// Prints the result for one text.
fn describe(line: &Line, made: &Synthesized, out: &mut dyn Write) -> Result<(), Failure> {
    let files: Vec<String> = made.files.iter().map(|file| file.display().to_string()).collect();
    Ok(writeln!(out, "`{}` → {}  {}", line.text.escape_debug(), files.join(", "), made.figures.join(", "))?)
}
