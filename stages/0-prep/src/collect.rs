//! All sources as one list of rows, each with its split.

use std::path::Path;

use flowmill_corpus::corpora::Corpus;
use flowmill_corpus::histories::Dataset;
use flowmill_corpus::split::{Fractions, Lists, usual_name};
use flowmill_corpus::{
    CorpusError, ReadOptions, Reading, Rejection, UtteranceRow, Utterances, clips, codes, corpora, folder, hints,
    histories, huggingface, images, kaldi, lhotse, list, ljspeech, manifest, packed, webdataset,
};
use flowmill_runner::{PartWork, RejectionReason};
use rayon::prelude::*;

use crate::config::is_split_name;
use crate::leaks;
use crate::merge::merged;
use crate::references;
use crate::unpack::{self, Unpacked};
use crate::{Format, PrepConfig, Source, SplitBy, SplitConfig, SplitUnit};

/// The position of a row: its source, and its index in that source.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) source: u32,
    pub(crate) row: u32,
}

/// The good rows of all sources, by split.
pub struct Collection {
    tables: Vec<Utterances>,
    /// Every split with its rows in C order of their ids; sorted by name.
    splits: Vec<(String, Vec<Place>)>,
    /// The number of rows that were read, good and bad.
    pub rows_in: u64,
}

/// One split of a [`Collection`].
pub struct Split<'a> {
    /// The name.
    pub name: &'a str,
    tables: &'a [Utterances],
    places: &'a [Place],
}

impl Collection {
    /// The splits, sorted by name; none is empty.
    pub fn splits(&self) -> impl Iterator<Item = Split<'_>> {
        let tables = self.tables.as_slice();
        self.splits.iter().map(move |(name, places)| Split { name, tables, places })
    }

    /// Drops the rows for which `refuse` returns a reason, and reports them to `reject`.
    pub fn filter(
        &mut self,
        refuse: impl Fn(&UtteranceRow<'_>) -> Option<String> + Sync,
        reject: impl Fn(&str, String) + Sync,
    ) {
        let tables = &self.tables;
        for (_, places) in &mut self.splits {
            let kept: Vec<Place> = places
                .par_iter()
                .filter(|place| {
                    let row = row(tables, place);
                    let reason = refuse(&row);
                    reason.map(|reason| reject(row.utt, reason)).is_none()
                })
                .copied()
                .collect();
            *places = kept;
        }
        self.splits.retain(|(_, places)| !places.is_empty());
    }
}

impl<'a> Split<'a> {
    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns the rows in chunks of `size`.
    pub fn chunks(&self, size: usize) -> Vec<Split<'a>> {
        self.places.chunks(size).map(|places| Split { places, ..*self }).collect()
    }

    /// Returns the rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = UtteranceRow<'a>> + use<'a> {
        let tables = self.tables;
        self.places.iter().map(move |place| row(tables, place))
    }
}

/// Returns the row at a position.
pub(crate) fn row<'a>(tables: &'a [Utterances], place: &Place) -> UtteranceRow<'a> {
    tables[place.source as usize].row(place.row as usize)
}

/// Reads all sources, rejects their bad rows and divides the others into splits.
///
/// # Errors
/// Returns an error if a list cannot be used.
pub fn collect(
    config: &PrepConfig,
    unpacked: &Unpacked,
    root: &Path,
    work: &PartWork,
) -> Result<Collection, CorpusError> {
    let mut tables = Vec::new();
    let mut rows_in = 0;
    for source in &config.data {
        let (reading, of_machine) = read_or_reject(config, source, unpacked, root);
        rows_in += reading.lines;
        tell_format(config, source, work);
        // There is nothing, or no transcript: the data may be in the places of another format.
        let has_no_text = reading.utterances.iter().all(|row| row.text.is_empty() && row.extra.is_none());
        let hint = match has_no_text {
            true => hints::of_source(&root.join(&source.dir), config.format_of(source).name()),
            false => None,
        };
        hint.iter().for_each(|hint| tell(work, source, hint));
        reading.warnings.iter().for_each(|warning| tell(work, source, warning));
        for Rejection { id, mut reason } in reading.rejected {
            if reading.unreadable {
                hint.iter().for_each(|hint| reason += &format!("; {hint}"));
                work.reject(id, RejectionReason::of(reason, of_machine).of_source());
            } else {
                work.reject(id, reason);
            }
        }
        let mut utterances = reading.utterances;
        if let Some(prefix) = &source.prefix {
            utterances.rename(|_, id| Some(format!("{prefix}{id}")));
        }
        tables.push(utterances);
    }
    let mut places = merged(&config.data, &mut tables, work);
    references::resolve(&config.data, &tables, &mut places, work);
    let mut splits = divide(config, root, &tables, places, work)?;
    leaks::resolve(&mut splits, &tables, config.split.rest_or_train(), work);
    Ok(Collection { tables, splits, rows_in })
}

/// Reads one source. A source that is unreadable or empty is rejected as a whole: every row that can be named, or
/// else the source itself. Also returns whether the cause is this machine.
fn read_or_reject(config: &PrepConfig, source: &Source, unpacked: &Unpacked, root: &Path) -> (Reading, bool) {
    let nothing = || CorpusError::Structure {
        path: root.join(&source.dir),
        problem: format!("contains no utterance that `format: {}` finds", config.format_of(source).name()),
    };
    let problem = match read(config, source, unpacked, root) {
        Ok(reading) if reading.lines > 0 => return (reading, false),
        Ok(_) => nothing(),
        Err(problem) => problem,
    };
    let ids = match config.format_of(source) {
        Format::Kaldi => kaldi::ids(root, &source.dir),
        Format::Ljspeech => ljspeech::ids(root, &source.dir),
        Format::Webdataset => webdataset::loose(root, &source.dir).unwrap_or_default(),
        Format::Folder
        | Format::Manifest
        | Format::Codes
        | Format::Clips
        | Format::Ravdess
        | Format::Images
        | Format::Histories
        | Format::FlickrAes
        | Format::Pog
        | Format::Ser30k
        | Format::Auto
        | Format::List
        | Format::Shards
        | Format::HuggingFace
        | Format::Lhotse
        | Format::LibriTts
        | Format::LibriSpeech
        | Format::Vctk
        | Format::Aishell3
        | Format::Mls
        | Format::CommonVoice
        | Format::GigaSpeech => Vec::new(),
    };
    (Reading::unreadable(&problem, root, &source.dir, ids), problem.is_of_machine())
}

/// Prints a line about a source.
fn tell(work: &PartWork, source: &Source, line: &str) {
    work.message(format!("{}: {line}", source.dir));
}

/// Prints the format that the content of a source shows, where the recipe names none.
fn tell_format(config: &PrepConfig, source: &Source, work: &PartWork) {
    let format = config.format_of(source);
    if let Some(detected) = source.detected.as_ref().filter(|_| format != Format::Kaldi) {
        let (name, what) = (format.name(), detected.what);
        let contains = match source.dir.ends_with(&detected.file) {
            true => String::new(),
            false => format!(" (it contains {})", detected.file),
        };
        tell(work, source, &format!("{what}{contains}; it is read with `format: {name}`"));
    }
}

/// Reads one source, compressed tar files from those that they were decompressed to.
pub(crate) fn read(
    config: &PrepConfig,
    source: &Source,
    unpacked: &Unpacked,
    root: &Path,
) -> Result<Reading, CorpusError> {
    let (columns, renames) = (config.column_specs(), config.renames());
    let options = ReadOptions {
        allow_pipes: config.allow_pipes,
        speaker: source.speaker.as_deref(),
        ids: source.ids.unwrap_or_default(),
        rows_without_text: config.min_text == 0,
        media: &config.media,
        references: &config.references,
        columns: &columns,
        recordings: source.recordings.as_deref(),
        sample_rate: source.sample_rate,
        microphone: source.microphone,
        order: source.columns.as_ref(),
        renames: &renames,
        images: source.images.as_deref(),
        histories: source.histories(),
    };
    let format = config.format_of(source);
    let corpus = |corpus| corpora::read(root, &source.dir, corpus, &options);
    match format {
        Format::Kaldi | Format::Auto => kaldi::read_directory(root, &source.dir, &options),
        Format::LibriTts => corpus(Corpus::LibriTts),
        Format::LibriSpeech => corpus(Corpus::LibriSpeech),
        Format::Vctk => corpus(Corpus::Vctk),
        Format::Aishell3 => corpus(Corpus::Aishell3),
        Format::Mls => corpus(Corpus::Mls),
        Format::CommonVoice => corpus(Corpus::CommonVoice),
        Format::GigaSpeech => corpus(Corpus::GigaSpeech),
        Format::Folder => folder::read_directory(root, &source.dir, &options),
        Format::Ljspeech => ljspeech::read_directory(root, &source.dir, &options),
        Format::Manifest => manifest::read(root, &source.dir, &options),
        Format::List => list::read_file(root, &source.dir, &options),
        Format::Shards => packed::read(root, &source.dir, &options),
        Format::HuggingFace => huggingface::read(root, &source.dir, &options),
        Format::Lhotse => lhotse::read(root, &source.dir, &options),
        Format::Webdataset => {
            let shards = webdataset::shards(root, &source.dir)?;
            let own: Vec<(&String, &String)> =
                shards.iter().filter_map(|shard| unpacked.get_key_value(shard)).collect();
            let files = shards.iter().map(|shard| unpacked.get(shard).unwrap_or(shard).clone()).collect();
            let mut reading = webdataset::read_files(root, &source.dir, files, &options)?;
            unpack::reject_damaged(&mut reading, &own, root);
            Ok(reading)
        }
        Format::Codes => codes::read_source(root, &source.dir, &options),
        Format::Clips => clips::read_directory(root, &source.dir, clips::Layout::Clips, &options),
        Format::Ravdess => clips::read_directory(root, &source.dir, clips::Layout::Ravdess, &options),
        Format::Images => images::read_directory(root, &source.dir, &options),
        Format::Histories => histories::read_file(root, &source.dir, &options),
        Format::FlickrAes => histories::read_dataset(root, &source.dir, Dataset::FlickrAes, &options),
        Format::Pog => histories::read_dataset(root, &source.dir, Dataset::Pog, &options),
        Format::Ser30k => histories::read_dataset(root, &source.dir, Dataset::Ser30k, &options),
    }
}

/// Divides the rows into splits, sorted by name.
fn divide(
    config: &PrepConfig,
    root: &Path,
    tables: &[Utterances],
    places: Vec<Place>,
    work: &PartWork,
) -> Result<Vec<(String, Vec<Place>)>, CorpusError> {
    let (names, assigned) = match config.split.by {
        SplitBy::Given => given(config, &places),
        SplitBy::Fraction => {
            if let Some(name) = places.iter().find_map(|place| row(tables, place).split) {
                work.message(format!(
                    "the data bring splits of their own (such as `{name}`), which `prep.split: {{by: corpus}}` keeps"
                ));
            }
            by_fraction(&config.split, tables, &places)
        }
        SplitBy::Corpus => by_corpus(&config.split, tables, &places, work),
        SplitBy::List => by_list(&config.split, root, tables, &places, work)?,
    };
    let mut splits: Vec<(String, Vec<Place>)> = names.into_iter().map(|name| (name, Vec::new())).collect();
    for (place, split) in places.iter().zip(assigned) {
        if let Some(split) = split {
            splits[split].1.push(*place);
        }
    }
    splits.retain(|(_, places)| !places.is_empty());
    splits.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(splits)
}

/// The names of splits, and for every row the index of its split, if it has one.
type Assigned = (Vec<String>, Vec<Option<usize>>);

/// Assigns every row to its source's split.
fn given(config: &PrepConfig, places: &[Place]) -> Assigned {
    let mut names: Vec<String> = config.data.iter().filter_map(|source| source.split.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let of_source: Vec<Option<usize>> = config
        .data
        .iter()
        .map(|source| source.split.as_ref().and_then(|split| names.binary_search(split).ok()))
        .collect();
    let assigned = places.iter().map(|place| of_source[place.source as usize]).collect();
    (names, assigned)
}

/// Assigns every row to the split of the hash of its id or speaker.
fn by_fraction(split: &SplitConfig, tables: &[Utterances], places: &[Place]) -> Assigned {
    // The shares were checked with the recipe; without any, all rows go to the rest.
    let Ok(fractions) = Fractions::new(&split.shares(), split.rest_or_train()) else {
        return (vec![split.rest_or_train().to_owned()], vec![Some(0); places.len()]);
    };
    let assign = |place: &Place| {
        let row = row(tables, place);
        let key = match split.unit {
            SplitUnit::Utterance => row.utt,
            SplitUnit::Speaker => row.spk,
        };
        Some(fractions.assign(key))
    };
    let assigned = places.par_iter().map(assign).collect();
    (fractions.names(), assigned)
}

/// Assigns every row to the split that its data put it in.
fn by_corpus(split: &SplitConfig, tables: &[Utterances], places: &[Place], work: &PartWork) -> Assigned {
    let mut names: Vec<String> = Vec::new();
    let mut assigned = Vec::with_capacity(places.len());
    for place in places {
        let row = row(tables, place);
        let named = row.split.map(|name| split.names.get(name).map_or(usual_name(name), String::as_str));
        let Some(name) = named.or(split.rest.as_deref()) else {
            work.reject(row.utt, "in no split: the data put it in none; set prep.split.rest, or another prep.split.by");
            assigned.push(None);
            continue;
        };
        if !is_split_name(name) {
            let way_on = "name another with prep.split.names";
            work.reject(row.utt, format!("bad split: `{name}` cannot name a split; {way_on}"));
            assigned.push(None);
            continue;
        }
        let at = names.iter().position(|own| own == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        assigned.push(Some(at));
    }
    (names, assigned)
}

/// Assigns every row to the split that lists it.
fn by_list(
    split: &SplitConfig,
    root: &Path,
    tables: &[Utterances],
    places: &[Place],
    work: &PartWork,
) -> Result<Assigned, CorpusError> {
    let files: Vec<(String, std::path::PathBuf)> =
        split.lists.iter().map(|(name, list)| (name.clone(), root.join(list))).collect();
    let borrowed: Vec<(String, &Path)> = files.iter().map(|(name, path)| (name.clone(), path.as_path())).collect();
    let lists = Lists::read(&borrowed)?;
    let mut names = lists.names();
    let rest = split.rest.as_ref().map(|rest| {
        names.iter().position(|name| name == rest).unwrap_or_else(|| {
            names.push(rest.clone());
            names.len() - 1
        })
    });
    let assigned: Vec<Option<usize>> =
        places.par_iter().map(|place| lists.assign(row(tables, place).utt).or(rest)).collect();
    for (place, split) in places.iter().zip(&assigned) {
        if split.is_none() {
            work.reject(row(tables, place).utt, "in no split's list: add it to one, or set prep.split.rest");
        }
    }
    warn_of_unknown(&lists, tables, places, work);
    Ok((names, assigned))
}

/// Warns of listed ids that the data do not have.
fn warn_of_unknown(lists: &Lists, tables: &[Utterances], places: &[Place], work: &PartWork) {
    let names = lists.names();
    let mut unknown: Vec<(u64, &str)> = vec![(0, ""); names.len()];
    for (id, split) in lists.ids() {
        if places.binary_search_by(|place| row(tables, place).utt.cmp(id)).is_err() {
            let entry = &mut unknown[split];
            *entry = (entry.0 + 1, if entry.0 == 0 { id } else { entry.1 });
        }
    }
    for (name, (count, first)) in names.iter().zip(unknown).filter(|(_, (count, _))| *count > 0) {
        work.message(format!("the list of {name} has {count} ids that the data do not (first: {first})"));
    }
}
