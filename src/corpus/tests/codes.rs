//! Prepared codes in files of the public VALL-E trainer's form (`tests/data/codes/make.py`).

use std::fs;
use std::path::{Path, PathBuf};

use flowmill_corpus::codes::{Artifact, read_source};
use flowmill_corpus::source::{PipeLimits, Source};
use flowmill_corpus::{ColumnSpec, CorpusError, DType, ReadOptions, Reading, Role};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/codes")
}

/// The code that the files have at a level and a frame.
fn expected(level: usize, frame: usize) -> i32 {
    ((37 * frame + 101 * level) % 1024) as i32
}

fn read(dir: &str, columns: &[ColumnSpec]) -> Reading {
    let reading = read_source(&data(), dir, &ReadOptions { columns, ..ReadOptions::default() }).unwrap();
    assert_eq!(reading.lines, (reading.utterances.len() + reading.rejected.len()) as u64);
    reading
}

/// The codes of a row's medium.
fn codes(medium: &str, levels: usize) -> Result<flowmill_corpus::codes::Codes, String> {
    let bytes = Source::of(medium).read(&data(), &PipeLimits::default()).unwrap();
    Artifact::of(&bytes, Path::new(medium))?.codes(levels, 1024)
}

#[test]
fn a_folder_of_files_is_rows_with_their_metadata() {
    let columns = [ColumnSpec::new("phonemes", DType::Text).optional()];
    let reading = read("good", &columns);
    let rows: Vec<_> = reading.utterances.iter().collect();
    let ids: Vec<_> = rows.iter().map(|row| (row.utt, row.spk, row.text, row.lang)).collect();
    assert_eq!(
        ids,
        [
            ("anna-one", "anna", "One, two.", Some("en")),
            ("anna-two", "anna", "Two", Some("en")),
            ("ben-three", "ben", "", None),
        ]
    );
    assert_eq!(rows.iter().map(|row| row.duration).collect::<Vec<_>>(), [Some(2.0), Some(0.5), Some(1.2)]);
    assert!(rows.iter().all(|row| row.wav.is_empty()));
    let extra = rows[0].extra.unwrap();
    assert_eq!(extra.columns["phonemes"].value::<String>().unwrap(), "wˈʌn, tˈuː.");
    assert_eq!(rows[1].extra.unwrap().columns["phonemes"].value::<String>().unwrap(), "tˈuː");
    for (row, frames) in rows.iter().zip([150, 5, 90]) {
        let found = codes(&row.extra.unwrap().media[&Role::Codes][0].0, 8).unwrap();
        assert_eq!((found.levels, found.frames), (8, frames));
        let all = (0..8).flat_map(|level| (0..frames).map(move |frame| expected(level, frame)));
        assert!(found.values.iter().copied().eq(all), "{}", row.utt);
    }
}

#[test]
fn files_of_other_codecs_have_their_own_levels() {
    let reading = read("dac", &[]);
    let rows: Vec<_> = reading.utterances.iter().collect();
    assert_eq!(
        rows.iter().map(|row| (row.utt, row.lang)).collect::<Vec<_>>(),
        [("carla-five", Some("en")), ("carla-four", None)]
    );
    for row in rows {
        let medium = &row.extra.unwrap().media[&Role::Codes][0].0;
        assert_eq!(codes(medium, 9).unwrap().frames, 80);
        assert!(codes(medium, 8).unwrap_err().contains("9 levels instead of 8"));
    }
}

#[test]
fn bad_files_are_rejected_with_their_reason() {
    let reading = read("bad", &[]);
    let rejected: Vec<_> = reading.rejected.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(rejected, ["s-cut", "s-text"]);
    let problem = |name: &str| codes(&format!("bad/s/{name}.enc"), 8).unwrap_err();
    for (name, words) in [
        ("zeros", "all codes are zero"),
        ("beyond", "is not below 1024"),
        ("levels", "9 levels instead of 8"),
        ("floats", "no integers"),
        ("batch", "[2, 8, 75]"),
        ("cut", "cannot be read"),
    ] {
        assert!(problem(name).contains(words), "{name}: {}", problem(name));
    }
}

#[test]
fn an_hdf5_file_is_the_same_rows() {
    let columns = [ColumnSpec::new("phonemes", DType::Text).optional()];
    let reading = read("data.h5#training", &columns);
    let rows: Vec<_> = reading.utterances.iter().collect();
    let ids: Vec<_> = rows.iter().map(|row| (row.utt, row.spk, row.text, row.lang, row.duration)).collect();
    assert_eq!(
        ids,
        [
            ("group-anna-one", "group-anna", "One, two.", Some("en"), Some(40.0)),
            ("group-anna-two", "group-anna", "Two", Some("en"), Some(0.5)),
            ("group-ben-three", "group-ben", "Drei", Some("de"), Some(1.2)),
        ]
    );
    assert_eq!(rows[0].extra.unwrap().columns["phonemes"].value::<String>().unwrap(), "wˈʌn, tˈuː.");
    for (row, frames) in rows.iter().zip([3000, 5, 90]) {
        let medium = &row.extra.unwrap().media[&Role::Codes][0].0;
        let found = codes(medium, 8).unwrap();
        assert_eq!((found.levels, found.frames), (8, frames), "{medium}");
        let all = (0..8).flat_map(|level| (0..frames).map(move |frame| expected(level, frame)));
        assert!(found.values.iter().copied().eq(all), "{medium}");
    }
    let whole = read("data.h5", &[]);
    let last = whole.utterances.iter().last().unwrap();
    assert_eq!((whole.utterances.len(), last.utt), (4, "validation-group-ben-four"));
}

#[test]
fn what_is_no_source_is_an_error_and_no_bit_makes_it_panic() {
    let fails = |root: &Path, dir: &str| read_source(root, dir, &ReadOptions::default()).unwrap_err();
    for dir in ["absent", "absent.h5", "data.h5#absent", "good/anna/one.enc"] {
        assert!(matches!(fails(&data(), dir), CorpusError::Structure { .. }), "{dir}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.h5"), b"no HDF5").unwrap();
    assert!(matches!(fails(folder.path(), "x.h5"), CorpusError::Structure { .. }));
    assert!(matches!(fails(folder.path(), "."), CorpusError::Structure { .. }));
    // Damage of one bit or of the end: an error, or other values.
    let whole = fs::read(data().join("good/anna/two.enc")).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _any = Artifact::of(&bytes, Path::new("x")).and_then(|artifact| artifact.codes(8, 1024));
    }
    let whole = fs::read(data().join("data.h5")).unwrap();
    for at in (0..whole.len()).step_by(997) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        bytes.truncate(whole.len() - at / 4);
        fs::write(folder.path().join("x.h5"), bytes).unwrap();
        let Ok(reading) = read_source(folder.path(), "x.h5", &ReadOptions::default()) else { continue };
        for row in reading.utterances.iter().filter_map(|row| row.extra) {
            let _any = row.media[&Role::Codes][0].source().read(folder.path(), &PipeLimits::default());
        }
    }
}
