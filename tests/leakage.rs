//! Utterances that are held out in one corpus and trained on in another one that is mixed in.

use std::fs;

use crate::support::{Mini, Outcome, flowmill};

/// Packs the recordings once more, as `name`, split in another way.
fn pack(mini: &Mini, name: &str, splits: &[(&str, &[&str])]) {
    let mut lists = Vec::new();
    for (split, ids) in splits {
        fs::write(mini.path(&format!("lists/{name}-{split}")), ids.join("\n") + "\n").unwrap();
        lists.push(format!("{split}: lists/{name}-{split}"));
    }
    let recipe = format!(
        "name: {name}\nbase: recipe.yaml\nmax_rejected: 0.5\nprep: {{split: {{lists: {{{}}}}}}}\n",
        lists.join(", ")
    );
    fs::write(mini.path(&format!("{name}.yaml")), recipe).unwrap();
    flowmill(mini.folder(), &["run", &format!("{name}.yaml"), "--stop-stage", "pack", "--quiet"]).expect_code(0);
}

fn train(mini: &Mini, recipe: &str, with: &str) -> Outcome {
    let mixture = format!("train.mixture=[{{weight: 1}}, {{index: exp/{with}}}]");
    flowmill(mini.folder(), &["run", recipe, "--stop-stage", "train", "--set", &mixture])
}

const HELD_OUT: [&str; 2] = ["1688-142285-0009", "367-130732-0009"];
const ANOTHER: &str = "2414-128291-0000";

#[test]
fn nothing_is_validated_on_that_a_mixed_in_corpus_trains_on() {
    let mini = Mini::packed();
    let list = fs::read_to_string(mini.path("lists/train")).unwrap();
    let trained: Vec<&str> = list.lines().filter(|id| *id != ANOTHER).collect();
    let with = |more: &[&'static str]| trained.iter().copied().chain(more.iter().copied()).collect::<Vec<&str>>();
    let (first, second) = (HELD_OUT[0], HELD_OUT[1]);

    pack(&mini, "all", &[("train", &with(&HELD_OUT)), ("dev", &[ANOTHER])]);
    let refused = train(&mini, "recipe.yaml", "all/3-pack/train").expect_code(1);
    refused.expect_words(&[
        "2 utterances held out in",
        "exp/mini/3-pack/dev/index.json",
        "exp/all/3-pack/train/index.json",
        &HELD_OUT.join(", "),
        "the validation loss would measure memorization",
        "prep.split",
    ]);
    assert!(mini.files_ending("metrics.jsonl").is_empty(), "nothing is trained");
    train(&mini, "recipe.yaml", "mini/3-pack/dev").expect_error("stage", 1).expect_words(&[&HELD_OUT.join(", ")]);

    // What neither validates on the other's is no trouble, and of a split that only export looks at the run is warned.
    pack(&mini, "three", &[("train", &trained), ("dev", &[ANOTHER]), ("test", &[first])]);
    let alone = flowmill(mini.folder(), &["run", "three.yaml", "--stop-stage", "train"]).expect_code(0);
    assert!(!alone.text().contains("WARNING"), "{}", alone.text());
    pack(&mini, "most", &[("train", &with(&[first, second])), ("dev", &[ANOTHER])]);
    fs::remove_dir_all(mini.path("exp/three/4-train")).unwrap();
    let warned = train(&mini, "three.yaml", "most/3-pack/train").expect_code(0);
    warned.expect_words(&[
        "WARNING: 1 utterances held out in",
        "exp/three/3-pack/test/index.json",
        "exp/most/3-pack/train/index.json",
        "WARNING: speech_token of",
        "was made by a kmeans with other settings or weights, or fitted on other speech",
        "scores on that split would measure memorization",
    ]);
}

#[test]
fn another_recording_of_the_same_name_is_told_and_no_reason_to_stop() {
    let mini = Mini::packed();
    let list = fs::read_to_string(mini.path("lists/train")).unwrap();
    let mut ids: Vec<&str> = list.lines().collect();
    ids.push(HELD_OUT[0]);
    let scp = fs::read_to_string(mini.path("data/wav.scp")).unwrap();
    let renamed = scp.replace(&format!("audio/{}.flac", HELD_OUT[0]), "audio/1688-142285-0002.flac");
    assert_ne!(scp, renamed);
    fs::write(mini.path("data/wav.scp"), renamed).unwrap();
    pack(&mini, "namesakes", &[("train", &ids), ("dev", &[HELD_OUT[1]])]);
    fs::write(mini.path("data/wav.scp"), scp).unwrap();
    let warned = train(&mini, "recipe.yaml", "namesakes/3-pack/train").expect_code(0);
    warned.expect_words(&["WARNING: 1 ids of", "with other lengths (1688-142285-0009)", "4-train: done"]);
}
