//! Functions that several tests of this crate share.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};

use flowmill_corpus::Reading;

/// The folder `data` of the repository.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

/// Writes files into a fresh directory.
pub fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    dir
}

/// The ids of the good rows.
pub fn ids(reading: &Reading) -> Vec<&str> {
    reading.utterances.iter().map(|row| row.utt).collect()
}

/// Checks that an id was rejected: the kind of the reason, which stands before its first `: `, and what the reason names.
#[track_caller]
pub fn expect_rejected(reading: &Reading, id: &str, kind: &str, values: &[&str]) {
    let reason = reason(reading, id);
    assert_eq!(reason.split(": ").next(), Some(kind), "{id}: {reason}");
    assert!(values.iter().all(|value| reason.contains(value)), "{id}: {values:?}: {reason}");
}

/// The reason why an id was rejected; panics when it was not.
pub fn reason<'a>(reading: &'a Reading, id: &str) -> &'a str {
    match reading.rejected.iter().find(|rejection| rejection.id == id) {
        Some(rejection) => &rejection.reason,
        None => panic!("`{id}` was not rejected: {:?}", reading.rejected),
    }
}
