//! Hints about the actual format of a folder that could not be read as the format in the recipe.

use std::fs;
use std::path::Path;

use crate::detect::{self, Detected, Seen};
use crate::values;

/// Returns what the data at a path seem to be and how to read them. Returns `None` if nothing is recognized except
/// the format that they are read as, such as `kaldi`.
pub fn of_source(path: &Path, read_as: &str) -> Option<String> {
    if path.is_file() {
        return of_file(&path.to_string_lossy().to_ascii_lowercase(), read_as);
    }
    if let Some(Detected { format, what, file }) = detect::detect(path)
        && (format != read_as || file.contains('/'))
        && format != "folder"
    {
        // A file directly in the folder is not a hint for the format that reads it anyway.
        let place = match file.rsplit_once('/') {
            Some((folder, _)) if matches!(format, "kaldi" | "ljspeech") => {
                return Some(format!("{what}, in its folder {folder}: `format: {format}` reads that folder"));
            }
            _ if format == read_as => return None,
            _ => format!("it contains {file}"),
        };
        return Some(format!("{what} ({place}): `format: {format}`"));
    }
    let seen = Seen::of(path);
    let archives = [".zip", ".7z", ".rar", ".tar.bz2", ".tar.xz"];
    if let Some(file) = archives.iter().find_map(|ending| seen.ends(ending)) {
        return Some(format!("it contains {file}, an archive; unpack it, and read its contents"));
    }
    if read_as == "folder" || seen.called("wav.scp").or(seen.called("metadata.csv")).is_some() {
        return None;
    }
    let media = seen.names.iter().find(|name| crate::samples::look(name) == crate::samples::Look::Media)?;
    Some(format!(
        "it contains recordings (such as {media}): `format: folder` reads them with .txt files of the same names"
    ))
}

/// Returns what a file seems to be, by its name.
fn of_file(name: &str, read_as: &str) -> Option<String> {
    if read_as == "manifest" {
        // Errors in its lines are reported anyway.
        return None;
    }
    let hint = match name.rsplit('.').next()? {
        "jsonl" | "json" | "ndjson" => "it is a file: `format: manifest` reads JSON lines",
        "tgz" | "gz" | "tzst" | "zst" if crate::webdataset::is_compressed(name) => {
            "it is a compressed tar file: `format: webdataset` reads it"
        }
        "zip" | "7z" | "rar" => "it is an archive; unpack it, and read the folder",
        "gz" | "xz" | "zst" | "bz2" => "it is a compressed file; uncompress it once",
        "csv" | "tsv" | "list" | "txt" | "scp" => {
            "it is a file; `format: list` reads lines of `path|speaker|language|text`, `format: manifest` JSON lines and tables with \
             a header, `format: kaldi` a folder with wav.scp"
        }
        "parquet" | "arrow" => "it is a table: `format: huggingface` reads it",
        _ => return None,
    };
    Some(hint.into())
}

/// Returns a file next to a missing one whose name looks the same but has another Unicode form.
pub fn in_another_form(missing: &Path) -> Option<String> {
    let name = missing.file_name()?.to_str().filter(|name| !name.is_ascii())?;
    let form = values::one_form(name);
    let names = fs::read_dir(missing.parent()?).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut same: Vec<String> = names.filter(|other| values::one_form(other) == form).collect();
    same.sort_unstable();
    same.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_known_by_the_files_in_them() {
        for (files, words) in [
            (
                &["LibriSpeech/dev/84/1/84-1.trans.txt", "LibriSpeech/dev/84/1/84-1-0.flac"][..],
                ["LibriSpeech", "84-1.trans.txt"],
            ),
            (&["LJSpeech-1.1/metadata.csv", "LJSpeech-1.1/wavs/a.wav"], ["LJSpeech-1.1", "`format: ljspeech`"]),
            (&["train/metadata.csv", "train/a.wav"], ["`format: manifest`", "metadata.csv"]),
            (&["EN/EN-0.tar"], ["EN-0.tar", "`format: webdataset`"]),
            (&["a/b.wav"], ["b.wav", "`format: folder`"]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                let path = dir.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            let hint = of_source(dir.path(), "").unwrap();
            assert!(words.iter().all(|word| hint.contains(word)), "{hint}");
        }
        assert_eq!(of_source(tempfile::tempdir().unwrap().path(), ""), None);
    }
}
