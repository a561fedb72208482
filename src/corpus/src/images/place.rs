//! Paths of images in data files, which may not leave their folder.

use std::path::{Component, Path, PathBuf};

use crate::source::Source;

/// The reason why a path in a data file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathFault {
    /// It leads out of the folder of images, or is no path of a file.
    Outside,
    /// There is no such file.
    Missing,
}

/// Returns the file that a path names inside of a folder. An absolute path must lead into the folder. If `may_be_missing`, the file need
/// not exist.
pub(crate) fn file_in(folder: &Path, path: &str, may_be_missing: bool) -> Result<PathBuf, PathFault> {
    let inner = Path::new(path);
    let is_plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir | Component::RootDir);
    // A command or a member of a tar file would be another place than it seems.
    if !inner.components().all(is_plain) || path.contains(['\\', '\0']) || Source::of(path) != Source::File(path) {
        return Err(PathFault::Outside);
    }
    // An absolute path replaces the folder.
    let file = folder.join(inner);
    let root = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let Ok(real) = file.canonicalize() else {
        let is_inside = inner.is_relative() || inner.starts_with(&root) || inner.starts_with(folder);
        return match (is_inside, may_be_missing) {
            (false, _) => Err(PathFault::Outside),
            (true, true) => Ok(file),
            (true, false) => Err(PathFault::Missing),
        };
    };
    // A link inside of the folder may lead out of it.
    if !real.starts_with(root) {
        return Err(PathFault::Outside);
    }
    if may_be_missing || real.is_file() { Ok(file) } else { Err(PathFault::Missing) }
}

/// Returns the place of a file as text relative to `root`, the recipe's folder, if it is below it as written.
pub(crate) fn relative(file: &Path, root: &Path) -> Result<String, String> {
    let place = file.strip_prefix(root).unwrap_or(file);
    place.to_str().map(str::to_owned).ok_or_else(|| format!("bad name: {} is not UTF-8", place.display()))
}
