//! Utterances as groups of files: `KEY.flac` with `KEY.json` or `KEY.txt`, in a folder or in a tar file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use flowmill_audio::media;

use crate::encoding;
use crate::fields::{Fields, Object, is_name_of};
use crate::reading::Candidate;
use crate::utterances::Extra;
use crate::{DType, ReadOptions, values, waveform};

/// Extensions of transcripts, in the order of preference.
pub(crate) const TEXT_EXTENSIONS: [&str; 3] = ["txt", "lab", "text"];
/// The largest transcript or JSON file, in bytes.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// The apparent kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// A recording or a video, by its extension or its content.
    Media,
    /// A transcript, or fields as JSON.
    Text,
    /// Neither.
    Other,
}

/// Returns the kind of a file by its name.
pub(crate) fn look(name: &str) -> Look {
    let extension = extension(name).to_ascii_lowercase();
    if media::rank(&extension).is_some() {
        Look::Media
    } else if extension == "json" || TEXT_EXTENSIONS.contains(&extension.as_str()) {
        Look::Text
    } else {
        Look::Other
    }
}

/// A file of a source.
#[derive(Debug)]
pub(crate) struct File {
    /// The path below the source, `/` between its parts.
    pub(crate) name: String,
    /// The apparent kind.
    pub(crate) look: Look,
    /// For a member of a tar file, the position of its bytes.
    pub(crate) offset: u64,
    /// The size in bytes.
    pub(crate) size: u64,
}

/// The files of one utterance.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Each file with the part of its name after the key and a dot, in lower case.
    pub(crate) files: Vec<(String, File)>,
}

/// The role of a file for its utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Recording,
    Json,
    Text,
    /// A transcript whose name says its language: `KEY.en.txt`.
    TextOfLanguage,
    Speaker,
    Language,
    /// A file that looks like a transcript, but whose name says that it is something else.
    OtherText,
    Other,
}

/// A place from which files are read.
pub(crate) trait Store: Sync {
    /// Returns the bytes of a file; the problem follows its name.
    fn read(&self, file: &File) -> Result<Vec<u8>, String>;
    /// Returns the name of a file for messages.
    fn shown(&self, name: &str) -> String;
}

/// The order of preference if several files provide the same field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Precedence {
    /// True if `KEY.txt` is preferred to the JSON's text. Unreadable JSON is then an error only if nothing else has
    /// the text.
    pub(crate) text_file_first: bool,
}

/// Returns the extension: the part of a name after the last dot; empty if there is no dot after the first character.
pub(crate) fn extension(name: &str) -> &str {
    name[stem(name).len()..].trim_start_matches('.')
}

/// Returns a name without its extension.
pub(crate) fn stem(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |at| at + 1);
    match name[file..].rfind('.') {
        None | Some(0) => name,
        Some(at) => &name[..file + at],
    }
}

/// Groups files by the part of the recordings' names before the last dot. Every other file belongs to the recording
/// whose name is the longest prefix of its own (`a.1.speaker.txt` to `a.1.flac`), subject to [`key_of`].
pub(crate) fn by_last_dot(files: Vec<File>) -> BTreeMap<String, Sample> {
    let keys = Keys::of(files.iter().filter(|file| file.look == Look::Media).map(|file| stem(&file.name)));
    let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
    for file in files {
        let (key, length) = match file.look {
            Look::Media => (stem(&file.name).to_owned(), stem(&file.name).len()),
            _ => key_of(&file.name, &keys),
        };
        let rest = file.name[length..].trim_start_matches('.').to_ascii_lowercase();
        samples.entry(key).or_default().files.push((rest, file));
    }
    samples
}

/// The keys of recordings.
struct Keys {
    exact: BTreeSet<String>,
    /// Keys with letters beyond ASCII by their one Unicode form; `None` if several have the same.
    by_form: BTreeMap<String, Option<String>>,
}

impl Keys {
    fn of<'a>(keys: impl Iterator<Item = &'a str>) -> Self {
        let exact: BTreeSet<String> = keys.map(str::to_owned).collect();
        let mut by_form: BTreeMap<String, Option<String>> = BTreeMap::new();
        for key in exact.iter().filter(|key| !key.is_ascii()) {
            let several = |known: &mut Option<String>| *known = None;
            by_form.entry(values::one_form(key).into_owned()).and_modify(several).or_insert_with(|| Some(key.clone()));
        }
        Self { exact, by_form }
    }

    /// Returns the key with this spelling, in any Unicode form.
    fn find(&self, name: &str) -> Option<&str> {
        let other = || self.by_form.get(values::one_form(name).as_ref())?.as_ref();
        self.exact.get(name).or_else(other).map(String::as_str)
    }
}

/// Returns the key of a file that is not a recording, and the length of the key in its name. The key is the longest
/// prefix of its name that ends at a dot and is a recording's key, or else its [`own_key`]. Only known words may come
/// between the key and the extension of a transcript: `a.1.txt` does not belong to `a.flac`.
fn key_of(name: &str, keys: &Keys) -> (String, usize) {
    let of_text = look(name) == Look::Text;
    let mut beginning = stem(name);
    if beginning == name {
        return (name.to_owned(), name.len());
    }
    loop {
        if let Some(key) = keys.find(beginning) {
            return (key.to_owned(), beginning.len());
        }
        let shorter = stem(beginning);
        if shorter == beginning || (of_text && !is_known(&extension(beginning).to_ascii_lowercase())) {
            break;
        }
        beginning = shorter;
    }
    let own = own_key(name);
    let length = own.len();
    (own, length)
}

/// Returns a name without its extension, and without known words such as `speaker` before it.
pub(crate) fn own_key(name: &str) -> String {
    let mut key = stem(name);
    while is_known(&extension(key).to_ascii_lowercase()) {
        key = stem(key);
    }
    key.to_owned()
}

/// Returns whether the part after a key in a transcript's name shows that it belongs to that key: `speaker.txt`, not
/// `1.txt`.
pub(crate) fn follows_a_key(rest: &str) -> bool {
    rest.rsplit_once('.').is_none_or(|(words, _)| has_only_known_words(words))
}

/// Returns whether all of these words, separated by dots, are known.
pub(crate) fn has_only_known_words(words: &str) -> bool {
    words.split('.').all(|word| is_known(&word.to_ascii_lowercase()))
}

/// Returns whether a word may come between a key and an extension.
fn is_known(word: &str) -> bool {
    word_role(word).is_some()
        || is_name_of("audio", word)
        || OF_JSON.contains(&word)
        || OF_ANNOTATIONS.contains(&word)
        || is_language_tag(word)
}

/// Words before `.json` that show that the file contains fields.
const OF_JSON: [&str; 8] = ["meta", "metadata", "info", "json", "label", "labels", "annotation", "attributes"];

/// Words before an extension that show that the file contains neither the transcript nor fields.
const OF_ANNOTATIONS: [&str; 21] = [
    "original",
    "orig",
    "raw",
    "phone",
    "phones",
    "phoneme",
    "phonemes",
    "ipa",
    "pinyin",
    "word",
    "words",
    "align",
    "alignment",
    "alignments",
    "durations",
    "pitch",
    "prosody",
    "emotion",
    "gender",
    "style",
    "description",
];

/// Returns the role that a word before `.txt` gives the text: `KEY.speaker.txt`.
fn word_role(word: &str) -> Option<Role> {
    const OF_TEXT: [&str; 3] = ["normalized", "normalised", "norm"];
    if OF_ANNOTATIONS.contains(&word) {
        None
    } else if is_name_of("text", word) || OF_TEXT.contains(&word) || media::rank(word).is_some() {
        Some(Role::Text)
    } else if is_name_of("speaker", word) {
        Some(Role::Speaker)
    } else if is_name_of("language", word) {
        Some(Role::Language)
    } else {
        None
    }
}

/// Returns whether a word in lower case is a language tag: a code of ISO 639 (only the common ones of three letters),
/// optionally followed by a script or a region.
fn is_language_tag(word: &str) -> bool {
    const TWO: &str = "aa ab af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cs cu cv cy da de dv dz ee el en eo es et \
                       eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy ia id ie ig ii ik io is it iu ja jv ka kg ki kj \
                       kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no \
                       nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta \
                       te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu";
    const THREE: &str = "ara ben ces chi cmn deu dan dut ell eng fas fin fra fre ger heb hin hun ind ita jpn kor nan nld nor pol por \
                         ron rus spa swe tha tur ukr vie wuu yue zho";
    let (code, rest) = word.split_once(['-', '_']).unwrap_or((word, ""));
    let known = [TWO, THREE].iter().any(|codes| codes.split_ascii_whitespace().any(|known| known == code));
    known
        && rest
            .split(['-', '_'])
            .all(|part| matches!(part.len(), 0 | 2..=4) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Returns the role of a file by the part of its name after the key.
fn role(rest: &str, look: Look) -> Role {
    let (word, last) = rest.rsplit_once('.').unwrap_or(("", rest));
    match look {
        Look::Media => Role::Recording,
        Look::Text if last == "json" => match OF_ANNOTATIONS.contains(&word) {
            true => Role::OtherText,
            false => Role::Json,
        },
        Look::Text if word.is_empty() => Role::Text,
        Look::Text if is_language_tag(word) => Role::TextOfLanguage,
        Look::Text => word_role(word).unwrap_or(Role::OtherText),
        Look::Other if word.is_empty() => match word_role(last) {
            Some(Role::Text) | None => Role::Other,
            Some(role) => role,
        },
        Look::Other => Role::Other,
    }
}

impl Sample {
    /// Returns the first file with a role: plain `KEY.txt` before `KEY.text.txt`, known endings in their order.
    fn first(&self, wanted: Role) -> Option<&File> {
        let order = |rest: &str| {
            let last = rest.rsplit('.').next().unwrap_or(rest);
            let known = TEXT_EXTENSIONS.iter().position(|extension| *extension == last).unwrap_or(usize::MAX);
            let told = ["json", "meta.json", "metadata.json", "info.json"].iter().position(|name| *name == rest);
            (told.unwrap_or(usize::MAX), rest.matches('.').count(), known)
        };
        let files = self.files.iter().filter(|(rest, file)| role(rest, file.look) == wanted);
        files.min_by_key(|(rest, file)| (order(rest), &file.name)).map(|(_, file)| file)
    }

    /// Returns the recordings.
    pub(crate) fn recordings(&self) -> impl Iterator<Item = &File> {
        self.files.iter().map(|(_, file)| file).filter(|file| file.look == Look::Media)
    }

    /// Returns the recording to take, with those that are left out: the same utterance in formats that come later in
    /// [`media::EXTENSIONS`]. The kind of a problem is prepended to it.
    pub(crate) fn recording(
        &self,
        store: &impl Store,
        options: &ReadOptions<'_>,
    ) -> Result<(&File, Vec<&File>), String> {
        // The recipe may name the member: `audio: clean.flac`.
        let named =
            options.renames.iter().find(|(field, _)| field == "audio").map(|(_, from)| from.to_ascii_lowercase());
        let named =
            named.and_then(|name| self.files.iter().find(|(rest, file)| *rest == name && may_be_recording(rest, file)));
        if let Some((_, file)) = named {
            return Ok((file, Vec::new()));
        }
        let mut files: Vec<&File> = self.recordings().collect();
        let rank = |file: &File| media::rank(extension(&file.name)).unwrap_or(usize::MAX);
        files.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
        match files.as_slice() {
            [] => match self.files.iter().filter(|(rest, file)| is_array(rest, file)).collect::<Vec<_>>().as_slice() {
                [(_, array)] => Ok((array, Vec::new())),
                _ => Err(format!("no recording: {}", self.without_recording(store))),
            },
            [one] => Ok((one, Vec::new())),
            [one, two, ..] if stem(&one.name) != stem(&two.name) || rank(one) == rank(two) => {
                let more = if files.len() > 2 { format!(" and {} more", files.len() - 2) } else { String::new() };
                let problem = "it is not clear which one is meant; give every recording its own name";
                Err(format!("two recordings: {} and {}{more}: {problem}", store.shown(&one.name), two.name))
            }
            [one, others @ ..] => Ok((one, others.to_vec())),
        }
    }

    /// Returns the stems of the recordings' names, sorted.
    pub(crate) fn stems(&self) -> BTreeSet<&str> {
        self.recordings().map(|file| stem(&file.name)).collect()
    }

    /// Returns whether a JSON file of the group has a transcript; false if it cannot be read.
    pub(crate) fn json_has_text(&self, store: &impl Store) -> bool {
        let json = self.files.iter().filter(|(rest, file)| role(rest, file.look) == Role::Json);
        let mut fields = json.map(|(_, file)| object_of(file, store).and_then(|object| object.fields()));
        fields.any(|fields| fields.is_ok_and(|fields| fields.text.is_some()))
    }

    /// Describes the files of a group without a recording.
    fn without_recording(&self, store: &impl Store) -> String {
        let text = |file: &&File| file.look == Look::Text;
        let mut names: Vec<&str> =
            self.files.iter().map(|(_, file)| file).filter(text).map(|file| file.name.as_str()).collect();
        names.sort_unstable();
        let only = format!("only {}", names.join(" and "));
        let array = |file: &&File| ["npy", "npz", "pt", "pth"].contains(&extension(&file.name));
        match self.files.iter().map(|(_, file)| file).find(array) {
            Some(array) => {
                store.shown(&format!("{only}; {} is an array: write the samples as .wav or .flac", array.name))
            }
            None => store.shown(&only),
        }
    }

    /// Returns the row of the group, whose `id` is made from `key`. Its `wav` is what follows the name of the recording:
    /// the sampling rate of an array. The kind of a problem is prepended to it.
    pub(crate) fn candidate(
        &self,
        key: &str,
        recording: &File,
        store: &impl Store,
        precedence: Precedence,
        options: &ReadOptions<'_>,
    ) -> Result<Candidate, String> {
        let text_file = self.text_file(store);
        let (file, tag) = text_file.as_ref().ok().cloned().flatten().unzip();
        let text = file.map(|file| text_of(file, store)).transpose()?;
        let text_there = text.as_ref().is_some_and(|(_, text)| !text.is_empty());
        let json = self.first(Role::Json);
        let object = json.map(|file| object_of(file, store)).transpose();
        let object = match object {
            Err(_) if precedence.text_file_first && text_there => None,
            object => object?,
        };
        let object = self.with_members(object.unwrap_or_default(), store, options)?.renamed(options);
        let in_object = |problem: String| match json {
            Some(json) => format!("bad transcript: {} {problem}", store.shown(&json.name)),
            None => format!("bad member: {} {problem}", store.shown(&recording.name)),
        };
        let fields = object.fields();
        let fields = match fields {
            Err(_) if precedence.text_file_first && text_there => Fields::default(),
            fields => fields.map_err(in_object)?,
        };
        let columns = crate::manifest::columns(&object, options).map_err(in_object)?;
        let extra = (!columns.is_empty()).then(|| Box::new(Extra { columns, ..Extra::default() }));
        // A text under a name that the recipe gives comes first.
        let is_named = options.renames.iter().any(|(field, _)| field == "text") && fields.text.is_some();
        let of_json = fields.text.as_deref().filter(|_| is_named || !(precedence.text_file_first && text_there));
        let text = match (of_json, json, &text) {
            (Some(text), json, _) => transcript(text, &json.unwrap_or(recording).name, store)?,
            (_, _, Some((name, text))) => transcript(text, name, store)?,
            (None, _, None) if text_file.is_err() => return Err(text_file.err().unwrap_or_default()),
            (_, Some(json), None) => Err(format!("{} has no `text`", store.shown(&json.name))),
            _ => Err(self.without_text(recording, store)),
        };
        let spoken = |role| self.first(role).map(|file| text_of(file, store)).transpose();
        let word = |text: Option<(String, String)>| {
            text.map(|(_, text)| values::one_line(&text).into_owned()).filter(|word| !word.is_empty())
        };
        let speaker = fields.speaker.map_or_else(|| spoken(Role::Speaker).map(word), |speaker| Ok(Some(speaker)))?;
        let language = fields
            .language
            .map_or_else(|| spoken(Role::Language).map(word), |language| Ok(Some(language)))?
            .or(tag.flatten());
        let rate = fields.sample_rate.or(options.sample_rate);
        let wav = match (recording.look == Look::Other, rate) {
            (false, _) => String::new(),
            (true, Some(rate)) => waveform::ending(rate),
            (true, None) => {
                let advice = "name the rate in the JSON (`sample_rate`), or at the source (`sample_rate: 16000`)";
                return Err(format!("no sampling rate: {} is an array; {advice}", store.shown(&recording.name)));
            }
        };
        Ok(Candidate {
            id: fields.id.unwrap_or_default(),
            origin: Some(key.to_owned()),
            speaker,
            text,
            language,
            wav,
            start: None,
            end: None,
            duration: fields.duration,
            split: fields.split,
            extra,
            place: store.shown(&recording.name),
        })
    }

    /// Adds the members that the recipe names as fields or columns: `{speaker: cls, text: caption.txt}`.
    fn with_members(
        &self,
        mut object: Object,
        store: &impl Store,
        options: &ReadOptions<'_>,
    ) -> Result<Object, String> {
        let renamed = options.renames.iter().filter(|(field, _)| field != "audio").map(|(_, from)| (from, true));
        let columns = options.columns.iter().map(|column| (&column.name, column.dtype == DType::Text));
        // A member that is both keeps the type of the column.
        for (name, is_text) in columns.chain(renamed) {
            let wanted = name.to_ascii_lowercase();
            let member = self.files.iter().find(|(rest, file)| *rest == wanted && file.look != Look::Media);
            if let Some((_, file)) = member.filter(|_| !object.has(name)) {
                let (_, text) = text_of(file, store)?;
                object.set_value(name, &text, is_text);
            }
        }
        Ok(object)
    }

    /// Returns the file of the transcript, with the language in its name, if any. Several languages are a problem,
    /// with its kind prepended.
    fn text_file(&self, store: &impl Store) -> Result<Option<(&File, Option<String>)>, String> {
        if let Some(file) = self.first(Role::Text) {
            return Ok(Some((file, None)));
        }
        let files = self.files.iter().filter(|(rest, file)| role(rest, file.look) == Role::TextOfLanguage);
        let mut files: Vec<&(String, File)> = files.collect();
        files.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        match files.as_slice() {
            [] => Ok(None),
            [(rest, file)] => Ok(Some((file, rest.split('.').next().map(str::to_owned)))),
            several => {
                let names: Vec<&str> = several.iter().map(|(_, file)| file.name.as_str()).collect();
                let names = store.shown(&names.join(" and "));
                Err(format!(
                    "transcripts in several languages: {names}: it is not clear which one is spoken; keep only that one, or name it without \
                     the language"
                ))
            }
        }
    }

    /// Describes why there is no transcript.
    fn without_text(&self, recording: &File, store: &impl Store) -> String {
        let name = store.shown(&recording.name);
        match self.first(Role::OtherText) {
            None => format!("{name} has no .json or .txt of its name"),
            Some(other) => format!("{name} has no .json or .txt of its name, only {}", other.name),
        }
    }

    /// Returns whether a file of the group looks like a transcript, or fields as JSON.
    pub(crate) fn has_text(&self) -> bool {
        self.files.iter().any(|(_, file)| file.look == Look::Text)
    }

    /// Returns whether a file of the group is a transcript by its name.
    pub(crate) fn has_transcript(&self) -> bool {
        self.first(Role::Text).or_else(|| self.first(Role::TextOfLanguage)).is_some()
    }
}

/// Returns a text file's name and its text, which may be empty.
fn text_of(file: &File, store: &impl Store) -> Result<(String, String), String> {
    let bytes = bytes_of(file, store)?;
    if let Some(problem) = encoding::no_text(&bytes) {
        return Err(format!("bad transcript: {} {problem}", store.shown(&file.name)));
    }
    let bytes = encoding::without_mark(&bytes);
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = bytes[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!(
            "transcript not UTF-8: {}:{line} is not valid UTF-8; {}",
            store.shown(&file.name),
            encoding::advice(&bytes)
        )
    })?;
    Ok((file.name.clone(), values::one_line(text).into_owned()))
}

/// Returns the fields of a JSON file.
fn object_of(file: &File, store: &impl Store) -> Result<Object, String> {
    let bytes = bytes_of(file, store)?;
    if let Some(problem) = encoding::no_text(&bytes) {
        return Err(format!("bad transcript: {} {problem}", store.shown(&file.name)));
    }
    Object::parse(&bytes).map_err(|problem| format!("bad transcript: {} {problem}", store.shown(&file.name)))
}

fn bytes_of(file: &File, store: &impl Store) -> Result<Vec<u8>, String> {
    let problem = |problem: String| format!("bad transcript: {} {problem}", store.shown(&file.name));
    if file.size > MAX_TEXT_BYTES {
        return Err(problem(format!("has {} bytes, more than {MAX_TEXT_BYTES}", file.size)));
    }
    store.read(file).map_err(problem)
}

/// Returns a transcript on one line, or that it is empty. The outer error is a bad transcript.
fn transcript(text: &str, name: &str, store: &impl Store) -> Result<Result<String, String>, String> {
    let checked =
        values::transcript(text).map_err(|problem| format!("bad transcript: {} {problem}", store.shown(name)))?;
    Ok(checked.map(Cow::into_owned).ok_or_else(|| format!("{} is empty", store.shown(name))))
}

/// Returns whether a file is a recording, or an array that the recipe may name as one.
fn may_be_recording(rest: &str, file: &File) -> bool {
    let is_array = waveform::EXTENSIONS.iter().any(|extension| rest.rsplit('.').next() == Some(extension));
    file.look == Look::Media || is_array
}

/// Returns whether a file is an array of samples by its name: `KEY.npy`, `KEY.wav.npy`, `KEY.audio.pth`.
fn is_array(rest: &str, file: &File) -> bool {
    let (word, last) = rest.rsplit_once('.').unwrap_or(("", rest));
    let names_samples = word.is_empty() || media::rank(word).is_some() || is_name_of("audio", word);
    file.look == Look::Other
        && waveform::EXTENSIONS.contains(&last)
        && (names_samples || ["waveform", "samples", "speech"].contains(&word))
}

/// Returns the warning about recordings that are left out for others: `(left out, taken)`.
pub(crate) fn left_out_warning(left_out: &[(String, String)]) -> Option<String> {
    let shown: Vec<String> = left_out.iter().take(3).map(|(left, taken)| format!("{left} (taken: {taken})")).collect();
    let more = if left_out.len() > 3 { format!(" and {} more", left_out.len() - 3) } else { String::new() };
    let count = left_out.len();
    (count > 0).then(|| {
        format!(
            "{count} recordings are left out because the same utterance exists in another format (plain samples are preferred \
             to lossless ones, and these to lossy ones): {}{more}",
            shown.join(", ")
        )
    })
}
