//! Hints about the actual format of a folder that could not be read as the format in the recipe.

use std::fs;
use std::path::Path;

use crate::values;

/// The number of files and folders that are examined.
const MAX_ENTRIES: usize = 5000;

/// Files, sorted by their names.
#[derive(Default)]
struct Seen {
    names: Vec<String>,
}

impl Seen {
    /// Examines the first entries of a folder, in order of their names.
    fn of(folder: &Path) -> Self {
        let mut seen = Self::default();
        let mut waiting = vec![(folder.to_path_buf(), String::new())];
        while let Some((place, below)) = waiting.pop() {
            let Ok(entries) = fs::read_dir(&place) else { continue };
            let mut entries: Vec<_> = entries.filter_map(Result::ok).take(MAX_ENTRIES).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
                if seen.names.len() >= MAX_ENTRIES || name.starts_with('.') {
                    continue;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push((entry.path(), format!("{below}{name}/")));
                } else {
                    seen.names.push(format!("{below}{name}"));
                }
            }
        }
        seen.names.sort_unstable();
        seen
    }

    fn ends(&self, ending: &str) -> Option<&str> {
        self.names.iter().find(|name| name.ends_with(ending)).map(String::as_str)
    }

    fn called(&self, name: &str) -> Option<&str> {
        let is = |found: &&String| *found == name || found.ends_with(&format!("/{name}"));
        self.names.iter().find(is).map(String::as_str)
    }
}

/// Returns what the data at a path seem to be and how to read them. Returns `None` if nothing is recognized except
/// the format that they are read as, such as `kaldi`.
pub fn of_source(path: &Path, read_as: &str) -> Option<String> {
    if path.is_file() {
        return of_file(&path.to_string_lossy().to_ascii_lowercase(), read_as);
    }
    let seen = Seen::of(path);
    let own = |what: &str, file: &str| {
        format!(
            "{what} (it contains {file}), which cannot be read directly; write a Kaldi directory or a JSON-lines manifest of it"
        )
    };
    let layouts: [(Option<&str>, &str); 12] = [
        (seen.ends(".trans.txt"), "this looks like LibriSpeech, whose transcripts are in lists"),
        (
            seen.ends(".normalized.txt"),
            "this looks like LibriTTS; `format: folder` reads NAME.wav with NAME.normalized.txt",
        ),
        (seen.ends("_mic1.flac"), "this looks like VCTK, whose transcripts are in a folder of their own"),
        (seen.called("content.txt"), "this looks like AISHELL-3, whose transcripts are in a list"),
        (seen.called("transcripts.txt"), "this looks like MLS, whose transcripts are in a list"),
        (seen.ends(".parquet"), "these look like Parquet tables of Hugging Face"),
        (seen.ends(".arrow"), "this looks like a dataset that Hugging Face saved"),
        (seen.called("cuts.jsonl.gz").or(seen.called("recordings.jsonl.gz")), "these look like manifests of lhotse"),
        (seen.ends("cuts.000000.jsonl.gz"), "these look like shards of lhotse"),
        (seen.called("gigaspeech.json"), "this looks like GigaSpeech"),
        (seen.called("validated.tsv").or(seen.called("train.tsv")), "this looks like Common Voice"),
        (
            seen.called("metadata.jsonl"),
            "this looks like an audio folder of Hugging Face; `format: manifest` reads its metadata.jsonl",
        ),
    ];
    if let Some((file, what)) = layouts.iter().find_map(|(file, what)| file.map(|file| (file, *what))) {
        return Some(if what.contains("`format:") { format!("{what} (it contains {file})") } else { own(what, file) });
    }
    // A file directly in the folder is not a hint for the format that reads it anyway.
    let new = |format: &str, file: &&str| read_as != format || file.contains('/');
    if let Some(file) = seen.called("metadata.csv").filter(|file| new("ljspeech", file)) {
        let (folder, _) = file.rsplit_once('/').unwrap_or(("", file));
        let wavs = seen.names.iter().any(|name| name.starts_with(format!("{folder}/wavs/").trim_start_matches('/')));
        return Some(match wavs {
            true if folder.is_empty() => "this looks like LJSpeech: `format: ljspeech`".into(),
            true => format!("this looks like LJSpeech, in its folder {folder}: `format: ljspeech`"),
            false => own("this looks like an audio folder of Hugging Face", file),
        });
    }
    if let Some(file) = seen.ends(".tar").or(seen.ends(".tar.gz")).filter(|_| read_as != "webdataset") {
        return Some(format!("this looks like WebDataset (it contains {file}): `format: webdataset`"));
    }
    if let Some(file) = seen.called("wav.scp").filter(|file| new("kaldi", file)) {
        return Some(format!(
            "this looks like Kaldi (it contains {file}): `format: kaldi` reads the folder that wav.scp is in"
        ));
    }
    if let Some(file) = seen.ends(".jsonl") {
        return Some(format!("it contains {file}; `format: manifest` reads such a file if `dir` names it"));
    }
    let archives = [".zip", ".7z", ".rar", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"];
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
        "tgz" => "it is a compressed tar file; `gunzip` it once, and `format: webdataset` reads the .tar",
        "gz" if name.ends_with(".tar.gz") => {
            "it is a compressed tar file; `gunzip` it once, and `format: webdataset` reads the .tar"
        }
        "zip" | "7z" | "rar" => "it is an archive; unpack it, and read the folder",
        "gz" | "xz" | "zst" | "bz2" => "it is a compressed file; uncompress it once",
        "csv" | "tsv" | "list" | "txt" | "scp" => {
            "it is a file; `format: ljspeech` reads a folder with metadata.csv, `format: kaldi` one with wav.scp, `format: manifest` \
             JSON lines"
        }
        "parquet" | "arrow" => "it is a table; write a JSON-lines manifest or tar files of it",
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
            (&["LJSpeech-1.1/metadata.csv", "LJSpeech-1.1/wavs/a.wav"], ["ljspeech-1.1", "`format: ljspeech`"]),
            (&["train/metadata.csv", "train/a.wav"], ["Hugging Face", "metadata.csv"]),
            (&["EN/EN-0.tar"], ["en-0.tar", "`format: webdataset`"]),
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
