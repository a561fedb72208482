//! The reference is current, and the schema of recipes says what the runner says.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::datatypes::DataType;
use serde_json::{Value, json};

use crate::support::flowmill::flowmill;
use crate::support::mini::repository;
use crate::support::{Mini, json_schema, parquet, yaml};

fn schema() -> Value {
    let outcome = flowmill(&repository(), &["recipe", "schema"]).expect_code(0);
    serde_json::from_str(&outcome.stdout).unwrap()
}

/// The recipes of the repository.
fn recipes() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository().join("recipes"), repository().join("tests/recipes")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "exp") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() >= 12, "{found:?}");
    found
}

/// Returns whether the runner takes `recipe`, an overlay or a whole one, in a folder of its own.
fn is_taken(folder: &Path, recipe: &Value) -> bool {
    // JSON is YAML.
    fs::write(folder.join("tried.yaml"), recipe.to_string()).unwrap();
    let outcome = flowmill(folder, &["recipe", "show", "tried.yaml"]);
    assert!(matches!(outcome.code, Some(0 | 2)), "{}", outcome.text());
    outcome.code == Some(0)
}

#[test]
fn the_committed_pages_are_what_the_program_prints() {
    for (page, file) in [("recipe", "RECIPE.md"), ("commands", "COMMANDS.md")] {
        let printed = flowmill(&repository(), &["reference", page]).expect_code(0).stdout;
        let committed = fs::read_to_string(repository().join("docs").join(file)).unwrap();
        let same = printed == committed;
        assert!(same, "renew it: cargo run --release -- reference {page} > docs/{file}");
    }
}

/// The review of ARCHITECTURE.md is worth something only as long as its files exist.
#[test]
fn the_architecture_page_names_files_that_exist() {
    let page = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let folders = ["src", "stages", "tests", "scripts", "recipes", "data", "docs"];
    let paths: Vec<&str> = page
        .split('`')
        .filter(|code| !code.contains(char::is_whitespace))
        .filter(|code| code.split_once('/').is_some_and(|(folder, _)| folders.contains(&folder)))
        .collect();
    let missing: Vec<&&str> = paths.iter().filter(|path| !repository().join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let questions = page.lines().filter(|line| line.starts_with("| ") && line.contains("? |")).count();
    assert_eq!((questions, paths.len() >= 40), (21, true));
}

#[test]
fn every_recipe_of_the_repository_is_valid_by_the_schema() {
    let schema = schema();
    for path in recipes() {
        let refused = json_schema::refused(&schema, &yaml::read(&path));
        assert_eq!(refused, [""; 0], "{}", path.display());
    }
}

#[test]
fn what_the_schema_refuses_the_runner_refuses_too() {
    let (mini, schema) = (Mini::new(), schema());
    for (place, wrong) in [
        ("/train/max_steps", json!("many")),
        ("/train/max_steps", json!(-1)),
        ("/train/max_steps", json!(1.5)),
        ("/train/optim", json!({"learning_rate": 1e-3})),
        ("/train/optim", json!({"name": "adamx"})),
        ("/train/optim", json!({"betas": [0.9]})),
        ("/train/optim", json!({"groups": [{"lr_multiple": 2.0}]})),
        ("/train/model", json!({"family": "cosyvoice-flow"})),
        ("/train/model", json!({"family": "step-audio-flow", "conditions": "speaker"})),
        ("/train/mixture", json!({"weight": 1})),
        ("/train/curriculum", json!([{"epochs": 1}])),
        ("/train/validate_every", json!({"steps": 5})),
        ("/train/device", json!("gpu")),
        ("/embed/extractor", json!({"kind": "statistics", "k": 16})),
        ("/tokens/extractor", json!({"kind": "kmean"})),
        ("/tokens/extractor", json!({"kind": "s3-tokenizer", "weights": "a", "layer_norm_epsilon": {"ln": 1e-5}})),
        ("/pack/mel", json!({"store": "float8"})),
        ("/prep/data", json!([{"format": "kaldi"}])),
        ("/prep/split", json!({"by": "lot"})),
        ("/prep/allow_pipes", json!("yes")),
        ("/average", json!([])),
        ("/export/tolerances", json!({"rtol": "small"})),
        ("/seed", json!(-7)),
        ("/max_rejected", json!(2)),
    ] {
        let mut recipe = yaml::read(&mini.path("recipe.yaml"));
        let (parent, key) = place.rsplit_once('/').unwrap();
        recipe.pointer_mut(parent).unwrap()[key] = wrong.clone();
        let refused = json_schema::refused(&schema, &recipe);
        assert!(!refused.is_empty(), "the schema takes {place}: {wrong}");
        assert!(!is_taken(mini.folder(), &recipe), "the runner takes {place}: {wrong}");
    }
}

/// The places in a recipe, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, child)| (key.clone(), child)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, child)| (index.to_string(), child)).collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        let place = format!("{at}/{key}");
        places(child, &place, found);
        found.push(place);
    }
}

#[test]
fn the_schema_is_no_stricter_than_the_runner_on_changed_recipes() {
    let (mini, schema) = (Mini::new(), schema());
    let whole = yaml::read(&mini.path("recipe.yaml"));
    let mut found = Vec::new();
    places(&whole, "", &mut found);
    let (mut refused, mut taken) = (0, 0);
    for place in found {
        for other in [json!(null), json!({"x": 1}), json!([]), json!("x"), json!(3), json!(0.5), json!(true)] {
            let mut recipe = whole.clone();
            *recipe.pointer_mut(&place).unwrap() = other.clone();
            if json_schema::refused(&schema, &recipe).is_empty() {
                taken += 1;
                continue;
            }
            refused += 1;
            assert!(!is_taken(mini.folder(), &recipe), "the schema alone refuses {place}: {other}");
        }
    }
    assert!(refused > 150 && taken > 50, "{refused} refused, {taken} taken");
}

#[test]
fn every_key_of_a_whole_recipe_is_in_the_schema_with_a_description() {
    let schema = schema();
    let show = flowmill(&repository(), &["recipe", "show", "recipes/demo", "--json"]).expect_code(0);
    let whole: Value = serde_json::from_str(&show.stdout).unwrap();
    assert_eq!(json_schema::refused(&schema, &whole), [""; 0]);
    let mut undescribed = Vec::new();
    let definitions = schema["definitions"].as_object().unwrap();
    for (name, definition) in definitions.iter().chain([(&String::new(), &schema)]) {
        let alternatives = definition["anyOf"].as_array().into_iter().flatten();
        for mapping in std::iter::once(definition).chain(alternatives) {
            for (key, property) in mapping["properties"].as_object().into_iter().flatten() {
                let described = property["description"].as_str().is_some_and(|text| !text.contains("[`"));
                if !described && property["const"].is_null() {
                    undescribed.push(format!("{name}.{key}"));
                }
            }
        }
    }
    assert_eq!(undescribed, [""; 0]);
}

/// Returns whether a path is one of a pattern of `docs/FORMATS.md`, in which words in capitals stand for others.
fn fits(pattern: &str, path: &str) -> bool {
    let allowed = |word: &str, c: char| match word {
        "NNNNN" => c.is_ascii_digit(),
        "RUN" => c.is_ascii_alphanumeric(),
        "KEY" => true,
        _ => c != '/',
    };
    for word in ["NNNNN", "SPLIT", "RUN", "ID", "KEY"] {
        if let Some(rest) = pattern.strip_prefix(word) {
            let longest = path.find(|c| !allowed(word, c)).unwrap_or(path.len());
            return (1..=longest).filter(|end| path.is_char_boundary(*end)).any(|end| fits(rest, &path[end..]));
        }
    }
    match (pattern.chars().next(), path.chars().next()) {
        (Some(expected), Some(found)) if expected == found => {
            fits(&pattern[expected.len_utf8()..], &path[found.len_utf8()..])
        }
        (expected, found) => expected.is_none() && found.is_none(),
    }
}

/// The cells of a row of a Markdown table, without their backticks.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().trim_matches('`')).collect()
}

/// An Arrow type as the page names it.
fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary => "bytes".to_owned(),
        DataType::List(item) | DataType::LargeList(item) => format!("list<{}>", type_name(item.data_type())),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn every_file_and_column_of_an_experiment_is_in_the_page_of_formats() {
    let page = fs::read_to_string(repository().join("docs/FORMATS.md")).unwrap();
    let patterns: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).map(|line| cells(line)[0]).collect();
    let mini = Mini::new();
    // One row is rejected: its transcript is gone.
    let text = fs::read_to_string(mini.path("data/text")).unwrap();
    fs::write(mini.path("data/text"), text.split_once('\n').unwrap().1).unwrap();
    let settings = ["max_rejected=0.5", "train.sample_every=4", "train.wandb.project=mini", "train.ema_decay=0.9"];
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    mini.run(&settings).expect_code(0);
    let mut missing = Vec::new();
    let files: Vec<String> = mini.tree().0.into_keys().map(|path| path.to_string_lossy().into_owned()).collect();
    for path in &files {
        let of_any_stage = path.split_once('/').map(|(_, rest)| format!("0-prep/{rest}")).unwrap_or_default();
        let common = ["0-prep/stage.json", "0-prep/receipts/", "0-prep/rejected.parquet"];
        let named = if common.iter().any(|name| of_any_stage.starts_with(name)) { &of_any_stage } else { path };
        if !patterns.iter().any(|pattern| fits(pattern, named)) {
            missing.push(path);
        }
    }
    assert_eq!(missing, Vec::<&String>::new(), "not in docs/FORMATS.md");
    let mut compared = 0;
    for section in page.split("\n### `").skip(1) {
        let (name, rest) = section.split_once('`').unwrap();
        let path = files.iter().find(|path| fits(name, path)).unwrap_or_else(|| panic!("no file is {name}"));
        let rows = rest.lines().skip_while(|line| !line.starts_with("| column")).skip(2);
        let told: Vec<(String, String)> = rows
            .take_while(|line| line.starts_with('|'))
            .map(|line| (cells(line)[0].to_owned(), cells(line)[1].to_owned()))
            .collect();
        let batch = &parquet::read(&mini.exp(path))[0];
        let fields = batch.schema();
        let found: Vec<(String, String)> =
            fields.fields().iter().map(|field| (field.name().clone(), type_name(field.data_type()))).collect();
        assert_eq!(told, found, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 6);
}

#[test]
fn every_kind_of_error_is_explained() {
    let page = fs::read_to_string(repository().join("docs/ERRORS.md")).unwrap();
    let mut explained: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let mut kinds = flowmill_runner::RunError::KINDS.to_vec();
    // Of starting several processes, which happens before a run.
    kinds.push("processes");
    kinds.sort_unstable();
    explained.sort_unstable();
    assert_eq!(explained, kinds);
}
