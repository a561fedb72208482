//! The list of tar files of a source.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::unpack::is_compressed;
use crate::CorpusError;
use crate::lines::TextFile;
use crate::paths::{joined, prefix_of};
use crate::source::TarMember;
use crate::walk::{FoundFile, walk};

/// The first bytes of the files that macOS creates next to others, under names such as `._x.flac`.
pub(super) const APPLE_DOUBLE: &[u8; 4] = b"\0\x05\x16\x07";
/// The largest number of tar files of one source.
const MAX_SHARDS: usize = 1_000_000;

/// Returns the tar files that `data` names, as paths relative to `root` (or absolute): one file, those of a folder
/// and its subfolders in order of their names, those of a list, or those of a pattern with `{000..012}` or `{a,b}`.
///
/// # Errors
/// [`CorpusError::Structure`] if there is none, one is missing, or one is compressed; [`CorpusError::Io`].
pub fn shards(root: &Path, data: &str) -> Result<Vec<String>, CorpusError> {
    let shards = match named(root, data)? {
        Some(shards) => shards,
        None => listed(root, data)?,
    };
    if let Some((shard, problem)) = shards.iter().find_map(|shard| unusable(shard).map(|problem| (shard, problem))) {
        return Err(CorpusError::structure(&root.join(shard), problem));
    }
    all_there(root, data, &shards)?;
    Ok(shards)
}

/// Returns an error for named tar files that do not exist, and for patterns that cannot be parsed.
///
/// # Errors
/// [`CorpusError::Structure`] with the first missing one.
pub fn check_paths(root: &Path, data: &str) -> Result<(), CorpusError> {
    named(root, data)?.map_or(Ok(()), |shards| all_there(root, data, &shards))
}

/// Returns the tar files that `data` names one by one; `None` if it names a folder.
fn named(root: &Path, data: &str) -> Result<Option<Vec<String>>, CorpusError> {
    let fail = |problem: String| CorpusError::structure(&root.join(data), problem);
    let shards = if data.contains('{') {
        expand(data).map_err(fail)?
    } else if root.join(data).is_dir() {
        return Ok(None);
    } else if is_list(data) && root.join(data).is_file() {
        of_list(root, data)?
    } else {
        vec![data.to_owned()]
    };
    Ok(Some(shards))
}

/// Returns whether a path is that of a list of tar files, as WeNet writes it (`data.list`), by its name.
pub fn is_list(data: &str) -> bool {
    [".list", ".lst", ".txt"].iter().any(|ending| data.ends_with(ending))
}

/// Returns the tar files that a list names, one per line; relative paths start from its folder.
fn of_list(root: &Path, data: &str) -> Result<Vec<String>, CorpusError> {
    let full = root.join(data);
    let fail = |problem: String| CorpusError::structure(&full, problem);
    let file = TextFile::open(root, data)?.ok_or_else(|| fail("is gone".into()))?;
    let prefix = prefix_of(crate::manifest::folder_of(data));
    let lines = file.lines();
    if lines.is_empty() || lines.len() > MAX_SHARDS {
        return Err(fail(format!("names {} tar files; 1 to {MAX_SHARDS} are expected", lines.len())));
    }
    let path = |line| file.text(line).map(|path| joined(&prefix, path)).map_err(fail);
    lines.iter().map(path).collect()
}

/// Returns an error for tar files that do not exist.
fn all_there(root: &Path, data: &str, shards: &[String]) -> Result<(), CorpusError> {
    let fail = |problem: String| CorpusError::structure(&root.join(data), problem);
    let missing: Vec<&String> = shards.iter().filter(|shard| !root.join(shard).is_file()).collect();
    match missing.first() {
        None => Ok(()),
        Some(first) if shards.len() == 1 => Err(CorpusError::structure(&root.join(first), "there is no such file")),
        Some(first) => {
            let (count, all) = (missing.len(), shards.len());
            Err(fail(format!("{count} of its {all} tar files are missing; the first is {first}")))
        }
    }
}

/// Returns the reason why a path cannot be that of a shard.
fn unusable(shard: &str) -> Option<String> {
    if is_compressed(shard) {
        return None;
    }
    if let Some((_, undo)) = compressed(shard) {
        return Some(compressed_advice("by its name", undo));
    }
    if !shard.ends_with(".tar") {
        return Some("a WebDataset shard is a file that ends in `.tar`".into());
    }
    (!TarMember::can_name(shard))
        .then(|| "a path with `.tar#` in it cannot be distinguished from a member of a tar file".into())
}

/// Returns the advice about a compressed tar file.
pub(super) fn compressed_advice(how: &str, undo: &str) -> String {
    format!(
        "is compressed ({how}), and a recording in it could not be read without everything before it; decompress it once with `{undo}` \
         (recordings hardly shrink anyway)"
    )
}

/// Returns whether a name is that of a compressed tar file, and the command that decompresses it.
fn compressed(name: &str) -> Option<(&'static str, &'static str)> {
    [(".gz", "gunzip"), (".bz2", "bunzip2"), (".xz", "unxz"), (".zst", "unzstd")]
        .into_iter()
        .find(|(ending, _)| name.ends_with(ending))
}

/// Returns the tar files below a folder, without hidden ones.
fn listed(root: &Path, dir: &str) -> Result<Vec<String>, CorpusError> {
    let folder = root.join(dir);
    let prefix = prefix_of(dir);
    let (mut found, mut packed) = (Vec::new(), Vec::new());
    for file in walk(&folder)?.files.into_iter().filter(|file| !file.is_hidden && !file.in_hidden) {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if name.to_ascii_lowercase().ends_with(".tar") && !(file.is_utf8 && name.ends_with(".tar")) {
            let problem = "is a tar file whose name is not UTF-8 or does not end in `.tar` in lower case; rename it";
            return Err(CorpusError::structure(&file.place, problem));
        } else if name.ends_with(".tar") || (file.is_utf8 && is_compressed(name)) {
            found.push(joined(&prefix, &file.path));
        } else if name.contains(".tar.") {
            packed.push(file.path);
        }
    }
    if let Some((first, (_, undo))) = packed.iter().find_map(|name| compressed(name).map(|how| (name, how))) {
        return Err(CorpusError::structure(&folder.join(first), compressed_advice("by its name", undo)));
    }
    if found.is_empty() {
        return Err(CorpusError::structure(&folder, "contains no file that ends in `.tar`"));
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns tar files below a folder that are hidden, or in a hidden folder; none if tar files are named one by one.
pub(super) fn hidden(root: &Path, data: &str) -> Result<Vec<String>, CorpusError> {
    if data.contains('{') || !root.join(data).is_dir() {
        return Ok(Vec::new());
    }
    let files = walk(&root.join(data))?.files.into_iter();
    let is_tar = |file: &FoundFile| file.path.to_ascii_lowercase().ends_with(".tar") && !is_apple_double(&file.place);
    let hidden = files.filter(|file| (file.is_hidden || file.in_hidden) && is_tar(file));
    Ok(hidden.map(|file| file.path).collect())
}

/// Returns whether a file is one that macOS creates next to another.
fn is_apple_double(place: &Path) -> bool {
    let mut beginning = [0; APPLE_DOUBLE.len()];
    let read = fs::File::open(place).and_then(|mut file| file.read_exact(&mut beginning));
    read.is_ok() && beginning == *APPLE_DOUBLE
}

/// Returns all names that a pattern represents, in order; `{000..012}` counts with leading zeros, `{a,b}` lists.
pub(crate) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find('{') else { return Ok(vec![pattern.to_owned()]) };
    let close = pattern[open..].find('}').map(|at| open + at).ok_or("has `{` without `}`")?;
    let (before, inside, after) = (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    let choices = choices(inside)?;
    let rest = expand(after)?;
    if choices.len().saturating_mul(rest.len()) > MAX_SHARDS {
        return Err(format!("expands to more than {MAX_SHARDS} files"));
    }
    Ok(choices.iter().flat_map(|choice| rest.iter().map(move |rest| format!("{before}{choice}{rest}"))).collect())
}

/// Returns the choices between braces.
fn choices(inside: &str) -> Result<Vec<String>, String> {
    let bad = || format!("`{{{inside}}}` is neither a range as `{{000..012}}` nor a list as `{{a,b}}`");
    if inside.contains('{') {
        return Err(bad());
    }
    let Some((first, last)) = inside.split_once("..") else {
        return if inside.contains(',') { Ok(inside.split(',').map(str::to_owned).collect()) } else { Err(bad()) };
    };
    let number = |text: &str| -> Result<usize, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().ok_or_else(bad)
    };
    let (from, to) = (number(first)?, number(last)?);
    if to < from {
        return Err(format!("`{{{inside}}}` counts down"));
    }
    if to - from >= MAX_SHARDS {
        return Err(format!("expands to more than {MAX_SHARDS} files"));
    }
    let width = if first.starts_with('0') { first.len() } else { 0 };
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_names() {
        assert_eq!(expand("s-{008..011}.tar").unwrap(), ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]);
        assert_eq!(expand("{de,en}/{0..1}.tar").unwrap(), ["de/0.tar", "de/1.tar", "en/0.tar", "en/1.tar"]);
        assert_eq!(expand("s-{9..10}.tar").unwrap(), ["s-9.tar", "s-10.tar"]);
        for bad in [
            "s-{0..}.tar",
            "s-{5..1}.tar",
            "s-{0..9999999999}.tar",
            "s-{a}.tar",
            "s-{0",
            "{0..999}{0..9999}",
            "{{0..1}}",
        ] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }
}
