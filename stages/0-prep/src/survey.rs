//! Survey of a folder of data before there is a recipe: its format, and counts of its rows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use flowmill_audio::Decoder;
use flowmill_corpus::detect::{self, Detected};
use flowmill_corpus::source::{PipeLimits, Source as Place};
use flowmill_corpus::split::usual_name;
use flowmill_corpus::{Reading, Role, UtteranceRow, clips, kaldi, webdataset};
use rayon::prelude::*;

use crate::collect::read;
use crate::config::{PrepConfig, Source};
use crate::format::Format;
use crate::unpack::Unpacked;

/// The number of recordings that are opened.
const PROBED: usize = 64;
/// The number of reasons of rejections that are kept.
const REASONS: usize = 5;

/// A source below a folder: its path there, and its split if it is one of several.
pub type Part = (String, Option<String>);

/// The format and the content of a folder or file.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// The sources that `prep.data` has to name: their paths below the folder (empty for the folder itself), and their splits if these are
    /// folders of their own.
    pub sources: Vec<Part>,
    /// The format.
    pub format: Format,
    /// The description of the detected format, such as `this looks like LJSpeech`.
    pub what: String,
    /// The number of rows that can be read.
    pub rows: u64,
    /// The number of rows that are rejected when the index files are read.
    pub rejected: u64,
    /// Reasons of rejections, the most frequent first.
    pub reasons: Vec<(String, u64)>,
    /// Warnings of the reader.
    pub warnings: Vec<String>,
    /// The number of rows with a transcript.
    pub texts: u64,
    /// The number of speakers or other groups.
    pub groups: u64,
    /// Rows by language.
    pub languages: BTreeMap<String, u64>,
    /// Rows by the split that the data put them in, under the names that `split: {by: corpus}` gives.
    pub splits: BTreeMap<String, u64>,
    /// The media of rows.
    pub media: BTreeSet<&'static str>,
    /// What the opened recordings are: `flac, 16000 Hz, 1 channel`.
    pub recordings: BTreeMap<String, u64>,
    /// The number of recordings that were opened, and of those that cannot be read, with the reason of the first.
    pub opened: u64,
    /// See [`Survey::opened`].
    pub unreadable: Option<(u64, String)>,
    /// The mean duration of a row in seconds, as far as it is known.
    pub mean_seconds: Option<f64>,
}

/// Looks at a folder or file, whose path is relative to `root` or absolute.
///
/// # Errors
/// The reason why it cannot be one source of a recipe, in words.
pub fn survey(root: &Path, dir: &str) -> Result<Survey, String> {
    let full = root.join(dir);
    if !full.exists() {
        return Err(format!("there is no folder or file {}", full.display()));
    }
    let (detected, sources) = layout(&full)?;
    // Every format that is detected has a name of the recipe.
    let format = Format::of_name(detected.format).unwrap_or_default();
    let mut config = PrepConfig { format, ..PrepConfig::default() };
    let below =
        |name: &str| if name.is_empty() { dir.to_owned() } else { format!("{}/{name}", dir.trim_end_matches('/')) };
    config.data =
        sources.iter().map(|(name, split)| Source { split: split.clone(), ..Source::at(&below(name)) }).collect();
    let mut found = Survey { sources, format, what: detected.what.to_owned(), ..Survey::default() };
    // Compressed tar files are counted by the first of them.
    let scratch = tempfile::tempdir().map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    if let Some(all) = found.unpack_first(&mut config, root, scratch.path())? {
        found.what += &format!(" (compressed; only the first of {all} tar files is counted)");
    }
    let none = Unpacked::new();
    let readings =
        config.data.iter().map(|source| Ok((source, read(&config, source, &none, root).map_err(|e| e.to_string())?)));
    let readings = readings.collect::<Result<Vec<(&Source, Reading)>, String>>()?;
    found.count(&readings);
    if found.rows == 0 {
        let reasons: Vec<String> = found.reasons.iter().map(|(reason, count)| format!("{count}x {reason}")).collect();
        let (what, format) = (&found.what, format.name());
        return Err(format!(
            "{}: {what}, but `format: {format}` finds no usable row: {}",
            full.display(),
            reasons.join("; ")
        ));
    }
    found.probe(&readings, root);
    Ok(found)
}

/// Returns the layout of a folder, and the folders in it that are sources.
fn layout(full: &Path) -> Result<(Detected, Vec<Part>), String> {
    let itself = || vec![(String::new(), None)];
    if full.is_file() {
        return detect::detect(full).map(|found| (found, itself())).ok_or_else(|| unknown(full));
    }
    let children = children(full)?;
    let parts: Vec<(&String, Detected)> =
        children.iter().filter_map(|name| Some((name, detect::detect(&full.join(name))?))).collect();
    let corpora: Vec<&(&String, Detected)> = parts.iter().filter(|(_, found)| found.format != "folder").collect();
    let formats: BTreeSet<&str> = corpora.iter().map(|(_, found)| found.format).collect();
    let several = || {
        let named: Vec<String> = corpora.iter().map(|(name, found)| format!("{name} ({})", found.format)).collect();
        format!("{} holds several corpora: {}. Name the folder of one", full.display(), named.join(", "))
    };
    let own = has_index(full);
    if formats.len() > 1 && !own {
        return Err(several());
    }
    if let (false, [(name, found), ..]) = (own, corpora.as_slice())
        && ["kaldi", "ljspeech"].contains(&found.format)
    {
        if corpora.len() == 1 {
            return Ok((found.clone(), vec![((*name).clone(), None)]));
        }
        let splits: Vec<String> = corpora.iter().map(|(name, _)| usual_name(name).to_owned()).collect();
        let distinct: BTreeSet<&String> = splits.iter().collect();
        if found.format != "kaldi"
            || distinct.len() < splits.len()
            || !splits.iter().any(|split| split == crate::TRAIN_SPLIT)
        {
            return Err(several());
        }
        let sources = corpora.iter().zip(splits).map(|((name, _), split)| ((*name).clone(), Some(split)));
        return Ok((found.clone(), sources.collect()));
    }
    match detect::detect(full) {
        Some(found) => Ok((found, itself())),
        None => {
            let listing = clips::list(full.parent().unwrap_or(full), &full.to_string_lossy(), clips::Layout::Clips);
            let clip = listing.ok().and_then(|listing| listing.clips.first().cloned());
            let clips = |file| Detected { format: "clips", what: "this looks like a folder of clips", file };
            clip.map(|file| (clips(file), itself())).ok_or_else(|| unknown(full))
        }
    }
}

/// Returns whether a folder has an index of rows itself, so that the folders in it are parts of it.
fn has_index(folder: &Path) -> bool {
    let names = kaldi::FILES.iter().copied().chain(detect::INDEXES);
    names.into_iter().any(|name| folder.join(name).is_file())
}

/// Returns the names of the folders in a folder, sorted.
fn children(full: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(full).map_err(|error| format!("cannot read {}: {error}", full.display()))?;
    let mut files = 0;
    let mut names = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        files += 1;
        if entry.path().is_dir() {
            names.push(name);
        }
    }
    if files == 0 {
        return Err(format!(
            "the folder {} is empty: name the folder with the recordings or their index",
            full.display()
        ));
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns the error for a folder of no known layout.
fn unknown(full: &Path) -> String {
    let looked: Vec<String> = detect::LAYOUTS.iter().map(|(format, file)| format!("{format} ({file})")).collect();
    format!(
        "{} is of no known layout. What was looked for: {}. A list of recordings of any layout is read with `format: manifest` (JSON lines, or a \
         table with a header) or `format: list`",
        full.display(),
        looked.join(", ")
    )
}

impl Survey {
    /// Decompresses the first tar file of a source whose tar files are compressed, and makes it the source. Returns the number of tar files.
    fn unpack_first(&self, config: &mut PrepConfig, root: &Path, scratch: &Path) -> Result<Option<usize>, String> {
        let ([source], Format::Webdataset) = (config.data.as_mut_slice(), self.format) else { return Ok(None) };
        let shards = webdataset::shards(root, &source.dir).map_err(|error| error.to_string())?;
        let Some(first) = shards.first().filter(|shard| webdataset::is_compressed(shard)) else { return Ok(None) };
        let to = scratch.join(webdataset::unpacked_name(first));
        webdataset::unpack(&root.join(first), &to, &|| true).map_err(|error| error.to_string())?;
        source.dir = to.to_string_lossy().into_owned();
        Ok(Some(shards.len()))
    }

    /// Counts the rows.
    fn count(&mut self, readings: &[(&Source, Reading)]) {
        let mut groups: BTreeSet<&str> = BTreeSet::new();
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        for (source, reading) in readings {
            self.rows += reading.utterances.len() as u64;
            self.rejected += reading.rejected.len() as u64;
            self.warnings.extend(reading.warnings.iter().cloned());
            for row in reading.utterances.iter() {
                groups.insert(row.spk);
                self.texts += u64::from(!row.text.is_empty());
                row.lang.iter().for_each(|lang| *self.languages.entry((*lang).to_owned()).or_default() += 1);
                let split = source.split.as_deref().or(row.split.map(usual_name));
                split.into_iter().for_each(|split| *self.splits.entry(split.to_owned()).or_default() += 1);
                self.media.extend((!row.wav.is_empty()).then_some(Role::Audio.name()));
                self.media.extend(row.extra.iter().flat_map(|extra| extra.media.keys().map(|role| role.name())));
            }
            for rejection in &reading.rejected {
                let kind = rejection.reason.split(": ").next().unwrap_or_default();
                *reasons.entry(kind.to_owned()).or_default() += 1;
            }
        }
        self.groups = groups.len() as u64;
        self.reasons = reasons.into_iter().collect();
        self.reasons.sort_by_key(|(_, count)| Reverse(*count));
        self.reasons.truncate(REASONS);
    }

    /// Opens some recordings, evenly spread over the rows.
    fn probe(&mut self, readings: &[(&Source, Reading)], root: &Path) {
        let rows: Vec<UtteranceRow<'_>> = readings.iter().flat_map(|(_, reading)| reading.utterances.iter()).collect();
        let with_sound: Vec<&UtteranceRow<'_>> = rows.iter().filter(|row| !row.wav.is_empty()).collect();
        let step = with_sound.len().div_ceil(PROBED).max(1);
        let chosen: Vec<&UtteranceRow<'_>> = with_sound.into_iter().step_by(step).collect();
        let open = |row: &&UtteranceRow<'_>| -> Result<(String, f64), String> {
            let place = Place::of(row.wav);
            if matches!(place, Place::Pipe(_)) {
                return Err("it is the output of a command (prep.allow_pipes)".to_owned());
            }
            let bytes = place.read(root, &PipeLimits::default()).map_err(|error| error.to_string())?;
            let info = Decoder::builtin().probe_bytes(&bytes, row.wav).map_err(|error| error.to_string())?;
            let channels =
                if info.channels == 1 { "1 channel".to_owned() } else { format!("{} channels", info.channels) };
            let whole = info.seconds();
            let seconds = row.end.unwrap_or(whole).min(whole) - row.start.unwrap_or(0.0);
            Ok((format!("{}, {} Hz, {channels}", info.codec, info.sample_rate), seconds.max(0.0)))
        };
        let opened: Vec<Result<(String, f64), String>> = chosen.par_iter().map(open).collect();
        self.opened = opened.len() as u64;
        let (mut seconds, mut good) = (0.0, 0u64);
        for outcome in opened {
            match outcome {
                Ok((kind, length)) => {
                    *self.recordings.entry(kind).or_default() += 1;
                    seconds += length;
                    good += 1;
                }
                Err(problem) => {
                    let (count, _) = self.unreadable.get_or_insert((0, problem));
                    *count += 1;
                }
            }
        }
        self.mean_seconds = (good > 0).then(|| seconds / good as f64);
    }
}
