//! Latent diffusion and PMG through the binary: a small diffusion model, soft prompts through frozen networks, scores, images for users, and
//! folders of frozen networks that cannot be used.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::corpus::Corpus;
use crate::support::mini::repository;
use crate::support::training::metrics;
use crate::support::{Outcome, flowmill, json};
use serde_json::{Value, json as value};

const DIFFUSION: &str = "
name: base
seed: 3
prep:
  data: [{dir: items, format: images}]
  split: {by: fraction, fractions: {}}
embed: {extractor: {kind: pixels, size: 16}}
train:
  model:
    family: stable-diffusion
    image_size: 16
    autoencoder: {block_out_channels: [8, 8], layers_per_block: 1, norm_num_groups: 4}
    unet: {block_out_channels: [8, 16], layers_per_block: 1, attention_head_dim: 2, norm_num_groups: 4}
    text_encoder:
      {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 12, max_merges: 99}
  validation_split: null
  batch: {max_frames_in_batch: 4}
  optim: {lr: 1e-3}
  schedule: {name: constant}
  max_steps: 4
  save_every: 2
  log_every: 1
  keep: {last: 1}
average: {which: last, count: 1}
export: {split: train, images: {steps: 2}}
";

const PMG: &str = "
name: users
seed: 5
prep:
  data:
    - {dir: train.json, format: histories, split: train}
    - {dir: test.json, format: histories, split: test}
  split: {by: given}
embed: {extractor: {kind: prompt-tokens, tokenizer: words, max_sequence_length: 80}}
tokens: {extractor: {kind: vae-latents, weights: exp/base/6-export, size: 16}}
train:
  model: {family: pmg, image_size: 16, max_sequence_length: 80}
  llama: tiny
  tiny: {hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2, vocab_size: 256}
  stable_diffusion: exp/base/6-export
  validation_split: test
  batch: {max_frames_in_batch: 2}
  optim: {lr: 1e-2}
  schedule: {name: constant}
  max_steps: 6
  validate_every: 2
  save_every: 2
  log_every: 1
  plain_tags: true
  keep: {last: 1, best: 1}
average: {which: last, count: 1}
export: {split: test, images: {steps: 3, guidance: 2}, noise_draws: 2}
";

/// The stickers of the repository's data, with four users over them.
fn corpus() -> Corpus {
    let corpus = Corpus::new();
    let stickers = repository().join("data/stickers");
    let items = json(&stickers.join("items.json"));
    let items: Vec<&Value> = items.as_array().unwrap().iter().take(12).collect();
    for item in &items {
        let path = item["image_path"].as_str().unwrap();
        corpus.write(&format!("items/{path}"), fs::read(stickers.join(path)).unwrap());
    }
    corpus.write("items/items.json", value!(items).to_string());
    let item = |number: usize| {
        let mut item = items[number].clone();
        item["image_path"] = value!(format!("items/{}", item["image_path"].as_str().unwrap()));
        item
    };
    let user = |name: &str, history: &[usize], target: usize| {
        let history: Vec<Value> = history.iter().map(|number| item(*number)).collect();
        value!({ "user_id": name, "history_items_info": history, "target_item_info": item(target) })
    };
    let train = [user("a", &[0, 1, 2], 3), user("b", &[4, 5], 6), user("c", &[7, 8, 9], 10)];
    corpus.write("train.json", value!(train).to_string());
    corpus.write("test.json", value!([user("d", &[1, 3], 0), user("e", &[8, 9, 11], 7)]).to_string());
    corpus.write("base.yaml", DIFFUSION);
    corpus.write("recipe.yaml", PMG);
    corpus
}

fn run(corpus: &Corpus, recipe: &str, more: &[&str]) -> Outcome {
    flowmill(corpus.folder.path(), &[&["run", recipe], more].concat())
}

/// The names of the tensors in a file.
fn names(path: &Path) -> Vec<String> {
    let file = flowmill_weights::read(path).unwrap();
    file.tensors.into_keys().collect()
}

const TRAINED: [&str; 4] =
    ["mapping_layer.bias", "mapping_layer.weight", "prefix_encoder.embedding.weight", "trainable_prompt"];

#[test]
fn soft_prompts_go_through_all_stages_and_make_images() {
    let corpus = corpus();
    run(&corpus, "base.yaml", &[]).expect_code(0);
    diffusion_folder(&corpus.path("exp/base/6-export"));

    run(&corpus, ".", &[]).expect_code(0);
    let lines = metrics(&corpus.path("exp/users/4-train/metrics.jsonl"));
    let validated = |line: &&Value| line["validation"]["parts"]["loss.other_history"].is_number();
    assert_eq!(lines.iter().filter(validated).count(), 3);
    let events = fs::read_dir(corpus.path("exp/users/4-train/tensorboard")).unwrap().next().unwrap().unwrap();
    let events = fs::read(events.path()).unwrap();
    for tag in ["train_loss", "val_loss", "learning_rate"] {
        assert!(events.windows(tag.len()).any(|bytes| bytes == tag.as_bytes()), "{tag}");
    }
    let checkpoint = corpus.path("exp/users/4-train/checkpoints/step-000006");
    assert_eq!(names(&checkpoint.join("model.safetensors")), TRAINED);
    assert_eq!(json(&checkpoint.join("state.json"))["base"].as_str().map(str::len), Some(64));
    let exported = corpus.path("exp/users/6-export");
    assert_eq!(names(&exported.join("model.safetensors")), TRAINED);
    let public = names(&exported.join("pytorch_model.bin"));
    assert_eq!(
        public,
        [
            "mapping_layer.bias",
            "mapping_layer.weight",
            "prefix_encoder.embedding.weight",
            "prefix_tokens",
            "trainable_prompt"
        ]
    );
    let scores = json(&exported.join("scores.json"));
    assert_eq!((&scores["users"], scores["noise_of_seeds"].as_array().map(Vec::len)), (&2.into(), Some(3)));
    for (of, parts) in
        [("noise", &["own_history", "other_history", "no_prompt"][..]), ("ssim", &["own_history", "history_mean"])]
    {
        assert!(parts.iter().all(|part| scores[of][part].is_number()), "{scores}");
    }
    assert!(exported.join("samples/grid.png").is_file() && exported.join("samples/d.png").is_file());
    imagines(&corpus, &exported);
    single_file(&corpus);
    other_base(&corpus);
}

/// Checks the folder of the diffusion model: its parts, and that they have their published names.
fn diffusion_folder(folder: &Path) {
    for (part, name) in [
        ("vae/diffusion_pytorch_model.safetensors", "encoder.conv_in.weight"),
        ("unet/diffusion_pytorch_model.safetensors", "time_embedding.linear_1.weight"),
        ("text_encoder/model.safetensors", "text_model.embeddings.token_embedding.weight"),
    ] {
        assert!(names(&folder.join(part)).iter().any(|own| own == name), "{part}");
    }
    assert_eq!(json(&folder.join("model_index.json"))["unet"][1], "UNet2DConditionModel");
    assert!(json(&folder.join("vae/config.json"))["scaling_factor"].as_f64() > Some(0.0));
    let scores = json(&folder.join("scores.json"));
    assert!(scores["mean"]["noise"].is_number() && scores["mean"]["reconstruction"].is_number(), "{scores}");
    assert!(folder.join("samples/images.png").is_file());
}

fn imagine(corpus: &Corpus, user: &str, out: &str, more: &[&str]) -> Outcome {
    let own = ["imagine", "--model", "exp/users/6-export", "--user", user, "--out", out, "--steps", "3"];
    flowmill(corpus.folder.path(), &[&own, more].concat())
}

fn imagines(corpus: &Corpus, exported: &Path) {
    imagine(corpus, "test.json", "one", &["--images", "2"]).expect_code(0).expect_words(&["2 images", "3 steps"]);
    let image = |path: &str| fs::read(corpus.path(path)).unwrap();
    assert!(image("one/sample_0000/gen_0.jpg") != image("one/sample_0000/gen_1.jpg"));
    let info = json(&corpus.path("one/sample_0001/info.json"));
    assert_eq!((&info["sample_idx"], &info["user_id"], &info["num_generated"]), (&1.into(), &"e".into(), &2.into()));
    imagine(corpus, "test.json", "two", &[]).expect_code(0);
    assert!(image("one/sample_0000/gen_0.jpg") == image("two/sample_0000/gen_0.jpg"), "the same seed");
    for (out, more) in [
        ("seed", &["--seed", "1"][..]),
        ("negative", &["--negative", "a yellow face"]),
        ("guidance", &["--guidance", "9"]),
        ("sampler", &["--sampler", "pndm"]),
    ] {
        imagine(corpus, "test.json", out, more).expect_code(0);
        assert!(image("one/sample_0000/gen_0.jpg") != image(&format!("{out}/sample_0000/gen_0.jpg")), "{out}");
    }
    corpus.write("bad.json", r#"[{"user_id": 1, "history_items_info": []}]"#);
    imagine(corpus, "bad.json", "bad", &[]).expect_code(1).expect_words(&["history_items_info"]);
    imagine(corpus, "test.json", "bad", &["--sampler", "best"]).expect_code(1).expect_words(&["best"]);
    imagine(corpus, "none.json", "bad", &[]).expect_code(1).expect_words(&["none.json"]);
    assert!(exported.join("prompt.safetensors").is_file());
}

/// Checks that the diffusion model may be one file with the names of the first implementation: the soft prompts become the same.
fn single_file(corpus: &Corpus) {
    let base = corpus.path("exp/base/6-export");
    for part in ["unet", "vae", "text_encoder", "scheduler", "tokenizer"] {
        copy(&base.join(part), &corpus.path("single").join(part));
    }
    let mut tensors = Vec::new();
    for (part, rename) in
        [("unet", unet_name as fn(&str) -> String), ("vae", autoencoder_name), ("text_encoder", text_name)]
    {
        for entry in fs::read_dir(base.join(part)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|kind| kind == "safetensors") {
                let file = flowmill_weights::read(&entry).unwrap();
                tensors.extend(file.tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)));
                fs::remove_file(corpus.path("single").join(part).join(entry.file_name().unwrap())).unwrap();
            }
        }
    }
    tensors.push(("model_ema.decay".to_owned(), candle_core::Tensor::new(0f32, &candle_core::Device::Cpu).unwrap()));
    tensors.sort_by(|one, other| one.0.cmp(&other.0));
    flowmill_weights::write(&corpus.path("single/model.safetensors"), &tensors, &Default::default()).unwrap();
    let file = "single/model.safetensors";
    let sets = [format!("train.stable_diffusion={file}"), format!("tokens.extractor.weights={file}")];
    run(corpus, ".", &["--exp", "exp/single", "--set", &sets[0], "--set", &sets[1]]).expect_code(0);
    let steps = |experiment: &str| {
        let lines = metrics(&corpus.path(&format!("exp/{experiment}/4-train/metrics.jsonl")));
        lines.into_iter().map(|line| line["loss"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(steps("users"), steps("single"));
    let scores = |experiment: &str| json(&corpus.path(&format!("exp/{experiment}/6-export/scores.json")));
    assert_eq!(scores("users")["noise"], scores("single")["noise"]);
    let own = ["imagine", "--model", "exp/single/6-export", "--user", "test.json", "--out", "three", "--steps", "3"];
    flowmill(corpus.folder.path(), &own).expect_code(0);
    let image = |path: &str| fs::read(corpus.path(path)).unwrap();
    assert!(image("one/sample_0000/gen_0.jpg") == image("three/sample_0000/gen_0.jpg"));
}

/// The name of a weight of the U-Net in the first implementation; the model of these tests has two levels of one residual block.
fn unet_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let inner = |from: usize| {
        let own = parts[from..].join(".");
        let names = [
            ("norm1.", "in_layers.0."),
            ("conv1.", "in_layers.2."),
            ("time_emb_proj.", "emb_layers.1."),
            ("norm2.", "out_layers.0."),
            ("conv2.", "out_layers.3."),
            ("conv_shortcut.", "skip_connection."),
        ];
        let found = names.iter().find(|(new, _)| parts[from - 2] == "resnets" && own.starts_with(new));
        found.map_or_else(|| own.clone(), |(new, old)| own.replacen(new, old, 1))
    };
    let number = |at: usize| parts[at].parse::<usize>().unwrap();
    let published = match parts[..] {
        ["conv_in", last] => format!("input_blocks.0.0.{last}"),
        ["conv_norm_out", last] => format!("out.0.{last}"),
        ["conv_out", last] => format!("out.2.{last}"),
        ["time_embedding", "linear_1", last] => format!("time_embed.0.{last}"),
        ["time_embedding", "linear_2", last] => format!("time_embed.2.{last}"),
        ["mid_block", "attentions", ..] => format!("middle_block.1.{}", inner(3)),
        ["mid_block", "resnets", ..] => format!("middle_block.{}.{}", 2 * number(2), inner(3)),
        ["down_blocks", _, "resnets", ..] => format!("input_blocks.{}.0.{}", 1 + 2 * number(1), inner(4)),
        ["down_blocks", _, "attentions", ..] => format!("input_blocks.{}.1.{}", 1 + 2 * number(1), inner(4)),
        ["down_blocks", _, "downsamplers", "0", "conv", last] => {
            format!("input_blocks.{}.0.op.{last}", 2 + 2 * number(1))
        }
        ["up_blocks", _, "resnets", ..] => format!("output_blocks.{}.0.{}", 2 * number(1) + number(3), inner(4)),
        ["up_blocks", _, "attentions", ..] => format!("output_blocks.{}.1.{}", 2 * number(1) + number(3), inner(4)),
        ["up_blocks", _, "upsamplers", "0", "conv", last] => {
            format!("output_blocks.{}.1.conv.{last}", 2 * number(1) + 1)
        }
        _ => panic!("{name}"),
    };
    format!("model.diffusion_model.{published}")
}

/// The name of a weight of the autoencoder in the first implementation, which counts the levels of the decoder down.
fn autoencoder_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let layer = |own: &[&str]| own.join(".").replace("conv_shortcut", "nin_shortcut");
    let published = match parts[..] {
        [half, "conv_norm_out", last] => format!("{half}.norm_out.{last}"),
        [half, "mid_block", "resnets", block, ref own @ ..] => {
            format!("{half}.mid.block_{}.{}", block.parse::<usize>().unwrap() + 1, layer(own))
        }
        [half, "mid_block", "attentions", "0", ref own @ ..] => {
            let own = own.join(".").replace("group_norm", "norm").replace("to_out.0", "proj_out").replace("to_", "");
            format!("{half}.mid.attn_1.{own}")
        }
        [half, "down_blocks", level, "resnets", block, ref own @ ..] => {
            format!("{half}.down.{level}.block.{block}.{}", layer(own))
        }
        [half, "down_blocks", level, "downsamplers", "0", ref own @ ..] => {
            format!("{half}.down.{level}.downsample.{}", own.join("."))
        }
        [half, "up_blocks", level, "resnets", block, ref own @ ..] => {
            format!("{half}.up.{}.block.{block}.{}", 1 - level.parse::<usize>().unwrap(), layer(own))
        }
        [half, "up_blocks", level, "upsamplers", "0", ref own @ ..] => {
            format!("{half}.up.{}.upsample.{}", 1 - level.parse::<usize>().unwrap(), own.join("."))
        }
        _ => name.to_owned(),
    };
    format!("first_stage_model.{published}")
}

/// The name of a weight of the encoder of captions in the first implementation.
fn text_name(name: &str) -> String {
    format!("cond_stage_model.transformer.{name}")
}

/// Checks that other frozen networks are noticed when a training continues and when its model is used.
fn other_base(corpus: &Corpus) {
    let weights = corpus.path("exp/base/6-export/unet/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    imagine(corpus, "test.json", "other", &[]).expect_code(1).expect_words(&["checksum"]);
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() { copy(&source, &target) } else { fs::copy(&source, &target).map(drop).unwrap() }
    }
}

#[test]
fn folders_that_cannot_be_used_are_refused_before_anything_runs() {
    let corpus = corpus();
    run(&corpus, "base.yaml", &[]).expect_code(0);
    let good = corpus.path("exp/base/6-export");
    let check = |name: &str, change: &dyn Fn(&Path), words: &[&str]| {
        let folder: PathBuf = corpus.path(name);
        copy(&good, &folder);
        change(&folder);
        let set = format!("train.stable_diffusion={name}");
        run(&corpus, ".", &["--set", &set]).expect_error("recipe", 2).expect_words(words);
        assert!(!corpus.path("exp/users/0-prep").exists(), "{name}: nothing ran");
    };
    let config = |folder: &Path, part: &str, key: &str, to: Value| {
        let path = folder.join(part).join("config.json");
        let mut settings = json(&path);
        settings[key] = to;
        fs::write(path, settings.to_string()).unwrap();
    };
    let unet = "unet/diffusion_pytorch_model.safetensors";
    let remove = |folder: &Path| fs::remove_file(folder.join(unet)).unwrap();
    check("missing", &remove, &["train.stable_diffusion", "unet"]);
    let shards = |folder: &Path| {
        remove(folder);
        let index = value!({ "metadata": {}, "weight_map": { "conv_in.bias": "part-1.safetensors" } });
        fs::write(folder.join(format!("{unet}.index.json")), index.to_string()).unwrap();
    };
    check("shards", &shards, &["train.stable_diffusion", "part-1.safetensors"]);
    let wide = |folder: &Path| config(folder, "text_encoder", "hidden_size", 24.into());
    check("wide", &wide, &["train.stable_diffusion", "24", "cross_attention_dim"]);
    let levels = |folder: &Path| config(folder, "unet", "layers_per_block", 2.into());
    check("levels", &levels, &["train.stable_diffusion", "missing"]);
    let small = |folder: &Path| {
        let header = r#"{"conv_in.bias":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        fs::write(folder.join(unet), bytes).unwrap();
    };
    check("fp8", &small, &["train.stable_diffusion", "F8_E4M3"]);
    let set = "train.llama=nowhere";
    run(&corpus, ".", &["--set", set]).expect_error("recipe", 2).expect_words(&["train.llama", "nowhere"]);
}
