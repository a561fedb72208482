//! The recipe's section `prep`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use flowmill_corpus::detect::{self, Detected};
use flowmill_corpus::histories::HistoryOptions;
use flowmill_corpus::list::Order;
use flowmill_corpus::shard::{MelStore, speech};
use flowmill_corpus::split::Fractions;
use flowmill_corpus::{
    ColumnSpec, DType, Ids, Role, clips, codes, fields, hints, histories, images, packed, webdataset,
};
use flowmill_nn::device::{self, DeviceName};
use flowmill_runner::{Recipe, RecipeError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::condition::{Condition, ConditionError};
use crate::format::Format;
use crate::speed;

/// The section's name.
pub const SECTION: &str = "prep";

/// The file of a Kaldi directory, and the column of shards, with the instruction for how to speak a row.
const INSTRUCT: &str = "instruct";

/// The default training split, which also takes the rest of `by: fraction`.
pub const TRAIN_SPLIT: &str = "train";

/// Returns the training split (`train.train_split`). Earlier stages use it for fitting and measuring.
///
/// # Errors
/// Returns an error if the value is not text.
pub fn train_split(recipe: &Recipe) -> Result<String, RecipeError> {
    Ok(recipe.value("train.train_split")?.unwrap_or_else(|| TRAIN_SPLIT.to_owned()))
}

/// Returns whether the rows of a recipe have one of these media (`prep.media`). A recipe without the section `prep` may have all.
///
/// # Errors
/// The key of the section `prep` that is wrong.
pub fn has_media(recipe: &Recipe, roles: &[Role]) -> Result<bool, RecipeError> {
    if !recipe.gives(SECTION) {
        return Ok(true);
    }
    let config = PrepConfig::of(recipe)?;
    let has_no_sound = |source: &Source| {
        let format = config.format_of(source);
        format == Format::Codes || format.has_images()
    };
    // Prepared codes and images have no recordings.
    let no_sound = is_audio(&config.media) && config.data.iter().all(has_no_sound);
    let media = config.media.iter().filter(|_| !no_sound);
    let codes = config.has_codes().then_some(Role::Codes);
    let video = config.has_clips().then_some(Role::Video);
    let images = config.has_images().then_some(Role::Images);
    Ok(media.chain(&codes).chain(&video).chain(&images).any(|role| roles.contains(role)))
}

/// Returns the sources of a recipe if all of them are packed shards; `None` for other recipes.
///
/// # Errors
/// The key of the section `prep` that is wrong.
pub fn packed_sources(recipe: &Recipe) -> Result<Option<Vec<String>>, RecipeError> {
    if !recipe.gives(SECTION) {
        return Ok(None);
    }
    let config = PrepConfig::of(recipe)?;
    let is_packed = config.data.iter().all(|source| config.format_of(source) == Format::Shards);
    Ok(is_packed.then(|| config.data.into_iter().map(|source| source.dir).collect()))
}

/// Returns the training device (`train.device`). Networks of earlier stages run there too, unless their sections name
/// another.
///
/// # Errors
/// Returns an error if the value is not a device.
pub fn train_device(recipe: &Recipe) -> Result<DeviceName, RecipeError> {
    Ok(recipe.value("train.device")?.unwrap_or_default())
}

/// Checks that this build and this machine have a device; `key` is the recipe's key that names it, unless
/// `train.device` does.
///
/// # Errors
/// Returns an error with the key and how to get the device.
pub fn check_device(recipe: &Recipe, key: &str, name: DeviceName) -> Result<(), RecipeError> {
    let key = if recipe.sets(key) { key } else { "train.device" };
    device::open(name).map(drop).map_err(|error| recipe.error(key, error))
}

/// Checks that `prep.split` makes a split; `key` is the recipe's key that names it. A recipe without the section
/// `prep` is not checked.
///
/// # Errors
/// Returns an error with the key and the existing splits.
pub fn check_split(recipe: &Recipe, key: &str, split: &str) -> Result<(), RecipeError> {
    if !recipe.gives(SECTION) {
        return Ok(());
    }
    let config = PrepConfig::of(recipe)?;
    let names = config.split_names();
    // Reading shows which splits a corpus brings.
    if config.split.by == SplitBy::Corpus || names.contains(split) {
        return Ok(());
    }
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    Err(recipe.error(key, format!("`{split}` is none of the splits that prep.split makes: {names}")))
}

/// Settings of stage 0, `prep`: the recordings, the conditions under which they are kept, and their division into
/// splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PrepConfig {
    /// The data: one path, or a list of paths and of mappings `{dir, format, split, speaker, ids, prefix}`.
    #[serde(deserialize_with = "sources")]
    #[schemars(schema_with = "sources_schema")]
    pub data: Vec<Source>,
    /// Format of sources without their own `format`. With `auto` the content of each decides, and the run reports it. A path that
    /// ends in `.tar` is `webdataset` otherwise.
    pub format: Format,
    /// Division of rows into splits such as train, dev and test.
    pub split: SplitConfig,
    /// Lets `wav.scp` run commands (`sox … |`). Off by default, because a data directory should not run code.
    pub allow_pipes: bool,
    /// Opens every recording to determine its duration, sampling rate and channels.
    pub probe: bool,
    /// The program that decodes recordings that Flowmill does not decode itself (HE-AAC, multichannel AAC, AMR, WMA,
    /// AC-3, GSM, Speex, WavPack and others). Shards contain such recordings as WAV, and receipts contain the
    /// program's version. With `probe: false` no recording is opened, so every row names the program as its decoder,
    /// although it is used only for the recordings that need it.
    pub fallback: Fallback,
    /// Minimum duration of an utterance, in seconds; shorter ones are rejected.
    pub min_duration: f64,
    /// Maximum duration of an utterance, in seconds; longer ones are rejected.
    pub max_duration: f64,
    /// Minimum length of a transcript, in characters. With 0, rows without a transcript are kept too. A source in
    /// which no row has a transcript is read in any case.
    pub min_text: usize,
    /// Maximum length of a transcript, in characters.
    pub max_text: usize,
    /// A condition that rows must meet, with the words of SQL, such as `duration BETWEEN 1 AND 20 AND lang IN ('en', 'de')`. Columns are
    /// `id`, `speaker`, `text`, `lang`, `split`, `audio`, `start`, `end`, `channel`, `duration`, `sample_rate`, `channels`, and those of
    /// `prep.columns`. There are `= != < <= > >=`, `BETWEEN`, `IN`, `LIKE` (`%` and `_`), `IS NULL`, `AND`, `OR`, `NOT` and parentheses. A row is
    /// rejected with the first term that does not hold; a missing value meets only `IS NULL`.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Speeds of additional copies of the training rows, such as `[0.9, 1.1]`: factors from 0.5 to 2; 1 adds nothing. A copy is resampled,
    /// so it is faster and higher like a played tape, in the voice of another speaker: its id is `sp0.9-ID` and its speaker `sp0.9-SPEAKER`.
    ///
    /// Counterparts: Kaldi's `utils/data/perturb_data_dir_speed_3way.sh`, ESPnet's `speed_perturb_factors`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub speed_perturb: Vec<f64>,
    /// Number of utterances per part, the unit of reruns in stages 0 to 3.
    pub part_size: usize,
    /// The media that rows of a manifest have, from `audio`, `video`, `images` and `codes`. A row needs one of them, or a
    /// reference.
    #[serde(skip_serializing_if = "is_audio")]
    pub media: Vec<Role>,
    /// Fields of a manifest that contain ids of other rows, one or a list. A row is rejected if it names a row that
    /// does not exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// Fields of a manifest that are kept as columns: their types and axes by their names, such as `score: f64`,
    /// `caption: text (optional)`, `latents: f32 [frame, channel 512]`. A field of rows (`id`, `speaker`, `text`, `language`, `duration`,
    /// `offset`, `split`, `audio`) with another text is a rename: `{text: transcription, speaker: client_id}` reads these fields of
    /// the data.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
}

/// Returns whether rows have recordings and nothing else.
fn is_audio(media: &Vec<Role>) -> bool {
    media.as_slice() == [Role::Audio]
}

impl Default for PrepConfig {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            format: Format::default(),
            split: SplitConfig::default(),
            allow_pipes: false,
            probe: true,
            fallback: Fallback::None,
            min_duration: 0.1,
            max_duration: 60.0,
            min_text: 1,
            max_text: 2000,
            condition: None,
            speed_perturb: Vec::new(),
            part_size: 1000,
            media: vec![Role::Audio],
            references: Vec::new(),
            columns: BTreeMap::new(),
        }
    }
}

/// The decoder of recordings that Flowmill does not decode itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// Nothing: they are rejected, with the name of their format.
    #[default]
    None,
    /// The `ffmpeg` program, if it is installed.
    Ffmpeg,
}

/// A source of data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The directory, manifest, tar file or pattern of tar files (`shards/{000000..000012}.tar`), relative to the
    /// folder of the recipe. Required.
    pub dir: String,
    /// The format; by default `prep.format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The format that the content shows, where the recipe names none.
    #[serde(skip)]
    pub(crate) detected: Option<Detected>,
    /// True if its rows have instructions for how to speak, as CosyVoice 3 reads them.
    #[serde(skip)]
    pub(crate) instructs: bool,
    /// The order of the fields in a `list` source, such as `[path, speaker, language, text]` (`_` is not read), or the name of a tool that
    /// the list is for. By default a first line that names them decides, or else their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Order>,
    /// The folder that relative paths of recordings start from, in sources of lines (`manifest`, `list`, `commonvoice`, `gigaspeech`). By
    /// default that of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recordings: Option<String>,
    /// The sampling rate, in hertz, of recordings of a `webdataset` source that are arrays (`.npy`, `.pth`) and whose JSON does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// The microphone that is read of a `vctk` source, 1 or 2; by default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microphone: Option<u8>,
    /// The split of all its rows; required with `prep.split.by: given`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// The default speaker of rows, in `ljspeech`, `manifest` and `webdataset` sources and in `kaldi` directories
    /// without `utt2spk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// The origin of the ids of a `webdataset` source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Ids>,
    /// Prefix of every id of the source, such as `NAME-`: 1 to 100 bytes without blanks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The folder that the paths of images in a `histories` source start from, and that they may not leave. Without it the folder of
    /// the file.
    ///
    /// Counterparts: PMG's `dataset.image_dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
    /// Keeps users of a `histories` source whose target is in their history. Their prompts contain the answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_repeats: bool,
    /// Keeps several entries of a user of a `histories` source, as long as they differ. The second row of the user `17` is `17-2`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated_users: bool,
}

impl Source {
    pub(crate) fn at(dir: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            format: None,
            detected: None,
            instructs: false,
            columns: None,
            recordings: None,
            sample_rate: None,
            microphone: None,
            split: None,
            speaker: None,
            ids: None,
            prefix: None,
            images: None,
            allow_repeats: false,
            repeated_users: false,
        }
    }

    /// Returns the options of a file of users.
    pub(crate) fn histories(&self) -> HistoryOptions {
        HistoryOptions {
            allow_repeats: self.allow_repeats,
            repeated_users: self.repeated_users,
            ..HistoryOptions::default()
        }
    }
}

/// Division of rows into splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    /// The criterion of the division.
    pub by: SplitBy,
    /// `by: list`: a file of utterance ids for each split, such as `{train: train.lst, dev: dev.lst}`.
    pub lists: BTreeMap<String, String>,
    /// `by: fraction`: the share of each split except the rest, from 0 to 1.
    pub fractions: BTreeMap<String, f64>,
    /// `by: fraction`: the split of all other rows, by default `train`. `by: list` and `by: corpus`: the split of rows in no
    /// list, or in no split of their corpus; by default they are rejected.
    pub rest: Option<String>,
    /// `by: corpus`: other names for splits of the data, such as `{validated: train, dev-other: test}`. Without it, names that begin with
    /// `train`, `dev`, `valid` or `test` become `train`, `dev` and `test`, and others stay as they are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
    /// `by: fraction`: the unit that is divided, single utterances or whole speakers.
    pub unit: SplitUnit,
}

impl Default for SplitConfig {
    fn default() -> Self {
        let fractions = [("dev", 0.05), ("test", 0.05)].map(|(name, share)| (name.to_owned(), share));
        Self {
            by: SplitBy::default(),
            lists: BTreeMap::new(),
            names: BTreeMap::new(),
            fractions: fractions.into(),
            rest: None,
            unit: SplitUnit::default(),
        }
    }
}

impl SplitConfig {
    /// Returns the split of the rows that remain with `by: fraction`.
    pub(crate) fn rest_or_train(&self) -> &str {
        self.rest.as_deref().unwrap_or(TRAIN_SPLIT)
    }

    /// Returns the shares, in a fixed order.
    pub(crate) fn shares(&self) -> Vec<(String, f64)> {
        self.fractions.iter().map(|(name, share)| (name.clone(), *share)).collect()
    }
}

/// The criterion of a division into splits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// A hash of the id (or of the speaker): the split of a row does not change when rows are added.
    #[default]
    Fraction,
    /// Files that list the ids of each split.
    List,
    /// The source of the row: `data: [{dir: data/train, split: train}, {dir: data/dev, split: dev}]`.
    Given,
    /// The split that the data put the row in: the folders of LibriTTS, the tables of Common Voice, the field `split` of a manifest.
    Corpus,
}

/// The unit that is divided by fractions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SplitUnit {
    /// Single utterances: a speaker may be in several splits.
    #[default]
    Utterance,
    /// Whole speakers (or other groups: actors, users): those of dev and test are not in train.
    #[serde(alias = "group")]
    Speaker,
}

impl PrepConfig {
    /// Reads the section of a recipe and checks for impossible combinations.
    ///
    /// # Errors
    /// Returns the invalid key.
    pub fn of(recipe: &Recipe) -> Result<Self, RecipeError> {
        let mut config: Self = recipe.section(SECTION)?;
        let is_auto = |format: Format| format == Format::Auto;
        if is_auto(config.format) {
            for source in config.data.iter_mut().filter(|source| source.format.is_none_or(is_auto)) {
                source.detected = detect::detect(&recipe.resolve(&source.dir));
            }
        }
        let instructs: Vec<bool> =
            config.data.iter().map(|source| config.brings_instructions(source, recipe)).collect();
        config.data.iter_mut().zip(instructs).for_each(|(source, instructs)| source.instructs = instructs);
        match config.problem() {
            Some((key, message)) => Err(recipe.error(&format!("{SECTION}.{key}"), message)),
            None => Ok(config),
        }
    }

    /// Returns whether a source has the file or the column `instruct` of CosyVoice 3.
    fn brings_instructions(&self, source: &Source, recipe: &Recipe) -> bool {
        match self.format_of(source) {
            Format::Kaldi | Format::Auto => recipe.resolve(&source.dir).join(INSTRUCT).is_file(),
            Format::Shards => {
                packed::sample(recipe.dir(), &source.dir).is_ok_and(|sample| sample.columns.contains_key(INSTRUCT))
            }
            _ => false,
        }
    }

    /// Returns whether rows get the column `instruct` although the recipe does not name it.
    pub(crate) fn adds_instructions(&self) -> bool {
        self.data.iter().any(|source| source.instructs)
            && !self.columns.contains_key(INSTRUCT)
            && !self.references.iter().any(|name| name == INSTRUCT)
    }

    /// Returns the format of a source.
    pub(crate) fn format_of(&self, source: &Source) -> Format {
        let is_shard = source.detected.as_ref().is_some_and(|detected| detected.format == Format::Shards.name());
        let is_tar = source.dir.ends_with(".tar") || webdataset::is_compressed(&source.dir);
        let by_name = (is_tar && !is_shard).then_some(Format::Webdataset);
        let named = [source.format, by_name, Some(self.format)].into_iter().flatten();
        let detected = || Format::of_name(source.detected.as_ref()?.format);
        named.into_iter().find(|format| *format != Format::Auto).or_else(detected).unwrap_or(Format::Kaldi)
    }

    /// Returns the first impossible combination, with its key.
    fn problem(&self) -> Option<(&'static str, String)> {
        if self.data.is_empty() {
            return Some(("data", "name at least one data directory: `data: ../../data/NAME`".into()));
        }
        if let Some(source) = self.data.iter().find(|s| s.ids.is_some() && self.format_of(s) != Format::Webdataset) {
            return Some((
                "data",
                format!("`ids` is only for `format: webdataset`; {} has another format", source.dir),
            ));
        }
        let bad_prefix =
            |prefix: &String| prefix.is_empty() || prefix.len() > 100 || prefix.contains(char::is_whitespace);
        if let Some(source) = self.data.iter().find(|s| s.prefix.as_ref().is_some_and(bad_prefix)) {
            let problem = format!("the `prefix` of {} must be 1 to 100 bytes without blanks", source.dir);
            return Some(("data", problem));
        }
        let names_speakers = |s: &Source| {
            let format = self.format_of(s);
            matches!(format, Format::Folder | Format::Codes | Format::Clips | Format::Ravdess)
                || format.has_images()
                || (format.corpus().is_some() && !format.has_fields())
        };
        if let Some(source) = self.data.iter().find(|s| s.speaker.is_some() && names_speakers(s)) {
            let (dir, format) = (&source.dir, json!(self.format_of(source)));
            let problem =
                format!("`speaker` has no effect on {dir}: a source of format {format} names its speakers itself");
            return Some(("data", problem));
        }
        let is_wrong = |s: &&Source| {
            let (is_file, has_users) = (self.format_of(s) == Format::Histories, self.format_of(s).has_histories());
            ((s.images.is_some() || s.repeated_users) && !is_file) || (s.allow_repeats && !has_users)
        };
        if let Some(source) = self.data.iter().find(is_wrong) {
            let keys = "`images`, `repeated_users` and `allow_repeats` are only for `format: histories` (the last also for datasets)";
            return Some(("data", format!("{keys}; {} has another format", source.dir)));
        }
        if let Some(problem) = self.data.iter().find_map(|source| self.option_problem(source)) {
            return Some(("data", problem));
        }
        if let Some(problem) = speed::problem(self) {
            return Some(("speed_perturb", problem));
        }
        if self.part_size == 0 {
            return Some(("part_size", "a part has at least one utterance".into()));
        }
        if !(self.min_duration >= 0.0 && self.max_duration > self.min_duration) {
            let (least, most) = (self.min_duration, self.max_duration);
            return Some(("max_duration", format!("no duration is between {least} and {most} seconds")));
        }
        if self.max_text < self.min_text {
            let (least, most) = (self.min_text, self.max_text);
            return Some(("max_text", format!("no text has at least {least} and at most {most} characters")));
        }
        if let Err(problem) = self.parsed_condition() {
            return Some(("where", problem.to_string()));
        }
        self.columns_problem().or_else(|| self.split_problem())
    }

    /// Returns the first option of a source that its format does not have.
    fn option_problem(&self, source: &Source) -> Option<String> {
        let format = self.format_of(source);
        let wrong = |key: &str, only: &str| {
            Some(format!("`{key}` is only for {only}; {} has the format {}", source.dir, format.name()))
        };
        if source.columns.is_some() && format != Format::List {
            return wrong("columns", "`format: list`");
        }
        if source.recordings.is_some() && (!format.has_fields() || format == Format::Shards) {
            return wrong("recordings", "sources of lines (manifest, list, commonvoice, gigaspeech)");
        }
        if source.sample_rate.is_some() && format != Format::Webdataset {
            return wrong("sample_rate", "`format: webdataset`");
        }
        match source.microphone {
            Some(_) if format != Format::Vctk => wrong("microphone", "`format: vctk`"),
            Some(number) if !(1..=2).contains(&number) => Some(format!("{} has the microphones 1 and 2", source.dir)),
            _ => None,
        }
    }

    /// Returns whether an entry of `prep.columns` gives a field of rows another name in the data, instead of adding a column.
    fn is_rename(name: &str, text: &str) -> bool {
        fields::FIELDS.iter().any(|(field, _)| *field == name) && ColumnSpec::parse(name, text).is_err()
    }

    /// Returns the condition that rows must meet.
    pub(crate) fn parsed_condition(&self) -> Result<Condition, ConditionError> {
        let specs = self.column_specs();
        let added: Vec<&str> = specs.iter().map(|column| column.name.as_str()).collect();
        self.condition.as_deref().map_or_else(|| Ok(Condition::default()), |text| Condition::parse(text, &added))
    }

    /// Returns the fields that have another name in the data.
    pub(crate) fn renames(&self) -> Vec<(String, String)> {
        let renames = self.columns.iter().filter(|(name, text)| Self::is_rename(name, text));
        renames.map(|(name, text)| (name.clone(), text.clone())).collect()
    }

    /// Returns the entries of `prep.columns` that add columns.
    fn added_columns(&self) -> impl Iterator<Item = (&String, &String)> {
        self.columns.iter().filter(|(name, text)| !Self::is_rename(name, text))
    }

    /// Returns the columns of `prep.columns`, by name.
    pub fn column_specs(&self) -> Vec<ColumnSpec> {
        // The section was checked with the recipe, so all can be parsed.
        let named = self.added_columns().filter_map(|(name, text)| ColumnSpec::parse(name, text).ok());
        let emotion = || ColumnSpec::new(clips::ravdess::EMOTION, DType::Text).optional();
        let has_emotions = self.data.iter().any(|source| self.format_of(source) == Format::Ravdess)
            && !self.columns.contains_key(clips::ravdess::EMOTION);
        let named: Vec<ColumnSpec> = named.chain(has_emotions.then(emotion)).collect();
        let mut columns = named;
        if self.adds_instructions() {
            columns.push(ColumnSpec::new(INSTRUCT, DType::Text).optional());
        }
        for column in self.image_columns() {
            if !columns.iter().any(|own| own.name == column.name) {
                columns.push(column);
            }
        }
        columns
    }

    /// Returns the columns of sources with images. They are required only where every row has them.
    fn image_columns(&self) -> Vec<ColumnSpec> {
        let mut formats = self.data.iter().map(|source| self.format_of(source));
        let of_users = formats.clone().any(Format::has_histories).then(histories::columns).unwrap_or_default();
        let of_images =
            formats.clone().any(|format| format == Format::Images).then(images::columns).unwrap_or_default();
        let required = formats.all(Format::has_histories);
        let mut columns: Vec<ColumnSpec> = of_users.into_iter().chain(of_images).collect();
        columns.iter_mut().for_each(|column| column.required &= required);
        columns
    }

    /// Returns whether rows may have more than utterances have.
    pub(crate) fn has_extras(&self) -> bool {
        self.asks_for_extras() || self.adds_instructions() || self.has_codes() || self.has_clips() || self.has_images()
    }

    /// Returns whether a source has images and no recordings.
    pub(crate) fn has_images(&self) -> bool {
        self.data.iter().any(|source| self.format_of(source).has_images())
    }

    /// Returns whether the recipe asks for more than utterances have.
    fn asks_for_extras(&self) -> bool {
        !is_audio(&self.media) || !self.references.is_empty() || self.added_columns().next().is_some()
    }

    /// Returns whether a source has codes instead of recordings.
    fn has_codes(&self) -> bool {
        self.data.iter().any(|source| self.format_of(source) == Format::Codes)
    }

    /// Returns whether a source is a folder of clips.
    pub(crate) fn has_clips(&self) -> bool {
        self.data.iter().any(|source| self.format_of(source).clips().is_some())
    }

    /// Returns the first problem of media, references and columns.
    fn columns_problem(&self) -> Option<(&'static str, String)> {
        if self.media.is_empty() {
            return Some(("media", "name at least one of audio, video, images, codes".into()));
        }
        // Folders of clips have videos, but no fields.
        let needs_rows = !is_audio(&self.media) || !self.references.is_empty();
        let needs_fields = !self.references.is_empty() || self.added_columns().next().is_some();
        let has_them = |source: &&Source| match self.format_of(source) {
            Format::Codes => true,
            format if format.has_fields() => true,
            // Columns are in files of their names, or in the JSON and the members of an utterance.
            Format::Kaldi | Format::Folder | Format::Webdataset => !needs_rows,
            Format::Clips | Format::Ravdess => !needs_fields,
            format if format.has_images() => !needs_fields,
            _ => false,
        };
        if self.asks_for_extras()
            && let Some(source) = self.data.iter().find(|source| !has_them(source))
        {
            let problem = format!(
                "media, references and columns need `format: manifest`; {} has the format {}",
                source.dir,
                self.format_of(source).name()
            );
            return Some(("data", problem));
        }
        let reserved: Vec<String> = speech::columns(MelStore::Float32).into_iter().map(|column| column.name).collect();
        let is_plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let is_taken = |name: &str| {
            let media = [Role::Video.name(), Role::Images.name()].into_iter();
            let bytes = crate::columns::MEDIA_BYTES.into_iter().map(|(_, name)| name);
            reserved.iter().any(|own| own == name) || media.chain(bytes).any(|own| own == name)
        };
        for (key, name) in self
            .references
            .iter()
            .map(|name| ("references", name))
            .chain(self.added_columns().map(|(name, _)| ("columns", name)))
        {
            if !is_plain(name) {
                return Some((key, format!("`{name}`: a name has letters, digits and `_` only")));
            }
            if is_taken(name) {
                return Some((
                    key,
                    format!("`{name}` is a column of Flowmill's own; rename the field in the manifest"),
                ));
            }
        }
        if let Some(name) = self.references.iter().find(|name| self.columns.contains_key(*name)) {
            return Some(("references", format!("`{name}` is a column of prep.columns too")));
        }
        let wrong =
            |(name, text): (&String, &String)| Some(format!("`{name}`: {}", ColumnSpec::parse(name, text).err()?));
        self.added_columns().find_map(wrong).map(|problem| ("columns", problem))
    }

    /// Returns the splits that rows can belong to. Reading the data shows which of them get rows.
    pub fn split_names(&self) -> BTreeSet<String> {
        let split = &self.split;
        match split.by {
            SplitBy::Given => self.data.iter().filter_map(|source| source.split.clone()).collect(),
            // The names are in the data.
            SplitBy::Corpus => split.names.values().cloned().chain(split.rest.clone()).collect(),
            SplitBy::List => split.lists.keys().cloned().chain(split.rest.clone()).collect(),
            SplitBy::Fraction => split.fractions.keys().cloned().chain([split.rest_or_train().to_owned()]).collect(),
        }
    }

    /// Returns the first problem of the splits.
    fn split_problem(&self) -> Option<(&'static str, String)> {
        let split = &self.split;
        let given = self.data.iter().filter(|source| source.split.is_some()).count();
        match split.by {
            SplitBy::Given if given < self.data.len() => {
                return Some(("data", "with `split.by: given` every entry needs its `split`".into()));
            }
            SplitBy::List | SplitBy::Fraction | SplitBy::Corpus if given > 0 => {
                return Some(("data", "entries name their `split`; set `split.by: given`".into()));
            }
            SplitBy::List if split.lists.is_empty() => {
                return Some(("split.lists", "`by: list` needs lists: `lists: {train: FILE, dev: FILE}`".into()));
            }
            _ => {}
        }
        if let Some(name) = self.split_names().iter().find(|name| !is_split_name(name)) {
            return Some(("split", format!("`{name}` cannot name a split; use letters, digits, `-` and `_`")));
        }
        if split.by == SplitBy::Fraction {
            if split.fractions.contains_key(split.rest_or_train()) {
                return Some(("split.rest", format!("`{}` is both a share and the rest", split.rest_or_train())));
            }
            if let Err(problem) = Fractions::new(&split.shares(), split.rest_or_train()) {
                return Some(("split.fractions", problem.to_string()));
            }
        }
        None
    }

    /// Checks that existing sources are of the kind of their format, as far as a quick look shows.
    ///
    /// # Errors
    /// Returns the key that names the source.
    pub(crate) fn check_contents(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        for source in &self.data {
            let (path, format) = (recipe.resolve(&source.dir), self.format_of(source));
            let right = match format {
                Format::Webdataset => {
                    webdataset::shards(recipe.dir(), &source.dir).map(drop).map_err(|e| e.to_string())
                }
                Format::Codes => codes::list(recipe.dir(), &source.dir).map(drop).map_err(|e| e.to_string()),
                Format::Shards => packed::files(recipe.dir(), &source.dir).map(drop).map_err(|e| e.to_string()),
                Format::Histories if path.is_file() => Ok(()),
                format if format.has_fields() && path.exists() => Ok(()),
                Format::Kaldi
                | Format::Folder
                | Format::Ljspeech
                | Format::Clips
                | Format::Ravdess
                | Format::Images
                | Format::FlickrAes
                | Format::Pog
                | Format::Ser30k
                | Format::LibriTts
                | Format::LibriSpeech
                | Format::Vctk
                | Format::Aishell3
                | Format::Mls
                    if path.is_dir() =>
                {
                    Ok(())
                }
                _ => {
                    let hint = hints::of_source(&path, format.name()).map(|hint| format!(": {hint}"));
                    Err(format!("{} is no {}{}", path.display(), format.place(), hint.unwrap_or_default()))
                }
            };
            right.map_err(|problem| recipe.error(&format!("{SECTION}.data"), problem))?;
        }
        Ok(())
    }

    /// Checks that data and lists exist.
    ///
    /// # Errors
    /// Returns the key that names the missing file.
    pub(crate) fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        for source in &self.data {
            // Data of another kind are detected when they are read, with their rows.
            let there = match self.format_of(source) {
                Format::Webdataset => webdataset::check_paths(recipe.dir(), &source.dir).map_err(|e| e.to_string()),
                Format::Codes if recipe.resolve(codes::place(&source.dir)).exists() => Ok(()),
                Format::Shards if source.dir.contains('{') => {
                    packed::files(recipe.dir(), &source.dir).map(drop).map_err(|e| e.to_string())
                }
                _ if recipe.resolve(&source.dir).exists() => Ok(()),
                format => Err(format!(
                    "there is no {} {}; relative paths start from the folder of the recipe that contains them",
                    format.place(),
                    recipe.resolve(&source.dir).display()
                )),
            };
            there.map_err(|problem| recipe.error(&format!("{SECTION}.data"), problem))?;
            if let Some(folder) = source.recordings.as_deref().filter(|folder| !recipe.resolve(folder).is_dir()) {
                let problem = format!("there is no folder of recordings {}", recipe.resolve(folder).display());
                return Err(recipe.error(&format!("{SECTION}.data"), problem));
            }
            if let Some(images) = source.images.as_deref().filter(|images| !recipe.resolve(images).is_dir()) {
                let problem = format!("there is no folder of images {}", recipe.resolve(images).display());
                return Err(recipe.error(&format!("{SECTION}.data"), problem));
            }
        }
        for (name, list) in &self.split.lists {
            let path = recipe.resolve(list);
            if self.split.by == SplitBy::List && !path.is_file() {
                let key = format!("{SECTION}.split.lists.{name}");
                return Err(recipe.error(&key, format!("there is no list {}", path.display())));
            }
        }
        Ok(())
    }
}

/// Returns whether a name can be a folder of the stage: plain, and not one that the stage uses itself.
pub(crate) fn is_split_name(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    plain
        && !name.is_empty()
        && name.len() <= 100
        && !["manifests", "read", "receipts", crate::warnings::FOLDER, crate::unpack::FOLDER].contains(&name)
}

/// A path, or a list of paths and mappings.
fn sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Source>, D::Error> {
    struct Sources;

    impl<'de> Visitor<'de> for Sources {
        type Value = Vec<Source>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a path, or a list of paths and `{dir: …}` mappings")
        }

        fn visit_str<E: de::Error>(self, path: &str) -> Result<Self::Value, E> {
            Ok(vec![Source::at(path)])
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Source::deserialize(MapAccessDeserializer::new(map)).map(|source| vec![source])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut sources = Vec::new();
            while let Some(One(source)) = seq.next_element()? {
                sources.push(source);
            }
            Ok(sources)
        }
    }

    deserializer.deserialize_any(Sources)
}

/// Returns the schema of the values that [`sources`] reads.
fn sources_schema(generator: &mut SchemaGenerator) -> Schema {
    let source = generator.subschema_for::<Source>();
    json_schema!({
        "anyOf": [
            { "type": "string", "description": "The path of one source." },
            source,
            { "type": "array", "items": { "anyOf": [{ "type": "string" }, source] }, "description": "Several sources." },
        ],
    })
}

/// One entry of the list.
struct One(Source);

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;

        impl<'de> Visitor<'de> for Entry {
            type Value = One;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path or a `{dir: …}` mapping")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<One, E> {
                Ok(One(Source::at(path)))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<One, A::Error> {
                Source::deserialize(MapAccessDeserializer::new(map)).map(One)
            }
        }

        deserializer.deserialize_any(Entry)
    }
}
