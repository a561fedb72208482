//! A row of a shard: the bytes of its recording or segment, and its mel.

use std::fmt::Display;
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use flowmill_audio::features::{Features, MelConfig, MelSpectrogram};
use flowmill_audio::{Audio, decode_bytes, resample, write_wav};
use flowmill_corpus::shard::{MelStore, speech};
use flowmill_corpus::source::{PipeLimits, Source};
use flowmill_corpus::{Array, ColumnSpec, MediaRef, Role, Row, Utterance, column};
use flowmill_runner::RejectionReason;
use flowmill_stage_prep::columns::MEDIA_BYTES;
use flowmill_stage_prep::recordings::{PartRecordings, RecordingError};
use flowmill_stage_prep::rows::decoder;

use crate::lengths::Lengths;
use crate::sources::Joined;
use crate::statistics::Moments;

/// A row ready to be written.
pub struct PackedRow {
    /// The row.
    pub row: Row,
    /// The number of frames of its mel; if none is stored, the number that follows from its duration.
    pub frames: usize,
    /// Seconds of its recording.
    pub seconds: f64,
    /// The moments of its mel; `None` if no mel is stored.
    pub moments: Option<Moments>,
}

/// A row ready to be written, or the reason why it cannot be made.
pub type Made = Result<PackedRow, RejectionReason>;

/// The computation and storage of mels.
pub struct RowMel {
    /// The extractor that computes it.
    pub spectrogram: MelSpectrogram,
    /// The precision, or that it is not stored.
    pub store: MelStore,
}

/// The settings and extractors with which rows are made.
pub struct RowMaker<'a> {
    /// The columns of the shard except the id and the group.
    pub columns: &'a [ColumnSpec],
    /// The recipe's folder.
    pub root: &'a Path,
    /// The recordings of the part's rows.
    pub recordings: &'a PartRecordings,
    /// The mel; `None` if none is stored.
    pub mel: Option<RowMel>,
    /// Definition of the mel.
    pub mel_config: MelConfig,
    /// The ratio of mel frames to tokens; `None` if no tokens are packed.
    pub lengths: Option<Lengths>,
    /// The number of rows whose tokens were adjusted.
    pub completed: AtomicU64,
}

impl RowMaker<'_> {
    /// Makes one row.
    pub fn make(&self, joined: &Joined) -> Made {
        let utterance = &joined.utterance;
        if let Some(reason) = &joined.missing {
            return Err(reason.clone().into());
        }
        let mut columns = joined.columns.clone();
        let mut put = |name: &str, array: Array| {
            if self.has(name) {
                columns.insert(name.to_owned(), array);
            }
        };
        put(speech::WAV, Array::text(&utterance.wav));
        put(speech::TEXT, Array::text(&utterance.text));
        utterance.lang.iter().for_each(|lang| put(speech::LANG, Array::text(lang)));
        utterance.speed.iter().for_each(|speed| put(speech::SPEED, Array::scalar(*speed)));
        let (mut frames, mut seconds, mut moments) = (0, 0.0, None);
        let has_duration = self.has(speech::DURATION);
        if RECORDING.iter().any(|name| self.has(name)) || has_duration && !utterance.wav.is_empty() {
            let (audio_data, audio) = self.recording(utterance)?;
            seconds = audio.seconds();
            put(speech::AUDIO_DATA, Array::scalar(audio_data));
            put(speech::DURATION, Array::scalar(seconds));
            let rate = i32::try_from(audio.sample_rate)
                .map_err(|_| format!("{} Hz is not a valid sample rate", audio.sample_rate))?;
            put(speech::SAMPLE_RATE, Array::scalar(rate));
            frames = self.mel_config.frames((seconds * f64::from(self.mel_config.sample_rate)).ceil() as usize);
            if let Some(mel) = &self.mel {
                let features = compute(&audio, &mel.spectrogram)?;
                (frames, moments) = (features.frames, Some(Moments::of(&features)));
                put(speech::MEL, stored(features, mel.store)?);
            }
            if let (Some(lengths), Some(tokens)) = (self.lengths, columns.get_mut(speech::SPEECH_TOKEN)) {
                let samples = (seconds * f64::from(audio.sample_rate)).round() as u64;
                let mut ids = tokens.values::<i64>().map_err(|error| error.to_string())?.to_vec();
                if lengths.complete(&mut ids, samples, audio.sample_rate) {
                    self.completed.fetch_add(1, Ordering::Relaxed);
                }
                if let Some(reason) = lengths.refuses(ids.len(), frames) {
                    return Err(reason.into());
                }
                *tokens = Array::vector(ids);
            }
        } else if let Some(known) = utterance.duration.filter(|_| has_duration) {
            // Prepared codes have no recording; stage 0 found their duration.
            seconds = known;
            put(speech::DURATION, Array::scalar(seconds));
        }
        for (role, name) in MEDIA_BYTES.into_iter().filter(|(_, name)| self.has(name)) {
            let media = joined.media.get(&role).map(Vec::as_slice).unwrap_or_default();
            let read = |media: &MediaRef| {
                let bytes = media.source().read(self.root, &PipeLimits::default());
                bytes.map_err(|e| unreadable(role.name(), &e, e.is_of_machine(), self.root))
            };
            let bytes = media.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            let array = match role {
                Role::Images => Some(Array::vector(bytes)),
                Role::Audio | Role::Video | Role::Codes => bytes.into_iter().next().map(Array::scalar),
            };
            columns.extend(array.map(|array| (name.to_owned(), array)));
        }
        let row = Row { id: utterance.utt.clone(), group: utterance.spk.clone(), columns, ..Row::default() };
        column::check_row(self.columns, &row).map_err(|error| format!("bad column: {error}"))?;
        Ok(PackedRow { row, frames, seconds, moments })
    }

    /// Returns whether the shard has a column.
    fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
    }

    /// Returns the bytes of a row's recording, or of its piece of one at its speed, and the decoded audio.
    fn recording(&self, utterance: &Utterance) -> Result<(Vec<u8>, Audio), RejectionReason> {
        let is_whole = utterance.start.is_none() && utterance.end.is_none() && utterance.channel.is_none();
        if is_whole && utterance.speed.is_none() {
            return whole(utterance, self.root);
        }
        let piece = self.recordings.row(utterance).audio().map_err(|error| match error {
            RecordingError::Unreadable { problem, of_machine } => {
                unreadable("recording", problem, of_machine, self.root)
            }
            problem @ RecordingError::Channel { .. } => format!("no such channel: {problem}").into(),
            RecordingError::Segment(problem) => format!("segment outside its recording: {problem}").into(),
        })?;
        Ok((wav_bytes(&piece)?, piece))
    }
}

/// The columns for which a row must have a recording, which is decoded.
const RECORDING: [&str; 3] = [speech::AUDIO_DATA, speech::SAMPLE_RATE, speech::MEL];

/// Returns a mel in the form in which it is stored.
fn stored(features: Features, store: MelStore) -> Result<Array, String> {
    let array = Array::new(vec![features.frames, features.bins], features.data).map_err(|error| error.to_string())?;
    match store {
        MelStore::Float16 => array.to_half().ok_or_else(|| {
            "bad column: `mel` has a value beyond half precision; set pack.mel.store: float32".to_owned()
        }),
        MelStore::Float32 | MelStore::None => Ok(array),
    }
}

/// Returns a whole recording: its own bytes, and the decoded audio. A recording that only the fallback decodes is
/// stored as a WAV file, which every reader of shards understands.
fn whole(utterance: &Utterance, root: &Path) -> Result<(Vec<u8>, Audio), RejectionReason> {
    let wav = &utterance.wav;
    let source = Source::of(wav);
    let bytes = source.read(root, &PipeLimits::default());
    let bytes = bytes.map_err(|e| unreadable("recording", &e, e.is_of_machine(), root))?;
    let is_command = matches!(source, Source::Pipe(_));
    let unreadable = |e: flowmill_audio::AudioError| unreadable("recording", &e, is_command || e.is_of_machine(), root);
    match decode_bytes(&bytes, wav) {
        Ok(audio) => Ok((bytes, audio)),
        Err(_) if utterance.decoder.is_some() => {
            let audio = decoder(utterance).decode(&bytes, wav).map_err(unreadable)?;
            Ok((wav_bytes(&audio)?, audio))
        }
        Err(e) => Err(unreadable(e)),
    }
}

/// Returns the reason for rejecting a recording or other medium, in a form that is independent of the recipe's
/// location.
fn unreadable(what: &str, problem: impl Display, of_machine: bool, root: &Path) -> RejectionReason {
    let problem = problem.to_string().replace(&format!("{}/", root.display()), "");
    RejectionReason::of(format!("unreadable {what}: {problem}"), of_machine)
}

/// Encodes a piece as a WAV file.
fn wav_bytes(piece: &Audio) -> Result<Vec<u8>, String> {
    let mut file = Cursor::new(Vec::new());
    write_wav(&mut file, &piece.mono(), piece.sample_rate).map_err(|e| format!("piece cannot be written: {e}"))?;
    Ok(file.into_inner())
}

/// Computes the training mel.
fn compute(audio: &Audio, mel: &MelSpectrogram) -> Result<Features, String> {
    let fail = |e: flowmill_audio::AudioError| format!("no mel: {e}");
    let samples = resample(&audio.mono(), audio.sample_rate, mel.config().sample_rate).map_err(fail)?;
    let features = mel.compute(&samples).map_err(fail)?;
    if features.frames == 0 { Err("no mel: shorter than one frame".into()) } else { Ok(features) }
}
