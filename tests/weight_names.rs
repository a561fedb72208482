//! Weights under other names than the model's: prefixes, wrappers, moving averages, shards and folders of published models.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize_to_file};

use crate::support::{Mini, Outcome, flowmill};

/// Tensors with their names, element types and bytes.
type Tensors = Vec<(String, (Dtype, Vec<usize>, Vec<u8>))>;

/// A model of the miniature recipe and the weights that a short training gave it.
struct Trained {
    mini: Mini,
    weights: Tensors,
}

impl Trained {
    fn new() -> Self {
        let mini = Mini::new();
        mini.run(&["--stop-stage", "average", "--quiet"]).expect_code(0);
        let bytes = fs::read(mini.exp("5-average/model.safetensors")).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let owned = |view: &TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        let mut weights: Tensors = read.tensors().iter().map(|(name, view)| (name.clone(), owned(view))).collect();
        weights.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(weights.len(), 148);
        Self { mini, weights }
    }

    /// The weights under other names.
    fn named(&self, name: impl Fn(&str) -> String) -> Tensors {
        self.weights.iter().map(|(own, tensor)| (name(own), tensor.clone())).collect()
    }

    fn save(&self, file: &str, tensors: &Tensors) -> PathBuf {
        let path = self.mini.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let views = tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        serialize_to_file(views, None, &path).unwrap();
        path
    }

    /// Trains one step from these weights.
    fn start(&self, from: &str, more: &[&str]) -> Outcome {
        let from = format!("train.init_from={from}");
        let arguments = ["--overfit", "1", "--steps", "1", "--set", &from];
        self.mini.flowmill("train", &[&arguments, more].concat())
    }
}

/// The loss of the first step as it was printed.
fn loss(outcome: &Outcome) -> String {
    let step = outcome.stdout.lines().find(|line| line.starts_with("step ")).unwrap();
    step.split_whitespace().nth(3).unwrap().to_owned()
}

/// A counter as EMA wrappers keep them: no shape, one number.
fn counters() -> Tensors {
    vec![
        ("initted".to_owned(), (Dtype::BOOL, vec![], vec![1])),
        ("step".to_owned(), (Dtype::I64, vec![], 1000i64.to_le_bytes().to_vec())),
    ]
}

#[test]
fn one_prefix_or_wrapper_that_explains_all_names_is_taken_off_and_told() {
    let trained = Trained::new();
    trained.save("plain.safetensors", &trained.named(str::to_owned));
    let plain = trained.start("plain.safetensors", &[]).expect_code(0);
    let expected = loss(&plain);
    assert_ne!(expected, loss(&trained.start("null", &[]).expect_code(0)));
    assert!(!plain.text().contains("without"), "{}", plain.text());

    let inner = |name: &str| name.replacen("decoder.estimator.", "decoder.estimator._orig_mod.", 1);
    let ema = [trained.named(|name| format!("ema_model.{name}")), counters()].concat();
    let gan = [
        trained.named(|name| format!("generator.{name}")),
        vec![("discriminator.conv.weight".to_owned(), (Dtype::F32, vec![2], vec![0; 8]))],
    ]
    .concat();
    let cases: [(&str, Tensors, &[&str]); 8] = [
        ("compiled", trained.named(|name| format!("_orig_mod.{name}")), &["without the prefix `_orig_mod.`"]),
        (
            "nested",
            trained.named(|name| format!("module._orig_mod.{name}")),
            &["without the prefix `module._orig_mod.`"],
        ),
        ("lightning", trained.named(|name| format!("model.flow.{name}")), &["without the prefix `model.flow.`"]),
        ("peft", trained.named(|name| format!("base_model.model.{name}")), &["without the prefix `base_model.model.`"]),
        ("inner", trained.named(inner), &["without `_orig_mod.` inside of names"]),
        (
            "sharded_by_layer",
            trained.named(|name| format!("_fsdp_wrapped_module.{}", name.replacen('.', "._fsdp_wrapped_module.", 1))),
            &["`_fsdp_wrapped_module.`"],
        ),
        ("ema", ema, &["without the prefix `ema_model.`", "initted", "step"]),
        ("gan", gan, &["without the prefix `generator.`", "left out: discriminator.conv.weight"]),
    ];
    for (name, tensors, words) in cases {
        let file = format!("{name}.safetensors");
        trained.save(&file, &tensors);
        let outcome = trained.start(&file, &[]).expect_code(0);
        assert_eq!(loss(&outcome), expected, "{name}");
        let outcome = outcome.expect_words(&["148 tensors"]).expect_words(words);
        assert!(!outcome.text().contains("init_partial"), "{name}: {}", outcome.text());
    }
    // Under an entry of its own in a file of PyTorch.
    let convert = |from: &str, to: &str| flowmill(trained.mini.folder(), &["convert", from, to]).expect_code(0);
    convert("ema.safetensors", "ema.pt");
    assert_eq!(loss(&trained.start("ema.pt", &[]).expect_code(0)), expected);
}

#[test]
fn weights_that_two_prefixes_explain_are_never_guessed() {
    let trained = Trained::new();
    let other = trained.named(|name| format!("online_model.{name}"));
    let changed = |(name, (dtype, shape, mut data)): (String, (Dtype, Vec<usize>, Vec<u8>))| {
        data.fill(0);
        (name, (dtype, shape, data))
    };
    let zeros: Tensors = other.into_iter().map(changed).collect();
    let both = [trained.named(|name| format!("ema_model.{name}")), zeros.clone(), counters()].concat();
    trained.save("both.safetensors", &both);
    let refused = trained.start("both.safetensors", &[]).expect_code(1);
    refused.expect_words(&["2 times", "`ema_model.`", "`online_model.`", "flowmill convert", "--strip-prefix"]);
    let select = ["convert", "both.safetensors", "chosen.safetensors", "--strip-prefix", "ema_model."];
    flowmill(trained.mini.folder(), &select).expect_code(0).expect_words(&["148 tensors", "step"]);
    trained.save("plain.safetensors", &trained.named(str::to_owned));
    let expected = loss(&trained.start("plain.safetensors", &[]).expect_code(0));
    assert_eq!(loss(&trained.start("chosen.safetensors", &[]).expect_code(0)), expected);

    // A copy without a prefix is a whole model too; what is asked for by name, part by part, is taken.
    trained.save("copies.safetensors", &[trained.named(str::to_owned), zeros].concat());
    trained.start("copies.safetensors", &[]).expect_code(1).expect_words(&["`online_model.`"]);
    let partial = trained.start("copies.safetensors", &["--set", "train.init_partial=true"]).expect_code(0);
    assert_eq!(loss(&partial), expected);
}

#[test]
fn a_prefix_explains_nothing_where_a_shape_differs() {
    let trained = Trained::new();
    let mut tensors = trained.named(|name| format!("_orig_mod.{name}"));
    let (_, (_, shape, _)) = tensors.iter_mut().find(|(name, _)| name.ends_with("encoder_proj.weight")).unwrap();
    shape.reverse();
    trained.save("shape.safetensors", &tensors);
    let refused = trained.start("shape.safetensors", &[]).expect_code(1);
    refused.expect_words(&["147 tensors", "encoder_proj.weight", "init_partial"]);
    let partial = trained.start("shape.safetensors", &["--set", "train.init_partial=true"]).expect_code(0);
    partial.expect_words(&["147 tensors", "`_orig_mod.`"]);
    // A name that only ends like the model's is none of its names.
    trained.save("dots.safetensors", &trained.named(|name| format!("my_{name}")));
    trained.start("dots.safetensors", &[]).expect_code(1).expect_words(&["none matches"]);
}

/// Saves weights as two shards and their index.
fn shards(trained: &Trained, folder: &str, tensors: &Tensors) {
    let half = tensors.len() / 2;
    let mut map = serde_json::Map::new();
    for (number, part) in [&tensors[..half], &tensors[half..]].into_iter().enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", number + 1);
        trained.save(&format!("{folder}/{name}"), &part.to_vec());
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), name.clone().into())));
    }
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(trained.mini.path(folder).join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn shards_and_folders_of_published_models_are_read() {
    let trained = Trained::new();
    let plain = trained.save("plain.safetensors", &trained.named(str::to_owned));
    let expected = loss(&trained.start("plain.safetensors", &[]).expect_code(0));
    shards(&trained, "sharded", &trained.named(|name| format!("model.{name}")));
    for path in ["sharded", "sharded/model.safetensors.index.json"] {
        let outcome = trained.start(path, &[]).expect_code(0);
        assert_eq!(loss(&outcome), expected, "{path}");
        outcome.expect_words(&["148 tensors", "`model.`"]);
    }
    let run = |arguments: &[&str]| flowmill(trained.mini.folder(), arguments);
    run(&["inspect", "sharded"]).expect_code(0).expect_words(&["148 tensors", "model.encoder_proj.weight"]);
    run(&["convert", "sharded", "joined.safetensors", "--strip-prefix", "model."]).expect_code(0);
    let names = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Vec<_> = read
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
            .collect();
        tensors.sort();
        tensors
    };
    assert_eq!(names(&trained.mini.path("joined.safetensors")), names(&plain));

    // CosyVoice's folders and Transformers' shards of pickles.
    run(&["convert", "plain.safetensors", "flow.pt"]).expect_code(0);
    for (folder, file) in [("CosyVoice2-0.5B", "flow.pt"), ("hub", "pytorch_model.bin")] {
        fs::create_dir(trained.mini.path(folder)).unwrap();
        fs::copy(trained.mini.path("flow.pt"), trained.mini.path(folder).join(file)).unwrap();
        fs::write(trained.mini.path(folder).join("llm.pt"), b"another model").unwrap();
        let outcome = trained.start(folder, &[]).expect_code(0).expect_words(&[file]);
        assert_eq!(loss(&outcome), expected, "{folder}");
        run(&["inspect", folder]).expect_code(0).expect_words(&[file, "148 tensors"]);
    }
    // Another network under a more usual name does not hide the flow of CosyVoice's folder.
    fs::write(trained.mini.path("CosyVoice2-0.5B/cosyvoice2.yaml"), "flow: 1\n").unwrap();
    fs::write(trained.mini.path("CosyVoice2-0.5B/model.safetensors"), b"another model").unwrap();
    assert_eq!(loss(&trained.start("CosyVoice2-0.5B", &[]).expect_code(0)), expected);
    // A folder of CosyVoice's training: the checkpoints are named, and none is guessed.
    fs::create_dir(trained.mini.path("torch_ddp")).unwrap();
    for epoch in [0, 1] {
        let file = format!("torch_ddp/epoch_{epoch}_whole.pt");
        fs::copy(trained.mini.path("flow.pt"), trained.mini.path(&file)).unwrap();
    }
    trained.start("torch_ddp", &[]).expect_code(2).expect_words(&["epoch_0_whole.pt", "epoch_1_whole.pt", "flow.pt"]);
    assert_eq!(loss(&trained.start("torch_ddp/epoch_1_whole.pt", &[]).expect_code(0)), expected);
    let map: serde_json::Map<_, _> =
        trained.weights.iter().map(|(name, _)| (name.clone(), "pytorch_model.bin".into())).collect();
    let index = serde_json::json!({"weight_map": map}).to_string();
    fs::write(trained.mini.path("hub/pytorch_model.bin.index.json"), index).unwrap();
    assert_eq!(loss(&trained.start("hub/pytorch_model.bin.index.json", &[]).expect_code(0)), expected);

    // Another shard is another start.
    let given = ["--stop-stage", "train", "--set", "train.init_from=sharded", "--exp", "exp/tuned"];
    trained.mini.run(&given).expect_code(0);
    trained.mini.run(&given).expect_code(0).expect_up_to_date();
    let second = trained.mini.path("sharded/model-00002-of-00002.safetensors");
    let mut bytes = fs::read(&second).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&0.5f32.to_le_bytes());
    fs::write(&second, bytes).unwrap();
    trained.mini.run(&[&given[..], &["--dry-run"]].concat()).expect_words(&["model-00002-of-00002.safetensors"]);
}

#[test]
fn shards_that_are_missing_damaged_or_elsewhere_are_named() {
    let trained = Trained::new();
    shards(&trained, "sharded", &trained.named(str::to_owned));
    let index = trained.mini.path("sharded/model.safetensors.index.json");
    let whole = fs::read_to_string(&index).unwrap();
    let refuse = |words: &[&str]| {
        trained.start("sharded", &[]).expect_code(1).expect_words(words);
        flowmill(trained.mini.folder(), &["convert", "sharded", "x.safetensors"]).expect_code(1).expect_words(words);
    };
    for elsewhere in ["../plain.safetensors", "/etc/passwd", "a\\\\b"] {
        fs::write(&index, whole.replace("model-00001-of-00002.safetensors", elsewhere)).unwrap();
        refuse(&["outside of its folder"]);
    }
    fs::write(&index, whole.replace("model-00001-of-00002.safetensors", "model-00003-of-00002.safetensors")).unwrap();
    refuse(&["no file `model-00003-of-00002.safetensors`"]);
    fs::write(&index, whole.replace("\"encoder_proj.weight\"", "\"encoder_proj.other\"")).unwrap();
    refuse(&["has no tensor `encoder_proj.other`"]);
    fs::write(&index, &whole[..whole.len() / 2]).unwrap();
    refuse(&["weight_map"]);
    fs::write(&index, &whole).unwrap();
    let second = trained.mini.path("sharded/model-00002-of-00002.safetensors");
    let bytes = fs::read(&second).unwrap();
    fs::write(&second, &bytes[..bytes.len() / 2]).unwrap();
    refuse(&["shard `model-00002-of-00002.safetensors`", "not a whole safetensors file"]);
    let none = trained.start("data", &[]).expect_code(2);
    none.expect_words(&["train.init_from", "model.safetensors"]);
}
