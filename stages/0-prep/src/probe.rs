//! The second phase: every recording opened once, rows completed and filtered.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use flowmill_audio::media::{HEAD_BYTES, StandIn};
use flowmill_audio::{DecodeWarning, Decoder};
use flowmill_corpus::source::{PipeLimits, Source};
use flowmill_corpus::{Extra, Role, Utterance, UtteranceRow, hints, table};
use flowmill_runner::{Part, PartReport, PartWork, Phase, PlanContext, RejectionReason, StageError};
use rayon::prelude::*;
use serde_json::json;

use crate::columns::{self, ExtraRow};
use crate::read::{KEY, filters};
use crate::warnings::Warnings;
use crate::{Format, PrepConfig, condition, fallback, filter, images, media, videos};

/// The time in seconds by which a segment may exceed its recording and is cut, instead of being rejected (as Kaldi's
/// extract-segments does by default).
pub(crate) const MAX_OVERSHOOT: f64 = 0.5;

/// The properties of a recording.
struct Recording {
    seconds: f64,
    sample_rate: u32,
    channels: u32,
    /// True if the fallback decoded it.
    by_fallback: bool,
    /// The warnings of its decoder.
    warnings: Vec<DecodeWarning>,
}

/// Plans the probing: a part per table of the first phase.
pub fn phase(config: &PrepConfig, context: &PlanContext) -> Result<Phase, StageError> {
    let mut tables = Vec::new();
    for receipt in context.receipts(0)?.into_iter().filter(|receipt| receipt.key == KEY) {
        tables.extend(receipt.outputs());
    }
    tables.retain(|table| key_of(table).is_some());
    let wavs = tables.par_iter().map(|manifest| table::read_wav_column(manifest).map_err(StageError::other));
    let wavs: Vec<Vec<String>> = wavs.collect::<Result<_, _>>()?;
    let shared = Arc::new(shared_recordings(&wavs));
    let program = fallback::installed(config);
    let part =
        |(manifest, wavs): (&PathBuf, &Vec<String>)| part(config, context, manifest, wavs, &shared, program.as_deref());
    let parts = tables.iter().zip(&wavs).map(part);
    Ok(Phase::new("probe", parts.collect::<Result<_, _>>()?))
}

/// Recordings that rows of several parts share: the first part that needs one probes it for all.
type SharedRecordings = HashMap<String, OnceLock<Probed>>;

/// The properties of a recording, or the reason why it cannot be used.
type Probed = Arc<Result<Recording, RejectionReason>>;

/// Returns the recordings that rows of more than one part use.
fn shared_recordings(parts: &[Vec<String>]) -> SharedRecordings {
    let mut first_part: HashMap<&str, usize> = HashMap::new();
    let mut shared = SharedRecordings::new();
    for (part, wavs) in parts.iter().enumerate() {
        for wav in wavs.iter().filter(|wav| !wav.is_empty()) {
            if *first_part.entry(wav).or_insert(part) != part && !shared.contains_key(wav) {
                shared.insert(wav.clone(), OnceLock::new());
            }
        }
    }
    shared
}

/// Parts of a row beyond an utterance, and the reason of its rejection, if any.
pub(crate) type CheckedExtra = (Extra, Result<(), RejectionReason>);

/// Plans one part.
fn part(
    config: &PrepConfig,
    context: &PlanContext,
    manifest: &Path,
    wavs: &[String],
    shared: &Arc<SharedRecordings>,
    program: Option<&str>,
) -> Result<Part, StageError> {
    let key = key_of(manifest)
        .ok_or_else(|| StageError::new(format!("{} is not a table of this stage", manifest.display())))?;
    let root = context.recipe_dir().to_path_buf();
    let recordings = wavs.iter().filter(|wav| !wav.is_empty());
    let mut files: Vec<PathBuf> = recordings.filter_map(|wav| Source::of(wav).file(&root)).collect();
    if config.has_extras() {
        let media = columns::read_media(manifest)?;
        files.extend(media.values().flat_map(BTreeMap::values).flatten().filter_map(|m| m.source().file(&root)));
        let tables = [columns::media_of(manifest), columns::columns_of(manifest)];
        files.extend(tables.into_iter().filter(|table| table.exists()));
    }
    files.sort_unstable();
    files.dedup();
    let mut own = json!({ "filter": filters(config) });
    let condition = config.parsed_condition().unwrap_or_default();
    let terms = condition.words(condition::Stage::Measured);
    if !terms.is_empty() {
        own["where"] = json!(terms);
    }
    fallback::describe(&mut own, &key, program, context);
    let (manifest, output) = (manifest.to_path_buf(), format!("{key}.parquet"));
    let probing =
        Probing { config: config.clone(), root, program: program.map(str::to_owned), shared: Arc::clone(shared) };
    Ok(Part::new(key)
        .config(own)
        .input(&manifest)
        .inputs(files)
        .rows(wavs.len() as u64)
        .work(move |work| probing.run(&manifest, &output, work)))
}

/// Returns `SPLIT/part-00000` for `…/manifests/SPLIT/rows-00000.parquet`.
fn key_of(manifest: &Path) -> Option<String> {
    let number = manifest.file_stem()?.to_str()?.strip_prefix("rows-")?;
    let split = manifest.parent()?.file_name()?.to_str()?;
    Some(format!("{split}/part-{number}"))
}

/// The probing of recordings and completion of rows.
struct Probing {
    config: PrepConfig,
    /// The recipe's folder.
    root: PathBuf,
    /// The fallback's name and version, if the recipe uses one.
    program: Option<String>,
    shared: Arc<SharedRecordings>,
}

impl Probing {
    /// Opens the recordings of one part and writes its rows.
    fn run(&self, manifest: &Path, output: &str, work: &PartWork) -> Result<PartReport, StageError> {
        let mut rows = table::read_utterances(manifest).map_err(StageError::other)?;
        let rows_in = rows.len() as u64;
        // The recipe was checked, so the condition can be parsed.
        let condition = self.config.parsed_condition().unwrap_or_default();
        let extras = self.extras(manifest, work)?;
        let mut of_videos = self.videos(&mut rows, &extras, work)?;
        let recordings = self.recordings(&rows, work)?;
        let mut kept = Vec::with_capacity(rows.len());
        for mut row in rows {
            let utt = row.utt.clone();
            let completed = match recordings.get(&row.wav).map(|recording| &**recording) {
                Some(Ok(recording)) => self.complete(&mut row, recording).map_err(RejectionReason::from),
                Some(Err(reason)) => Err(reason.clone().with(&hint(&self.config, &self.root, &row.wav))),
                // A row of other media.
                None => Ok(()),
            };
            let completed = extras.get(&utt).map_or(Ok(()), |(_, checked)| checked.clone()).and(completed);
            let completed = of_videos.remove(&utt).map_or(Ok(()), Err).and(completed);
            let refused = || {
                let extra = extras.get(&utt).map(|(extra, _)| extra);
                filter::text(&self.config, &row.text)
                    .or_else(|| filter::duration(&self.config, row.duration))
                    .or_else(|| condition.refuse(&UtteranceRow { extra, ..row.as_row() }, condition::Stage::Measured))
            };
            match completed.err().or_else(|| refused().map(RejectionReason::from)) {
                Some(reason) => work.reject(utt, reason),
                None => kept.push(row),
            }
        }
        let mut warnings = Warnings::default();
        for row in &kept {
            if let Some(Ok(recording)) = recordings.get(&row.wav).map(|recording| &**recording) {
                warnings.note(row, &recording.warnings, recording.sample_rate);
            }
        }
        warnings.publish(work, output.trim_end_matches(".parquet"))?;
        let mut kept_extras: Vec<ExtraRow<'_>> = Vec::new();
        for row in &kept {
            let extra = extras.get(&row.utt).map(|(extra, _)| extra);
            kept_extras.extend(extra.map(|extra| ExtraRow { id: &row.utt, group: &row.spk, extra }));
        }
        columns::write(work, output, &kept_extras, &self.config.column_specs())?;
        table::write_utterances(&work.output(output)?, &kept).map_err(StageError::other)?;
        // The sum of an empty sequence is -0.
        let seconds = 0.0 + kept.iter().filter_map(|row| row.duration).sum::<f64>();
        let split = output.split('/').next().unwrap_or_default();
        let by_fallback = kept.iter().filter(|row| row.decoder.is_some()).count();
        let mut report =
            PartReport::rows(rows_in, kept.len() as u64).fact("hours", seconds / 3600.0).fact(split, kept.len() as u64);
        if by_fallback > 0 {
            report = report.fact("decoded by ffmpeg", by_fallback as u64);
        }
        Ok(warnings.facts().fold(report, |report, (name, count)| report.fact(name, count)))
    }

    /// Checks the media of rows and keeps their parts beyond utterances.
    fn extras(&self, manifest: &Path, work: &PartWork) -> Result<BTreeMap<String, CheckedExtra>, StageError> {
        if !self.config.has_extras() {
            return Ok(BTreeMap::new());
        }
        let extras = columns::read(manifest, &self.config.column_specs(), &self.config.references)?;
        let checked = extras.into_par_iter().map(|(id, extra)| {
            if work.interrupted() {
                return Err(StageError::Interrupted);
            }
            let checked = media::check(&extra.media, &self.root);
            Ok((id, (extra, checked)))
        });
        let mut checked: BTreeMap<String, CheckedExtra> = checked.collect::<Result<_, StageError>>()?;
        if self.config.has_images() {
            images::decode(&mut checked, &self.root, work)?;
        }
        Ok(checked)
    }

    /// Opens the videos of rows and adds their facts; returns the rows that cannot be used, with the reason.
    fn videos(
        &self,
        rows: &mut [Utterance],
        extras: &BTreeMap<String, CheckedExtra>,
        work: &PartWork,
    ) -> Result<BTreeMap<String, RejectionReason>, StageError> {
        let usable = || extras.values().filter(|(_, checked)| checked.is_ok()).map(|(extra, _)| &extra.media);
        let opened = videos::open(usable(), &self.root, self.decoder(), work)?;
        let mut refused = BTreeMap::new();
        for row in rows {
            let video = extras.get(&row.utt).and_then(|(extra, _)| extra.media.get(&Role::Video)?.first());
            let Some((video, opened)) = video.and_then(|video| Some((video, opened.get(&video.0)?))) else { continue };
            if let Err(reason) = videos::complete(row, video, opened, self.program.as_deref()) {
                refused.insert(row.utt.clone(), reason);
            }
        }
        Ok(refused)
    }

    /// The decoder that the recipe allows.
    fn decoder(&self) -> Decoder {
        if self.program.is_some() { Decoder::with_ffmpeg() } else { Decoder::builtin() }
    }

    /// Probes every recording of the rows once, in parallel.
    fn recordings(&self, rows: &[Utterance], work: &PartWork) -> Result<BTreeMap<String, Probed>, StageError> {
        let mut uses: BTreeMap<&str, u64> = BTreeMap::new();
        rows.iter().for_each(|row| *uses.entry(row.wav.as_str()).or_default() += 1);
        // Rows of other media.
        work.advance(uses.remove("").unwrap_or(0));
        let uses: Vec<(&str, u64)> = uses.into_iter().collect();
        let probed = uses.par_iter().map(|(wav, rows)| {
            if work.interrupted() {
                return Err(StageError::Interrupted);
            }
            let probe = || Arc::new(self.probe(wav));
            let recording = self.shared.get(*wav).map_or_else(probe, |known| Arc::clone(known.get_or_init(probe)));
            work.advance(*rows);
            Ok(((*wav).to_owned(), recording))
        });
        probed.collect()
    }

    /// Returns the properties of a recording, or the reason why it cannot be used.
    fn probe(&self, wav: &str) -> Result<Recording, RejectionReason> {
        let decoder = self.decoder();
        let source = Source::of(wav);
        // The output of a command is not declared as an input, so a later success would go unnoticed.
        let is_command = matches!(source, Source::Pipe(_));
        let unreadable = |problem: &dyn std::fmt::Display, of_machine| {
            let problem = without_root(&problem.to_string(), &self.root);
            RejectionReason::of(format!("unreadable recording: {problem}"), is_command || of_machine)
        };
        let info = match &source {
            Source::File(path) => decoder.probe(self.root.join(path)),
            Source::Member(_) | Source::Cell(_) | Source::Group(_) | Source::Pipe(_) => {
                let bytes = source.read(&self.root, &PipeLimits::default()).map_err(|e| match source {
                    Source::Pipe(_) => RejectionReason::machine(format!("command failed: {e}")),
                    _ => unreadable(&e, e.is_of_machine()),
                })?;
                decoder.probe_bytes(&bytes, wav)
            }
        };
        let info = info.map_err(|e| match stand_in(&source, &self.root) {
            Some(found) => RejectionReason::of(media::instead(found, "recording", wav), e.is_of_machine()),
            None => unreadable(&e, e.is_of_machine()),
        })?;
        Ok(Recording {
            seconds: info.seconds(),
            sample_rate: info.sample_rate,
            channels: info.channels,
            by_fallback: info.by_fallback,
            warnings: info.warnings,
        })
    }

    /// Adds the properties of the recording to a row. A segment that ends slightly after it is cut.
    fn complete(&self, row: &mut Utterance, recording: &Recording) -> Result<(), String> {
        let seconds = recording.seconds;
        let start = row.start.unwrap_or(0.0);
        let end = row.end.unwrap_or(seconds);
        if start >= seconds || end > seconds + MAX_OVERSHOOT {
            return Err(format!("segment outside its recording: {start} s to {end} s of {seconds:.3} s"));
        }
        let end = end.min(seconds);
        if row.end.is_some() {
            row.end = Some(end);
        }
        let channels = recording.channels;
        if let Some(channel) = row.channel.filter(|channel| *channel >= channels) {
            return Err(format!(
                "no such channel: it is on channel {channel} (counted from 0) of a recording with {channels}; correct the channel in \
                 segments (A is the first, B the second), or leave it out for the mean of all"
            ));
        }
        // A single channel needs no name.
        row.channel = row.channel.filter(|_| channels > 1);
        row.duration = Some((end - start) / row.speed.unwrap_or(1.0));
        row.sample_rate = Some(recording.sample_rate);
        row.channels = Some(recording.channels);
        // The frames of its video may need it too.
        row.decoder = self.program.clone().filter(|_| recording.by_fallback || row.decoder.is_some());
        Ok(())
    }
}

/// Returns the content in place of a recording that cannot be decoded, if it is something known.
fn stand_in(source: &Source<'_>, root: &Path) -> Option<StandIn> {
    let (path, offset, length) = match source {
        Source::File(path) => (root.join(path), 0, HEAD_BYTES as u64),
        Source::Member(member) => (root.join(member.archive), member.offset, member.length.min(HEAD_BYTES as u64)),
        Source::Cell(_) | Source::Group(_) | Source::Pipe(_) => return None,
    };
    let mut head = Vec::new();
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    file.take(length).read_to_end(&mut head).ok()?;
    flowmill_audio::media::stand_in(&head)
}

/// Returns a hint about a missing file: Kaldi's own tools resolve relative paths from their working directory.
fn hint(config: &PrepConfig, root: &Path, wav: &str) -> String {
    let Source::File(path) = Source::of(wav) else { return String::new() };
    let named_by = |dir: &str| wav.strip_prefix(dir.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
    let kaldi = config.data.iter().find(|source| config.format_of(source) == Format::Kaldi && named_by(&source.dir));
    match kaldi.filter(|_| !path.contains('\\')) {
        Some(source) if !root.join(path).exists() => {
            format!("; relative paths in {}/wav.scp start from that folder", source.dir.trim_end_matches('/'))
        }
        _ if !root.join(path).exists() && path.contains('\\') => {
            "; the parts of a path are separated by `/` here, not by the backslashes of Windows".to_owned()
        }
        _ => match hints::in_another_form(&root.join(path)) {
            Some(_) => {
                "; there is a file whose name looks the same but is in another Unicode form (NFC or NFD); rename the \
                        files (`convmv -f utf8 -t utf8 --nfc`) or write the names in their form"
                    .to_owned()
            }
            None => String::new(),
        },
    }
}

/// Formats a message with files named as in the data, so that it is the same wherever the recipe is.
fn without_root(message: &str, root: &Path) -> String {
    message.replace(&format!("{}/", root.display()), "")
}
