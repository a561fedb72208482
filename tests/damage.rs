//! A flipped bit in any file of an experiment is noticed and healed, or nothing believes it.

use std::fs;
use std::path::Path;

use crate::support::random::Random;
use crate::support::{Mini, Tree, Verdict};

/// A finished experiment with a rejected row, so that every kind of file is there.
fn finished() -> Mini {
    let mini = Mini::new();
    fs::write(mini.recording("367-130732-0006"), "this is no recording").unwrap();
    mini.run(&ACCEPT).expect_code(0);
    assert!(mini.exp("0-prep/rejected.parquet").exists());
    mini
}

const ACCEPT: [&str; 2] = ["--set", "max_rejected=0.2"];

/// Returns true for a file that a training writes for people; damage to it costs no weights.
fn is_log(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let logs = ["4-train/metrics.jsonl", "4-train/tensorboard", "4-train/samples", "4-train/skipped", "4-train/wandb"];
    logs.iter().any(|log| text.starts_with(log))
}

#[test]
fn a_flipped_bit_in_any_file_is_healed_by_the_next_run() {
    let mini = finished();
    let whole = mini.tree();
    let mut random = Random::announced("flipped bits");
    let is_receipt = |path: &Path| path.iter().nth(1).is_some_and(|name| name == "receipts");
    let is_summary = |path: &Path| path.ends_with("stage.json") || path.ends_with("rejected.parquet");
    let is_output = |path: &Path| !is_receipt(path) && !is_summary(path) && !is_log(path);
    // A damaged receipt would hide that its outputs are looked at.
    for (what, kind) in
        [("outputs", &is_output as &dyn Fn(&Path) -> bool), ("receipts", &is_receipt), ("summaries", &is_summary)]
    {
        // What the training left is a person's weeks: it has tests of its own.
        let chosen: Vec<_> = whole.0.keys().filter(|path| kind(path) && !path.starts_with("4-train")).collect();
        assert!(chosen.len() >= 7, "{chosen:?}");
        chosen.iter().for_each(|path| random.flip_bit(&mini.exp(&path.to_string_lossy())));
        mini.run(&ACCEPT).expect_code(0);
        Tree::expect_same_bytes(&mini.tree(), &whole, &format!("after a bit of each of the {what} was flipped"));
    }
    // What tells about runs decides nothing.
    for name in ["journal.jsonl", ".cache/content"] {
        random.flip_bit(&mini.exp(name));
    }
    fs::write(mini.exp(".lock"), b"{\"pid\":1,\"host\":").unwrap();
    mini.run(&ACCEPT).expect_code(0).expect_nothing_to_do();
}

#[test]
fn each_damaged_output_is_named() {
    let mini = finished();
    let mut random = Random::announced("a flipped bit");
    for name in
        ["0-prep/train/part-00000.parquet", "3-pack/dev/index.json", "3-pack/train/data.list", "6-export/config.json"]
    {
        let kept = fs::read(mini.exp(name)).unwrap();
        random.flip_bit(&mini.exp(name));
        mini.run(&[&ACCEPT[..], &["--dry-run"]].concat()).expect_words(&[name]);
        let inspect = || crate::support::flowmill(mini.folder(), &["inspect", &format!("exp/mini/{name}")]).text();
        assert!(inspect().contains("damaged"), "{}", inspect());
        // A first byte that tells no kind hides no damage.
        let mut first = kept.clone();
        first[0] = 0xff;
        fs::write(mini.exp(name), first).unwrap();
        assert!(inspect().contains("damaged"), "{}", inspect());
        fs::write(mini.exp(name), kept).unwrap();
        mini.run(&[&ACCEPT[..], &["--dry-run"]].concat()).expect_verdict("6-export", Verdict::UpToDate);
    }
}

#[test]
fn what_is_shown_is_verified_first() {
    let mini = finished();
    let exp = |name: &str| mini.exp(name);
    let say = |arguments: &[&str]| crate::support::flowmill(mini.folder(), arguments).text();
    let report = || {
        say(&["report", "exp/mini"]);
        fs::read_to_string(exp("report.html")).unwrap()
    };
    assert!(!report().contains("Damaged files"));
    // The summary: the number of rows that came in.
    let summary = fs::read_to_string(exp("0-prep/stage.json")).unwrap();
    fs::write(exp("0-prep/stage.json"), summary.replace("\"rows_in\": 12", "\"rows_in\": 54321")).unwrap();
    assert!(report().contains("Damaged files"));
    assert!(!report().contains("54,321"), "a number of a damaged summary is shown");
    let text = say(&["inspect", "exp/mini/0-prep/stage.json"]);
    assert!(text.contains("damaged"), "{text}");
    let status = mini.flowmill("status", &["--json", "--set", "max_rejected=0.2"]).text();
    assert!(!status.contains("\"rows_in\": 54321"), "{status}");
    fs::write(exp("0-prep/stage.json"), summary).unwrap();
    // Scores, the table of rejected rows, the journal.
    let scores = fs::read_to_string(exp("6-export/scores.json")).unwrap();
    fs::write(exp("6-export/scores.json"), scores.replacen('1', "7", 1)).unwrap();
    let page = report();
    assert!(page.contains("Damaged files") && page.contains("6-export/scores.json"), "the scores are shown");
    let mut random = Random::announced("a flipped bit of rejected.parquet");
    random.flip_bit(&exp("0-prep/rejected.parquet"));
    let text = say(&["inspect", "exp/mini/0-prep/rejected.parquet"]);
    assert!(text.contains("damaged"), "{text}");
    let journal = fs::read_to_string(exp("journal.jsonl")).unwrap();
    fs::write(exp("journal.jsonl"), journal.replacen("\"outcome\":\"done\"", "\"outcome\":\"dine\"", 1)).unwrap();
    assert!(!report().contains("dine"));
    // A model whose weights changed since they were exported is not used.
    let weights = exp("6-export/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let wav = mini.recording("367-130732-0000").to_string_lossy().into_owned();
    let synth = ["synth", "--model", "exp/mini/6-export", "--wav", &wav, "--out", "out"];
    crate::support::flowmill(mini.folder(), &synth).expect_code(1).expect_words(&["damaged"]);
}
