//! The first phase: one shard per stretch of rows.

use std::sync::atomic::{AtomicU64, Ordering};

use flowmill_audio::features::MelSpectrogram;
use flowmill_corpus::ColumnSpec;
use flowmill_corpus::shard::{ContentHasher, MelStore, ShardEntry, speech, without_keys};
use flowmill_corpus::table::RecordingRow;
use flowmill_extract::Registry;
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, StageError};
use flowmill_stage_prep::recordings::{PartRecordings, recordings_of_parts};
use rayon::prelude::*;
use serde_json::json;

use crate::container::Writer;
use crate::lengths::Lengths;
use crate::record::ShardRecord;
use crate::sources::{Joined, Stretch, stretches};
use crate::utterance::{Made, RowMaker, RowMel};
use crate::wanted::{Needed, Wanted, is_of_speech};
use crate::{Container, PackConfig};

/// The approximate number of rows that a thread processes at a time.
const ROWS_PER_THREAD: usize = 16;

/// Plans the shards.
pub fn phase(
    config: &PackConfig,
    extractors: &Registry,
    needed: Option<Needed>,
    context: &PlanContext,
) -> Result<Phase, StageError> {
    let wanted = Wanted::of(config, extractors, needed, context)?;
    for stage in [1, 2].into_iter().filter(|stage| wanted.needs(*stage)) {
        context.receipts(stage)?;
    }
    let stretches = stretches(context, config.utterances_per_shard)?;
    let lengths =
        wanted.has(speech::SPEECH_TOKEN).then(|| Lengths::of(extractors, context.recipe(), &config.mel.config()));
    let lengths = lengths.transpose()?;
    let rows: Vec<Vec<RecordingRow>> = stretches.iter().map(Stretch::recordings).collect();
    let rows: Vec<&[RecordingRow]> = rows.iter().map(Vec::as_slice).collect();
    let recordings = recordings_of_parts(context, &rows);
    let parts = stretches.into_iter().zip(recordings);
    let parts: Vec<(Stretch, PartRecordings)> = parts.collect();
    let part = |(stretch, recordings)| part(config, context, &wanted, lengths, stretch, recordings);
    Ok(Phase::new("pack", parts.into_par_iter().map(part).collect::<Result<_, _>>()?))
}

/// Plans one shard.
fn part(
    config: &PackConfig,
    context: &PlanContext,
    wanted: &Wanted,
    lengths: Option<Lengths>,
    stretch: Stretch,
    recordings: PartRecordings,
) -> Result<Part, StageError> {
    let root = context.recipe_dir().to_path_buf();
    let contents = stretch.contents(&root, wanted)?;
    let mut own = json!({
        "format": config.format,
        "mel": config.mel.describe(),
        "rows": stretch.describe(),
        "utterances": contents.digest(),
        "tokens": [config.min_tokens, config.max_tokens],
        "token_rate": lengths.map(|lengths| lengths.token_rate),
    });
    let taken = wanted.taken_from_shards();
    if !taken.is_empty() {
        own["packed"] = json!(taken.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    if let Some(columns) = wanted.beyond_speech() {
        own["columns"] = json!(columns);
    }
    if config.format == Container::Parquet {
        own["compression_level"] = json!(config.compression_level);
    }
    let (config, wanted) = (config.clone(), wanted.clone());
    let part = Part::new(stretch.key()).config(own).inputs(stretch.inputs(&wanted)).rows(stretch.rows());
    Ok(contents.declare(part).work(move |work| {
        let columns = without_keys(wanted.columns());
        let maker = RowMaker {
            columns: &columns,
            root: &root,
            recordings: &recordings,
            mel: if wanted.has(speech::MEL) { mel(&config)? } else { None },
            mel_config: config.mel.config(),
            lengths,
            completed: AtomicU64::new(0),
        };
        Packer { config: &config, wanted: &wanted, maker, work }.run(&stretch)
    }))
}

/// Returns the extractor of mels, if they are stored.
fn mel(config: &PackConfig) -> Result<Option<RowMel>, StageError> {
    if config.mel.store == MelStore::None {
        return Ok(None);
    }
    let spectrogram = MelSpectrogram::new(config.mel.config()).map_err(StageError::other)?;
    Ok(Some(RowMel { spectrogram, store: config.mel.store }))
}

/// The work of packing one shard.
struct Packer<'a> {
    config: &'a PackConfig,
    wanted: &'a Wanted,
    maker: RowMaker<'a>,
    work: &'a PartWork,
}

impl Packer<'_> {
    fn run(&self, stretch: &Stretch) -> Result<PartReport, StageError> {
        let mut rows = stretch.read(self.wanted, self.maker.root)?;
        let given = rows.len();
        rows.retain(|row| {
            let tokens = row.columns.get(speech::SPEECH_TOKEN);
            let Some(reason) = tokens.and_then(|tokens| self.config.refuses(tokens.len())) else { return true };
            self.work.reject(&row.utterance.utt, reason);
            self.work.advance(1);
            false
        });
        let extension = self.config.format.extension();
        let shard = self.work.output(&format!("{}.{extension}", stretch.key()))?;
        let columns = self.wanted.columns();
        let mut writer = Writer::create(self.config, columns, &shard).map_err(StageError::other)?;
        let (mut record, mut content) = (ShardRecord::default(), ContentHasher::new(columns));
        let others: Vec<ColumnSpec> = columns.iter().filter(|column| !is_of_speech(&column.name)).cloned().collect();
        let mut write = |window: &[Joined], made: Vec<Made>| -> Result<(), StageError> {
            for (row, made) in window.iter().zip(made) {
                match made {
                    Ok(made) => {
                        record.add(&made, &others);
                        content.add(&made.row);
                        writer.push(made.row).map_err(StageError::other)?;
                    }
                    Err(reason) => self.work.reject(&row.utterance.utt, reason),
                }
            }
            self.work.advance(window.len() as u64);
            Ok(())
        };
        // While one window is written, the next is made.
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
        Ok(match self.maker.completed.load(Ordering::Relaxed) {
            0 => report(given, &record.entry),
            rows => report(given, &record.entry).fact("tokens completed", rows),
        })
    }

    /// Makes the rows of a window.
    fn make(&self, window: &[Joined]) -> Vec<Made> {
        window.par_iter().with_max_len(1).map(|row| self.maker.make(row)).collect()
    }
}

/// Creates the report of the part.
fn report(rows_in: usize, entry: &ShardEntry) -> PartReport {
    PartReport::rows(rows_in as u64, entry.rows)
        .fact("hours", entry.seconds / 3600.0)
        .fact("megabytes", entry.bytes as f64 / 1e6)
        .fact("shards", 1)
}
