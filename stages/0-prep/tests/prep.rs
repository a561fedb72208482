//! The stage through the runner, on real and on broken recordings.

use std::fs;
use std::path::{Path, PathBuf};

use flowmill_corpus::table;
use flowmill_runner::{Experiment, Recipe, Reporter, RunError, RunOptions, RunSummary, Stage, run};
use flowmill_stage_prep::Prep;

/// A recipe's folder with a copy of the real corpus next to it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/libri6"), &dir.path().join("data/libri6"));
        fs::create_dir_all(dir.path().join("recipe")).unwrap();
        Self { dir }
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("recipe/exp/test/0-prep").join(name)
    }

    fn run(&self, prep: &str) -> Result<RunSummary, RunError> {
        let file = self.dir.path().join("recipe/recipe.yaml");
        fs::write(&file, format!("name: test\nmax_rejected: 1.0\nprep:\n{prep}")).unwrap();
        let recipe = Recipe::load(&file, &[], &["prep"])?;
        let stages: Vec<Box<dyn Stage>> = vec![Box::new(Prep)];
        run(&stages, &recipe, &Experiment::of_recipe(&recipe), &RunOptions::default(), &Reporter::quiet())
    }

    fn ids(&self, table: &str) -> Vec<String> {
        table::read_utterances(&self.out(table)).unwrap().into_iter().map(|row| row.utt).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(fs::copy(entry.path(), target))
        }
    }
}

fn counts(summary: &RunSummary) -> (u64, u64, u64) {
    let stage = &summary.stages[0];
    (stage.rows_in, stage.rows_out, stage.rejected)
}

const BY_LIST: &str = "  data: ../data/libri6
  part_size: 20
  split:
    by: list
    lists:
      train: ../data/libri6/splits/train.list
      dev: ../data/libri6/splits/dev.list
      test: ../data/libri6/splits/test.list
";

#[test]
fn the_real_corpus_by_lists_and_what_changes_when_a_file_does() {
    let place = Place::new();
    let summary = place.run(BY_LIST).unwrap();
    assert_eq!(counts(&summary), (60, 60, 0));
    let keys =
        ["dev/part-00000", "read", "test/part-00000", "train/part-00000", "train/part-00001", "train/part-00002"];
    assert_eq!(summary.stages[0].ran_keys, keys);
    let rows = table::read_utterances(&place.out("train/part-00002.parquet")).unwrap();
    assert_eq!(rows.len(), 8);
    let row = &rows[0];
    assert!(row.wav.starts_with("../data/libri6/audio/"));
    assert_eq!((row.sample_rate, row.channels), (Some(16_000), Some(1)));
    let known = fs::read_to_string(place.data("libri6/utt2dur")).unwrap();
    let known = known.lines().find_map(|line| line.strip_prefix(&format!("{} ", row.utt))).unwrap();
    assert!((row.duration.unwrap() - known.parse::<f64>().unwrap()).abs() < 0.01);
    assert_eq!(place.ids("dev/part-00000.parquet").len(), 6);
    // Nothing changed: nothing runs.
    assert_eq!(place.run(BY_LIST).unwrap().stages[0].ran, 0);
    // A changed recording repeats only its part.
    let wav = place.data("libri6/audio/1688/1688-142285-0008.flac");
    fs::copy(place.data("libri6/audio/1688/1688-142285-0009.flac"), wav).unwrap();
    assert_eq!(place.run(BY_LIST).unwrap().stages[0].ran_keys, ["dev/part-00000"]);
    // A changed transcript repeats the reading and the part that contains it.
    let text = fs::read_to_string(place.data("libri6/text")).unwrap();
    fs::write(place.data("libri6/text"), text.replace("IRON", "COPPER")).unwrap();
    assert_eq!(place.run(BY_LIST).unwrap().stages[0].ran_keys, ["read", "train/part-00000"]);
    // A changed limit repeats every part, but not the reading.
    let summary = place.run(&format!("{BY_LIST}  min_duration: 4.0\n")).unwrap();
    assert_eq!(summary.stages[0].ran, 5);
    let (rows_in, rows_out, rejected) = counts(&summary);
    assert!(rejected > 0 && rows_in == rows_out + rejected, "{summary:?}");
}

#[test]
fn broken_recordings_are_set_aside_with_their_reason() {
    let place = Place::new();
    let (wav, cut) = ("libri6/audio/1688/1688-142285-0000.flac", "libri6/audio/1688/1688-142285-0001.flac");
    fs::write(place.data(wav), "not audio at all, but long enough to look at").unwrap();
    fs::remove_file(place.data(cut)).unwrap();
    let summary = place.run("  data: ../data/libri6\n").unwrap();
    assert_eq!(counts(&summary), (60, 58, 2));
    let rejected = table::read_string_column(&place.out("rejected.parquet"), "reason").unwrap().join("\n");
    assert_eq!(rejected.matches("unreadable recording: ../data/libri6/audio/1688/").count(), 2, "{rejected}");
    assert!(!rejected.contains(place.dir.path().to_str().unwrap()), "{rejected}");
}

#[test]
fn fractions_do_not_move_rows_when_others_are_added() {
    let place = Place::new();
    let splits = "  data: ../data/libri6\n  probe: false\n  split: {fractions: {dev: 0.2, test: 0.2}}\n";
    assert_eq!(counts(&place.run(splits).unwrap()), (60, 60, 0));
    let before: Vec<Vec<String>> =
        ["train", "dev", "test"].map(|s| place.ids(&format!("{s}/part-00000.parquet"))).into();
    assert!(before.iter().all(|ids| ids.len() > 3), "{before:?}");
    for (file, line) in [("wav.scp", "9-new a.flac\n"), ("text", "9-new X\n"), ("utt2spk", "9-new 9\n")] {
        let text = fs::read_to_string(place.data("libri6").join(file)).unwrap();
        fs::write(place.data("libri6").join(file), text + line).unwrap();
    }
    // No recording is opened, so the missing recording of the new row does not matter.
    assert_eq!(counts(&place.run(splits).unwrap()), (61, 61, 0));
    for (name, before) in ["train", "dev", "test"].iter().zip(before) {
        let after = place.ids(&format!("{name}/part-00000.parquet"));
        assert!(before.iter().all(|id| after.contains(id)), "{name}: {before:?} {after:?}");
    }
}

#[test]
fn whole_speakers_are_held_out_when_asked() {
    let place = Place::new();
    let prep = "  data: ../data/libri6\n  probe: false\n  split: {fractions: {dev: 0.5}, unit: speaker}\n";
    place.run(prep).unwrap();
    let speakers = |split: &str| {
        let rows = table::read_utterances(&place.out(&format!("{split}/part-00000.parquet"))).unwrap();
        let mut speakers: Vec<String> = rows.into_iter().map(|row| row.spk).collect();
        speakers.dedup();
        speakers
    };
    let (train, dev) = (speakers("train"), speakers("dev"));
    assert_eq!(train.len() + dev.len(), 6);
    assert!(train.iter().all(|speaker| !dev.contains(speaker)));
}

#[test]
fn several_sources_with_given_splits_and_an_id_in_both() {
    let place = Place::new();
    let wav = "../libri6/audio/1688/1688-142285-0000.flac";
    let manifest = |id: &str| format!("{{\"audio_filepath\": \"{wav}\", \"text\": \"x\", \"id\": \"{id}\"}}\n");
    fs::create_dir_all(place.data("more")).unwrap();
    fs::write(place.data("more/dev.json"), manifest("extra") + &manifest("1688-142285-0000")).unwrap();
    let prep = "  data:
    - {dir: ../data/libri6, split: train}
    - {dir: ../data/more/dev.json, format: manifest, split: dev}
  split: {by: given}
";
    assert_eq!(counts(&place.run(prep).unwrap()), (62, 61, 1));
    assert_eq!(place.ids("dev/part-00000.parquet"), ["extra"]);
    assert_eq!(place.ids("train/part-00000.parquet").len(), 60);
}

#[test]
fn segments_are_cut_to_their_recording_or_refused() {
    let place = Place::new();
    let seconds = flowmill_audio::probe(place.data("libri6/audio/1688/1688-142285-0000.flac")).unwrap().seconds();
    let dir = place.data("pieces");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("wav.scp"), "rec ../libri6/audio/1688/1688-142285-0000.flac\n").unwrap();
    let (over, beyond) = (seconds + 0.2, seconds + 5.0);
    let segments = format!("s-a rec 0.5 2.5\ns-b rec 1 {over:.2}\ns-c rec 1 {beyond:.2}\n");
    fs::write(dir.join("segments"), segments).unwrap();
    fs::write(dir.join("text"), "s-a A\ns-b B\ns-c C\n").unwrap();
    fs::write(dir.join("utt2spk"), "s-a s\ns-b s\ns-c s\n").unwrap();
    let prep = "  data: ../data/pieces\n  split: {fractions: {}}\n";
    assert_eq!(counts(&place.run(prep).unwrap()), (3, 2, 1));
    let rows = table::read_utterances(&place.out("train/part-00000.parquet")).unwrap();
    assert_eq!((rows[0].start, rows[0].end, rows[0].duration), (Some(0.5), Some(2.5), Some(2.0)));
    assert_eq!(rows[1].end, Some(seconds));
}

#[test]
fn a_folder_is_listed_again_when_a_recording_is_added() {
    let place = Place::new();
    let folder = place.data("folder");
    fs::create_dir_all(&folder).unwrap();
    let add = |name: &str| {
        fs::copy(place.data("libri6/audio/1688/1688-142285-0002.flac"), folder.join(format!("{name}.flac"))).unwrap();
        fs::write(folder.join(format!("{name}.txt")), name).unwrap();
    };
    add("one");
    let prep = "  data: [{dir: ../data/folder, format: folder}]\n  split: {fractions: {}}\n";
    assert_eq!(counts(&place.run(prep).unwrap()), (1, 1, 0));
    assert_eq!(place.run(prep).unwrap().stages[0].ran, 0);
    add("two");
    assert_eq!(counts(&place.run(prep).unwrap()), (2, 2, 0));
}

#[test]
fn wrong_settings_name_their_key_and_line() {
    let place = Place::new();
    let libri = "  data: ../data/libri6\n";
    for (data, more, key, value) in [
        ("", "  part_size: 10\n", "prep.data", "prep.data"),
        ("  data: ../data/nowhere\n", "", "prep.data", "../data/nowhere"),
        (libri, "  partsize: 10\n", "prep.partsize", "\"part_size\""),
        ("  data: [{dirr: ../data/libri6}]\n", "", "prep.data[0].dirr", "\"dir\""),
        ("  data: 3.5e\n", "", "prep.data", "3.5e"),
        (libri, "  split: {by: list}\n", "prep.split.lists", "lists"),
        (libri, "  split: {fractions: {dev: 0.7, test: 0.3}}\n", "prep.split.fractions", "`train`"),
        (libri, "  split: {by: given}\n", "prep.data", "`split`"),
        (libri, "  split: {rest: a/b}\n", "prep.split", "`a/b`"),
        (
            libri,
            "  split: {by: list, lists: {train: ../data/none.list}}\n",
            "prep.split.lists.train",
            "../data/none.list",
        ),
        (libri, "  min_duration: 9\n  max_duration: 3\n", "prep.max_duration", "recipe.yaml:6"),
        (libri, "  where: \"lenght > 3\"\n", "prep.where", "`lenght`"),
        ("  data: {dir: ../data/libri6, microphone: 2}\n", "", "prep.data", "`microphone`"),
    ] {
        let prep = format!("{data}{more}");
        let error = match place.run(&prep) {
            Err(RunError::Recipe(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(error.key() == key && error.to_string().contains(value), "{prep}: {error}");
    }
}

#[test]
fn a_corpus_is_recognized_and_its_splits_and_conditions_hold() {
    let place = Place::new();
    let texts = fs::read_to_string(place.data("libri6/text")).unwrap();
    for line in texts.lines().filter(|line| ["-0002 ", "-0003 "].iter().any(|number| line.contains(number))) {
        let (id, text) = line.split_once(' ').unwrap();
        let (speaker, rest) = id.split_once('-').unwrap();
        let chapter = rest.split('-').next().unwrap();
        let part = if speaker == "367" { "dev-clean" } else { "train-clean-100" };
        let folder = place.data(&format!("ls/LibriSpeech/{part}/{speaker}/{chapter}"));
        fs::create_dir_all(&folder).unwrap();
        let recording = place.data(&format!("libri6/audio/{speaker}/{id}.flac"));
        fs::copy(recording, folder.join(format!("{id}.flac"))).unwrap();
        let list = folder.join(format!("{speaker}-{chapter}.trans.txt"));
        let before = fs::read_to_string(&list).unwrap_or_default();
        fs::write(list, format!("{before}{id} {text}\n")).unwrap();
    }
    let prep = "  data: ../data/ls\n  split: {by: corpus}\n";
    assert_eq!(counts(&place.run(prep).unwrap()), (12, 12, 0));
    assert_eq!(place.ids("dev/part-00000.parquet").len(), 2);
    assert_eq!(place.ids("train/part-00000.parquet").len(), 10);
    assert_eq!(place.run(prep).unwrap().stages[0].ran, 0);
    let shorter = format!("{prep}  where: \"duration < 7 AND speaker != '1998' AND lang = 'en'\"\n");
    assert_eq!(counts(&place.run(&shorter).unwrap()), (12, 6, 6));
    let reasons = table::read_string_column(&place.out("rejected.parquet"), "reason").unwrap();
    let of = |term: &str| reasons.iter().filter(|reason| reason.starts_with(&format!("not where {term}: "))).count();
    assert_eq!((of("speaker != '1998'"), of("duration < 7")), (2, 4));
    let renamed = "  data: ../data/ls\n  split: {by: corpus, names: {dev-clean: held-out}}\n";
    place.run(renamed).unwrap();
    assert_eq!(place.ids("held-out/part-00000.parquet").len(), 2);
}

#[test]
fn columns_of_a_kaldi_directory_are_files_of_their_names() {
    let place = Place::new();
    let texts = fs::read_to_string(place.data("libri6/text")).unwrap();
    let instruct: Vec<String> =
        texts.lines().map(|line| format!("{} Speak fast.", line.split(' ').next().unwrap())).collect();
    fs::write(place.data("libri6/instruct"), instruct[1..].join("\n")).unwrap();
    let prep = "  data: ../data/libri6\n  split: {fractions: {}}\n  columns: {instruct: text}\n  probe: false\n";
    assert_eq!(counts(&place.run(prep).unwrap()), (60, 59, 1));
    let values = table::read_string_column(&place.out("train/columns-00000.parquet"), "instruct").unwrap();
    assert!(values.len() == 59 && values.iter().all(|value| value == "Speak fast."), "{values:?}");
    let prep = format!("{prep}  where: \"instruct LIKE 'Speak%' AND id > '1998'\"\n");
    assert_eq!(counts(&place.run(&prep).unwrap()), (60, 50, 10));
}
