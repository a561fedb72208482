//! The first phase: a shard per stretch of rows.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use flowmill_audio::features::{MelConfig, MelSpectrogram};
use flowmill_corpus::shard::{ContentHasher, MelStore, ShardEntry, ShardRow};
use flowmill_corpus::table::RecordingRow;
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::recordings::{PartRecordings, recordings_of_parts};
use rayon::prelude::*;
use serde_json::json;

use crate::container::Writer;
use crate::lengths::Lengths;
use crate::record::ShardRecord;
use crate::sources::{Joined, Stretch, stretches};
use crate::utterance::{Made, make_row};
use crate::{Container, PackConfig};

/// About how many rows a thread has in hand at a time.
const ROWS_PER_THREAD: usize = 16;

/// Plans the shards.
pub fn phase(config: &PackConfig, context: &PlanContext) -> Result<Phase, StageError> {
    context.receipts(1)?;
    context.receipts(2)?;
    let stretches = stretches(context, config.utterances_per_shard)?;
    let lengths = Lengths::of(context.recipe(), &config.mel.config())?;
    let rows: Vec<Vec<RecordingRow>> = stretches.iter().map(Stretch::recordings).collect();
    let rows: Vec<&[RecordingRow]> = rows.iter().map(Vec::as_slice).collect();
    let recordings = recordings_of_parts(context.recipe_dir(), &context.scratch_dir(), &rows);
    let parts = stretches.into_iter().zip(recordings);
    let parts: Vec<(Stretch, PartRecordings)> = parts.collect();
    let part = |(stretch, recordings)| part(config, context, lengths, stretch, recordings);
    Ok(Phase::new("pack", parts.into_par_iter().map(part).collect::<Result<_, _>>()?))
}

/// Plans one shard.
fn part(
    config: &PackConfig,
    context: &PlanContext,
    lengths: Lengths,
    stretch: Stretch,
    recordings: PartRecordings,
) -> Result<Part, StageError> {
    let root = context.recipe_dir().to_path_buf();
    let contents = stretch.contents(&root)?;
    let mut own = json!({
        "format": config.format,
        "mel": config.mel.describe(),
        "rows": stretch.describe(),
        "utterances": contents.digest(),
        "tokens": [config.min_tokens, config.max_tokens],
        "token_rate": lengths.token_rate,
    });
    if config.format == Container::Parquet {
        own["compression_level"] = json!(config.compression_level);
    }
    let config = config.clone();
    let part = Part::new(stretch.key()).config(own).inputs(stretch.inputs()).rows(stretch.rows());
    Ok(contents.declare(part).work(move |work| Packer::new(&config, &root, &recordings, lengths, work)?.run(&stretch)))
}

/// Packs one shard.
struct Packer<'a> {
    config: &'a PackConfig,
    root: &'a Path,
    recordings: &'a PartRecordings,
    work: &'a PartWork,
    lengths: Lengths,
    mel_config: MelConfig,
    /// `None` when no mel is stored.
    mel: Option<MelSpectrogram>,
    /// Rows whose tokens were completed.
    completed: AtomicU64,
}

impl<'a> Packer<'a> {
    fn new(
        config: &'a PackConfig,
        root: &'a Path,
        recordings: &'a PartRecordings,
        lengths: Lengths,
        work: &'a PartWork,
    ) -> Result<Self, StageError> {
        let mel_config = config.mel.config();
        let mel = match config.mel.store {
            MelStore::None => None,
            MelStore::Float16 | MelStore::Float32 => {
                Some(MelSpectrogram::new(mel_config.clone()).map_err(StageError::other)?)
            }
        };
        Ok(Self { config, root, recordings, work, lengths, mel_config, mel, completed: AtomicU64::new(0) })
    }

    fn run(&self, stretch: &Stretch) -> Result<PartReport, StageError> {
        let mut rows = stretch.read()?;
        // What stage 2 set aside was counted there.
        rows.retain(|row| row.tokens.is_some());
        let given = rows.len();
        rows.retain(|row| match self.config.refuses(row.tokens.as_deref().unwrap_or_default().len()) {
            Some(reason) => {
                self.work.reject(&row.utterance.utt, reason);
                self.work.advance(1);
                false
            }
            None => true,
        });
        let extension = self.config.format.extension();
        let shard = self.work.output(&format!("{}.{extension}", stretch.key()))?;
        let mut writer = Writer::create(self.config, &shard).map_err(StageError::other)?;
        let (mut record, mut content) = (ShardRecord::default(), ContentHasher::new(self.config.mel.store));
        let mut write = |window: &[Joined], made: Vec<Made>| -> Result<(), StageError> {
            for (row, made) in window.iter().zip(made) {
                match made {
                    Ok(row) => {
                        self.note(&mut record, &row);
                        content.add(&row);
                        writer.push(row).map_err(StageError::other)?;
                    }
                    Err(reason) => self.work.reject(&row.utterance.utt, reason),
                }
            }
            self.work.advance(window.len() as u64);
            Ok(())
        };
        // While one window is written the next is made.
        let (mut later, mut made) = (&rows[..], (&rows[..0], Vec::new()));
        while !later.is_empty() {
            if self.work.interrupted() {
                return Err(StageError::Interrupted);
            }
            let (window, after) = later.split_at(later.len().min(ROWS_PER_THREAD * self.work.threads()));
            let (next, written) = rayon::join(|| self.make(window), || write(made.0, std::mem::take(&mut made.1)));
            written?;
            (later, made) = (after, (window, next));
        }
        write(made.0, made.1)?;
        let summary = writer.finish().map_err(StageError::other)?;
        record.content = content.finish();
        record.entry.file = format!("shard-{:05}.{extension}", stretch.number);
        (record.entry.rows, record.entry.bytes) = (summary.rows, summary.bytes);
        record.entry.blake3 = summary.checksum.to_string();
        record.write(&self.work.output(&format!("{}.json", stretch.key()))?)?;
        Ok(match self.completed.load(Ordering::Relaxed) {
            0 => report(given, &record.entry),
            rows => report(given, &record.entry).fact("tokens completed", rows),
        })
    }

    /// Makes the rows of a window.
    fn make(&self, window: &[Joined]) -> Vec<Made> {
        let made = window.par_iter().with_max_len(1);
        made.map(|row| self.judged(make_row(row, self.root, self.recordings, self.mel.as_ref()))).collect()
    }

    /// Completes a row's tokens, and refuses one whose tokens and mel are not of the same speech.
    fn judged(&self, made: Made) -> Made {
        let mut row = made?;
        let samples = (row.duration * f64::from(row.sample_rate)).round() as u64;
        if self.lengths.complete(&mut row.speech_token, samples, row.sample_rate) {
            self.completed.fetch_add(1, Ordering::Relaxed);
        }
        match self.lengths.refuses(row.speech_token.len(), self.frames(&row)) {
            Some(reason) => Err(reason.into()),
            None => Ok(row),
        }
    }

    /// Frames of a row's mel; where none is stored, as many as its duration will have.
    fn frames(&self, row: &ShardRow) -> usize {
        match &row.mel {
            Some(mel) => mel.frames,
            None => self.mel_config.frames((row.duration * f64::from(self.mel_config.sample_rate)).ceil() as usize),
        }
    }

    /// Notes a row for the index.
    fn note(&self, record: &mut ShardRecord, row: &ShardRow) {
        if let Some(mel) = &row.mel {
            record.moments.add(mel);
        }
        let frames = self.frames(row);
        record.entry.utterances.push(row.utt.clone());
        record.entry.frames.push(u32::try_from(frames).unwrap_or(u32::MAX));
        record.entry.seconds += row.duration;
        record.speakers.insert(row.spk.clone());
    }
}

/// What the part says when done.
fn report(rows_in: usize, entry: &ShardEntry) -> PartReport {
    PartReport::rows(rows_in as u64, entry.rows)
        .fact("hours", entry.seconds / 3600.0)
        .fact("megabytes", entry.bytes as f64 / 1e6)
        .fact("shards", 1)
}
