//! One recording's rows: its bytes, and the mel of each.

use std::io::Cursor;
use std::path::Path;

use flowmill_audio::features::MelSpectrogram;
use flowmill_audio::{Audio, decode_bytes, resample, write_wav};
use flowmill_corpus::shard::{Mel, ShardRow};
use flowmill_corpus::source::{PipeLimits, Source};
use rayon::prelude::*;

use crate::sources::Joined;

/// A row ready to be written, or why it cannot be.
pub type Made = Result<ShardRow, String>;

/// Makes the rows of one recording, which is read and decoded once; `mel` is `None` when no mel is stored.
pub fn rows_of_recording(rows: &[&Joined], root: &Path, mel: Option<&MelSpectrogram>) -> Vec<Made> {
    let Some(first) = rows.first() else { return Vec::new() };
    let wav = &first.utterance.wav;
    let bytes = match Source::of(wav).read(root, &PipeLimits::default()) {
        Ok(bytes) => bytes,
        Err(e) => return all(rows, &unreadable(&e.to_string(), root)),
    };
    match decode_bytes(&bytes, wav) {
        Ok(audio) => rows.par_iter().map(|row| make(row, &bytes, &audio, mel)).collect(),
        Err(e) => all(rows, &unreadable(&e.to_string(), root)),
    }
}

/// The same refusal for every row.
fn all(rows: &[&Joined], reason: &str) -> Vec<Made> {
    rows.iter().map(|_| Err(reason.to_owned())).collect()
}

/// The reason of a recording that cannot be used, the same wherever the recipe lies.
fn unreadable(problem: &str, root: &Path) -> String {
    format!("unreadable recording: {}", problem.replace(&format!("{}/", root.display()), ""))
}

/// Makes one row.
fn make(row: &Joined, bytes: &[u8], audio: &Audio, mel: Option<&MelSpectrogram>) -> Made {
    let utterance = &row.utterance;
    let missing = |what: &str, stage: u8| format!("no {what}: stage {stage} set it aside");
    let speech_token = row.tokens.clone().ok_or_else(|| missing("tokens", 2))?;
    let utt_embedding = row.utt_embedding.clone().ok_or_else(|| missing("embedding", 1))?;
    let spk_embedding = row.spk_embedding.clone().ok_or_else(|| missing("embedding of its speaker", 1))?;
    let piece = piece(audio, utterance.start, utterance.end)?;
    let (audio_data, audio) = match &piece {
        Some(piece) => (wav_bytes(piece)?, piece),
        None => (bytes.to_vec(), audio),
    };
    Ok(ShardRow {
        utt: utterance.utt.clone(),
        wav: utterance.wav.clone(),
        audio_data,
        text: utterance.text.clone(),
        spk: utterance.spk.clone(),
        utt_embedding,
        spk_embedding,
        speech_token,
        lang: utterance.lang.clone(),
        duration: audio.seconds(),
        sample_rate: audio.sample_rate,
        mel: mel.map(|mel| compute(audio, mel)).transpose()?,
    })
}

/// The piece of a recording an utterance is; `None` when it is the whole.
fn piece(audio: &Audio, start: Option<f64>, end: Option<f64>) -> Result<Option<Audio>, String> {
    if start.is_none() && end.is_none() {
        return Ok(None);
    }
    let (start, end) = (start.unwrap_or(0.0), end.unwrap_or(audio.seconds()));
    audio.segment(start, end).map(Some).map_err(|e| format!("segment outside its recording: {e}"))
}

/// A piece as a WAV file.
fn wav_bytes(piece: &Audio) -> Result<Vec<u8>, String> {
    let mut file = Cursor::new(Vec::new());
    write_wav(&mut file, &piece.mono(), piece.sample_rate).map_err(|e| format!("piece cannot be kept: {e}"))?;
    Ok(file.into_inner())
}

/// The training mel.
fn compute(audio: &Audio, mel: &MelSpectrogram) -> Result<Mel, String> {
    let fail = |e: flowmill_audio::AudioError| format!("no mel: {e}");
    let samples = resample(&audio.mono(), audio.sample_rate, mel.config().sample_rate).map_err(fail)?;
    let features = mel.compute(&samples).map_err(fail)?;
    if features.frames == 0 {
        return Err("no mel: shorter than one frame".into());
    }
    Ok(Mel { data: features.data, frames: features.frames, bins: features.bins })
}
