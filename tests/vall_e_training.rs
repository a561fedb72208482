//! Training of VALL-E through the binary: a test of overfitting and evaluations that speak, half precision, the signs of a good training.

use std::fs;
use std::path::PathBuf;

use flowmill_corpus::shard::ShardReader;
use flowmill_corpus::{ColumnSpec, DType};

use crate::support::muxers;
use crate::support::training::metrics;
use crate::support::{Mini, flowmill};
use crate::vall_e::mini;

/// The files that a command printed, each on a line of its own.
fn printed(stdout: &str) -> Vec<PathBuf> {
    stdout.lines().filter(|line| line.ends_with(".wav")).map(PathBuf::from).collect()
}

/// The number of 16-bit samples of a recording.
fn samples(path: &PathBuf) -> usize {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(bytes.starts_with(b"RIFF"), "{}", path.display());
    (bytes.len() - 44) / 2
}

#[test]
fn a_test_of_overfitting_learns_every_level_and_speaks_the_utterance() {
    let mini = mini();
    let one = ["--overfit", "1", "--steps", "60", "--set", "train.batch.batch_size=1", "--set", "train.optim.lr=3e-2"];
    let tried = mini.flowmill("train", &one).expect_code(0).stdout;
    let steps: Vec<&str> = tried.lines().filter(|line| line.starts_with("step ")).collect();
    assert_eq!(steps.len(), 60);
    assert!(tried.contains("repeated    1 batch, 60 steps") || tried.contains("1 batch, 60 steps"), "{tried}");
    let files = printed(&tried);
    let spoken: Vec<&PathBuf> = files.iter().filter(|file| file.to_string_lossy().ends_with(".output.wav")).collect();
    assert_eq!(spoken.len(), 1, "{tried}");
    assert!(samples(spoken[0]) > 0 && spoken[0].starts_with(fs::canonicalize(mini.exp("on-command/overfit")).unwrap()));
    assert!(tried.contains("mel-STFT distance"), "{tried}");
    assert!(!mini.exp("4-train").exists(), "nothing is written to the stage");
}

#[test]
fn evaluations_speak_validation_prompts() {
    let mini = mini();
    mini.run(&["--stop-stage", "train", "--set", "train.sample_every=0"]).expect_code(0);
    let eval = |more: &[&str]| mini.flowmill("train", &[&["--eval"], more].concat()).expect_code(0).stdout;
    let own = eval(&[]);
    assert!(own.contains("mel-STFT distance, mean: "), "{own}");
    let files = printed(&own);
    assert!(
        files.iter().all(|file| samples(file) > 0 && file.to_string_lossy().contains("on-command/eval/step-000012/"))
    );
    for part in ["output", "target"] {
        assert!(
            files.iter().any(|file| file.to_string_lossy().ends_with(&format!(".{part}.wav"))),
            "{part}: {files:?}"
        );
    }
    assert_eq!(eval(&[]), own, "the same weights give the same speech");
    let random = eval(&["--eval-random-text-prompts"]);
    let files = printed(&random);
    assert!(!files.is_empty() && random.contains("mel-STFT distance"), "{random}");
    assert!(files.iter().all(|file| file.to_string_lossy().contains("on-command/eval-random-texts/step-000012/")));
    mini.flowmill("train", &["--eval-random-text-prompts"]).expect_code(2);
    mini.flowmill("train", &["--overfit", "1", "--eval-random-text-prompts"]).expect_code(2);
}

#[test]
fn half_precision_has_the_published_loss_scale() {
    let mini = mini();
    let half = ["--set", "train.precision=fp16", "--set", "train.sample_every=0", "--stop-stage", "train"];
    mini.run(&half).expect_code(0);
    let scales: Vec<f64> =
        metrics(&mini.exp("4-train/metrics.jsonl")).iter().filter_map(|line| line["loss_scale"].as_f64()).collect();
    assert_eq!(scales.len(), 12);
    assert!(scales.iter().all(|scale| (32_768.0..=1_048_576.0).contains(scale)), "{scales:?}");
    let show = |more: &[&str]| {
        let arguments = [&["recipe", "show", ".", "--set", "train.precision=fp16"], more].concat();
        flowmill(mini.folder(), &arguments).expect_code(0).stdout
    };
    // A setting of the recipe leaves the others at the published ones.
    for (shown, window) in
        [(show(&[]), "window: 1000"), (show(&["--set", "train.loss_scale.window=500"]), "window: 500")]
    {
        for words in [window, "floor: 32768", "ceiling: 1048576"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
    }
    let low = ["recipe", "check", ".", "--set", "train.precision=fp16", "--set", "train.loss_scale.floor=4096"];
    flowmill(mini.folder(), &low).expect_error("recipe", 2).expect_words(&["train.loss_scale.floor", "8192"]);
}

#[test]
fn the_signs_of_a_good_training_are_lines_in_the_report_and_in_tensorboard() {
    let mini = mini();
    mini.run(&["--stop-stage", "train", "--set", "train.sample_every=0", "--set", "train.max_steps=8"]).expect_code(0);
    let good = "4-train/tensorboard/good-signs/events.out.tfevents.0000000000.flowmill";
    let (first, events) = (&metrics(&mini.exp("4-train/metrics.jsonl"))[0], fs::read(mini.exp(good)).unwrap());
    let named: Vec<&str> =
        first["references"].as_array().unwrap().iter().map(|reference| reference["metric"].as_str().unwrap()).collect();
    assert_eq!(named, ["loss", "top10", "grad_norm"]);
    for tag in ["train/loss", "train/top10", "train/grad_norm"] {
        let count = events.windows(tag.len()).filter(|window| *window == tag.as_bytes()).count();
        assert_eq!(count, 8, "{tag}");
    }
    mini.flowmill("report", &["--out", "report.html"]).expect_code(0);
    let report = fs::read_to_string(mini.path("report.html")).unwrap();
    for words in ["coherent speech below (3)", "coherent speech above (0.7)", "coherent speech below (0.2)"] {
        assert!(report.contains(words), "{words}");
    }
    // A training that goes on continues the lines.
    mini.run(&["--stop-stage", "train", "--set", "train.sample_every=0"]).expect_code(0).expect_resumed();
    let longer = fs::read(mini.exp(good)).unwrap();
    assert!(longer.len() > events.len() && longer.starts_with(&events));
}

#[test]
fn a_model_that_does_not_speak_is_refused_by_the_command() {
    let mini = Mini::finished();
    let arguments = ["speak", "--model", "exp/mini/6-export", "--text", "one", "--temperature", "1"];
    flowmill(mini.folder(), &arguments).expect_code(1).expect_words(&[
        "cosyvoice2-flow",
        "does not speak",
        "flowmill synth",
    ]);
    let random = mini.flowmill("train", &["--eval", "--eval-random-text-prompts"]);
    random.expect_code(1).expect_words(&["do not speak texts"]);
    assert!(!mini.exp("on-command").exists());
}

/// Writes recordings of noise: one that can be heard, a silent one, and a file that is no recording.
fn noises(mini: &Mini) {
    fs::create_dir(mini.path("noises")).unwrap();
    let sound = |samples: Vec<i16>| {
        let data = samples.into_iter().flat_map(i16::to_le_bytes).collect();
        muxers::wav(1, 1, 8000, 2, 16, &[(b"data", data)])
    };
    let hiss = (0..12_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 18) as i16 - 8192).collect();
    fs::write(mini.path("noises/hiss.wav"), sound(hiss)).unwrap();
    fs::write(mini.path("noises/silence.wav"), sound(vec![0; 8000])).unwrap();
    fs::write(mini.path("noises/readme.txt"), "no sound").unwrap();
}

#[test]
fn noise_suppression_and_speech_removal_are_trained_on_noisy_recordings() {
    let mini = mini();
    noises(&mini);
    let noisy = [
        "--set",
        "tokens.noise={dir: noises, snr: [0, 10]}",
        "--set",
        "train.tasks={tts: 1, ns: 2, sr: 2, len: 0}",
        "--set",
        "train.sample_every=0",
        "--stop-stage",
        "train",
    ];
    mini.run(&noisy).expect_code(0);
    let shard = |exp: &str| mini.path(exp).join("3-pack/train/shard-00000.parquet");
    let column = |name: &str| ColumnSpec::new(name, DType::I32).fixed_axis("level", 3).axis("frame");
    let columns = ["codes", "noisy_codes", "noise_codes"].map(column);
    let mut rows = 0;
    for row in ShardReader::open(&shard("exp/mini")).unwrap().iter(&columns).unwrap() {
        let row = row.unwrap();
        let [clean, noisy, noise] = ["codes", "noisy_codes", "noise_codes"].map(|name| row.column(name).unwrap());
        assert!(clean.shape() == noisy.shape() && clean.shape() == noise.shape(), "{}", row.id);
        assert!(clean != noisy && noisy != noise, "{}", row.id);
        rows += 1;
    }
    assert!(rows > 0);
    mini.run(&noisy).expect_code(0).expect_up_to_date();
    let again = [&noisy[..], &["--exp", "exp/again", "--jobs", "1"]].concat();
    mini.run(&again).expect_code(0);
    assert!(fs::read(shard("exp/mini")).unwrap() == fs::read(shard("exp/again")).unwrap());
    let check = |set: &str| flowmill(mini.folder(), &["recipe", "check", ".", "--set", set]);
    for (set, key) in [
        ("tokens.noise={dir: nowhere}", "tokens.noise.dir"),
        ("tokens.noise={dir: noises, snr: [10, 0]}", "tokens.noise.snr"),
        ("train.tasks.sr=1", "train.tasks.sr"),
        ("embed.noise={dir: noises}", "embed.noise"),
    ] {
        check(set).expect_code(2).expect_words(&[key]);
    }
}
