//! A stage replaces a good result only by a good one, and what this machine could not do is tried again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::random::Random;
use crate::support::{Mini, Outcome, Tree, Verdict, parquet};

/// The files of an experiment without what a failed attempt leaves for the next one.
fn results(mini: &Mini) -> BTreeMap<PathBuf, blake3::Hash> {
    let of_attempt = |path: &Path| path.components().any(|name| name.as_os_str() == ".staging");
    let tree = mini.tree();
    let contents = tree.contents().into_iter().filter(|(path, _)| !of_attempt(path));
    contents.map(|(path, hash)| (path.to_owned(), hash)).collect()
}

/// Makes the first `count` recordings something that is no recording.
fn spoil(mini: &Mini, count: usize) -> Vec<(PathBuf, Vec<u8>)> {
    let mut recordings: Vec<PathBuf> =
        fs::read_dir(mini.path("data/audio")).unwrap().map(|entry| entry.unwrap().path()).collect();
    recordings.sort();
    let spoiled = recordings.into_iter().take(count).map(|path| {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, "this is no recording at all").unwrap();
        (path, bytes)
    });
    spoiled.collect()
}

fn put_back(spoiled: &[(PathBuf, Vec<u8>)]) {
    spoiled.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

#[test]
fn recordings_that_are_gone_are_noticed_before_anything_is_written() {
    let all = |mini: &Mini| fs::remove_dir_all(mini.path("data/audio")).unwrap();
    let one = |mini: &Mini| fs::remove_file(mini.recording("367-130732-0006")).unwrap();
    let index = |mini: &Mini| fs::remove_file(mini.path("data/wav.scp")).unwrap();
    for (what, remove) in [("audio/", &all as &dyn Fn(&Mini)), ("367-130732-0006.flac", &one), ("wav.scp", &index)] {
        let mini = Mini::packed();
        remove(&mini);
        let before = mini.tree();
        let dry = mini.run(&["--dry-run"]);
        let refused = mini.run(&[]).expect_no_panic();
        assert!(matches!(refused.code, Some(1 | 2)), "{what}: {}", refused.text());
        refused.expect_words(&[what]);
        assert_eq!(mini.tree(), before, "{what}: something was written");
        if what != "wav.scp" {
            dry.expect_verdict("0-prep", Verdict::Refused);
            mini.run(&[]).expect_words(&["--stage 4"]);
        }
        mini.run(&["--stage", "4"]).expect_code(0);
    }
}

#[test]
fn a_recording_that_is_taken_out_on_purpose_is_rejected_by_force_or_left_out_of_the_data() {
    let mini = Mini::packed();
    fs::remove_file(mini.recording("367-130732-0006")).unwrap();
    let limit = ["--set", "max_rejected=0.2"];
    mini.run(&limit).expect_code(1);
    mini.run(&[&limit[..], &["--force", "--stage", "0", "--stop-stage", "0"]].concat()).expect_code(0);
    assert_eq!(parquet::texts(&mini.exp("0-prep/rejected.parquet"), "id"), ["367-130732-0006"]);

    let mini = Mini::packed();
    fs::remove_file(mini.recording("367-130732-0006")).unwrap();
    let index = fs::read_to_string(mini.path("data/wav.scp")).unwrap();
    let kept: String =
        index.lines().filter(|line| !line.starts_with("367-130732-0006")).map(|line| format!("{line}\n")).collect();
    fs::write(mini.path("data/wav.scp"), kept).unwrap();
    mini.run(&[&limit[..], &["--stop-stage", "3"]].concat()).expect_code(0);
}

#[test]
fn a_stage_that_rejects_too_much_keeps_its_last_result() {
    let mini = Mini::packed();
    let before = results(&mini);
    let spoiled = spoil(&mini, 4);
    let failed = mini.run(&[]).expect_error("rejected", 1).expect_words(&["4 of 12", "--stage 4"]);
    assert_eq!(results(&mini), before);
    // All reasons can be read where the message says.
    let text = failed.text();
    let named = text.split_whitespace().find(|word| word.ends_with("rejected.parquet")).unwrap().to_owned();
    assert_eq!(parquet::texts(&mini.path(&named), "id").len(), 4, "{named}");
    // The second attempt has nothing to do again, and fails as the first did.
    mini.run(&[]).expect_error("rejected", 1).expect_words(&["4 of 12"]);
    assert_eq!(results(&mini), before);
    mini.run(&["--stage", "4", "--stop-stage", "4"]).expect_code(0);
    put_back(&spoiled);
    mini.run(&[]).expect_code(0);
    mini.tree().expect_same_bytes(&Mini::finished().tree(), "after the recordings were back");
}

#[test]
fn a_codebook_is_replaced_with_the_tokens_that_were_made_by_it_or_not_at_all() {
    let mini = Mini::packed();
    let before = results(&mini);
    let spoiled = spoil(&mini, 4);
    let only_tokens = ["--stage", "2", "--stop-stage", "2", "--set", "tokens.extractor.k=8"];
    mini.run(&only_tokens).expect_error("rejected", 1);
    assert_eq!(results(&mini), before);
    put_back(&spoiled);
    mini.run(&only_tokens).expect_code(0);
    let usage = fs::read_to_string(mini.exp("2-tokens/codebook.json")).unwrap();
    assert!(usage.contains("\"k\": 8"), "{usage}");
    assert!(!mini.exp("2-tokens/.previous").exists() && !mini.exp("2-tokens/.staging").exists());
}

/// Kills a run after a while.
fn kill_after(mini: &Mini, arguments: &[&str], wait: Duration) {
    let mut run = mini.command("run", arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(wait);
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn killed_while_a_result_is_replaced_the_old_one_can_be_gone_on_with_and_the_new_one_finished() {
    let changed = ["--stage", "3", "--stop-stage", "3", "--set", "pack.utterances_per_shard=1"];
    let pack = |mini: &Mini| -> BTreeMap<PathBuf, blake3::Hash> {
        results(mini).into_iter().filter(|(path, _)| path.starts_with("3-pack")).collect()
    };
    let undisturbed = Mini::packed();
    let old = pack(&undisturbed);
    let began = Instant::now();
    undisturbed.run(&changed).expect_code(0);
    let (whole, new) = (began.elapsed(), pack(&undisturbed));
    let mut random = Random::announced("kills while packing again");
    let mini = Mini::packed();
    let (mut half_done, mut put_back) = (0, 0);
    for kill in 0..16 {
        kill_after(&mini, &changed, whole.mul_f64(random.unit()));
        half_done += usize::from(mini.exp("3-pack/.previous/stage.json").exists());
        if kill % 4 == 3 {
            // The next stage needs no run of this one: it finds the old result whole, or the new one.
            mini.run(&["--stage", "4", "--stop-stage", "4", "--dry-run"]).expect_code(0);
            mini.run(&["--stage", "5", "--stop-stage", "5"]).expect_code(2).expect_words(&["needs 4-train"]);
            let found = pack(&mini);
            assert!(found == old || found == new, "after kill {kill}");
            put_back += usize::from(found == old);
            mini.run(&["--stage", "3", "--stop-stage", "3"]).expect_code(0);
            assert_eq!(pack(&mini), old, "after kill {kill}");
        }
    }
    println!("16 kills left a result half replaced {half_done} times; the old one was there {put_back} of 4 times");
    mini.run(&changed).expect_code(0);
    mini.tree().expect_same_bytes(&undisturbed.tree(), "after the kills");
}

/// A program `mytool` in a folder of its own that passes recordings through, or none.
fn with_tool(mini: &Mini, there: bool, arguments: &[&str]) -> Outcome {
    let folder = mini.path("programs");
    fs::create_dir_all(&folder).unwrap();
    let tool = folder.join("mytool");
    if there {
        fs::write(&tool, "#!/bin/sh\nexec cat \"$1\"\n").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    } else {
        let _ = fs::remove_file(&tool);
    }
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let started = Instant::now();
    let output = mini.command("run", arguments).env("PATH", path).output().unwrap();
    crate::support::flowmill::outcome(output, started.elapsed())
}

/// Makes this number of entries of the index commands.
fn pipe(mini: &Mini, count: usize) {
    let index = fs::read_to_string(mini.path("data/wav.scp")).unwrap();
    let lines = index.lines().enumerate().map(|(number, line)| match line.split_once(' ') {
        Some((id, path)) if number < count => format!("{id} mytool {path} |\n"),
        _ => format!("{line}\n"),
    });
    let piped: String = lines.collect();
    fs::write(mini.path("data/wav.scp"), piped).unwrap();
}

#[test]
fn commands_that_failed_are_tried_again_and_recordings_that_are_broken_are_not() {
    let allow = ["--set", "prep.allow_pipes=true", "--stop-stage", "0", "--set", "max_rejected=0.4"];
    let mini = Mini::new();
    pipe(&mini, 12);
    with_tool(&mini, false, &allow).expect_error("rejected", 1).expect_words(&["command failed"]);
    with_tool(&mini, true, &allow).expect_code(0).expect_words(&["12 out, 0 rejected"]);
    with_tool(&mini, true, &allow).expect_code(0).expect_nothing_to_do();

    // Two rows of commands and one broken recording, within the limit: the part is done again for the commands alone.
    let mini = Mini::new();
    pipe(&mini, 2);
    fs::write(mini.path("data/audio/broken.flac"), "no recording").unwrap();
    let index = fs::read_to_string(mini.path("data/wav.scp")).unwrap();
    let last = index.lines().last().unwrap().split(' ').next().unwrap();
    let index = index.replace(&format!("{last} audio/{last}.flac"), &format!("{last} audio/broken.flac"));
    fs::write(mini.path("data/wav.scp"), index).unwrap();
    with_tool(&mini, false, &allow).expect_code(0).expect_words(&["9 out, 3 rejected"]);
    with_tool(&mini, false, &allow).expect_code(0).expect_words(&["2 rows", "9 out, 3 rejected"]);
    with_tool(&mini, true, &allow).expect_code(0).expect_words(&["11 out, 1 rejected"]);
    with_tool(&mini, true, &allow).expect_code(0).expect_nothing_to_do().expect_words(&["11 out, 1 rejected"]);
    assert_eq!(parquet::texts(&mini.exp("0-prep/rejected.parquet"), "id"), [last]);
}

#[test]
fn a_program_that_is_missing_in_a_later_stage_leaves_no_gap() {
    let mini = Mini::new();
    pipe(&mini, 3);
    let upto = |stage| ["--set", "prep.allow_pipes=true", "--set", "max_rejected=0.4", "--stop-stage", stage];
    with_tool(&mini, true, &upto("0")).expect_code(0);
    // Both what is measured and what is extracted lacks three rows.
    with_tool(&mini, false, &upto("2")).expect_code(0).expect_words(&["9 out, 3 rejected"]);
    with_tool(&mini, true, &upto("3")).expect_code(0);
    let undisturbed = Mini::new();
    pipe(&undisturbed, 3);
    with_tool(&undisturbed, true, &upto("3")).expect_code(0);
    Tree::expect_same_bytes(&mini.tree(), &undisturbed.tree(), "after the program was there again");
}

#[test]
fn weights_that_are_gone_stop_their_stage_alone() {
    let mini = Mini::new();
    fs::copy(crate::support::mini::golden("campplus_small.onnx"), mini.path("campplus.onnx")).unwrap();
    let extractor = "embed.extractor={kind: campplus, weights: campplus.onnx, embedding_size: 24}";
    let set = ["--set", extractor, "--set", "train.model.spk_embed_dim=24"];
    mini.run(&[&set[..], &["--stop-stage", "2"]].concat()).expect_code(0);
    let before = mini.tree();
    fs::remove_file(mini.path("campplus.onnx")).unwrap();
    let outcome = mini.run(&[&set[..], &["--stop-stage", "3"]].concat()).expect_no_panic();
    if outcome.code != Some(0) {
        outcome.expect_words(&["campplus.onnx", "--stage 2"]);
        assert_eq!(mini.tree(), before);
    }
    mini.run(&[&set[..], &["--stage", "3", "--stop-stage", "3"]].concat()).expect_code(0);
}
