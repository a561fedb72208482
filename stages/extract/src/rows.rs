//! Rows of stage 0 as an extractor sees them, and the fitted extractor that all parts share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flowmill_corpus::source::{PipeLimits, Source};
use flowmill_corpus::{Array, Role, Utterance};
use flowmill_extract::{
    Chosen, ExtractError, Extractor, Media, MediaError, Registry, RowEvents, RowWork, State, VideoPart,
};
use flowmill_nn::device::{self, DeviceName};
use flowmill_runner::{PartWork, RejectionReason, StageError};
use flowmill_stage_prep::columns;
use flowmill_stage_prep::recordings::PartRecordings;
use flowmill_stage_prep::rows::{Table, decoder, utterances};

/// The data of rows that an extractor reads. Parts depend only on these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reads {
    /// Recordings.
    pub recordings: bool,
    /// Videos, pictures and other files.
    pub files: bool,
    /// Videos, parts of which rows may be.
    pub video: bool,
    /// The text and its language.
    pub text: bool,
    /// Columns of stage 0 beyond those of an utterance.
    pub extra_columns: &'static [&'static str],
}

/// The columns of stage 0's tables that say which samples of a recording belong to a row.
const OF_RECORDINGS: [&str; 5] = ["start", "end", "channel", "decoder", "speed"];
/// The columns of a row's text.
const OF_TEXT: [&str; 2] = ["text", "lang"];

impl Reads {
    /// The data that an extractor reads.
    pub fn of(extractor: &Chosen) -> Self {
        let media = extractor.media();
        Self {
            recordings: media.contains(&Role::Audio),
            files: media.iter().any(|role| *role != Role::Audio),
            video: media.contains(&Role::Video),
            text: extractor.reads_text(),
            extra_columns: extractor.reads_columns(),
        }
    }

    /// The columns of stage 0's tables that an extractor reads in a stage that reads `columns` of rows with recordings.
    pub fn columns(self, columns: &[&'static str]) -> Vec<&'static str> {
        let has_parts = self.recordings || self.video;
        let own = columns.iter().copied().filter(|column| has_parts || !OF_RECORDINGS.contains(column));
        own.chain(OF_TEXT.into_iter().filter(|_| self.text)).collect()
    }
}

/// The rows of a part.
pub(crate) struct PartRows<'r> {
    /// The rows of stage 0.
    pub rows: Vec<Utterance>,
    recordings: &'r PartRecordings,
    /// The videos and pictures of rows that have some, if the extractor reads them.
    others: BTreeMap<String, columns::Media>,
    /// Columns of rows beyond those of an utterance, as far as the extractor reads them.
    columns: BTreeMap<String, BTreeMap<String, Array>>,
    reads: Reads,
    root: PathBuf,
}

impl<'r> PartRows<'r> {
    /// Reads the rows of a part for an extractor; `root` is the recipe's folder.
    pub fn read(table: &Table, recordings: &'r PartRecordings, reads: Reads, root: &Path) -> Result<Self, StageError> {
        let others = if reads.files { columns::read_media(&table.path)? } else { BTreeMap::new() };
        let columns = columns::read_columns(&table.path, reads.extra_columns)?;
        Ok(Self { rows: utterances(table)?, recordings, others, columns, reads, root: root.to_owned() })
    }

    /// The media of a row, loaded when an extractor asks for them, and its text for an extractor that reads it.
    pub fn media(&self, row: &Utterance) -> Media {
        let media = match self.reads.recordings && !row.wav.is_empty() {
            false => Media::default(),
            true => {
                let recording = self.recordings.row(row);
                Media::audio(move || recording.audio().map_err(|error| MediaError::new(&error, error.is_of_machine())))
            }
        };
        // An extractor that does not declare that it reads the text must not see it: its parts do not depend on it.
        let media = if self.reads.text { media.with_text(&row.text, row.lang.clone()) } else { media };
        let media = match self.columns.get(&row.utt) {
            Some(columns) => media.with_columns(columns.clone()),
            None => media,
        };
        let Some(others) = self.others.get(&row.utt).cloned() else { return media };
        let root = self.root.clone();
        let video = others.get(&Role::Video).and_then(|video| video.first());
        let part = VideoPart {
            id: row.utt.clone(),
            name: video.map(|video| video.0.clone()).unwrap_or_default(),
            start_seconds: row.start,
            end_seconds: row.end,
            decoder: decoder(row),
        };
        media.with_video_part(part).with_files(move |role| {
            others.get(&role).into_iter().flatten().map(|file| read(&file.source(), &root)).collect()
        })
    }
}

/// The bytes of a video or a picture.
fn read(source: &Source<'_>, root: &Path) -> Result<Vec<u8>, MediaError> {
    source.read(root, &PipeLimits::default()).map_err(|error| MediaError::new(&error, error.is_of_machine()))
}

/// The id of a row.
pub(crate) fn id(row: &Utterance) -> &str {
    &row.utt
}

/// Tells the runner about rows.
pub(crate) struct Events<'w> {
    /// The part at work.
    pub work: &'w PartWork,
    /// True if a rejected row is to be counted: once per stage, where its value is extracted, not where it is only measured.
    pub count_rejected: bool,
}

impl RowEvents for Events<'_> {
    fn reject(&self, id: &str, reason: &ExtractError) {
        if self.count_rejected {
            self.work.reject(id, RejectionReason::of(reason, reason.is_of_machine()));
        } else if reason.is_of_machine() {
            self.work.incomplete(reason);
        }
    }

    fn advance(&self, rows: u64) {
        self.work.advance(rows);
    }

    fn interrupted(&self) -> bool {
        self.work.interrupted()
    }

    fn threads(&self) -> usize {
        self.work.threads()
    }
}

/// The errors of running over rows as the runner's.
pub(crate) fn stage_error(error: RowWork) -> StageError {
    match error {
        RowWork::Interrupted(_) => StageError::Interrupted,
        other => StageError::other(other),
    }
}

/// A fitted extractor in a file. It is loaded when a part first asks for it, shared by all parts of a phase, and freed with the last
/// of them.
pub(crate) struct SharedExtractor {
    extractors: Registry,
    path: PathBuf,
    device: DeviceName,
    loaded: Mutex<Option<Arc<dyn Extractor>>>,
}

impl SharedExtractor {
    /// The extractor in this file, which need not be there yet, to run on a device.
    pub fn new(extractors: Registry, path: &Path, device: DeviceName) -> Self {
        Self { extractors, path: path.to_owned(), device, loaded: Mutex::new(None) }
    }

    /// The extractor.
    ///
    /// # Errors
    /// When the file is not a whole extractor, or there is no such device.
    pub fn get(&self) -> Result<Arc<dyn Extractor>, StageError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(extractor) = &*loaded {
            return Ok(Arc::clone(extractor));
        }
        // On a thread outside of the pool: what loading does in parallel must not let this thread take up another part, which
        // would wait for the lock that is held here.
        let load = || {
            let state = State::load(&self.path).map_err(StageError::other)?;
            let device = device::open(self.device).map_err(StageError::other)?;
            tracing::info!(path = %self.path.display(), ?device, "loading an extractor");
            self.extractors.open(&state, &device).map_err(StageError::other)
        };
        let result = std::thread::scope(|scope| scope.spawn(load).join());
        let extractor: Arc<dyn Extractor> = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?.into();
        *loaded = Some(Arc::clone(&extractor));
        Ok(extractor)
    }
}
