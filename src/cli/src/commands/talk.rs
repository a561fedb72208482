//! `flowmill talk --model DIR --portrait FACE.png --audio VOICE.wav`: moves a portrait as if it spoke a recording.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow};
use flowmill_family::{Input, Made, Output, Request, Synthesis};
use flowmill_stage_export::write_whole;
use serde_json::{Value, json};

use super::synth::open;
use crate::args::TalkArgs;
use crate::failure::Failure;

/// Makes one video, and its frames as pictures if a folder for them is named.
pub fn run(arguments: &TalkArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let TalkArgs { portrait, audio, out: video, frames, .. } = arguments;
    let stem = video.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if video.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("mp4")) || stem.is_empty() {
        return Err(Failure::usage("--out must be the name of an .mp4 file"));
    }
    let synth = open(&arguments.model, &given(arguments), arguments.seed, arguments.device, None)?;
    let inputs = vec![Input::Image(portrait.clone()), Input::Audio(audio.clone())];
    let request = Request { inputs, name: stem.clone() };
    let Synthesis { made, figures } =
        synth.make(&request, &mut |_, _| {}).map_err(|error| Failure::Failed(error.into()))?;
    if let Some(folder) = video.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create(folder)?;
    }
    let files = made.files(&stem).map_err(|error| Failure::Failed(anyhow!(error)))?;
    let file = files.first().ok_or_else(|| Failure::Failed(anyhow!("the model made no video")))?;
    write_whole(video, &file.bytes).map_err(|error| Failure::Failed(error.into()))?;
    if let Some(folder) = frames {
        write_frames(&made, folder)?;
    }
    Ok(writeln!(out, "{} → {}  {}", audio.display(), video.display(), figures.join(", "))?)
}

fn create(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))
        .map_err(Failure::Failed)
}

fn write_frames(made: &Made, folder: &Path) -> Result<(), Failure> {
    let Output::Video { frames, .. } = &made.output else {
        return Err(Failure::Failed(anyhow!("the model made no video")));
    };
    create(folder)?;
    for (number, frame) in frames.iter().enumerate() {
        let bytes = frame.to_png().map_err(|error| Failure::Failed(error.into()))?;
        write_whole(&folder.join(format!("{number:05}.png")), &bytes).map_err(|error| Failure::Failed(error.into()))?;
    }
    Ok(())
}

/// Returns the options of the model's family, each with its value if it was given.
fn given(arguments: &TalkArgs) -> [(&'static str, Option<Value>); 5] {
    [
        ("nfe", arguments.nfe.map(|steps| json!(steps))),
        ("audio_guidance", arguments.audio_guidance.map(|strength| json!(strength))),
        ("emotion_guidance", arguments.emotion_guidance.map(|strength| json!(strength))),
        ("noise", arguments.noise.map(|factor| json!(factor))),
        ("emotion", arguments.emotion.as_ref().map(|emotion| json!(emotion))),
    ]
}
