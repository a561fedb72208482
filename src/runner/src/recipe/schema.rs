//! The JSON schema of a recipe, from the settings of the stages and their documentation.
//!
//! It describes one file. If a file has a base, keys that its base provides may be missing from it. So only the keys
//! of list entries are required, because these are replaced as a whole. Everything that the schema refuses, the
//! runner refuses too. Combinations of settings are checked only by the runner.

use std::collections::HashMap;

use schemars::generate::SchemaSettings;
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use super::DEFAULT_MAX_REJECTED;
use super::overlay::DECIDING;
use crate::{Stage, slurm};

/// Returns the JSON schema (draft 7, which editors support best) of a recipe for these stages.
pub fn schema(stages: &[Box<dyn Stage>]) -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut properties = own_keys();
    for stage in stages {
        let mut section = json!({ "description": format!("Stage {}: {}.", stage.number(), stage.title()) });
        section["allOf"] = json!([stage.schema(&mut generator)]);
        properties.insert(stage.name().to_owned(), section);
    }
    let jobs = slurm::schema(&mut generator);
    properties.insert(slurm::SECTION.to_owned(), jobs.to_value());
    let definitions = generator.take_definitions(true);
    let keys =
        |(name, schema): (&String, &Value)| Some((format!("#/definitions/{name}"), schema.get("required")?.clone()));
    let required = definitions.iter().filter_map(keys).collect();
    let mut root = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Flowmill recipe",
        "description": "A YAML file. Every key has a default; relative paths start from the folder of the file that contains them.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "definitions": definitions,
    });
    as_recipes_are_read(&mut root, false, &required);
    root
}

/// Returns the schema of a mapping that has the keys of all `parts`.
pub fn joined_schema(description: &str, parts: impl IntoIterator<Item = Schema>) -> Schema {
    let mut properties = Map::new();
    for part in parts {
        for (key, property) in part.get("properties").and_then(Value::as_object).into_iter().flatten() {
            match properties.get_mut(key) {
                Some(known) if *known != *property => *known = json!({ "anyOf": [known.take(), property] }),
                Some(_) => {}
                None => {
                    properties.insert(key.clone(), property.clone());
                }
            }
        }
    }
    json_schema!({
        "description": description,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Returns the schema of a mapping whose key `tag` names one of these mappings, the default one first, and which has
/// the keys of that mapping.
pub fn tagged_schema(
    description: &str,
    tag: &str,
    alternatives: impl IntoIterator<Item = (&'static str, Schema)>,
) -> Schema {
    let alternative = |(name, mut schema): (&'static str, Schema)| {
        let properties = schema.ensure_object().entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            properties.shift_insert(0, tag.to_owned(), json!({ "type": "string", "const": name }));
        }
        schema
    };
    json_schema!({ "description": description, "anyOf": alternatives.into_iter().map(alternative).collect::<Vec<_>>() })
}

/// Returns the keys of the recipe itself.
fn own_keys() -> Map<String, Value> {
    let keys = json!({
        "base": {
            "type": ["string", "null"],
            "description": "Another recipe, a file or a folder with a `recipe.yaml`, that this one extends, key by key. Its own paths \
                            start from its own folder.",
        },
        "name": {
            "type": ["string", "null"],
            "description": "Name of the experiment: results go to `exp/NAME` in the recipe's folder. Letters, digits, `-`, `_` and `.`. \
                            Without it, the name of the recipe's folder.",
        },
        "seed": { "type": ["integer", "null"], "minimum": 0, "default": 0, "description": "Seed of every random draw." },
        "max_rejected": {
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
            "default": DEFAULT_MAX_REJECTED,
            "description": "Largest share of a stage's rows that may be rejected before the stage fails.",
        },
    });
    match keys {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

/// The required keys of each definition, by the reference to it.
type Required = HashMap<String, Value>;

/// Rewrites the schema of typed settings to that of the values a recipe may contain for them. `in_list` is true for
/// the schema of a list entry.
fn as_recipes_are_read(schema: &mut Value, in_list: bool, required: &Required) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.remove("format");
    // Alternatives overlap where nothing is required.
    if let Some(alternatives) = fields.remove("oneOf") {
        fields.insert("anyOf".to_owned(), alternatives);
    }
    if !in_list {
        fields.remove("required");
    } else if let Some(reference) = fields.get("$ref").cloned() {
        if let Some(keys) = reference.as_str().and_then(|reference| required.get(reference)) {
            *schema = json!({ "allOf": [{ "$ref": reference }], "required": keys });
        }
        return;
    }
    shorten_default(fields);
    widen_type(fields);
    for key in ["properties", "definitions"] {
        let children = fields.get_mut(key).and_then(Value::as_object_mut);
        children.into_iter().flatten().for_each(|(_, child)| as_recipes_are_read(child, false, required));
    }
    for key in ["anyOf", "allOf"] {
        let children = fields.get_mut(key).and_then(Value::as_array_mut);
        children.into_iter().flatten().for_each(|child| as_recipes_are_read(child, in_list, required));
    }
    if let Some(child) = fields.get_mut("additionalProperties") {
        as_recipes_are_read(child, false, required);
    }
    if let Some(child) = fields.get_mut("items") {
        as_recipes_are_read(child, true, required);
    }
}

/// Shortens the default of a mapping to the values that determine its other keys, which have defaults of their own.
/// Numbers of single precision are written as such.
fn shorten_default(fields: &mut Map<String, Value>) {
    let names_entries = fields.contains_key("additionalProperties");
    match fields.get_mut("default") {
        // A mapping with free names, such as shares of splits, has no such keys.
        Some(Value::Object(default)) if !names_entries => {
            default.retain(|key, _| DECIDING.contains(&key.as_str()));
            if default.is_empty() {
                fields.remove("default");
            }
        }
        Some(default) => {
            let single = default.as_f64().filter(|value| f64::from(*value as f32) == *value);
            if let Some(shortest) =
                single.and_then(|value| (value as f32).to_string().parse::<f64>().ok()).filter(|_| default.is_f64())
            {
                *default = json!(shortest);
            }
        }
        None => {}
    }
}

/// Allows a number in place of text (speakers have names like `1089`), and an empty mapping, which has all defaults.
fn widen_type(fields: &mut Map<String, Value>) {
    let closed = ["const", "enum", "pattern", "required"].iter().any(|key| fields.contains_key(*key));
    let Some(kind) = fields.get_mut("type").filter(|_| !closed) else { return };
    let mut kinds = match kind.take() {
        Value::Array(kinds) => kinds,
        one => vec![one],
    };
    if kinds.contains(&json!("string")) {
        kinds.extend([json!("number"), json!("boolean")]);
    }
    if kinds.contains(&json!("object")) && !kinds.contains(&Value::Null) {
        kinds.push(json!("null"));
    }
    *kind = match kinds.as_slice() {
        [one] => one.clone(),
        _ => Value::Array(kinds),
    };
}
