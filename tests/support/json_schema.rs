//! Validation by the part of JSON Schema (draft 7) that the schema of recipes uses. Any other keyword is a failed test.

use serde_json::Value;

/// The places of `value` that `schema` refuses, as JSON pointers.
pub fn refused(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        assert!(schema.is_boolean(), "{at}: {schema} is no schema");
        if schema == false {
            found.push(at.to_owned());
        }
        return;
    };
    for (keyword, argument) in keywords {
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "definitions" => true,
            "$ref" => {
                let pointer = argument.as_str().unwrap().strip_prefix('#').unwrap();
                let target = root.pointer(pointer).unwrap_or_else(|| panic!("{argument} does not exist"));
                check(root, target, value, at, found);
                true
            }
            "type" => match argument {
                Value::Array(types) => types.iter().any(|name| is_of_type(value, name)),
                one => is_of_type(value, one),
            },
            "const" => value == argument,
            "enum" => argument.as_array().unwrap().contains(value),
            "pattern" => value.as_str().is_none_or(|text| is_cuda_device(argument.as_str().unwrap(), text)),
            "minimum" => value.as_f64().is_none_or(|number| number >= argument.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= argument.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= argument.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= argument.as_u64().unwrap()),
            "required" => value.as_object().is_none_or(|fields| {
                argument.as_array().unwrap().iter().all(|key| fields.contains_key(key.as_str().unwrap()))
            }),
            "anyOf" => argument.as_array().unwrap().iter().any(|schema| {
                let mut wrong = Vec::new();
                check(root, schema, value, at, &mut wrong);
                wrong.is_empty()
            }),
            "allOf" => {
                argument.as_array().unwrap().iter().for_each(|schema| check(root, schema, value, at, found));
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, argument, item, &format!("{at}/{index}"), found);
                }
                true
            }
            "properties" => {
                for (key, field) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = argument.get(key) {
                        check(root, schema, field, &format!("{at}/{key}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = keywords.get("properties");
                for (key, field) in value.as_object().into_iter().flatten() {
                    if known.and_then(|known| known.get(key)).is_none() {
                        check(root, argument, field, &format!("{at}/{key}"), found);
                    }
                }
                true
            }
            other => panic!("{at}: the keyword {other} is not checked here"),
        };
        if !holds {
            found.push(at.to_owned());
        }
    }
}

fn is_of_type(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("{other} is no type"),
    }
}

/// The one pattern that there is.
fn is_cuda_device(pattern: &str, text: &str) -> bool {
    assert_eq!(pattern, r"^cuda:\+?[0-9]+$");
    let digits = text.strip_prefix("cuda:").map(|rest| rest.strip_prefix('+').unwrap_or(rest));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}
