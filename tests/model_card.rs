//! The card of an exported model says what the model is, and nothing of the machine that made it.

use std::fs;

use crate::support::{Mini, flowmill};

fn card(mini: &Mini) -> String {
    fs::read_to_string(mini.exp("6-export/README.md")).unwrap()
}

#[test]
fn bins_and_rates_are_those_of_the_configuration() {
    let plain = Mini::new();
    let speakers = fs::read_to_string(plain.path("data/utt2spk")).unwrap();
    let languages = speakers.lines().map(|line| format!("{} en\n", line.split(' ').next().unwrap()));
    fs::write(plain.path("data/utt2lang"), languages.collect::<String>()).unwrap();
    plain.run(&[]).expect_code(0);
    let metadata = card(&plain).strip_prefix("---\n").unwrap().split("\n---\n").next().unwrap().to_owned();
    fs::write(plain.path("metadata.yaml"), metadata).unwrap();
    let metadata = crate::support::yaml::read(&plain.path("metadata.yaml"));
    assert_eq!(metadata["library_name"], "flowmill");
    assert_eq!(metadata["pipeline_tag"], "audio-to-audio");
    assert_eq!(metadata["language"], serde_json::json!(["en"]));
    let tags = metadata["tags"].as_array().unwrap();
    assert!(tags.contains(&"flowmill".into()) && tags.contains(&"cosyvoice2-flow".into()), "{tags:?}");
    assert!(metadata.get("license").is_none(), "the license is the user's choice");
    assert!(card(&plain).contains("speech units at 25 Hz and a speaker embedding into a log-mel of 80 bins at 50 Hz"));

    let bins = Mini::new();
    bins.run(&["--set", "pack.mel.overrides={n_mels: 40}", "--set", "train.model.output_size=40"]).expect_code(0);
    assert!(card(&bins).contains("a log-mel of 40 bins at 50 Hz"), "{}", card(&bins));

    // Four frames per unit: twice as many as the published model has.
    let fast = Mini::new();
    let hop = ["--set", "pack.mel.overrides={hop_length: 240}", "--set", "train.model.token_mel_ratio=4"];
    fast.run(&hop).expect_code(0);
    assert!(card(&fast).contains("speech units at 25 Hz and a speaker embedding into a log-mel of 80 bins at 100 Hz"));
    let scores = fs::read_to_string(fast.exp("6-export/scores.json")).unwrap();
    let scores: serde_json::Value = serde_json::from_str(&scores).unwrap();
    let held_out = fs::read_to_string(fast.path("lists/dev")).unwrap().lines().count();
    assert_eq!(scores["utterances"].as_u64().unwrap() as usize, held_out, "no utterance is set aside");
    let [corpus, unit] = ["corpus_mean", "unit_mean"].map(|mean| scores["distance_db"][mean].as_f64().unwrap());
    assert!(0.0 < unit && unit < corpus, "the mean of a unit is nearer than that of all: {unit} {corpus}");
}

#[test]
fn the_card_is_the_same_wherever_the_experiment_lies() {
    let cards = ["one", "another/place"].map(|place| {
        let mini = Mini::new();
        let data = format!("prep.data={}", mini.path("data").display());
        let train = format!("prep.split.lists.train={}", mini.path("lists/train").display());
        let exp = mini.path(place).join("exp").display().to_string();
        let absolute = ["--set", &data, "--set", &train, "--set", "pack.list_paths=absolute", "--exp", &exp];
        mini.run(&absolute).expect_code(0);
        let card = fs::read_to_string(mini.path(place).join("exp/6-export/README.md")).unwrap();
        assert!(!card.contains(mini.folder().to_str().unwrap()), "{card}");
        card
    });
    assert!(cards[0] == cards[1], "{}\n----\n{}", cards[0], cards[1]);
}

#[test]
fn weights_to_start_from_are_named_and_not_located() {
    let mini = Mini::finished();
    let weights = mini.path("start.safetensors");
    fs::copy(mini.exp("5-average/model.safetensors"), &weights).unwrap();
    let start = format!("train.init_from={}", weights.display());
    let lora = "train.lora={rank: 2, alpha: 4, targets: [\"encoder.*.linear_q\"]}";
    mini.run(&["--set", &start, "--set", lora, "--exp", "exp/tuned"]).expect_code(0);
    for file in ["README.md", "config.json", "adapter_config.json"] {
        let text = fs::read_to_string(mini.path("exp/tuned/6-export").join(file)).unwrap();
        assert!(!text.contains(mini.folder().to_str().unwrap()), "{file}: {text}");
    }
}

#[test]
fn files_of_a_base_recipe_that_are_not_used_are_not_on_the_card() {
    let variants = [
        ("{by: fraction, fractions: {dev: 0.3}, rest: train}", "data: data", "\"fractions\""),
        ("{by: given}", "data: [{dir: first, split: train}, {dir: last, split: dev}]", "\"by\": \"given\""),
    ];
    for (split, data, used) in variants {
        let mini = Mini::new();
        part_of_data(&mini, "first", |row| row < 8);
        part_of_data(&mini, "last", |row| row >= 8);
        let variant = format!("name: mini\nbase: recipe.yaml\nprep: {{{data}, split: {split}}}\n");
        fs::write(mini.path("variant.yaml"), variant).unwrap();
        flowmill(mini.folder(), &["run", "variant.yaml"]).expect_code(0);
        let card = card(&mini);
        assert!(!card.contains("lists/") && card.contains(used), "{card}");
    }
}

/// Makes a data directory of some of the rows.
fn part_of_data(mini: &Mini, name: &str, keep: fn(usize) -> bool) {
    fs::create_dir(mini.path(name)).unwrap();
    for file in ["text", "utt2spk", "wav.scp"] {
        let text = fs::read_to_string(mini.path("data").join(file)).unwrap();
        let kept = text.lines().enumerate().filter(|(row, _)| keep(*row));
        let lines: String = kept.map(|(_, line)| format!("{}\n", line.replace(" audio/", " ../data/audio/"))).collect();
        fs::write(mini.path(name).join(file), lines).unwrap();
    }
}
