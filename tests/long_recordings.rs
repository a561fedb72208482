//! Segments of long recordings: every recording is read once per pass, in whatever order and parts its segments come.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::mini::repository;
use crate::support::{Tree, flowmill};

/// Recordings of the corpus, and segments of each: the ids of different recordings' segments take turns.
const RECORDINGS: usize = 3;
const SEGMENTS: usize = 8;
/// Passes over the recordings: probing, measuring and extracting twice, packing.
const PASSES: usize = 6;

/// A corpus of segments whose recordings are commands that note every run.
struct Corpus {
    folder: TempDir,
}

impl Corpus {
    /// `wav` gives the entry of a recording in `wav.scp`, from its number and the file that holds it.
    fn new(part_size: usize, wav: impl Fn(usize, &Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let (mut scp, mut segments, mut text, mut spk) = (String::new(), String::new(), String::new(), String::new());
        for (recording, file) in recordings().iter().enumerate() {
            writeln!(scp, "r{recording} {}", wav(recording, file)).unwrap();
        }
        for segment in 0..SEGMENTS {
            for recording in 0..RECORDINGS {
                let id = format!("u{segment}-{recording}");
                let start = 0.7 * segment as f64;
                writeln!(segments, "{id} r{recording} {start:.2} {:.2}", start + 0.9).unwrap();
                writeln!(text, "{id} text").unwrap();
                writeln!(spk, "{id} s{recording}").unwrap();
            }
        }
        for (name, content) in [("wav.scp", scp), ("segments", segments), ("text", text), ("utt2spk", spk)] {
            fs::write(data.join(name), content).unwrap();
        }
        let recipe = format!(
            "name: long\nseed: 1\nprep: {{data: data, format: kaldi, allow_pipes: true, part_size: {part_size}, \
             split: {{by: fraction, fractions: {{}}}}}}\n\
             embed: {{extractor: {{kind: statistics, n_mels: 8}}}}\n\
             tokens: {{extractor: {{kind: kmeans, k: 8, iterations: 3}}}}\npack: {{utterances_per_shard: 7}}\n"
        );
        fs::write(folder.path().join("recipe.yaml"), recipe).unwrap();
        Self { folder }
    }

    fn run(&self, jobs: &str) {
        flowmill(self.folder.path(), &["run", ".", "--stage", "0", "--stop-stage", "3", "--jobs", jobs]).expect_code(0);
    }

    /// Runs of a recording's command.
    fn runs(&self, recording: usize) -> usize {
        let runs = fs::read_to_string(self.folder.path().join(format!("data/runs{recording}"))).unwrap();
        runs.lines().count()
    }
}

/// Recordings that all segments fit into.
fn recordings() -> Vec<PathBuf> {
    let data = repository().join("data/libri6").canonicalize().unwrap();
    let durations = fs::read_to_string(data.join("utt2dur")).unwrap();
    let long = durations.lines().filter_map(|line| line.split_once(' '));
    let long = long.filter(|(_, seconds)| seconds.parse::<f64>().unwrap() > 0.7 * SEGMENTS as f64 + 0.3);
    let ids: Vec<&str> = long.map(|(id, _)| id).take(RECORDINGS).collect();
    let entries = fs::read_to_string(data.join("wav.scp")).unwrap();
    let file = |id: &&str| {
        let (_, file) = entries.lines().filter_map(|line| line.split_once(' ')).find(|(own, _)| own == id).unwrap();
        data.join(file)
    };
    ids.iter().map(file).collect()
}

#[test]
fn a_command_runs_once_per_pass_however_many_segments_and_parts_it_serves() {
    let command = |recording: usize, file: &Path| format!("echo run >> runs{recording}; cat {} |", file.display());
    let one_part = Corpus::new(1000, command);
    one_part.run("2");
    for recording in 0..RECORDINGS {
        assert_eq!(one_part.runs(recording), PASSES, "recording {recording}");
    }
    let many_parts = Corpus::new(5, command);
    many_parts.run("2");
    for recording in 0..RECORDINGS {
        assert_eq!(many_parts.runs(recording), PASSES, "recording {recording} in parts");
    }
}

#[test]
fn threads_change_no_byte_of_the_shards() {
    let file = |_: usize, file: &Path| file.display().to_string();
    let shards = |part_size: usize, jobs: &str| {
        let corpus = Corpus::new(part_size, file);
        corpus.run(jobs);
        Tree::of(&corpus.folder.path().join("exp/long/3-pack/train"))
    };
    let alone = shards(1000, "1");
    alone.expect_same_bytes(&shards(1000, "3"), "three threads");
}
