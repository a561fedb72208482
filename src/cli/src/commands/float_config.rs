//! Options of a FLOAT training as a recipe: the names of the public code's options and of the trainer of the users' guide, in a flat JSON file.

use serde_json::{Map, Value, json};

use super::convert_config::{Converted, set};

/// The counterpart of an option.
enum To {
    /// This key of the recipe has the same value.
    Key(&'static str),
    /// The option is read together with others.
    Combined,
    /// The option has no counterpart; its value must be this one.
    Only(fn(&Value) -> bool),
    /// Nothing is to be set, for this reason.
    Always(&'static str),
}

use To::{Always, Combined, Key, Only};

/// The counterparts of the options.
const TABLE: &[(&str, To)] = &[
    ("name", Key("name")),
    ("seed", Key("seed")),
    ("data_root", Combined),
    ("batch_size", Combined),
    ("steps", Key("train.max_steps")),
    ("lr", Key("train.optim.lr")),
    ("weight_decay", Key("train.optim.weight_decay")),
    ("max_grad_norm", Key("train.grad_clip")),
    ("num_workers", Key("train.num_workers")),
    ("log_step", Key("train.log_every")),
    ("sample_step", Key("train.sample_every")),
    ("save_step", Key("train.save_every")),
    ("resume", Always("the same command continues a training; weights of a file go into train.init_from")),
    ("input_size", Key("embed.extractor.frames.size")),
    ("input_nc", Only(|channels| channels == 3)),
    ("fps", Only(|fps| fps.as_f64() == Some(25.0))),
    ("sampling_rate", Only(|rate| rate == 16_000)),
    ("wav2vec_sec", Combined),
    ("wav2vec_model_path", Key("tokens.extractor.weights")),
    ("audio2emotion_path", Key("tokens.extractor.emotion_weights")),
    ("only_last_features", Combined),
    ("attention_window", Key("train.model.attention_window")),
    ("audio_dropout_prob", Key("train.dropout.audio")),
    ("ref_dropout_prob", Key("train.dropout.reference")),
    ("emotion_dropout_prob", Key("train.dropout.emotion")),
    ("style_dim", Combined),
    ("dim_a", Key("train.model.dim_a")),
    ("dim_w", Combined),
    ("dim_h", Key("train.model.dim_h")),
    ("dim_m", Always("the number of directions of motion is that of the weights")),
    ("dim_e", Key("train.model.dim_e")),
    ("fmt_depth", Key("train.model.fmt_depth")),
    ("num_heads", Key("train.model.num_heads")),
    ("mlp_ratio", Key("train.model.mlp_ratio")),
    ("num_prev_frames", Key("train.model.num_prev_frames")),
    ("nfe", Key("export.motion.nfe")),
    ("torchdiffeq_ode_method", Only(|method| method == "euler")),
    ("a_cfg_scale", Key("export.motion.audio_guidance")),
    ("e_cfg_scale", Key("export.motion.emotion_guidance")),
    ("r_cfg_scale", Only(|scale| scale.as_f64() == Some(1.0))),
    ("ode_atol", Always("Euler's method has no tolerance")),
    ("ode_rtol", Always("Euler's method has no tolerance")),
];

/// Options that only FLOAT has.
const MARKS: [&str; 6] =
    ["fmt_depth", "num_prev_frames", "a_cfg_scale", "wav2vec_sec", "wav2vec_model_path", "sample_step"];

/// Returns whether these are options of a FLOAT training.
pub fn is_one(options: &Map<String, Value>) -> bool {
    !options.contains_key("models") && MARKS.iter().any(|key| options.contains_key(*key))
}

/// Converts options; `below` comes before their paths.
pub fn convert(options: &Map<String, Value>, below: &str) -> Converted {
    let number = |key: &str, default: u64| options.get(key).and_then(Value::as_u64).unwrap_or(default);
    let (previous, batch) = (number("num_prev_frames", 10), number("batch_size", 8));
    let channels = number("dim_w", number("style_dim", 512));
    let seconds = options.get("wav2vec_sec").and_then(Value::as_f64).unwrap_or(2.0);
    let frames = (25.0 * seconds).round().max(1.0) as u64;
    let only_last = options.get("only_last_features") == Some(&json!(true));
    let data = options.get("data_root").and_then(Value::as_str).unwrap_or("data");
    let mut recipe = json!({
        "name": "float",
        "prep": {
            "data": [{ "dir": placed(below, data), "format": "ravdess" }],
            "split": { "by": "fraction", "unit": "group", "fractions": { "dev": 0.05, "test": 0.05 } },
        },
        "embed": { "extractor": { "kind": "lia-motion", "weights": "float.pth", "channels": channels, "frames": { "crop": "detect" } } },
        "tokens": { "extractor": { "kind": "wav2vec2", "only_last_features": only_last } },
        "train": {
            "model": {
                "family": "float",
                "dim_w": channels,
                "num_frames": frames,
                "audio_features": if only_last { 768 } else { 12 * 768 },
            },
            "batch": { "max_frames_in_batch": batch.saturating_mul(previous + frames), "max_utterances_in_batch": batch },
            "optim": { "lr": 1e-4, "weight_decay": 1e-4 },
            "schedule": { "name": "warmup_cosine", "warmup_steps": 0, "final_ratio": 0.01 },
            "grad_clip": 1,
            "max_steps": 200_000,
            "log_every": 500,
            "sample_every": 2000,
            "save_every": 10_000,
            "validate_every": 10_000,
        },
    });
    let (mut without, mut not_needed) = (Vec::new(), Vec::new());
    for (key, value) in options.iter().filter(|(_, value)| !value.is_null()) {
        match TABLE.iter().find(|(name, _)| name == key).map(|(_, to)| to) {
            Some(Key(to)) if to.ends_with("weights") => {
                set(&mut recipe, to, json!(placed(below, value.as_str().unwrap_or_default())));
            }
            Some(Key(to)) => set(&mut recipe, to, value.clone()),
            Some(Combined) => {}
            Some(Only(is_right)) if is_right(value) => {}
            Some(Always(reason)) => not_needed.push((key.clone(), *reason)),
            Some(Only(_)) | None => without.push((key.clone(), value.clone())),
        }
    }
    Converted { recipe, without, not_needed }
}

/// Returns a path from the folder of the options; absolute ones stay.
fn placed(below: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{below}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_recipe() {
        let options = json!({
            "data_root": "../datasets/ravdess_processed", "batch_size": 4, "steps": 10_000, "lr": 1e-4, "log_step": 100,
            "wav2vec_sec": 1.0, "num_prev_frames": 5, "only_last_features": true, "a_cfg_scale": 3.0, "fps": 30.0,
            "r_cfg_scale": 1.0, "diffusion_mode": "x", "ode_atol": 1e-5, "wav2vec_model_path": "/w/wav2vec2-base-960h",
        });
        let options = options.as_object().unwrap();
        assert!(is_one(options) && !is_one(&Map::new()));
        let Converted { recipe, without, not_needed } = convert(options, "/far/");
        for (key, value) in [
            ("/prep/data/0/dir", json!("/far/../datasets/ravdess_processed")),
            ("/tokens/extractor/weights", json!("/w/wav2vec2-base-960h")),
            ("/tokens/extractor/only_last_features", json!(true)),
            ("/train/model/num_frames", json!(25)),
            ("/train/model/num_prev_frames", json!(5)),
            ("/train/model/audio_features", json!(768)),
            ("/train/batch/max_frames_in_batch", json!(120)),
            ("/train/max_steps", json!(10_000)),
            ("/train/log_every", json!(100)),
            ("/train/save_every", json!(10_000)),
            ("/export/motion/audio_guidance", json!(3.0)),
        ] {
            assert_eq!(recipe.pointer(key), Some(&value), "{key}");
        }
        let keys: Vec<&str> = without.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["fps", "diffusion_mode"]);
        assert_eq!(not_needed.len(), 1);
    }

    #[test]
    fn every_option_of_the_table_is_there_once() {
        let mut keys: Vec<&str> = TABLE.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
