//! Copies of training rows at other speeds: `prep.speed_perturb` through stages 0 to 4.

use std::collections::BTreeMap;

use crate::support::corpus::{Corpus, wav};
use crate::support::{Mini, flowmill, parquet};

/// The rows of all tables of a split in stage 0: by id, the speaker, the duration and the speed (NaN: none).
fn rows(mini: &Mini, split: &str) -> BTreeMap<String, (String, f64, f64)> {
    let mut rows = BTreeMap::new();
    for path in mini.files_ending(".parquet") {
        let path = mini.exp("").join(path);
        if !path.starts_with(mini.exp(&format!("0-prep/{split}"))) {
            continue;
        }
        let (ids, speakers) = (parquet::texts(&path, "utt"), parquet::texts(&path, "spk"));
        let durations = parquet::numbers(&path, "duration");
        let has_speed = ids.iter().any(|id| id.starts_with("sp"));
        let speeds = if has_speed { parquet::numbers(&path, "speed") } else { vec![f64::NAN; ids.len()] };
        for (((id, speaker), duration), speed) in ids.into_iter().zip(speakers).zip(durations).zip(speeds) {
            rows.insert(id, (speaker, duration, speed));
        }
    }
    rows
}

#[test]
fn copies_of_training_rows_are_other_voices_in_all_stages() {
    let mini = Mini::new();
    let set = ["--set", "prep.speed_perturb=[0.9, 1.0, 1.25]", "--set", "train.max_steps=4", "--stop-stage", "train"];
    let outcome = mini.run(&set).expect_code(0).expect_words(&["copies at other speeds 20"]);
    outcome.expect_words(&["32 rows in, 32 out, 0 rejected"]);
    let (train, dev) = (rows(&mini, "train"), rows(&mini, "dev"));
    assert_eq!((train.len(), dev.len()), (30, 2), "validation hears the recordings as they are");
    let (speaker, duration, speed) = &train["1688-142285-0002"];
    assert!(speed.is_nan());
    for (name, factor) in [("0.9", 0.9), ("1.25", 1.25)] {
        let (copied, faster, own) = &train[&format!("sp{name}-1688-142285-0002")];
        assert_eq!((copied, *own), (&format!("sp{name}-{speaker}"), factor));
        assert!((faster * factor - duration).abs() < 1e-9, "{faster} {duration}");
    }
    let (mut seconds, mut shortened) = (BTreeMap::new(), 0);
    for path in mini.files_ending(".parquet").into_iter().map(|path| mini.exp("").join(path)) {
        if !path.starts_with(mini.exp("3-pack/train")) {
            continue;
        }
        let (ids, bytes) = (parquet::texts(&path, "utt"), parquet::binaries(&path, "audio_data"));
        let (speeds, durations) = (parquet::numbers(&path, "speed"), parquet::numbers(&path, "duration"));
        for (((id, bytes), speed), duration) in ids.into_iter().zip(bytes).zip(speeds).zip(durations) {
            let audio = flowmill_audio::decode_bytes(&bytes, "x.wav").unwrap();
            assert!((audio.seconds() - duration).abs() < 1e-6, "{id}");
            assert_eq!(speed.is_nan(), !id.starts_with("sp"), "{id}");
            shortened += usize::from(speed == 1.25);
            seconds.insert(id, audio.seconds());
        }
    }
    assert_eq!((seconds.len(), shortened), (30, 10));
    for (id, own) in seconds.iter().filter(|(id, _)| !id.starts_with("sp")) {
        assert!((seconds[&format!("sp1.25-{id}")] * 1.25 - own).abs() < 1e-3, "{id}");
    }
    mini.run(&set).expect_code(0).expect_up_to_date();
    // Another speed changes the copies only where it is.
    let other = ["--set", "prep.speed_perturb=[]", "--stop-stage", "pack"];
    mini.run(&other).expect_code(0).expect_words(&["12 rows in, 12 out, 0 rejected"]);
}

#[test]
fn segments_and_rows_that_are_not_probed_have_copies_too() {
    for probe in [true, false] {
        let corpus = Corpus::new();
        corpus.write("d/a.wav", wav());
        corpus.write("d/wav.scp", "a a.wav\n");
        corpus.write("d/segments", "one a 0.0 0.2\ntwo a 0.2 0.5\nsp2-one a 0.1 0.4\n");
        corpus.write("d/text", "one first\ntwo second\nsp2-one third\n");
        corpus.write("d/utt2spk", "one anna\ntwo anna\nsp2-one anna\n");
        let recipe = format!(
            "name: c\nmax_rejected: 0.9\nprep:\n  data: d\n  probe: {probe}\n  speed_perturb: [2]\n  min_duration: 0.12\n  split: {{by: fraction, fractions: {{}}}}\npack: {{columns: [audio_data, duration]}}\ntokens: {{extractor: {{kind: kmeans, k: 2, iterations: 2}}}}\n"
        );
        corpus.write("recipe.yaml", recipe);
        flowmill(corpus.folder.path(), &["run", ".", "--stop-stage", "3"]).expect_code(0);
        corpus.expect_rejected(
            "sp2-one",
            "its id is that of a row of the data; leave such rows out, or prep.speed_perturb",
            &[],
        );
        let shard = corpus.path("exp/c/3-pack/train/shard-00000.parquet");
        let durations: BTreeMap<String, f64> =
            parquet::texts(&shard, "utt").into_iter().zip(parquet::numbers(&shard, "duration")).collect();
        let expected = [("one", 0.2), ("sp2-one", 0.3), ("sp2-sp2-one", 0.15), ("sp2-two", 0.15), ("two", 0.3)];
        assert_eq!(durations.len(), expected.len(), "{durations:?}");
        assert!(expected.iter().all(|(id, seconds)| (durations[*id] - seconds).abs() < 1e-6), "{durations:?}");
    }
}

#[test]
fn speeds_that_cannot_be_are_refused() {
    let mini = Mini::new();
    for wrong in ["[0]", "[-1]", "[3]", "[.nan]", "[0.9, 0.9]"] {
        let set = format!("prep.speed_perturb={wrong}");
        let outcome = flowmill(mini.folder(), &["recipe", "check", ".", "--set", &set]);
        outcome.expect_error("recipe", 2).expect_words(&["prep.speed_perturb"]);
    }
}
