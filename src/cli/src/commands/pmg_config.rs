//! The YAML configuration of the public PMG code as a recipe.

use serde_json::{Map, Value, json};

use super::convert_config::{Converted, set};

/// The counterpart of a key.
enum To {
    /// These keys of the recipe have the same value.
    Keys(&'static [&'static str]),
    /// These keys of the recipe hold a path.
    Paths(&'static [&'static str]),
    /// The key is read together with others.
    Combined,
    /// The key has no counterpart; its value must be this one.
    Only(fn(&Value) -> bool),
    /// Nothing is to be set, for this reason.
    Always(&'static str),
}

use To::{Always, Combined, Keys, Only, Paths};

/// The counterparts of the keys.
const TABLE: &[(&str, To)] = &[
    ("dataset.name", Combined),
    ("dataset.train_json", Combined),
    ("dataset.val_json", Combined),
    ("dataset.test_json", Combined),
    ("dataset.image_dir", Combined),
    ("dataset.data_dir", Always("the files of users are named one by one")),
    ("dataset.processed_dir", Always("the files of users are named one by one")),
    ("dataset.user_preferences", Always("the files of users hold the styles")),
    ("model.stable_diffusion", Paths(&["train.stable_diffusion", "tokens.extractor.weights"])),
    ("model.llama", Paths(&["train.llama", "embed.extractor.tokenizer"])),
    ("model.clip", Paths(&["train.clip"])),
    ("training.output_dir", Always("results are in exp/NAME next to the recipe")),
    ("training.num_train_epochs", Keys(&["train.max_epochs"])),
    ("training.train_batch_size", Keys(&["train.batch.max_frames_in_batch", "train.batch.max_utterances_in_batch"])),
    ("training.val_batch_size", Always("validation has the batches of training; its loss is the same")),
    ("training.gradient_accumulation_steps", Keys(&["train.accum_grad"])),
    ("training.learning_rate", Keys(&["train.optim.lr"])),
    ("training.lr_scheduler", Combined),
    ("training.lr_warmup_steps", Keys(&["train.schedule.warmup_steps"])),
    ("training.lr_num_cycles", Only(|cycles| cycles == 1)),
    ("training.weight_decay", Keys(&["train.optim.weight_decay"])),
    ("training.adam_beta1", Combined),
    ("training.adam_beta2", Combined),
    ("training.adam_epsilon", Keys(&["train.optim.eps"])),
    ("training.max_grad_norm", Keys(&["train.grad_clip"])),
    ("training.mixed_precision", Keys(&["train.precision"])),
    ("training.seed", Keys(&["seed"])),
    ("training.dataloader_num_workers", Keys(&["train.num_workers"])),
    ("training.logging_steps", Keys(&["train.log_every"])),
    ("training.save_steps", Keys(&["train.save_every"])),
    ("training.validation_steps", Keys(&["train.validate_every"])),
    ("training.report_to", Only(|to| to == "tensorboard")),
    ("training.resume_from", Always("the same command continues an interrupted training")),
    ("pmg.num_image_prompt", Keys(&["train.model.num_image_prompt", "embed.extractor.num_image_prompt"])),
    ("pmg.num_prefix_prompt", Keys(&["train.model.num_prefix_prompt"])),
    ("pmg.max_sequence_length", Keys(&["train.model.max_sequence_length", "embed.extractor.max_sequence_length"])),
    ("pmg.image_size", Keys(&["train.model.image_size", "tokens.extractor.size"])),
    ("inference.num_inference_steps", Keys(&["export.images.steps"])),
    ("inference.guidance_scale", Keys(&["export.images.guidance"])),
    ("inference.negative_prompt", Keys(&["export.negative_prompt"])),
    ("inference.num_images_per_sample", Only(|images| images == 1)),
];

/// The files of users, with the splits that they become and the prefixes of ids, since users may be in several files.
const FILES: [(&str, &str, Option<&str>); 3] =
    [("train_json", "train", None), ("val_json", "dev", Some("val-")), ("test_json", "test", Some("test-"))];

/// Schedules of diffusers and their counterparts.
const SCHEDULES: [(&str, &str); 4] = [
    ("linear", "warmup_linear"),
    ("cosine", "warmup_cosine"),
    ("constant", "constant"),
    ("constant_with_warmup", "constant"),
];

/// Returns whether this is a configuration of the public PMG code.
pub fn is_one(config: &Map<String, Value>) -> bool {
    config.contains_key("pmg") || config.get("dataset").is_some_and(|dataset| dataset.get("train_json").is_some())
}

/// Converts a configuration; `below` comes before its paths.
pub fn convert(config: &Map<String, Value>, below: &str) -> Converted {
    let dataset = |key: &str| config.get("dataset").and_then(|dataset| dataset.get(key)).and_then(Value::as_str);
    let training =
        |key: &str| config.get("training").and_then(|training| training.get(key)).filter(|value| !value.is_null());
    let source = |(key, split, prefix): (&str, &str, Option<&str>)| {
        let mut source = json!({ "dir": placed(below, dataset(key)?), "format": "histories", "split": split, "repeated_users": true });
        source["images"] = dataset("image_dir").map_or(Value::Null, |images| json!(placed(below, images)));
        source["prefix"] = json!(prefix);
        source.as_object_mut()?.retain(|_, value| !value.is_null());
        Some(source)
    };
    let sources: Vec<Value> = FILES.into_iter().filter_map(source).collect();
    let has_test = dataset("test_json").is_some();
    let mut recipe = json!({
        "name": format!("pmg-{}", dataset("name").unwrap_or("users").to_lowercase()),
        "prep": { "data": sources, "split": { "by": "given" } },
        "embed": { "extractor": { "kind": "prompt-tokens" } },
        "tokens": { "extractor": { "kind": "vae-latents" } },
        "train": {
            "model": { "family": "pmg" },
            "optim": { "lr": 5e-6, "weight_decay": 0.01, "eps": 1e-6 },
            "schedule": { "name": "warmup_linear" },
            "grad_clip": 1,
            "max_steps": null,
            "max_epochs": 3,
            "plain_tags": true,
        },
        "export": { "split": if has_test { "test" } else { "dev" } },
    });
    let (mut without, mut not_needed) = (Vec::new(), Vec::new());
    let beta = |key: &str, default: f64| training(key).and_then(Value::as_f64).unwrap_or(default);
    if training("adam_beta1").or(training("adam_beta2")).is_some() {
        set(&mut recipe, "train.optim.betas", json!([beta("adam_beta1", 0.9), beta("adam_beta2", 0.999)]));
    }
    if let Some(given) = training("lr_scheduler") {
        match SCHEDULES.iter().find(|(name, _)| given == name) {
            Some((_, name)) => set(&mut recipe, "train.schedule.name", json!(name)),
            None => without.push(("training.lr_scheduler".to_owned(), given.clone())),
        }
    }
    let leaves = config.iter().flat_map(|(section, values)| match values {
        Value::Object(values) => values.iter().map(|(key, value)| (format!("{section}.{key}"), value)).collect(),
        other => vec![(section.clone(), other)],
    });
    for (key, value) in leaves.filter(|(_, value)| !value.is_null()) {
        match TABLE.iter().find(|(name, _)| *name == key).map(|(_, to)| to) {
            Some(Keys(to)) => to.iter().for_each(|to| set(&mut recipe, to, value.clone())),
            Some(Paths(to)) => {
                let path = value.as_str().unwrap_or_default();
                if is_of_hub(path) {
                    not_needed.push((key, "this names a model of the Hugging Face Hub; name the folder of its files"));
                }
                to.iter().for_each(|to| set(&mut recipe, to, json!(placed(below, path))));
            }
            Some(Combined) => {}
            Some(Only(is_right)) if is_right(value) => {}
            Some(Always(reason)) => not_needed.push((key, *reason)),
            Some(Only(_)) | None => without.push((key, value.clone())),
        }
    }
    // A schedule without an end has no warm-up either, unless it is given.
    if recipe.pointer("/train/schedule/name") == Some(&json!("constant"))
        && training("lr_warmup_steps").is_some_and(|steps| steps != 0)
    {
        without.push(("training.lr_warmup_steps".to_owned(), training("lr_warmup_steps").cloned().unwrap_or_default()));
    }
    Converted { recipe, without, not_needed }
}

/// Returns whether a path is rather the name of a model on the Hugging Face Hub, `OWNER/NAME`.
fn is_of_hub(path: &str) -> bool {
    !path.starts_with(['.', '/']) && path.split('/').count() == 2
}

/// Returns a path from the folder of the configuration; absolute ones stay.
fn placed(below: &str, path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.starts_with('/') { path.to_owned() } else { format!("{below}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        json!({
            "dataset": {
                "name": "FLICKR", "data_dir": "./datasets/FLICKR", "image_dir": "./datasets/FLICKR/40K",
                "train_json": "./processed/train.json", "val_json": "./processed/val.json",
            },
            "model": {
                "stable_diffusion": "./checkpoints/sd", "llama": "meta-llama/Llama-2-7b-chat-hf", "clip": "/far/clip",
            },
            "training": {
                "output_dir": "./outputs", "num_train_epochs": 5, "train_batch_size": 6, "val_batch_size": 1,
                "gradient_accumulation_steps": 4, "learning_rate": 5e-6, "lr_scheduler": "linear", "lr_warmup_steps": 10,
                "lr_num_cycles": 1, "weight_decay": 0.01, "adam_beta1": 0.8, "adam_beta2": 0.999, "adam_epsilon": 1e-6,
                "max_grad_norm": 1.0, "mixed_precision": "bf16", "seed": 42, "dataloader_num_workers": 4,
                "logging_steps": 10, "save_steps": 1000, "validation_steps": 100, "resume_from": "",
            },
            "pmg": { "num_image_prompt": 2, "num_prefix_prompt": 3, "max_sequence_length": 600, "image_size": 256 },
            "inference": {
                "num_inference_steps": 50, "guidance_scale": 6.0, "negative_prompt": "blurry", "num_images_per_sample": 4,
            },
            "experiment": { "tag": "x" },
        })
    }

    #[test]
    fn a_configuration_becomes_a_recipe() {
        let config = config();
        let config = config.as_object().unwrap();
        assert!(is_one(config) && !is_one(&Map::new()));
        let Converted { recipe, without, not_needed } = convert(config, "/far/");
        for (key, value) in [
            ("/name", json!("pmg-flickr")),
            ("/seed", json!(42)),
            ("/prep/data/0/dir", json!("/far/processed/train.json")),
            ("/prep/data/0/images", json!("/far/datasets/FLICKR/40K")),
            ("/prep/data/1/split", json!("dev")),
            ("/prep/data/1/prefix", json!("val-")),
            ("/embed/extractor/tokenizer", json!("/far/meta-llama/Llama-2-7b-chat-hf")),
            ("/embed/extractor/max_sequence_length", json!(600)),
            ("/tokens/extractor/weights", json!("/far/checkpoints/sd")),
            ("/tokens/extractor/size", json!(256)),
            ("/train/clip", json!("/far/clip")),
            ("/train/max_epochs", json!(5)),
            ("/train/batch/max_utterances_in_batch", json!(6)),
            ("/train/optim/betas", json!([0.8, 0.999])),
            ("/train/schedule", json!({"name": "warmup_linear", "warmup_steps": 10})),
            ("/train/precision", json!("bf16")),
            ("/train/model/num_prefix_prompt", json!(3)),
            ("/train/model/image_size", json!(256)),
            ("/export/images/guidance", json!(6.0)),
            ("/export/negative_prompt", json!("blurry")),
            ("/export/split", json!("dev")),
        ] {
            assert_eq!(recipe.pointer(key), Some(&value), "{key}");
        }
        assert_eq!(recipe["prep"]["data"].as_array().map(Vec::len), Some(2));
        let keys: Vec<&str> = without.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["inference.num_images_per_sample", "experiment.tag"]);
        let keys: Vec<&str> = not_needed.iter().map(|(key, _)| key.as_str()).collect();
        let expected = [
            "dataset.data_dir",
            "model.llama",
            "training.output_dir",
            "training.val_batch_size",
            "training.resume_from",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn every_key_of_the_table_is_there_once() {
        let mut keys: Vec<&str> = TABLE.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
