//! All files below a folder, through links to other folders, in order of their names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::CorpusError;
use crate::paths::{joined, prefix_of};

/// Hidden folders in which tools keep copies, in lower case. Their files are not part of a corpus.
const OF_TOOLS: [&str; 20] = [
    ".git",
    ".hg",
    ".svn",
    ".dvc",
    ".datalad",
    ".cache",
    ".huggingface",
    ".ipynb_checkpoints",
    ".snapshot",
    ".snapshots",
    ".zfs",
    ".trash",
    ".trashes",
    ".spotlight-v100",
    ".fseventsd",
    ".temporaryitems",
    ".appledouble",
    ".venv",
    ".tox",
    ".idea",
];

/// A file below a folder.
#[derive(Debug)]
pub(crate) struct FoundFile {
    /// The path below the folder, `/` between its parts; characters that are not UTF-8 are replaced.
    pub(crate) path: String,
    /// The place on the file system.
    pub(crate) place: PathBuf,
    /// True if its path is UTF-8.
    pub(crate) is_utf8: bool,
    /// True if its own name begins with a dot.
    pub(crate) is_hidden: bool,
    /// True if a folder on its path has a name that begins with a dot.
    pub(crate) in_hidden: bool,
}

/// The files below a folder.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// The files, sorted by path.
    pub(crate) files: Vec<FoundFile>,
    /// The number of links to folders that are read already, or back to a folder that contains the links.
    pub(crate) links_back: u64,
    /// The number of hidden tool folders, which are not searched.
    pub(crate) of_tools: u64,
}

/// Returns the files below a folder that a source may consist of, as the recipe names them and in order: those with a path in UTF-8 that is
/// not hidden, if `is_wanted` accepts it.
pub(crate) fn files_below(
    root: &Path,
    path: &str,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<String>, CorpusError> {
    let prefix = prefix_of(path);
    let found = walk(&root.join(path))?.files.into_iter();
    let found = found.filter(|file| file.is_utf8 && !file.is_hidden && !file.in_hidden && is_wanted(&file.path));
    Ok(found.map(|file| joined(&prefix, &file.path)).collect())
}

/// A folder to be read.
struct Waiting {
    /// The path below the first folder: empty, or ending in `/`.
    below: String,
    place: PathBuf,
    /// The same place without links.
    real: PathBuf,
    is_utf8: bool,
    in_hidden: bool,
}

/// Lists the files below a folder. Links to other folders are followed after everything without links is read, so
/// that a folder is read once and, if possible, under its own name.
///
/// # Errors
/// [`CorpusError::Io`] if a folder that is not hidden cannot be listed.
pub(crate) fn walk(folder: &Path) -> Result<Walk, CorpusError> {
    let root = folder.canonicalize().map_err(|e| CorpusError::io("list", folder, e))?;
    let first =
        Waiting { below: String::new(), place: folder.to_owned(), real: root.clone(), is_utf8: true, in_hidden: false };
    let mut walker = Walker { walk: Walk::default(), read: BTreeSet::new(), real: Vec::new(), links: Vec::new() };
    walker.read_all(first)?;
    while !walker.links.is_empty() {
        let mut links = std::mem::take(&mut walker.links);
        links.sort_by(|a, b| a.below.cmp(&b.below));
        for link in links {
            if root.starts_with(&link.real) || walker.read.contains(&link.real) {
                walker.walk.links_back += 1;
            } else {
                walker.read_all(link)?;
            }
        }
    }
    Ok(walker.finish())
}

struct Walker {
    walk: Walk,
    /// The folders that were read and are not hidden, without links.
    read: BTreeSet<PathBuf>,
    /// The folder of every file, without links.
    real: Vec<PathBuf>,
    /// Links to folders that were found.
    links: Vec<Waiting>,
}

impl Walker {
    /// Reads a folder and everything below it.
    fn read_all(&mut self, first: Waiting) -> Result<(), CorpusError> {
        let mut waiting = vec![first];
        while let Some(folder) = waiting.pop() {
            if !folder.in_hidden && !self.read.insert(folder.real.clone()) {
                continue;
            }
            match self.read_one(&folder, &mut waiting) {
                Err(_) if folder.in_hidden => {}
                read => read.map_err(|e| CorpusError::io("list", &folder.place, e))?,
            }
        }
        Ok(())
    }

    fn read_one(&mut self, folder: &Waiting, waiting: &mut Vec<Waiting>) -> std::io::Result<()> {
        for entry in fs::read_dir(&folder.place)? {
            let entry = entry?;
            let name = entry.file_name();
            let is_utf8 = folder.is_utf8 && name.to_str().is_some();
            let (real, name) = (folder.real.join(&name), name.to_string_lossy().into_owned());
            let (path, place) = (format!("{}{name}", folder.below), entry.path());
            let is_hidden = name.starts_with('.');
            let kind = entry.file_type()?;
            let below = |real: PathBuf| Waiting {
                below: format!("{path}/"),
                place: place.clone(),
                real,
                is_utf8,
                in_hidden: folder.in_hidden || is_hidden,
            };
            let is_folder = kind.is_dir() || (kind.is_symlink() && place.is_dir());
            if is_folder && is_hidden && is_of_tools(&name) {
                self.walk.of_tools += 1;
            } else if kind.is_dir() {
                waiting.push(below(real));
            } else if is_folder {
                // The target is known to be a folder.
                self.links.push(below(place.canonicalize()?));
            } else {
                self.real.push(folder.real.clone());
                let in_hidden = folder.in_hidden;
                self.walk.files.push(FoundFile { path, place, is_utf8, is_hidden, in_hidden });
            }
        }
        Ok(())
    }

    /// Returns the files, except those of hidden folders that are read under another name because a link leads to the
    /// folder or the file.
    fn finish(self) -> Walk {
        let Self { mut walk, read, real, .. } = self;
        let hidden = walk.files.iter().any(|file| file.in_hidden);
        let links = walk.files.iter().filter(|file| hidden && !file.in_hidden && file.place.is_symlink());
        let linked: BTreeSet<PathBuf> = links.filter_map(|file| file.place.canonicalize().ok()).collect();
        let mut real = real.into_iter();
        walk.files.retain(|file| {
            let folder = real.next().unwrap_or_default();
            let name = file.place.file_name().unwrap_or_default();
            !file.in_hidden || !(read.contains(&folder) || linked.contains(&folder.join(name)))
        });
        walk.files.sort_by(|a, b| a.path.cmp(&b.path));
        walk
    }
}

/// Returns whether a hidden folder is one in which a tool keeps copies.
fn is_of_tools(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OF_TOOLS.contains(&name.as_str()) || name.starts_with(".trash-")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_are_read_once_under_their_own_names() {
        let dir = tempfile::tempdir().unwrap();
        for file in
            ["root/a/1.wav", "root/.store/2.wav", "root/.store/3.wav", "root/.git/4.wav", "out/b/5.wav", "out/6.wav"]
        {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let root = dir.path().join("root");
        symlink("../out/b", root.join("z")).unwrap();
        symlink(dir.path().join("out"), root.join("m")).unwrap();
        symlink("a", root.join("twin")).unwrap();
        symlink("..", root.join("a/up")).unwrap();
        symlink("/", root.join("everything")).unwrap();
        symlink(".store/2.wav", root.join("2.wav")).unwrap();
        symlink("m", dir.path().join("out/self")).unwrap();
        let walk = walk(&root).unwrap();
        let files: Vec<(&str, bool)> = walk.files.iter().map(|file| (file.path.as_str(), file.in_hidden)).collect();
        let expected =
            [(".store/3.wav", true), ("2.wav", false), ("a/1.wav", false), ("m/6.wav", false), ("m/b/5.wav", false)];
        let dangling: Vec<_> = files.iter().filter(|file| file.0.ends_with("self")).collect();
        assert_eq!(dangling.len(), 1, "a link to nothing is a file: {files:?}");
        assert_eq!(files.iter().filter(|file| !file.0.ends_with("self")).copied().collect::<Vec<_>>(), expected);
        // The other name of `a`, the two ways up, and `b`, which was read below `m`.
        assert_eq!((walk.links_back, walk.of_tools), (4, 1));
    }
}
