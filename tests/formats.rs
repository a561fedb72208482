//! Rows are conserved: every recording is decoded or rejected with a reason, whatever is wrong with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::mini::repository;
use crate::support::{Outcome, flowmill, parquet};

/// Files that are no audio at all, or say nonsense about themselves: they must be rejected.
const HOPELESS: [&str; 12] = [
    "channels_zero.wav",
    "git_lfs_pointer.wav",
    "header_only_20_bytes.wav",
    "no_data_chunk.wav",
    "one_sample.wav",
    "rate_4294967295.wav",
    "rate_zero.wav",
    "ten_ms.wav",
    "text_renamed.wav",
    "unknown_codec_tag.wav",
    "zero_byte.wav",
    "zero_samples.wav",
];

/// Files that are unusual but legal: they must be decoded.
const LEGAL: [&str; 5] =
    ["clipped.wav", "dc_offset.wav", "digital_silence_1s.wav", "float32_over_range.wav", "header_claims_ffffffff.wav"];

/// A recipe over every file of `tests/data/formats/FOLDER`.
struct Formats {
    folder: TempDir,
    files: Vec<String>,
}

impl Formats {
    /// Writes the recipe and its data directory; the ids are the file names.
    fn new(which: &str) -> Self {
        let source = repository().join("tests/data/formats").join(which).canonicalize().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut files: Vec<String> =
            fs::read_dir(&source).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let table = |value: &dyn Fn(&str) -> String| {
            files.iter().map(|file| format!("{file} {}\n", value(file))).collect::<String>()
        };
        fs::write(data.join("wav.scp"), table(&|file| source.join(file).display().to_string())).unwrap();
        fs::write(data.join("text"), table(&|_| "Die Burg lag auf einem Berggrat.".into())).unwrap();
        fs::write(data.join("utt2spk"), table(&|_| "kerstin".into())).unwrap();
        let recipe = "name: formats\nmax_rejected: 1.0\n\
            prep: {data: data, split: {by: list, lists: {dev: dev}, rest: train}, min_duration: 0.1}\n\
            embed: {extractor: {kind: statistics, n_mels: 8}}\n\
            tokens: {extractor: {kind: kmeans, k: 8, iterations: 3}}\n";
        fs::write(folder.path().join("recipe.yaml"), recipe).unwrap();
        fs::write(folder.path().join("dev"), format!("{}\n", files[files.len() / 2])).unwrap();
        Self { folder, files }
    }

    /// Runs up to a stage.
    fn run(&self, stop_stage: &str) -> Outcome {
        flowmill(self.folder.path(), &["run", ".", "--stop-stage", stop_stage]).expect_code(0)
    }

    /// A path in the experiment folder.
    fn exp(&self, relative: &str) -> PathBuf {
        self.folder.path().join("exp/formats").join(relative)
    }

    /// Returns the stages as `status --json` gives them.
    fn stages(&self) -> Vec<Value> {
        let outcome = flowmill(self.folder.path(), &["status", ".", "--json"]).expect_code(0);
        let status: Value = serde_json::from_str(&outcome.stdout).unwrap();
        status["stages"].as_array().unwrap().clone()
    }

    /// The seconds of every file that stage 0 kept.
    fn kept(&self) -> BTreeMap<String, f64> {
        let mut kept = BTreeMap::new();
        for split in ["train", "dev"] {
            let table = self.exp(&format!("0-prep/{split}/part-00000.parquet"));
            if table.exists() {
                kept.extend(parquet::texts(&table, "utt").into_iter().zip(parquet::numbers(&table, "duration")));
            }
        }
        kept
    }

    /// The reason of every file that a stage rejected.
    fn rejected(&self, stage: &str) -> BTreeMap<String, String> {
        let table = self.exp(stage).join("rejected.parquet");
        if !table.exists() {
            return BTreeMap::new();
        }
        parquet::texts(&table, "id").into_iter().zip(parquet::texts(&table, "reason")).collect()
    }
}

/// The `seconds` column of `good.tsv`, by file name.
fn expected_seconds() -> BTreeMap<String, f64> {
    let table = fs::read_to_string(repository().join("tests/data/formats/good.tsv")).unwrap();
    let mut lines = table.lines();
    let titles: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let seconds = titles.iter().position(|title| *title == "seconds").unwrap();
    let entry = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let name = Path::new(cells[0]).file_name().unwrap().to_str().unwrap().to_string();
        (name, cells[seconds].parse().unwrap())
    };
    lines.map(entry).collect()
}

#[test]
fn every_good_file_is_kept_with_its_length() {
    let formats = Formats::new("good");
    assert_eq!(formats.files.len(), 26);
    formats.run("prep").expect_rows(26, 26, 0);
    let kept = formats.kept();
    let expected = expected_seconds();
    assert_eq!(kept.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (file, seconds) in expected {
        // Codecs that work in blocks may pad their last one; the longest block here is 93 ms.
        assert!((kept[&file] - seconds).abs() < 0.1, "{file}: {} s, expected {seconds} s", kept[&file]);
    }
}

#[test]
fn every_broken_file_is_decoded_reasonably_or_rejected_with_a_reason() {
    let formats = Formats::new("broken");
    assert_eq!(formats.files.len(), 32);
    formats.run("pack");
    let kept = formats.kept();
    let mut rejected = formats.rejected("0-prep");
    assert_eq!(kept.len() + rejected.len(), 32, "kept {kept:#?}, rejected {rejected:#?}");
    for stage in ["1-embed", "2-tokens", "3-pack"] {
        rejected.extend(formats.rejected(stage));
    }
    println!("rejected: {rejected:#?}");
    for file in HOPELESS {
        assert!(rejected.contains_key(file), "{file} was accepted");
    }
    for file in LEGAL {
        assert!(!rejected.contains_key(file), "{file} was rejected: {}", rejected[file]);
    }
    for (file, reason) in &rejected {
        assert!(reason.split_whitespace().count() >= 3, "{file}: `{reason}` does not say what is wrong");
    }
    let shorter = [("truncated.wav", 0.98), ("flac_truncated.flac", 1.4), ("ogg_truncated.ogg", 1.2)];
    for (file, most) in shorter.into_iter().filter(|(file, _)| !rejected.contains_key(*file)) {
        assert!(kept[file] <= most, "{file} was padded to {} s", kept[file]);
    }
    for file in ["header_claims_10x.wav", "header_claims_zero.wav"] {
        let right = rejected.contains_key(file) || (kept[file] - 1.95).abs() < 0.02;
        assert!(right, "{file} was read as {} s", kept[file]);
    }
}

#[test]
fn rows_add_up_in_every_stage() {
    for which in ["good", "broken"] {
        let formats = Formats::new(which);
        formats.run("pack");
        let mut rows = formats.files.len() as u64;
        for stage in &formats.stages()[..4] {
            let number = |field: &str| stage[field].as_u64().unwrap_or_else(|| panic!("{field} of {stage:#}"));
            assert_eq!(number("rows_in"), rows, "{which}: {stage:#}");
            assert_eq!(number("rows_in"), number("rows_out") + number("rejected"), "{which}: {stage:#}");
            rows = number("rows_out");
        }
    }
}

#[test]
fn more_rejected_rows_than_the_recipe_allows_fail_the_stage_with_the_reasons() {
    let formats = Formats::new("broken");
    let arguments = ["run", ".", "--stop-stage", "0", "--set", "max_rejected=0.1"];
    let outcome = flowmill(formats.folder.path(), &arguments).expect_code(1);
    outcome.expect_words(&["10.0 %", "rejected.parquet"]);
    assert!(!formats.rejected("0-prep").is_empty());
}
