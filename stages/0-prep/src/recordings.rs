//! Recordings for the stages that open them again: each is read and decoded once per phase, however many rows are cut from it, and once per
//! run as far as [`RunRecordings`] keep it for the next phase.
//!
//! A recording that several rows of a phase share stays decoded (mono, f32) until the last of them is done, whatever
//! parts these rows are in and however they are interleaved with rows of other recordings. Memory is bounded:
//! [`KEPT_BYTES`] of samples stay in memory, and further recordings go to unlinked temporary files, from which rows
//! read only their own samples. Only [`DECODING_BYTES`] are decoded at the same time. If neither memory nor the disk
//! has space, a recording is decoded again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use flowmill_audio::{Audio, Decoder, at_speed, segment_frames};
use flowmill_corpus::Utterance;
use flowmill_corpus::source::{FileStamp, PipeLimits, Source};
use flowmill_corpus::table::RecordingRow;
use flowmill_runner::PlanContext;

use crate::fallback::decoder;

/// The size of shared recordings that stay in memory, in bytes (an hour at 16 kHz is 230 MB).
const KEPT_BYTES: u64 = 1 << 30;
/// The size of recordings that are decoded at the same time, in bytes. A larger recording is decoded alone.
const DECODING_BYTES: u64 = 2 << 30;
/// The divisor that gives the largest temporary file from the free space of its disk.
const SHARE_OF_DISK: u64 = 4;

/// Samples that stay in memory from one phase of a run to the next, in bytes.
const RUN_BYTES: u64 = 256 << 20;

/// Decoded recordings that the phases of a run hand on: what the rows of one phase are done with waits here for the next, as far as there is
/// room. Which recordings these are depends on the order of the work, what a row gets does not: a recording that changed is decoded again.
#[derive(Default)]
pub struct RunRecordings {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: u64,
    recordings: HashMap<Form, (FileStamp, Audio)>,
}

/// A recording as it was decoded: its `wav`, the name of its decoder, and what of it; `None`: all channels.
type Form = (String, Option<String>, Option<Key>);

impl RunRecordings {
    /// Takes a recording that an earlier phase left, if its file still is what it was.
    fn take(&self, form: &Form, stamp: Option<FileStamp>) -> Option<Audio> {
        let mut waiting = lock(&self.waiting);
        let (had, audio) = waiting.recordings.remove(form)?;
        waiting.bytes -= bytes_of(&audio);
        (stamp == Some(had)).then_some(audio)
    }

    /// Leaves a recording whose file had this stamp before it was decoded, if there is room.
    fn leave(&self, form: Form, stamp: Option<FileStamp>, bytes: u64, audio: impl FnOnce() -> Audio) {
        let Some(stamp) = stamp else { return };
        let mut waiting = lock(&self.waiting);
        if waiting.bytes + bytes <= RUN_BYTES && !waiting.recordings.contains_key(&form) {
            waiting.bytes += bytes;
            waiting.recordings.insert(form, (stamp, audio()));
        }
    }

    /// Frees all: no later phase asks for them.
    pub fn clear(&self) {
        *lock(&self.waiting) = Waiting::default();
    }
}

/// The bytes of samples.
fn bytes_of(audio: &Audio) -> u64 {
    (audio.frames() * audio.samples.len() * size_of::<f32>()) as u64
}

/// The recordings that several rows of a phase share.
struct Recordings {
    /// The recipe's folder.
    root: PathBuf,
    /// The folder of temporary files.
    scratch: PathBuf,
    /// The recordings by the location in their rows.
    shared: HashMap<Key, Arc<Recording>>,
    memory: Arc<Memory>,
    run: Arc<RunRecordings>,
}

/// A recording and the number of rows that still have to be cut from it.
struct Recording {
    /// The number of samples over all channels, up to the end of the last row.
    samples: u64,
    rows_left: AtomicUsize,
    decoded: Mutex<Decoded>,
}

/// A recording, and the channel that rows use; `None` for the mean of all.
type Key = (String, Option<u32>);

/// The samples of a shared recording: one channel, or the mean of all.
enum Decoded {
    /// Not decoded yet, not kept, or no longer needed.
    Absent,
    InMemory {
        audio: Audio,
        form: Form,
        stamp: Option<FileStamp>,
        _reserved: Reserved,
    },
    InFile {
        samples: File,
        frames: usize,
        sample_rate: u32,
    },
    /// The error that every row of it gets.
    Failed(RecordingError),
}

/// The reason why a row has no samples.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// The recording cannot be read or decoded.
    #[error("{problem}")]
    Unreadable {
        /// The problem.
        problem: String,
        /// True if the cause is this machine at this time, and not the recording.
        of_machine: bool,
    },
    /// The row's segment is outside the recording.
    #[error("{0}")]
    Segment(String),
    /// The recording does not have the row's channel.
    #[error("the recording has {channels} channels, but no channel {channel} (counted from 0)")]
    Channel {
        /// The channel, counted from 0.
        channel: u32,
        /// The number of channels.
        channels: usize,
    },
}

impl RecordingError {
    /// Returns whether the cause is this machine at this time, and not the recording.
    pub fn is_of_machine(&self) -> bool {
        matches!(self, Self::Unreadable { of_machine: true, .. })
    }
}

/// The handles of all parts of a phase, in their order; `parts` has the rows of each.
pub fn recordings_of_parts(context: &PlanContext, parts: &[&[RecordingRow]]) -> Vec<PartRecordings> {
    within_memory(context.recipe_dir(), &context.scratch_dir(), parts, Memory::default(), context.of_run())
}

/// [`recordings_of_parts`] within other limits.
fn within_memory(
    root: &Path,
    scratch: &Path,
    parts: &[&[RecordingRow]],
    memory: Memory,
    run: Arc<RunRecordings>,
) -> Vec<PartRecordings> {
    let mut uses: HashMap<Key, (usize, u64)> = HashMap::new();
    for row in parts.iter().copied().flatten() {
        let (rows, samples) = uses.entry((row.wav.clone(), row.channel)).or_default();
        (*rows, *samples) = (*rows + 1, row.samples.max(*samples));
    }
    let shared = uses.into_iter().filter(|(_, (rows, _))| *rows > 1).map(|(key, (rows, samples))| {
        let (rows_left, decoded) = (AtomicUsize::new(rows), Mutex::new(Decoded::Absent));
        (key, Arc::new(Recording { samples, rows_left, decoded }))
    });
    let recordings = Arc::new(Recordings {
        root: root.to_owned(),
        scratch: scratch.to_owned(),
        shared: shared.collect(),
        memory: Arc::new(memory),
        run,
    });
    let part = |rows: &&[RecordingRow]| {
        let mut unclaimed: HashMap<Key, AtomicUsize> = HashMap::new();
        for key in rows.iter().map(|row| (row.wav.clone(), row.channel)) {
            if recordings.shared.contains_key(&key) {
                *unclaimed.entry(key).or_default().get_mut() += 1;
            }
        }
        PartRecordings { recordings: Arc::clone(&recordings), unclaimed }
    };
    parts.iter().map(part).collect()
}

/// A part's handle on the recordings of its phase. When it is dropped, it releases the rows it has not requested,
/// such as those of a part that is up to date and rejected rows.
pub struct PartRecordings {
    recordings: Arc<Recordings>,
    /// Rows of shared recordings that were not requested yet.
    unclaimed: HashMap<Key, AtomicUsize>,
}

impl PartRecordings {
    /// Returns the recording of a row, which is decoded when it is first needed. It is kept for other rows until this
    /// value is dropped.
    pub fn row(&self, utterance: &Utterance) -> RowRecording {
        let key = (utterance.wav.clone(), utterance.channel);
        let claim = self
            .unclaimed
            .get(&key)
            .filter(|left| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok());
        RowRecording {
            shared: claim.and_then(|_| self.recordings.shared.get(&key).cloned()),
            recordings: Arc::clone(&self.recordings),
            samples: RecordingRow::samples_of(utterance),
            decoder: decoder(utterance),
            decoder_name: utterance.decoder.clone(),
            key,
            span: (utterance.start, utterance.end),
            speed: utterance.speed,
        }
    }
}

impl Drop for PartRecordings {
    fn drop(&mut self) {
        for (key, left) in &mut self.unclaimed {
            if let Some(recording) = self.recordings.shared.get(key) {
                recording.release(std::mem::take(left.get_mut()), &self.recordings.run);
            }
        }
    }
}

/// The recording of one row, or the segment of it that the row names.
pub struct RowRecording {
    recordings: Arc<Recordings>,
    shared: Option<Arc<Recording>>,
    samples: u64,
    decoder: Decoder,
    decoder_name: Option<String>,
    key: Key,
    span: (Option<f64>, Option<f64>),
    speed: Option<f64>,
}

impl RowRecording {
    /// Returns the row's samples, at its speed: of the channel that it names, or else all channels or their mean.
    ///
    /// # Errors
    /// Returns an error if the recording cannot be read or decoded, does not have the channel, or does not contain
    /// the segment.
    pub fn audio(&self) -> Result<Audio, RecordingError> {
        let audio = self.as_recorded()?;
        match self.speed {
            None => Ok(audio),
            Some(speed) => at_speed(&audio, speed)
                .map_err(|error| RecordingError::Unreadable { problem: error.to_string(), of_machine: false }),
        }
    }

    /// Returns the row's samples as they are in the recording.
    fn as_recorded(&self) -> Result<Audio, RecordingError> {
        let Some(shared) = &self.shared else {
            let (form, stamp) = (self.form(None), self.stamp());
            let audio = self.take_or(&form, stamp, || self.decode(self.samples))?;
            self.recordings.run.leave(form, stamp, bytes_of(&audio), || audio.clone());
            let audio = match self.key.1 {
                None => audio,
                channel => one_channel(audio, channel)?,
            };
            return if self.span == (None, None) { Ok(audio) } else { cut(&audio, self.span) };
        };
        // Decoding under the lock does no parallel work, so this thread takes no row that would wait for itself.
        let mut decoded = lock(&shared.decoded);
        let piece = match &*decoded {
            Decoded::InMemory { audio, .. } => return cut(audio, self.span),
            Decoded::Failed(reason) => return Err(reason.clone()),
            Decoded::InFile { samples, frames, sample_rate } => read_piece(samples, *frames, *sample_rate, self.span),
            Decoded::Absent => None,
        };
        if let Some(piece) = piece {
            return piece;
        }
        *decoded = Decoded::Absent;
        let (form, stamp) = (self.form(Some(self.key.clone())), self.stamp());
        let decode = || self.decode(shared.samples).and_then(|audio| one_channel(audio, self.key.1));
        match self.take_or(&form, stamp, decode) {
            Ok(audio) => {
                let piece = cut(&audio, self.span);
                *decoded = self.recordings.keep(audio, form, stamp);
                piece
            }
            Err(reason) => {
                *decoded = Decoded::Failed(reason.clone());
                Err(reason)
            }
        }
    }

    /// The name of what is decoded among the recordings of the run.
    fn form(&self, of: Option<Key>) -> Form {
        (self.key.0.clone(), self.decoder_name.clone(), of)
    }

    /// Returns the stamp of the file that holds the recording; none of a command's output, which is made anew each time.
    fn stamp(&self) -> Option<FileStamp> {
        let file = Source::of(&self.key.0).file(&self.recordings.root)?;
        Some(FileStamp::of(&std::fs::metadata(file).ok()?))
    }

    /// The recording that an earlier phase left, or else the decoded one.
    fn take_or(
        &self,
        form: &Form,
        stamp: Option<FileStamp>,
        decode: impl FnOnce() -> Result<Audio, RecordingError>,
    ) -> Result<Audio, RecordingError> {
        self.recordings.run.take(form, stamp).map_or_else(decode, Ok)
    }

    /// Reads and decodes the whole recording, of about this number of samples.
    fn decode(&self, samples: u64) -> Result<Audio, RecordingError> {
        let Recordings { root, memory, .. } = &*self.recordings;
        let _room = memory.wait_for_room(samples.saturating_mul(size_of::<f32>() as u64));
        let source = Source::of(&self.key.0);
        // The output of a command is not declared as an input, so a later success would go unnoticed.
        let is_command = matches!(source, Source::Pipe(_));
        let bytes = source.read(root, &PipeLimits::default()).map_err(|error| RecordingError::Unreadable {
            problem: error.to_string(),
            of_machine: error.is_of_machine(),
        })?;
        self.decoder.decode(&bytes, &self.key.0).map_err(|error| RecordingError::Unreadable {
            problem: error.to_string(),
            of_machine: is_command || error.is_of_machine(),
        })
    }
}

impl Drop for RowRecording {
    fn drop(&mut self) {
        self.shared.iter().for_each(|shared| shared.release(1, &self.recordings.run));
    }
}

impl Recording {
    /// Records that this number of rows no longer need it.
    fn release(&self, rows: usize, run: &RunRecordings) {
        if rows > 0 && self.rows_left.fetch_sub(rows, Ordering::AcqRel) == rows {
            let decoded = std::mem::replace(&mut *lock(&self.decoded), Decoded::Absent);
            if let Decoded::InMemory { audio, form, stamp, .. } = decoded {
                run.leave(form, stamp, bytes_of(&audio), || audio);
            }
        }
    }
}

impl Recordings {
    /// Keeps a decoded recording where there is room for it.
    fn keep(&self, audio: Audio, form: Form, stamp: Option<FileStamp>) -> Decoded {
        let bytes = (audio.frames() * size_of::<f32>()) as u64;
        if let Some(reserved) = self.memory.reserve(bytes, self.memory.kept_bytes) {
            return Decoded::InMemory { audio, form, stamp, _reserved: reserved };
        }
        if let Some(samples) = self.write(&audio, bytes) {
            return Decoded::InFile { samples, frames: audio.frames(), sample_rate: audio.sample_rate };
        }
        // One recording stays in memory whatever its size.
        match self.memory.reserve(bytes, bytes) {
            Some(reserved) => Decoded::InMemory { audio, form, stamp, _reserved: reserved },
            None => Decoded::Absent,
        }
    }

    /// Writes the samples to an unlinked file, if the disk has enough space.
    fn write(&self, audio: &Audio, bytes: u64) -> Option<File> {
        std::fs::create_dir_all(&self.scratch).ok()?;
        let disk = rustix::fs::statvfs(&self.scratch).ok()?;
        if bytes > disk.f_bavail.saturating_mul(disk.f_frsize) / SHARE_OF_DISK {
            return None;
        }
        let file = tempfile::tempfile_in(&self.scratch).ok()?;
        let mut writer = BufWriter::with_capacity(1 << 20, &file);
        for sample in audio.samples.first()? {
            writer.write_all(&sample.to_le_bytes()).ok()?;
        }
        writer.flush().ok()?;
        drop(writer);
        Some(file)
    }
}

/// Reduces a recording to a channel, or to the mean of all.
fn one_channel(mut audio: Audio, channel: Option<u32>) -> Result<Audio, RecordingError> {
    let (sample_rate, warnings, channels) = (audio.sample_rate, audio.warnings.clone(), audio.samples.len());
    let samples = match channel {
        None => audio.into_mono(),
        Some(channel) if (channel as usize) < channels => audio.samples.swap_remove(channel as usize),
        Some(channel) => return Err(RecordingError::Channel { channel, channels }),
    };
    Ok(Audio { samples: vec![samples], sample_rate, warnings })
}

/// Returns the part of a recording that a row names.
fn cut(audio: &Audio, span: (Option<f64>, Option<f64>)) -> Result<Audio, RecordingError> {
    match span {
        (None, None) => Ok(audio.clone()),
        (start, end) => {
            let (start, end) = (start.unwrap_or(0.0), end.unwrap_or_else(|| audio.seconds()));
            audio.segment(start, end).map_err(|error| RecordingError::Segment(error.to_string()))
        }
    }
}

/// Returns the part of samples in a file like [`cut`]; `None` if they cannot be read.
fn read_piece(
    samples: &File,
    frames: usize,
    sample_rate: u32,
    span: (Option<f64>, Option<f64>),
) -> Option<Result<Audio, RecordingError>> {
    let range = match span {
        (None, None) => Ok(0..frames),
        (start, end) => {
            let end = end.unwrap_or(frames as f64 / f64::from(sample_rate));
            segment_frames(frames, sample_rate, start.unwrap_or(0.0), end)
        }
    };
    let range = match range {
        Ok(range) => range,
        Err(error) => return Some(Err(RecordingError::Segment(error.to_string()))),
    };
    let mut bytes = vec![0; range.len() * size_of::<f32>()];
    samples.read_exact_at(&mut bytes, (range.start * size_of::<f32>()) as u64).ok()?;
    let piece = bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    Some(Ok(Audio { samples: vec![piece], sample_rate, warnings: Vec::new() }))
}

/// The limits and the present use of memory for recordings.
struct Memory {
    kept_bytes: u64,
    decoding_bytes: u64,
    taken: Mutex<Taken>,
    given_back: Condvar,
}

#[derive(Default)]
struct Taken {
    decoding: u64,
    kept: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            kept_bytes: KEPT_BYTES,
            decoding_bytes: DECODING_BYTES,
            taken: Mutex::default(),
            given_back: Condvar::new(),
        }
    }
}

impl Memory {
    /// Waits until this number of bytes may be decoded.
    fn wait_for_room(&self, bytes: u64) -> DecodingRoom<'_> {
        let is_full =
            |taken: &mut Taken| taken.decoding > 0 && taken.decoding.saturating_add(bytes) > self.decoding_bytes;
        let taken = self.given_back.wait_while(lock(&self.taken), is_full);
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.decoding = taken.decoding.saturating_add(bytes);
        DecodingRoom { memory: self, bytes }
    }

    /// Reserves memory for kept recordings, if they then take no more than `limit`.
    fn reserve(self: &Arc<Self>, bytes: u64, limit: u64) -> Option<Reserved> {
        let mut taken = lock(&self.taken);
        let kept = taken.kept.checked_add(bytes).filter(|kept| *kept <= limit)?;
        taken.kept = kept;
        Some(Reserved { memory: Arc::clone(self), bytes })
    }
}

/// Memory for decoding, which is released when dropped.
struct DecodingRoom<'m> {
    memory: &'m Memory,
    bytes: u64,
}

impl Drop for DecodingRoom<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.memory.taken);
        taken.decoding = taken.decoding.saturating_sub(self.bytes);
        self.memory.given_back.notify_all();
    }
}

/// Memory of a kept recording, which is released when dropped.
struct Reserved {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut taken = lock(&self.memory.taken);
        taken.kept = taken.kept.saturating_sub(self.bytes);
    }
}

/// Locks a mutex even after another holder panicked: the data in these locks are consistent at every instant.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two recordings of a second whose samples count up; `wav` is a command that logs each of its runs.
    struct Corpus {
        folder: tempfile::TempDir,
        rows: Vec<Vec<Utterance>>,
    }

    impl Corpus {
        /// Creates a corpus in which segments of both recordings alternate, over two parts.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["a", "b"] {
                let samples: Vec<f32> =
                    (0..8000).map(|i| i as f32 / 8000.0 * if name == "a" { 1.0 } else { -1.0 }).collect();
                let file = File::create(folder.path().join(format!("{name}.wav"))).unwrap();
                flowmill_audio::write_wav(&mut BufWriter::new(file), &samples, 8000).unwrap();
            }
            let row = |index: usize| {
                let name = ["a", "b"][index % 2];
                let start = (index / 2) as f64 * 0.1;
                Utterance {
                    utt: format!("u{index}"),
                    wav: format!("echo run >> {name}.runs; cat {name}.wav |"),
                    start: Some(start),
                    end: Some(start + 0.1),
                    duration: Some(0.1),
                    sample_rate: Some(8000),
                    channels: Some(1),
                    ..Utterance::default()
                }
            };
            Self { folder, rows: vec![(0..9).map(row).collect(), (9..20).map(row).collect()] }
        }

        fn runs(&self, name: &str) -> usize {
            std::fs::read_to_string(self.folder.path().join(format!("{name}.runs")))
                .map_or(0, |runs| runs.lines().count())
        }

        /// Returns all pieces of all parts in order.
        fn pieces(&self, scratch: &Path, memory: Memory) -> (Vec<Vec<f32>>, Vec<PartRecordings>) {
            let parts: Vec<Vec<RecordingRow>> =
                self.rows.iter().map(|rows| rows.iter().map(RecordingRow::of).collect()).collect();
            let parts: Vec<&[RecordingRow]> = parts.iter().map(Vec::as_slice).collect();
            let parts = within_memory(self.folder.path(), scratch, &parts, memory, Arc::default());
            let piece = |(row, part): (&Utterance, &PartRecordings)| part.row(row).audio().unwrap().into_mono();
            let rows = self.rows.iter().zip(&parts).flat_map(|(rows, part)| rows.iter().map(move |row| (row, part)));
            (rows.map(piece).collect(), parts)
        }
    }

    fn expected(corpus: &Corpus) -> Vec<Vec<f32>> {
        let audio = ["a", "b"]
            .map(|name| flowmill_audio::decode_file(corpus.folder.path().join(format!("{name}.wav"))).unwrap());
        let cut = |index: usize| audio[index % 2].segment((index / 2) as f64 * 0.1, (index / 2) as f64 * 0.1 + 0.1);
        (0..20).map(|index| cut(index).unwrap().into_mono()).collect()
    }

    #[test]
    fn recordings_whose_rows_take_turns_over_two_parts_are_read_once_and_freed() {
        let corpus = Corpus::new();
        let (pieces, parts) = corpus.pieces(corpus.folder.path(), Memory::default());
        assert_eq!(pieces, expected(&corpus));
        assert_eq!((corpus.runs("a"), corpus.runs("b")), (1, 1));
        assert_eq!(lock(&parts[0].recordings.memory.taken).kept, 0);
    }

    #[test]
    fn what_memory_has_no_room_for_is_read_from_a_file_that_leaves_no_trace() {
        let corpus = Corpus::new();
        let scratch = corpus.folder.path().join("scratch");
        // Memory for one of the two.
        let memory = Memory { kept_bytes: 40_000, ..Memory::default() };
        let (pieces, _parts) = corpus.pieces(&scratch, memory);
        assert_eq!(pieces, expected(&corpus));
        assert_eq!((corpus.runs("a"), corpus.runs("b")), (1, 1));
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
    }

    #[test]
    fn without_memory_and_disk_one_recording_is_kept_and_the_others_are_read_again() {
        let corpus = Corpus::new();
        let no_folder = corpus.folder.path().join("a.wav");
        let memory = Memory { kept_bytes: 0, ..Memory::default() };
        let (pieces, _parts) = corpus.pieces(&no_folder, memory);
        assert_eq!(pieces, expected(&corpus));
        assert_eq!((corpus.runs("a"), corpus.runs("b")), (1, 10));
    }

    #[test]
    fn a_part_that_does_not_run_keeps_no_recording_in_memory() {
        let corpus = Corpus::new();
        let parts: Vec<Vec<RecordingRow>> =
            corpus.rows.iter().map(|rows| rows.iter().map(RecordingRow::of).collect()).collect();
        let parts: Vec<&[RecordingRow]> = parts.iter().map(Vec::as_slice).collect();
        let mut parts =
            within_memory(corpus.folder.path(), corpus.folder.path(), &parts, Memory::default(), Arc::default());
        let (first, second) = (parts.remove(0), parts.remove(0));
        drop(second);
        let kept = |part: &PartRecordings| lock(&part.recordings.memory.taken).kept;
        corpus.rows[0].iter().take(7).for_each(|row| drop(first.row(row).audio().unwrap()));
        assert_eq!(kept(&first), 2 * 32_000);
        corpus.rows[0].iter().skip(7).for_each(|row| drop(first.row(row).audio().unwrap()));
        assert_eq!(kept(&first), 0);
    }

    #[test]
    fn a_recording_that_cannot_be_read_is_tried_once() {
        let corpus = Corpus::new();
        std::fs::write(corpus.folder.path().join("a.wav"), "no audio").unwrap();
        let rows: Vec<RecordingRow> = corpus.rows[0].iter().map(RecordingRow::of).collect();
        let parts =
            within_memory(corpus.folder.path(), corpus.folder.path(), &[&rows], Memory::default(), Arc::default());
        for (index, row) in corpus.rows[0].iter().enumerate() {
            match parts[0].row(row).audio() {
                Err(RecordingError::Unreadable { .. }) => assert_eq!(index % 2, 0),
                other => assert!(index % 2 == 1 && other.is_ok(), "{other:?}"),
            }
        }
        assert_eq!(corpus.runs("a"), 1);
    }

    #[test]
    fn a_phase_takes_over_what_the_one_before_decoded_unless_the_file_changed() {
        let corpus = Corpus::new();
        let file = |name: &str| corpus.folder.path().join(name);
        // A recording of its own, and one that two rows share.
        let row = |wav: &str, start: f64| Utterance {
            wav: wav.to_owned(),
            start: Some(start),
            end: Some(start + 0.1),
            ..Utterance::default()
        };
        let rows = [row("a.wav", 0.2), row("b.wav", 0.0), row("b.wav", 0.5)];
        let run = Arc::new(RunRecordings::default());
        let phase = || {
            let recordings: Vec<RecordingRow> = rows.iter().map(RecordingRow::of).collect();
            let parts =
                within_memory(corpus.folder.path(), &file("scratch"), &[&recordings], Memory::default(), run.clone());
            rows.iter().map(|row| parts[0].row(row).audio().map(Audio::into_mono)).collect::<Vec<_>>()
        };
        let first = phase();
        assert!(first.iter().all(Result::is_ok));
        let waiting = || {
            let waiting = lock(&run.waiting);
            (waiting.recordings.len(), waiting.bytes)
        };
        assert_eq!(waiting(), (2, 2 * 32_000));
        // What waits is taken: in its place zeros, rows have zeros.
        for (_, audio) in lock(&run.waiting).recordings.values_mut() {
            audio.samples[0].fill(0.0);
        }
        assert!(phase().into_iter().all(|piece| piece.unwrap().iter().all(|sample| *sample == 0.0)));
        assert_eq!(waiting().0, 2);
        std::fs::copy(file("b.wav"), file("c.wav")).unwrap();
        std::fs::rename(file("c.wav"), file("b.wav")).unwrap();
        let third = phase();
        assert!(third[0].as_ref().unwrap().iter().all(|sample| *sample == 0.0));
        assert_eq!(third[1..], first[1..]);
        run.clear();
        assert_eq!(phase(), first);
        assert_eq!(waiting(), (2, 2 * 32_000));
    }
}
