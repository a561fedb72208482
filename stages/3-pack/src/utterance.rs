//! A row of a shard: the bytes of its recording or segment, and its mel.

use std::io::Cursor;
use std::path::Path;

use flowmill_audio::features::MelSpectrogram;
use flowmill_audio::{Audio, decode_bytes, resample, write_wav};
use flowmill_corpus::Utterance;
use flowmill_corpus::shard::{Mel, ShardRow};
use flowmill_corpus::source::{PipeLimits, Source};
use flowmill_runner::RejectionReason;
use flowmill_stage_prep::recordings::{PartRecordings, RecordingError};
use flowmill_stage_prep::rows::decoder;

use crate::sources::Joined;

/// A row ready to be written, or why it cannot be.
pub type Made = Result<ShardRow, RejectionReason>;

/// Makes one row; `mel` is `None` when no mel is stored.
pub fn make_row(row: &Joined, root: &Path, recordings: &PartRecordings, mel: Option<&MelSpectrogram>) -> Made {
    let utterance = &row.utterance;
    let missing = |what: &str, stage: u8| format!("no {what}: stage {stage} set it aside");
    let speech_token = row.tokens.clone().ok_or_else(|| missing("tokens", 2))?;
    let utt_embedding = row.utt_embedding.clone().ok_or_else(|| missing("embedding", 1))?;
    let spk_embedding = row.spk_embedding.clone().ok_or_else(|| missing("embedding of its speaker", 1))?;
    let is_whole = utterance.start.is_none() && utterance.end.is_none() && utterance.channel.is_none();
    let (audio_data, audio) = if is_whole {
        whole(utterance, root)?
    } else {
        let piece = recordings.row(utterance).audio().map_err(|error| match error {
            RecordingError::Unreadable { problem, of_machine } => unreadable(&problem, of_machine, root),
            problem @ RecordingError::Channel { .. } => format!("no such channel: {problem}").into(),
            RecordingError::Segment(problem) => format!("segment outside its recording: {problem}").into(),
        })?;
        (wav_bytes(&piece)?, piece)
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
        mel: mel.map(|mel| compute(&audio, mel)).transpose()?,
    })
}

/// A recording that is an utterance: its own bytes, and what is in them. What only the fallback decodes is kept as a WAV file, which
/// every reader of shards understands.
fn whole(utterance: &Utterance, root: &Path) -> Result<(Vec<u8>, Audio), RejectionReason> {
    let wav = &utterance.wav;
    let source = Source::of(wav);
    let bytes =
        source.read(root, &PipeLimits::default()).map_err(|e| unreadable(&e.to_string(), e.is_of_machine(), root))?;
    let is_command = matches!(source, Source::Pipe(_));
    let unreadable = |e: flowmill_audio::AudioError| unreadable(&e.to_string(), is_command || e.is_of_machine(), root);
    match decode_bytes(&bytes, wav) {
        Ok(audio) => Ok((bytes, audio)),
        Err(_) if utterance.decoder.is_some() => {
            let audio = decoder(utterance).decode(&bytes, wav).map_err(unreadable)?;
            Ok((wav_bytes(&audio)?, audio))
        }
        Err(e) => Err(unreadable(e)),
    }
}

/// The reason of a recording that cannot be used, the same wherever the recipe lies.
fn unreadable(problem: &str, of_machine: bool, root: &Path) -> RejectionReason {
    let problem = problem.replace(&format!("{}/", root.display()), "");
    RejectionReason::of(format!("unreadable recording: {problem}"), of_machine)
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
