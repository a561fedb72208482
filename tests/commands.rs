//! The smaller commands: help, completions, status, inspect on everything the chain writes, doctor, recipe show.

use std::fs;

use crate::support::random::Random;
use crate::support::{Mini, Outcome, flowmill};

const COMMANDS: [&str; 14] = [
    "run",
    "run-part",
    "parts",
    "train",
    "status",
    "recipe",
    "inspect",
    "convert",
    "clean",
    "doctor",
    "synth",
    "parity",
    "completions",
    "version",
];

#[test]
fn help_names_every_command_and_every_command_explains_itself() {
    let here = tempfile::tempdir().unwrap();
    flowmill(here.path(), &["--help"]).expect_code(0).expect_words(&COMMANDS).expect_words(&["Exit codes:", "130"]);
    for command in COMMANDS {
        let help = flowmill(here.path(), &[command, "--help"]).expect_code(0);
        assert!(help.stdout.contains("Usage: flowmill"), "{command}: {}", help.stdout);
        let longest = help.stdout.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= 120, "{command}: a line of {longest} characters");
        assert!(!help.stdout.contains('\u{1b}'), "{command}: colors though NO_COLOR is set");
    }
}

#[test]
fn completions_exist_for_every_shell() {
    let here = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = flowmill(here.path(), &["completions", shell]).expect_code(0);
        assert!(script.stdout.contains("flowmill") && script.stdout.contains("stop-stage"), "{shell}");
    }
    flowmill(here.path(), &["completions", "tcsh"]).expect_code(2).expect_words(&["bash", "zsh"]);
}

#[test]
fn kaldi_style_options_work_and_the_stages_before_are_named() {
    let mini = Mini::new();
    mini.run(&["--stage", "0", "--stop_stage", "0"]).expect_code(0).expect_words(&["0-prep", "12 rows in"]);
    assert!(!mini.exp("1-embed").exists());
    let status = mini.flowmill("status", &[]).expect_code(0);
    status.expect_words(&["0-prep", "done", "1-embed", "never run", "6-export"]);
}

/// A recipe laid over one in another folder: what the base says counts from there, what it says itself from here.
#[test]
fn the_paths_of_a_base_count_from_its_own_folder() {
    let mini = Mini::new();
    fs::create_dir_all(mini.path("over/more")).unwrap();
    fs::write(mini.path("over/recipe.yaml"), "base: ..\nname: over\n").unwrap();
    fs::write(mini.path("over/more/recipe.yaml"), "base: ../recipe.yaml\nname: more\n").unwrap();
    for (folder, up) in [("over", ".."), ("over/more", "../..")] {
        let list = format!("train: \"{up}/lists/train\"");
        flowmill(mini.folder(), &["recipe", "show", folder]).expect_code(0).expect_words(&[&list]);
        flowmill(&mini.path(folder), &["run", "--stop-stage", "prep"]).expect_code(0).expect_words(&["12 rows in"]);
    }
    let own = "base: ..\nname: over\nprep: {data: audio}\n";
    fs::write(mini.path("over/recipe.yaml"), own).unwrap();
    let refused = flowmill(mini.folder(), &["recipe", "check", "over"]).expect_code(2);
    refused.expect_words(&["over/recipe.yaml:3", "prep.data", "over/audio"]);
    // The error names the line of the base, and the file from there.
    fs::write(mini.path("over/recipe.yaml"), "base: ../tune.yaml\nname: over\n").unwrap();
    let tune = "base: recipe.yaml\ntrain:\n  init_from: weights/flow.pt\n";
    fs::write(mini.path("tune.yaml"), tune).unwrap();
    let refused = flowmill(mini.folder(), &["recipe", "check", "over"]).expect_code(2);
    refused.expect_words(&["tune.yaml:3: train.init_from", "over/../weights/flow.pt"]);
    // A word that stands for no file stays.
    fs::write(mini.path("tune.yaml"), "base: recipe.yaml\nembed: {extractor: {kind: campplus, weights: random}}\n")
        .unwrap();
    flowmill(mini.folder(), &["recipe", "show", "over"]).expect_code(0).expect_words(&["weights: random"]);
    // What is typed counts from the recipe.
    fs::write(mini.path("over/recipe.yaml"), "base: ..\nname: over\n").unwrap();
    let typed = ["recipe", "check", "over", "--set", "prep.data=data"];
    flowmill(mini.folder(), &typed).expect_code(2).expect_words(&["over/data"]);
}

#[test]
fn recipe_show_gives_every_default_and_is_a_recipe_of_the_same_meaning() {
    let mini = Mini::new();
    let shown = flowmill(mini.folder(), &["recipe", "show", "."]).expect_code(0);
    let shown = shown.expect_words(&["name: mini", "max_rejected: 0.05", "grad_clip: 5.0"]);
    fs::write(mini.path("recipe.yaml"), &shown.stdout).unwrap();
    let again = flowmill(mini.folder(), &["recipe", "show", "."]).expect_code(0);
    assert_eq!(shown.stdout, again.stdout);
}

#[test]
fn doctor_describes_the_machine_and_checks_the_recipe() {
    let mini = Mini::new();
    let report = mini.flowmill("doctor", &[]).expect_code(0);
    report.expect_words(&["cores", "memory", "cpu", "cuda", "recipe"]);
}

#[test]
fn any_recording_can_be_resynthesized_through_the_exported_model() {
    let mini = Mini::finished();
    let formats = crate::support::mini::repository().join("tests/data/formats");
    let file = |name: &str| formats.join(name).to_str().unwrap().to_string();
    let recordings = [file("good/mono_44k1.ogg"), file("broken/zero_byte.wav"), file("good/mono_44k1_s16.wav")];
    let model = mini.exp("6-export");
    let mut arguments = vec!["synth", "--model", model.to_str().unwrap(), "--out", "made", "--wav"];
    arguments.extend(recordings.iter().map(String::as_str));
    let outcome = flowmill(mini.folder(), &arguments).expect_code(1).expect_words(&["zero_byte.wav", "empty"]);
    assert_eq!(outcome.stdout.lines().count(), 2, "{}", outcome.stdout);
    for name in ["mono_44k1", "mono_44k1_s16"] {
        let made = mini.path(&format!("made/{name}.wav"));
        let shown = flowmill(mini.folder(), &["inspect", made.to_str().unwrap()]).expect_code(0);
        shown.expect_words(&["24,000 Hz", "level"]);
        assert!(mini.path(&format!("made/{name}.png")).exists());
    }
    flowmill(mini.folder(), &["synth", "--model", "data", "--wav", "x"]).expect_code(1).expect_words(&["config.json"]);
    let whole = fs::read(model.join("model.safetensors")).unwrap();
    fs::write(model.join("model.safetensors"), &whole[..whole.len() / 2]).unwrap();
    let refused = flowmill(mini.folder(), &arguments).expect_code(1).expect_words(&["not a whole safetensors file"]);
    assert_eq!(refused.stderr.matches("model.safetensors: ").count(), 1, "{}", refused.stderr);
}

#[test]
fn everything_that_the_chain_writes_can_be_inspected() {
    let mini = Mini::finished();
    let tree = mini.tree();
    assert!(tree.0.len() > 30, "{}", tree.0.len());
    for path in tree.0.keys() {
        let file = mini.exp("").join(path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let empty = fs::metadata(&file).unwrap().len() == 0;
        let shown = flowmill(mini.folder(), &["inspect", file.to_str().unwrap()]);
        let shown = shown.expect_code(if empty { 1 } else { 0 });
        let kind = match name.rsplit('.').next().unwrap() {
            "parquet" => "Parquet",
            "safetensors" => "safetensors",
            "pt" => "PyTorch",
            "jsonl" => "JSON lines",
            "png" => "PNG",
            "wav" => "recording",
            "flowmill" => "TensorBoard events",
            "json" if path.to_string_lossy().contains("/receipts/") => "receipt",
            _ => "",
        };
        assert!(shown.stdout.contains(kind), "{}: {}", path.display(), shown.stdout);
    }
}

#[test]
fn damaged_files_end_in_an_error_and_never_in_a_panic() {
    let mini = Mini::finished();
    let mut random = Random::announced("damaged files");
    let endings = [".parquet", ".safetensors", ".pt", ".json", ".jsonl", ".png", ".wav", ".flowmill"];
    let hostile = mini.path("hostile");
    for ending in endings {
        let files = mini.files_ending(ending);
        assert!(!files.is_empty(), "the chain writes no {ending}");
        for attempt in 0..12 {
            let source = &files[(random.bits() % files.len() as u64) as usize];
            let mut content = fs::read(mini.exp("").join(source)).unwrap();
            damage(&mut content, attempt, &mut random);
            fs::write(&hostile, &content).unwrap();
            let shown = flowmill(mini.folder(), &["inspect", "hostile"]).expect_no_panic();
            assert!(matches!(shown.code, Some(0 | 1)), "{} {attempt}: {}", source.display(), shown.text());
        }
    }
}

/// Cuts a file, or writes random bytes over its beginning, its end, or anywhere.
fn damage(content: &mut Vec<u8>, attempt: u64, random: &mut Random) {
    let length = content.len().max(1);
    if attempt.is_multiple_of(4) {
        return content.truncate((random.unit() * length as f64) as usize);
    }
    for _ in 0..1 + random.bits() % 8 {
        let near = (random.bits() % 64) as usize % length;
        let place = match attempt % 4 {
            1 => near,
            2 => length - 1 - near,
            _ => (random.unit() * length as f64) as usize,
        };
        if let Some(byte) = content.get_mut(place) {
            *byte = random.bits() as u8;
        }
    }
}

#[test]
fn a_run_names_the_commands_that_come_next_and_they_work() {
    let mini = Mini::new();
    let next = |outcome: &Outcome| -> Vec<Vec<String>> {
        let lines =
            outcome.stderr.lines().filter_map(|line| line.strip_prefix("next: ").or(line.strip_prefix("      ")));
        let commands = lines.filter_map(|line| line.strip_prefix("flowmill "));
        commands.map(|command| command.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let packed = mini.flowmill("run", &["--stop-stage", "pack"]).expect_code(0);
    let commands = next(&packed);
    assert_eq!(commands.len(), 3, "{}", packed.stderr);
    for command in &commands {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let outcome = flowmill(mini.folder(), &words).expect_code(0);
        if words[0] == "run" {
            let report = next(&outcome).into_iter().next().unwrap();
            assert_eq!(report[0], "report");
            flowmill(mini.folder(), &report.iter().map(String::as_str).collect::<Vec<_>>()).expect_code(0);
        }
    }
    assert!(mini.exp("6-export/model.safetensors").exists(), "the middle one ran the rest");
    assert_eq!(next(&mini.flowmill("run", &[]).expect_code(0)).len(), 0, "nothing was done");
}
