//! The utterances of one tar file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use flowmill_audio::media;

use super::shards::{APPLE_DOUBLE, compressed_advice};
use crate::folder::other_kind;
use crate::options::Ids;
use crate::reading::Candidate;
use crate::samples::{self, File, Look, Precedence, Sample, Store, stem};
use crate::source::{MAX_MEMBER_BYTES, TarMember};
use crate::tar::{Member, MemberKind, Members, compression};
use crate::{CorpusError, ReadOptions, Rejection, ids, split, values};

/// The number of bytes of an unusual name that are shown.
const SHOWN_BYTES: usize = 200;
/// The first bytes of Parquet files.
const PARQUET: &[u8] = b"PAR1";

/// The advice about a shard of CosyVoice, whose recipes give Parquet files such names.
const PARQUET_ADVICE: &str = "is Parquet by its content, not tar: a shard that CosyVoice packed. `format: shards` reads it, with its embeddings \
                              and tokens";

/// Describes a file that is not a tar file, by its first bytes. An empty one counts as a damaged tar file.
fn no_tar(beginning: &[u8]) -> Option<String> {
    if beginning.is_empty() {
        return None;
    }
    if let Some((format, undo)) = compression(beginning) {
        return Some(compressed_advice(format, undo));
    }
    if let Some(found) = media::stand_in(beginning) {
        return Some(format!("is {}, not a tar file; {}", found.kind, found.advice));
    }
    let archives: [(&[u8], &str, &str); 3] = [
        (b"PK\x03\x04", "a zip archive", "unzip"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x"),
        (b"Rar!\x1a\x07", "a RAR archive", "unrar x"),
    ];
    let archive = archives.iter().find(|(magic, ..)| beginning.starts_with(magic));
    let advice = |(_, what, undo): &(&[u8], &str, &str)| {
        format!(
            "is {what} by its content, not a tar file; unpack it (`{undo}`) and read its folder with `format: folder`"
        )
    };
    archive.map(advice).or_else(|| beginning.starts_with(PARQUET).then(|| PARQUET_ADVICE.to_owned()))
}

/// The members of one tar file.
pub(super) struct Shard {
    path: String,
    file: fs::File,
    /// Files by their path up to the first dot of its last part.
    groups: BTreeMap<String, Vec<File>>,
    /// Members that are not part of any sample.
    bad: Vec<BadMember>,
    rejected: Vec<Rejection>,
    warnings: Vec<String>,
    /// The number of other members by kind.
    passed_over: BTreeMap<String, u64>,
}

/// A member that is not part of a sample, and the reason.
struct BadMember {
    /// The name, for display if it is hostile.
    name: String,
    /// True if an earlier member has the same name. Such a member is named by its key.
    repeated: bool,
    reason: String,
}

/// True if a name was repeated, and the key.
type BadKey = (bool, String);

/// The result of reading one tar file.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<Candidate>,
    pub(super) rejected: Vec<Rejection>,
    pub(super) warnings: Vec<String>,
    pub(super) passed_over: BTreeMap<String, u64>,
    /// Recordings that are left out for others of the same utterance.
    pub(super) left_out: Vec<(String, String)>,
    /// True if any utterance has a transcript, good or bad.
    pub(super) texts: bool,
}

/// The dot that ends the keys of a group of members with the same text before their first dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyEnd {
    First,
    Last,
    /// Both dots explain the members.
    Either,
}

impl Shard {
    /// Reads the headers of a tar file, and the beginnings of members whose names do not show their kind.
    pub(super) fn list(root: &Path, path: &str) -> Result<Self, CorpusError> {
        let full = root.join(path);
        let fail = |e| CorpusError::io("read", &full, e);
        let file = fs::File::open(&full).map_err(fail)?;
        let mut beginning = [0; media::HEAD_BYTES];
        let count = file.read_at(&mut beginning, 0).map_err(fail)?;
        if let Some(problem) = no_tar(&beginning[..count]) {
            return Err(CorpusError::structure(&full, problem));
        }
        let mut shard = Self {
            path: path.to_owned(),
            file,
            groups: BTreeMap::new(),
            bad: Vec::new(),
            rejected: Vec::new(),
            warnings: Vec::new(),
            passed_over: BTreeMap::new(),
        };
        shard.walk().map_err(fail)?;
        Ok(shard)
    }

    /// Sorts the members by their keys. A damaged header ends this: the bytes after it cannot be distinguished from
    /// content.
    fn walk(&mut self) -> std::io::Result<()> {
        let file = self.file.try_clone()?;
        if file.metadata()?.len() == 0 {
            let (id, reason) =
                (self.path.clone(), format!("damaged tar: {} is empty, without even its end", self.path));
            self.rejected.push(Rejection { id, reason });
            return Ok(());
        }
        let mut members = Members::of(&file)?;
        let mut names = BTreeMap::new();
        for member in members.by_ref() {
            match member {
                Ok(member) => self.sort(&member, &mut names),
                Err(damage) => {
                    let path = &self.path;
                    let reason = format!("damaged tar: {path}: at byte {}: {}", damage.at, damage.problem);
                    self.warnings.push(format!("{reason}; nothing after that was read"));
                    self.rejected.push(Rejection { id: path.clone(), reason });
                    return Ok(());
                }
            }
        }
        if !members.ended {
            let path = &self.path;
            self.warnings.push(format!("{path}: ends without the end mark of a tar file; it may be truncated"));
        }
        Ok(())
    }

    /// Adds a member to its key, or records why it is left out. `names` has the positions of the members before.
    fn sort(&mut self, member: &Member, names: &mut BTreeMap<String, u64>) {
        if member.kind == MemberKind::Directory {
            return;
        }
        let name = match safe_name(member) {
            Ok(name) => name,
            Err(problem) => {
                let shown = String::from_utf8_lossy(&member.name[..member.name.len().min(SHOWN_BYTES)]);
                let shown: String = shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
                let reason = format!("bad member: {}: `{shown}` {problem}", self.path);
                self.bad.push(BadMember { name: shown, repeated: false, reason });
                return;
            }
        };
        let base = name.rsplit('/').next().unwrap_or(name);
        let head = self.head(member);
        let by_content = || media::by_content(&head).is_some();
        let look = match samples::look(base) {
            _ if base.starts_with('.') && !head.starts_with(APPLE_DOUBLE) && by_content() => {
                let reason = format!("hidden recording: {}: the name of {name} begins with a dot", self.path);
                self.rejected.push(Rejection { id: name.to_owned(), reason });
                return;
            }
            _ if base.starts_with('.') => return self.pass_over("hidden".into()),
            Look::Other if by_content() => Look::Media,
            look => look,
        };
        if look == Look::Other {
            self.pass_over(other_kind(base));
        }
        let key = first_dot(name).to_owned();
        if let Some(first) = names.insert(name.to_owned(), member.offset)
            && look != Look::Other
        {
            let (path, again) = (&self.path, member.offset);
            let reason = format!("repeated member: {path}: {name} at byte {again} already exists at byte {first}");
            self.bad.push(BadMember { name: name.to_owned(), repeated: true, reason });
            names.insert(name.to_owned(), first);
            return;
        }
        let file = File { name: name.to_owned(), look, offset: member.offset, size: member.size };
        self.groups.entry(key).or_default().push(file);
    }

    /// Reads the beginning of a member whose name does not show its kind.
    fn head(&self, member: &Member) -> Vec<u8> {
        let base = member.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let told = !base.starts_with(b".") && samples::look(&String::from_utf8_lossy(base)) != Look::Other;
        let mut head = vec![0; if told { 0 } else { member.size.min(media::HEAD_BYTES as u64) as usize }];
        match self.file.read_exact_at(&mut head, member.offset) {
            Ok(()) => head,
            Err(_) => Vec::new(),
        }
    }

    fn pass_over(&mut self, kind: String) {
        *self.passed_over.entry(kind).or_default() += 1;
    }

    /// Returns whether a group of members is explained only by keys that end at their last dot.
    pub(super) fn has_dotted_keys(&self) -> bool {
        self.groups.iter().any(|(key, files)| key_end(key, files) == KeyEnd::Last)
    }

    /// Returns the keys of recordings that both dots explain: up to the first, and up to the last.
    pub(super) fn keys_of_either_kind(&self) -> impl Iterator<Item = (&str, &str)> {
        let either = self.groups.iter().filter(|(key, files)| key_end(key, files) == KeyEnd::Either);
        either.filter_map(|(key, files)| {
            let recording = files.iter().find(|file| file.look == Look::Media)?;
            Some((key.as_str(), stem(&recording.name)))
        })
    }

    /// Reads the transcripts; `dotted` determines the end of keys that both dots would explain.
    pub(super) fn read(mut self, dotted: bool, options: &ReadOptions<'_>) -> Rows {
        let mut out = Rows {
            rejected: std::mem::take(&mut self.rejected),
            warnings: std::mem::take(&mut self.warnings),
            passed_over: std::mem::take(&mut self.passed_over),
            ..Rows::default()
        };
        let (mut at_last, mut example) = (0, None);
        let at_last_dot = |end: KeyEnd| end == KeyEnd::Last || (end == KeyEnd::Either && dotted);
        let undotted = |key: &str, files: &[File]| {
            files.iter().filter(|file| file.look == Look::Media).all(|file| stem(&file.name) == key)
        };
        let mut bad = self.bad_keys(at_last_dot);
        for (key, files) in std::mem::take(&mut self.groups) {
            let samples = if at_last_dot(key_end(&key, &files)) {
                let samples = samples::by_last_dot(files);
                let longer = samples.iter().filter(|(longer, sample)| **longer != key && !sample.stems().is_empty());
                let longer: Vec<&String> = longer.map(|(longer, _)| longer).collect();
                at_last += longer.len();
                example = example.or_else(|| longer.first().map(|longer| (key.clone(), (*longer).clone())));
                samples
            } else if undotted(&key, &files) {
                samples::by_last_dot(files)
            } else {
                at_first_dot(key, files)
            };
            for (key, sample) in samples {
                self.settle(&key, &sample, options, &mut bad, &mut out);
            }
        }
        if let Some((short, long)) = example.filter(|_| at_last > 0) {
            out.warnings.push(format!(
                "{}: {at_last} keys end at their last dot, not the first ({long}, not {short}), because only then does every recording have \
                 its own members",
                self.path
            ));
        }
        out.rejected.extend(bad.into_values());
        out
    }

    /// Returns one rejection for every key that has bad members, because those of one key are one utterance.
    fn bad_keys(&mut self, at_last_dot: impl Fn(KeyEnd) -> bool) -> BTreeMap<BadKey, Rejection> {
        let mut bad = BTreeMap::new();
        for BadMember { name, repeated, reason } in std::mem::take(&mut self.bad) {
            let short = first_dot(&name);
            let end = self.groups.get(short).map_or(KeyEnd::Either, |files| key_end(short, files));
            let key = if at_last_dot(end) { samples::own_key(&name) } else { short.to_owned() };
            let id = if repeated { ids::of_path(&key) } else { name };
            bad.entry((repeated, key)).or_insert(Rejection { id, reason });
        }
        bad
    }

    /// Returns the row of a key, or the reason why there is none.
    fn settle(
        &self,
        key: &str,
        sample: &Sample,
        options: &ReadOptions<'_>,
        bad: &mut BTreeMap<BadKey, Rejection>,
        out: &mut Rows,
    ) {
        if sample.recordings().next().is_none() && !sample.has_text() {
            return;
        }
        out.texts |= sample.has_transcript();
        match self.row(key, sample, options) {
            Ok((row, others)) => {
                out.texts |= row.text.is_ok();
                let taken = row.place.clone();
                out.left_out.extend(others.iter().map(|other| (self.shown(&other.name), taken.clone())));
                out.rows.push(row);
            }
            Err(reason) => {
                // One utterance is rejected once, whatever other problems it has.
                bad.remove(&(true, key.to_owned()));
                // Recordings with several names are several utterances.
                let stems = sample.stems();
                let ids = if stems.len() > 1 { stems.into_iter().collect() } else { vec![key] };
                let rejection = |id| Rejection { id: ids::of_path(id), reason: reason.clone() };
                out.rejected.extend(ids.into_iter().map(rejection));
            }
        }
    }

    fn row<'s>(
        &self,
        key: &str,
        sample: &'s Sample,
        options: &ReadOptions<'_>,
    ) -> Result<(Candidate, Vec<&'s File>), String> {
        let (recording, others) = sample.recording(self, options)?;
        if recording.size > MAX_MEMBER_BYTES {
            return Err(format!("recording too large: {} has {} bytes", self.shown(&recording.name), recording.size));
        }
        let mut row = sample.candidate(key, recording, self, Precedence { text_file_first: false }, options)?;
        let given = Some(std::mem::take(&mut row.id)).filter(|id| !id.is_empty());
        row.id = match (options.ids, given) {
            (Ids::Json, Some(id)) => {
                row.origin = None;
                id
            }
            (Ids::Json | Ids::Key, _) => ids::of_path(key),
            (Ids::Shard, _) => {
                row.origin = Some(format!("{}/{key}", self.path.strip_suffix(".tar").unwrap_or(&self.path)));
                format!("{}-{}", shard_name(&self.path), ids::of_path(key))
            }
        };
        if row.speaker.is_none() {
            row.speaker = options.speaker.map(str::to_owned);
        }
        for (what, value) in [("id", Some(&row.id)), ("speaker", row.speaker.as_ref())] {
            let checked = value.map_or(Ok(()), |value| values::id(value));
            checked.map_err(|problem| format!("bad {what}: {} {problem}", row.place))?;
        }
        // The name of the tar file may be that of a split: `train-000.tar`.
        row.split = row.split.or_else(|| split::of_path(self.path.rsplit('/').next()?).map(str::to_owned));
        let (archive, name) = (self.path.as_str(), format!("{}{}", recording.name, row.wav));
        row.wav = TarMember { archive, name: &name, offset: recording.offset, length: recording.size }.to_string();
        Ok((row, others))
    }
}

impl Store for Shard {
    fn read(&self, file: &File) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; file.size as usize];
        self.file.read_exact_at(&mut bytes, file.offset).map_err(|e| format!("cannot be read: {e}"))?;
        Ok(bytes)
    }

    fn shown(&self, name: &str) -> String {
        format!("{}: {name}", self.path)
    }
}

/// Returns a path up to the first dot of its last part; all of it if there is none.
fn first_dot(name: &str) -> &str {
    let file = name.rfind('/').map_or(0, |at| at + 1);
    name[file..].find('.').filter(|at| *at > 0).map_or(name, |at| &name[..file + at])
}

/// Returns the dot that ends the keys of members with the same text `key` before their first dot.
fn key_end(key: &str, files: &[File]) -> KeyEnd {
    let of = |look: Look| files.iter().filter(move |file| file.look == look).map(|file| file.name.as_str());
    let stems: BTreeSet<&str> = of(Look::Media).map(stem).collect();
    let belongs = |text: &str, stem: &str| {
        text.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.')).is_some_and(samples::follows_a_key)
    };
    let own = of(Look::Text).any(|text| stems.iter().any(|stem| belongs(text, stem)));
    match stems.iter().next() {
        None => KeyEnd::First,
        Some(stem) if stems.len() == 1 => {
            let words = stem[key.len()..].trim_start_matches('.');
            let explained = of(Look::Text).all(|text| belongs(text, stem));
            match (words.is_empty(), explained) {
                (true, _) => KeyEnd::First,
                (false, true) => KeyEnd::Either,
                (false, false) if own && !samples::has_only_known_words(words) => KeyEnd::Last,
                (false, false) => KeyEnd::First,
            }
        }
        Some(_) if own || of(Look::Text).next().is_none() => KeyEnd::Last,
        Some(_) => KeyEnd::First,
    }
}

/// Returns the members of a key that ends at the first dot, and separately transcripts whose names contain other than
/// known words after it: those belong to other utterances.
fn at_first_dot(key: String, files: Vec<File>) -> BTreeMap<String, Sample> {
    let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
    // If one recording's name explains all transcripts, the text after that name gives their roles.
    let recording = files.iter().find(|file| file.look == Look::Media).map(|file| stem(&file.name).to_owned());
    let recording = recording.filter(|_| key_end(&key, &files) == KeyEnd::Either);
    for file in files {
        let of_recording = recording.as_deref().and_then(|stem| file.name.strip_prefix(stem));
        let rest = of_recording.unwrap_or(&file.name[key.len()..]).trim_start_matches('.').to_ascii_lowercase();
        if file.look == Look::Text && !samples::follows_a_key(&rest) {
            let own = samples::own_key(&file.name);
            let rest = file.name[own.len()..].trim_start_matches('.').to_ascii_lowercase();
            samples.entry(own).or_default().files.push((rest, file));
        } else {
            samples.entry(key.clone()).or_default().files.push((rest, file));
        }
    }
    samples
}

/// Reason why a member is none that is read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum UnsafeMember {
    #[error("is {0}; only plain files are read")]
    NoFile(&'static str),
    #[error("is no UTF-8 name")]
    NotUtf8,
    #[error("is an absolute path")]
    Absolute,
    #[error("leads out of its folder by `..`")]
    LeadsOut,
    #[error("has a control character in its name")]
    Control,
    #[error("has an empty part in its path")]
    EmptyPart,
}

/// A member's name, without `./` before it, when it names a file below the place where one would extract it.
fn safe_name(member: &Member) -> Result<&str, UnsafeMember> {
    if let MemberKind::Other(kind) = member.kind {
        return Err(UnsafeMember::NoFile(kind));
    }
    let name = std::str::from_utf8(&member.name).map_err(|_| UnsafeMember::NotUtf8)?;
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    if name.starts_with('/') {
        return Err(UnsafeMember::Absolute);
    }
    if name.split('/').any(|part| part == "..") {
        return Err(UnsafeMember::LeadsOut);
    }
    if name.chars().any(char::is_control) {
        return Err(UnsafeMember::Control);
    }
    if name.is_empty() || name.split('/').any(str::is_empty) {
        return Err(UnsafeMember::EmptyPart);
    }
    Ok(name)
}

/// Returns a shard's file name without its extension.
fn shard_name(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    name.strip_suffix(".tar").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members_stay_below_the_folder() {
        let of = |name: &[u8], kind| Member { name: name.to_vec(), kind, offset: 0, size: 0 };
        let file = |name: &[u8]| of(name, MemberKind::File);
        assert_eq!(safe_name(&file(b"././a/b.flac")), Ok("a/b.flac"));
        for (name, reason) in [
            (&b"/etc/passwd.flac"[..], UnsafeMember::Absolute),
            (b"a/../../up.flac", UnsafeMember::LeadsOut),
            (b"..", UnsafeMember::LeadsOut),
            (b"caf\xE9.flac", UnsafeMember::NotUtf8),
            (b"bell\x07.flac", UnsafeMember::Control),
            (b"a//b.flac", UnsafeMember::EmptyPart),
            (b"", UnsafeMember::EmptyPart),
        ] {
            assert_eq!(safe_name(&file(name)), Err(reason), "{}", String::from_utf8_lossy(name));
        }
        let link = of(b"a.flac", MemberKind::Other("a link"));
        assert_eq!(safe_name(&link), Err(UnsafeMember::NoFile("a link")));
    }
}
