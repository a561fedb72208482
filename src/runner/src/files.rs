//! File operations: the only module that syncs, renames, links and removes files.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{StageError, file_system_limits};

/// Forces a file's content to the disk.
pub(crate) fn sync_file(path: &Path) -> Result<(), StageError> {
    let file = File::open(path).map_err(|e| StageError::file(path, e))?;
    sync(&file).map_err(|e| StageError::file(path, e))
}

/// Forces an open file to the disk, if the file system supports it.
pub(crate) fn sync(file: &File) -> std::io::Result<()> {
    match file.sync_all() {
        Err(e) if cannot_sync(&e) => {
            file_system_limits::NO_SYNC.met();
            Ok(())
        }
        other => other,
    }
}

/// Forces a folder's list of names to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StageError> {
    let dir = File::open(path).map_err(|e| StageError::file(path, e))?;
    match dir.sync_all() {
        // Many network file systems cannot sync folders; readers are still protected by the hashes in receipts.
        Err(e) if cannot_sync(&e) => Ok(()),
        other => other.map_err(|e| StageError::file(path, e)),
    }
}

/// Returns whether the error means that the file system cannot sync at all, as opposed to a failed sync.
fn cannot_sync(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

/// Forces all files and folders below and including `root` to the disk.
pub(crate) fn sync_tree(root: &Path) -> Result<(), StageError> {
    for file in files_below(root)? {
        sync_file(&root.join(file))?;
    }
    for dir in dirs_below(root)? {
        sync_dir(&dir)?;
    }
    Ok(())
}

/// Writes a small file under a temporary name in the same folder, syncs it and renames it into place.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    let temporary = temporary_beside(path);
    write_synced(&temporary, bytes)?;
    fs::rename(&temporary, path).map_err(|e| StageError::file(path, e))
}

/// Writes a small file and forces it to the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    let mut file = File::create(path).map_err(|e| StageError::file(path, e))?;
    file.write_all(bytes).map_err(|e| StageError::file(path, e))?;
    sync(&file).map_err(|e| StageError::file(path, e))
}

/// Returns the temporary name for a file that is being replaced, in the same folder.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}{name}", crate::work::TEMPORARY))
}

/// Creates a folder and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<(), StageError> {
    fs::create_dir_all(path).map_err(|e| StageError::file(path, e))
}

/// Removes a file or a whole folder. A missing one is not an error.
pub(crate) fn remove_any(path: &Path) -> Result<(), StageError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StageError::file(path, e)),
        _ => Ok(()),
    }
}

/// Removes empty folders upwards from `dir`, up to but not including `stop`.
pub(crate) fn remove_empty_dirs(dir: &Path, stop: &Path) {
    let mut current = dir;
    while current != stop && current.starts_with(stop) && fs::remove_dir(current).is_ok() {
        match current.parent() {
            Some(parent) => current = parent,
            None => return,
        }
    }
}

/// Replaces the folder `to`, which may exist, by `from`. At no instant is `to` missing or half written if the file
/// system can exchange names; otherwise it may be missing for an instant.
pub(crate) fn replace_dir(from: &Path, to: &Path) -> Result<(), StageError> {
    if !to.exists() {
        return fs::rename(from, to).map_err(|e| StageError::file(to, e));
    }
    if renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE).is_ok() {
        return remove_any(from);
    }
    let old = from.with_extension("old");
    remove_any(&old)?;
    fs::rename(to, &old).map_err(|e| StageError::file(to, e))?;
    fs::rename(from, to).map_err(|e| StageError::file(to, e))?;
    remove_any(&old)
}

/// Moves a folder into another one, under the first free name of `name`, `name-2` and so on. Returns the new path.
pub(crate) fn set_aside(from: &Path, into: &Path, name: &str) -> Result<PathBuf, StageError> {
    let mut target = into.join(name);
    let mut number = 2u32;
    while fs::symlink_metadata(&target).is_ok() {
        target = into.join(format!("{name}-{number}"));
        number += 1;
    }
    make_dir(into)?;
    fs::rename(from, &target).map_err(|e| StageError::file(from, e))?;
    sync_dir(into)?;
    sync_dir(from.parent().unwrap_or(into))?;
    Ok(target)
}

/// Returns the names in a folder, sorted; none if the folder does not exist.
pub(crate) fn list_names(dir: &Path) -> Result<Vec<String>, StageError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StageError::file(dir, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| StageError::file(dir, e))?;
        names.push(utf8_name(&entry.path())?);
    }
    names.sort();
    Ok(names)
}

/// Returns all regular files below `root`, sorted, relative to it, with `/` between folders. A link, a pipe and the
/// like is an error: a committed link could lead out of the experiment.
pub(crate) fn files_below(root: &Path) -> Result<Vec<String>, StageError> {
    let mut found = Vec::new();
    walk(root, "", &mut found, &mut |_| {})?;
    found.sort();
    Ok(found)
}

/// Returns `root` and all folders below it, the deepest last.
pub(crate) fn dirs_below(root: &Path) -> Result<Vec<PathBuf>, StageError> {
    let mut dirs = vec![root.to_owned()];
    walk(root, "", &mut Vec::new(), &mut |dir| dirs.push(dir.to_owned()))?;
    Ok(dirs)
}

/// Links the file or folder `from` as `to`. Uses hard links or, where they are not available, copies.
pub(crate) fn link_tree(from: &Path, to: &Path) -> Result<(), StageError> {
    if from.is_file() {
        return link_file(from, to);
    }
    make_dir(to)?;
    for file in files_below(from)? {
        let target = to.join(&file);
        if let Some(parent) = target.parent() {
            make_dir(parent)?;
        }
        link_file(&from.join(&file), &target)?;
    }
    Ok(())
}

fn link_file(from: &Path, to: &Path) -> Result<(), StageError> {
    remove_any(to)?;
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    copy_bytes(from, to)
}

/// Copies a file's content into a new file. Its mode is not copied: some file systems refuse to set one.
///
/// # Errors
/// Returns an error if `from` cannot be read or `to` cannot be written.
pub fn copy_bytes(from: &Path, to: &Path) -> Result<(), StageError> {
    let mut source = File::open(from).map_err(|e| StageError::file(from, e))?;
    let mut target = File::create(to).map_err(|e| StageError::file(to, e))?;
    std::io::copy(&mut source, &mut target).map(drop).map_err(|e| StageError::file(to, e))
}

fn walk(root: &Path, prefix: &str, found: &mut Vec<String>, on_dir: &mut dyn FnMut(&Path)) -> Result<(), StageError> {
    for name in list_names(&root.join(prefix))? {
        let relative = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let path = root.join(&relative);
        let kind = fs::symlink_metadata(&path).map_err(|e| StageError::file(&path, e))?.file_type();
        if kind.is_dir() {
            on_dir(&path);
            walk(root, &relative, found, on_dir)?;
        } else if kind.is_file() {
            found.push(relative);
        } else {
            return Err(StageError::new(format!("{}: neither a file nor a folder", path.display())));
        }
    }
    Ok(())
}

fn utf8_name(path: &Path) -> Result<String, StageError> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| StageError::new(format!("{}: the name is not UTF-8", path.display())))
}
