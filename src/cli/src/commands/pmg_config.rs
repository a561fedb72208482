//! The configuration of a PMG training (INTREBID/PMG: `configs/*.yaml`) as a recipe.

use serde_json::{Map, Value, json};

use super::convert_config::{Converted, set};

/// The counterpart of a key.
enum To {
    /// This key of the recipe has the same value.
    Key(&'static str),
    /// This key of the recipe has the same value, a path.
    Path(&'static str),
    /// The key is read together with others.
    Combined,
    /// The key has no counterpart; its value must be this one.
    Only(fn(&Value) -> bool),
    /// Nothing is to be set, for this reason.
    Always(&'static str),
}

use To::{Always, Combined, Key, Only, Path};

/// The counterparts of the keys.
const TABLE: &[(&str, To)] = &[
    ("dataset.name", Combined),
    ("dataset.data_dir", Always("the files of users are named")),
    ("dataset.processed_dir", Always("the files of users are named")),
    ("dataset.image_dir", Combined),
    ("dataset.train_json", Combined),
    ("dataset.val_json", Combined),
    ("dataset.test_json", Combined),
    ("dataset.user_preferences", Always("the style of a user is in the files of users")),
    ("model.stable_diffusion", Combined),
    ("model.llama", Combined),
    ("model.clip", Path("train.clip")),
    ("training.output_dir", Always("results are in exp/NAME; --exp names another folder")),
    ("training.num_train_epochs", Key("train.max_epochs")),
    ("training.train_batch_size", Combined),
    (
        "training.val_batch_size",
        Always("a validation takes batches of the training's size; its loss is a mean over users"),
    ),
    ("training.gradient_accumulation_steps", Key("train.accum_grad")),
    ("training.learning_rate", Key("train.optim.lr")),
    ("training.lr_scheduler", Combined),
    ("training.lr_warmup_steps", Combined),
    ("training.lr_num_cycles", Only(|cycles| cycles == 1)),
    ("training.weight_decay", Key("train.optim.weight_decay")),
    ("training.adam_beta1", Combined),
    ("training.adam_beta2", Combined),
    ("training.adam_epsilon", Key("train.optim.eps")),
    ("training.max_grad_norm", Key("train.grad_clip")),
    ("training.mixed_precision", Combined),
    ("training.seed", Key("seed")),
    ("training.dataloader_num_workers", Key("train.num_workers")),
    ("training.logging_steps", Key("train.log_every")),
    ("training.save_steps", Key("train.save_every")),
    ("training.validation_steps", Key("train.validate_every")),
    ("training.resume_from", Always("the same command continues a training")),
    ("pmg.num_image_prompt", Key("train.model.num_image_prompt")),
    ("pmg.num_prefix_prompt", Key("train.model.num_prefix_prompt")),
    ("pmg.max_sequence_length", Key("train.model.max_sequence_length")),
    ("pmg.image_size", Key("train.model.image_size")),
    ("inference.num_inference_steps", Key("export.images.steps")),
    ("inference.guidance_scale", Key("export.images.guidance")),
    ("inference.negative_prompt", Key("export.negative_prompt")),
    ("inference.num_images_per_sample", Always("`flowmill imagine --images N` makes N images per user")),
];

/// Returns whether this is the configuration of a PMG training.
pub fn is_one(config: &Map<String, Value>) -> bool {
    config.contains_key("pmg") || config.get("model").is_some_and(|model| model.get("stable_diffusion").is_some())
}

/// Returns the keys with their sections, in order.
fn flat(config: &Map<String, Value>) -> Vec<(String, Value)> {
    let of_section = |(section, value): (&String, &Value)| match value {
        Value::Object(keys) => keys.iter().map(|(key, value)| (format!("{section}.{key}"), value.clone())).collect(),
        value => vec![(section.clone(), value.clone())],
    };
    config.iter().flat_map(of_section).collect()
}

/// Converts a configuration; `below` comes before its paths.
pub fn convert(config: &Map<String, Value>, below: &str) -> Converted {
    let keys = flat(config);
    let find =
        |key: &str| keys.iter().find(|(name, _)| name == key).map(|(_, value)| value).filter(|value| !value.is_null());
    let text = |key: &str, default: &str| find(key).and_then(Value::as_str).unwrap_or(default).to_owned();
    let number = |key: &str, default: u64| find(key).and_then(Value::as_u64).unwrap_or(default);
    let images = find("dataset.image_dir").and_then(Value::as_str);
    let mut data = Vec::new();
    for (key, split) in [("dataset.train_json", "train"), ("dataset.val_json", "dev"), ("dataset.test_json", "test")] {
        let Some(file) = find(key).and_then(Value::as_str) else { continue };
        let mut source =
            json!({ "dir": placed(below, file), "format": "histories", "split": split, "repeated_users": true });
        if let Some(images) = images {
            source["images"] = json!(placed(below, images));
        }
        if split != "train" {
            source["prefix"] = json!(format!("{split}-"));
        }
        data.push(source);
    }
    let llama = placed(below, &text("model.llama", "Llama-2-7b-chat-hf"));
    let diffusion = placed(below, &text("model.stable_diffusion", "stable-diffusion-v1-5"));
    let (size, length) = (number("pmg.image_size", 512), number("pmg.max_sequence_length", 600));
    let (prompts, batch) = (number("pmg.num_image_prompt", 2), number("training.train_batch_size", 6));
    let warmup = number("training.lr_warmup_steps", 0);
    let schedule = match text("training.lr_scheduler", "linear").as_str() {
        "linear" => json!({ "name": "warmup_linear", "warmup_steps": warmup }),
        "constant" => json!({ "name": "constant" }),
        "constant_with_warmup" => json!({ "name": "warmup_constant", "warmup_steps": warmup.max(1) }),
        _ => json!({ "name": "warmup_cosine", "warmup_steps": warmup }),
    };
    let precision = match text("training.mixed_precision", "bf16").as_str() {
        "no" | "fp32" => "fp32".to_owned(),
        other => other.to_owned(),
    };
    let mut recipe = json!({
        "name": format!("pmg-{}", text("dataset.name", "users").to_lowercase()),
        "prep": { "data": data, "split": { "by": "given" } },
        "embed": { "extractor": {
            "kind": "prompt-tokens", "tokenizer": llama, "max_sequence_length": length, "num_image_prompt": prompts,
        } },
        "tokens": { "extractor": { "kind": "vae-latents", "weights": diffusion, "size": size } },
        "train": {
            "model": { "family": "pmg" },
            "llama": llama,
            "stable_diffusion": diffusion,
            "batch": { "max_frames_in_batch": batch, "max_utterances_in_batch": batch },
            "optim": { "betas": [
                find("training.adam_beta1").cloned().unwrap_or(json!(0.9)),
                find("training.adam_beta2").cloned().unwrap_or(json!(0.999)),
            ] },
            "schedule": schedule,
            "precision": precision,
            "gradient_checkpointing": true,
            "plain_tags": true,
        },
    });
    let (mut without, mut not_needed) = (Vec::new(), Vec::new());
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_null()) {
        match TABLE.iter().find(|(name, _)| name == key).map(|(_, to)| to) {
            Some(Key(to)) => set(&mut recipe, to, value.clone()),
            Some(Path(to)) => set(&mut recipe, to, json!(placed(below, value.as_str().unwrap_or_default()))),
            Some(Combined) => {}
            Some(Only(is_right)) if is_right(value) => {}
            Some(Always(reason)) => not_needed.push((key.clone(), *reason)),
            Some(Only(_)) | None => without.push((key.clone(), value.clone())),
        }
    }
    Converted { recipe, without, not_needed }
}

/// Returns a path from the folder of the configuration; absolute ones stay.
fn placed(below: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{below}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_becomes_a_recipe() {
        let config = json!({
            "dataset": { "name": "FLICKR", "train_json": "./a/train.json", "val_json": "./a/val.json", "image_dir": "./a/40K" },
            "model": { "stable_diffusion": "./sd", "llama": "/w/llama", "clip": "./clip" },
            "training": {
                "num_train_epochs": 3, "train_batch_size": 6, "gradient_accumulation_steps": 4, "learning_rate": 5e-6,
                "lr_scheduler": "linear", "adam_beta2": 0.99, "mixed_precision": "fp16", "save_steps": 1000, "odd": 1,
            },
            "pmg": { "num_image_prompt": 3, "image_size": 256 },
            "inference": { "guidance_scale": 7.5 },
        });
        let config = config.as_object().unwrap();
        assert!(is_one(config) && !is_one(&Map::new()));
        let Converted { recipe, without, .. } = convert(config, "/far/");
        for (key, value) in [
            ("/prep/data/0/dir", json!("/far/./a/train.json")),
            ("/prep/data/1/prefix", json!("dev-")),
            ("/prep/data/1/images", json!("/far/./a/40K")),
            ("/embed/extractor/tokenizer", json!("/w/llama")),
            ("/embed/extractor/num_image_prompt", json!(3)),
            ("/tokens/extractor/size", json!(256)),
            ("/train/stable_diffusion", json!("/far/./sd")),
            ("/train/clip", json!("/far/./clip")),
            ("/train/max_epochs", json!(3)),
            ("/train/accum_grad", json!(4)),
            ("/train/optim/lr", json!(5e-6)),
            ("/train/optim/betas/1", json!(0.99)),
            ("/train/precision", json!("fp16")),
            ("/train/save_every", json!(1000)),
            ("/train/model/num_image_prompt", json!(3)),
            ("/train/model/image_size", json!(256)),
            ("/export/images/guidance", json!(7.5)),
        ] {
            assert_eq!(recipe.pointer(key), Some(&value), "{key}");
        }
        let keys: Vec<&str> = without.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["training.odd"]);
    }

    #[test]
    fn every_key_of_the_table_is_there_once() {
        let mut keys: Vec<&str> = TABLE.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
