//! The settings that decide what a training makes, by name; every other one may change at any time.
//!
//! What is read decides by its content, which the runner compares: paths are not in the list.

use serde_json::{Map, Value, json};

use crate::TrainSection;

/// Keys of the section that decide the weights after every step, and what they are measured on.
pub const DECIDING: [&str; 20] = [
    "model",
    "speaker_embedding",
    "token_embedding",
    "init_partial",
    "lora",
    "normalise_mel",
    "train_split",
    "validation_split",
    "batch",
    "curriculum",
    "mixture",
    "optim",
    "schedule",
    "accum_grad",
    "grad_clip",
    "grad_clip_value",
    "precision",
    "loss_scale",
    "ema_decay",
    "seed",
];

/// Keys that say where a training ends: it can be extended.
pub const ENDS: [&str; 3] = ["max_steps", "max_epochs", "early_stopping"];

/// Keys that change no weights: how often is measured, written and kept, how loading runs ahead, what is computed twice and
/// where, when a process stops. And `init_from`, of which the content counts.
#[cfg(test)]
const FREE: [&str; 17] = [
    "init_from",
    "device",
    "gradient_checkpointing",
    "max_seconds",
    "validate_every",
    "save_every",
    "log_every",
    "log_groups",
    "log_gradients",
    "sample_every",
    "sample_count",
    "wandb",
    "keep",
    "prefetch",
    "num_workers",
    "skipped_weights",
    "max_skipped_in_a_row",
];

/// The identity of a training by its section; `data` are the checksums of the indexes of its mixture, in order.
pub fn of_section(section: &TrainSection, data: &[Option<String>]) -> Value {
    let mut fields = listed(&json!(section));
    if let Some(entries) = fields.get_mut("mixture").and_then(Value::as_array_mut) {
        for (entry, checksum) in entries.iter_mut().zip(data) {
            entry["data"] = json!(checksum);
        }
    }
    Value::Object(fields)
}

/// Lets the corpora of a mixture that are gone be those that a finished training was made of, as its receipt records them: it does not
/// need them any more.
pub fn take_over_gone_data(config: &mut Value, recorded: &Value) {
    let entries = config.get_mut("mixture").and_then(Value::as_array_mut).into_iter().flatten();
    for (at, entry) in entries.enumerate().filter(|(_, entry)| entry["data"].is_null()) {
        entry["data"] = recorded["mixture"][at]["data"].clone();
    }
}

/// The identity that a recorded configuration stands for: settings that were added since have their defaults, those that do not decide are
/// left out. `now` is the present one.
pub fn of_record(then: &Value, now: &Value) -> Value {
    let mut known = Map::new();
    for (key, value) in then.as_object().into_iter().flatten() {
        if DECIDING.contains(&key.as_str()) || ENDS.contains(&key.as_str()) {
            known.insert(key.clone(), value.clone());
        }
    }
    // What identifies the data of a mixture is no setting.
    let data: Vec<Option<Value>> = entries(&known).iter().map(|entry| entry.get("data").cloned()).collect();
    if let Some(Value::Array(entries)) = known.get_mut("mixture") {
        entries.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove("data")));
    }
    let read = serde_json::from_value::<TrainSection>(Value::Object(known.clone()));
    let mut fields = read.map_or(known, |section| listed(&json!(section)));
    let present: Vec<Option<Value>> =
        entries(now.as_object().unwrap_or(&Map::new())).iter().map(|entry| entry.get("data").cloned()).collect();
    if let Some(Value::Array(entries)) = fields.get_mut("mixture") {
        for (at, entry) in entries.iter_mut().enumerate() {
            // Earlier versions recorded a path; the files themselves are compared in any case.
            let recorded = data.get(at).cloned().flatten().or_else(|| present.get(at).cloned().flatten());
            entry["data"] = recorded.unwrap_or(Value::Null);
        }
    }
    serde_json::from_str(&Value::Object(fields).to_string()).unwrap_or_default()
}

fn entries(fields: &Map<String, Value>) -> &[Value] {
    fields.get("mixture").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The listed settings of a section, without paths.
fn listed(section: &Value) -> Map<String, Value> {
    let mut fields = Map::new();
    for key in DECIDING.iter().chain(&ENDS) {
        fields.insert((*key).to_owned(), section.get(*key).cloned().unwrap_or_default());
    }
    let without = |value: Option<&mut Value>, path: &str| {
        if let Some(settings) = value.and_then(Value::as_object_mut) {
            settings.remove(path);
        }
    };
    without(fields.get_mut("lora"), "init_from");
    if let Some(Value::Array(entries)) = fields.get_mut("mixture") {
        entries.iter_mut().for_each(|entry| without(Some(entry), "index"));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_known_to_decide_or_not() {
        let mut all: Vec<&str> = DECIDING.iter().chain(&ENDS).chain(&FREE).copied().collect();
        let mut fields: Vec<String> = json!(TrainSection::default()).as_object().unwrap().keys().cloned().collect();
        all.sort_unstable();
        fields.sort_unstable();
        assert_eq!(all, fields, "a new setting belongs into one of the lists");
    }

    #[test]
    fn a_record_of_another_version_means_the_same() {
        let now = of_section(&TrainSection::default(), &[]);
        // As an earlier version recorded it: all settings, and some that did not exist.
        let mut then = json!(TrainSection::default());
        then["log_every"] = json!(77);
        then["keep"]["last"] = json!(99);
        for added in ["grad_clip_value", "speaker_embedding"] {
            then.as_object_mut().unwrap().remove(added);
        }
        then["optim"].as_object_mut().unwrap().remove("decay_matrices_only");
        assert_eq!(of_record(&then, &now), of_record(&now, &now));
        then["optim"]["lr"] = json!(0.5);
        assert_ne!(of_record(&then, &now), of_record(&now, &now));
    }

    #[test]
    fn paths_do_not_count_and_the_order_of_a_mixture_does() {
        let section = |first: &str, second: &str| {
            let mixture = json!([{"index": first, "weight": 1.0}, {"index": second, "weight": 2.0}]);
            serde_json::from_value::<TrainSection>(json!({"mixture": mixture, "init_from": first})).unwrap()
        };
        let data = |first: &str, second: &str| [Some(first.to_owned()), Some(second.to_owned())];
        let one = of_section(&section("a", "b"), &data("1", "2"));
        assert_eq!(one, of_section(&section("x/a", "b"), &data("1", "2")));
        assert_ne!(one, of_section(&section("a", "b"), &data("2", "1")));
        assert_eq!(of_record(&one, &one), of_record(&json!(section("a", "b")), &one), "a record with paths");
    }
}
