//! Reading recipes: valid ones, and the error messages for invalid ones.

mod toy;

use std::collections::BTreeMap;

use flowmill_runner::{Experiment, Recipe, RecipeError, check, keys_of, show, to_yaml};
use toy::{LearnConfig, OptimName, ReadConfig, Toy};

/// The error of a recipe with this text.
fn error_of(text: &str, set: &[&str]) -> RecipeError {
    let toy = Toy::new(1);
    toy.write("recipe.yaml", text);
    toy.recipe(set).and_then(|recipe| check(&toy.stages(), &recipe)).unwrap_err()
}

/// Checks the line, the key, and what the message names.
#[track_caller]
fn expect(error: &RecipeError, line: usize, key: &str, values: &[&str]) {
    assert_eq!((error.line(), error.key()), (Some(line), key), "{error}");
    let text = error.to_string();
    assert!(values.iter().all(|value| text.contains(value)), "{values:?}: {text}");
}

#[test]
fn every_mistake_is_told_with_file_line_key_and_what_is_known() {
    let cases: [(&str, usize, &str, &[&str]); 21] = [
        (
            "name: toy\nlearn:\n  optim:\n    learning_rte: 1\n",
            4,
            "learn.optim.learning_rte",
            &["did you mean \"learning_rate\"?", "known: learning_rate, name"],
        ),
        ("learn:\n  steps: many\n", 2, "learn.steps", &["\"many\""]),
        ("learn:\n  steps: -1\n", 2, "learn.steps", &["-1"]),
        ("learn:\n  steps: 1.5\n", 2, "learn.steps", &["1.5"]),
        ("learn:\n  optim: fast\n", 2, "learn.optim", &["mapping", "\"fast\""]),
        (
            "learn:\n  optim:\n    name: adam\n",
            3,
            "learn.optim.name",
            &["\"adam\"", "did you mean \"adamw\"?", "known: adamw, sgd"],
        ),
        ("read:\n  upper: yes\n", 2, "read.upper", &["true", "false", "\"yes\""]),
        ("read:\n  dir:\n", 2, "read.dir", &["text"]),
        ("read:\n  dir: nowhere\n", 2, "read.dir", &["nowhere"]),
        (
            "lern:\n  steps: 1\n",
            1,
            "lern",
            &["did you mean \"learn\"?", "known: name, seed, max_rejected, base, slurm, read, join, learn"],
        ),
        ("learn:\n  steps: 1\n  steps: 2\n", 3, "", &["`steps`", "line 2"]),
        ("seed: -1\n", 1, "seed", &["-1"]),
        ("max_rejected: 5\n", 1, "max_rejected", &["0", "1", "5"]),
        ("name: ../up\n", 1, "name", &["`../up`"]),
        ("- a\n- b\n", 1, "", &["list"]),
        ("learn:\n  optim:\n    learning_rate: .inf\n", 3, "learn.optim.learning_rate", &["finite"]),
        ("a: *b\n", 1, "", &["YAML", "anchor"]),
        ("name: a\n---\nname: b\n", 2, "", &["document"]),
        ("base: none.yaml\n", 1, "base", &["none.yaml"]),
        ("base: recipe.yaml\n", 1, "base", &["recipe.yaml"]),
        ("{a: 1}: 2\n", 1, "", &["key"]),
    ];
    for (text, line, key, values) in cases {
        let error = error_of(text, &[]);
        expect(&error, line, key, values);
        assert!(error.to_string().contains(&format!("recipe.yaml:{line}: ")), "{error}");
    }
}

#[test]
fn broken_yaml_is_told_with_its_line() {
    for text in ["name: [a\n", "name: a\n\tseed: 1\n", "name: \"a\n", "a: b: c\n", "? ? ?\n", "\u{0}\n", "%\n"] {
        let error = error_of(text, &[]);
        assert!(error.line().is_some(), "{text:?}: {error}");
    }
}

#[test]
fn a_recipe_that_is_not_there_or_no_text_is_told() {
    let toy = Toy::new(1);
    let error = Recipe::load(&toy.path("none"), &[], &[]).unwrap_err();
    assert_eq!((error.line(), error.key()), (None, ""));
    assert!(error.to_string().contains(&toy.path("none").display().to_string()), "{error}");
    std::fs::write(toy.path("recipe.yaml"), b"name: a\nseed: \xff\n").unwrap();
    expect(&toy.recipe(&[]).unwrap_err(), 2, "", &["recipe.yaml", "UTF-8"]);
    std::fs::write(toy.path("recipe.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(toy.recipe(&[]).unwrap_err().to_string().contains("1048576 bytes"));
}

#[test]
fn hostile_recipes_are_refused_quickly() {
    let bomb: String = std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned())
        .chain((1..12).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "))))
        .collect();
    let texts = [
        bomb,
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(100_000),
        "a: &a [*a]\n".to_owned(),
        (0..200_000).map(|n| format!("{n}:\n")).collect(),
        "? ".repeat(300_000),
        "&a ".repeat(300_000),
    ];
    for text in texts {
        let started = std::time::Instant::now();
        let error = error_of(&text, &[]).to_string();
        assert!(error.contains("recipe.yaml:"), "{error}");
        assert!(started.elapsed().as_secs_f64() < 2.0, "{}", &text[..20]);
    }
}

#[test]
fn defaults_are_filled_in_and_shown() {
    let toy = Toy::new(1);
    toy.write("recipe.yaml", "learn: {steps: 3}\nread:\n");
    let recipe = toy.recipe(&[]).unwrap();
    let learn: LearnConfig = recipe.section("learn").unwrap();
    assert_eq!((learn.steps, learn.optim.name as u8), (3, OptimName::Adamw as u8));
    assert_eq!(recipe.section::<ReadConfig>("read").unwrap().dir, "data");
    assert!(recipe.gives("learn.steps") && !recipe.gives("learn.optim.name") && !recipe.gives("join"));
    assert_eq!((recipe.seed(), recipe.max_rejected()), (0, 0.05));
    let shown = to_yaml(&show(&toy.stages(), &recipe).unwrap());
    let name = toy.root.path().file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(recipe.name(), name.trim_start_matches('.'));
    let expected = "seed: 0\nmax_rejected: 0.05\nread:\n  dir: data\n  upper: false\n  min_length: 1\n  per_part: 1\njoin:\n  separator: null\nlearn:\n  steps: 3\n  optim:\n    learning_rate: 0.001\n    name: adamw\n";
    assert_eq!(shown.split_once('\n').unwrap().1, expected);
    toy.write("again.yaml", &shown);
    let again = Recipe::load(&toy.path("again.yaml"), &[], &toy::SECTIONS).unwrap();
    assert_eq!(to_yaml(&show(&toy.stages(), &again).unwrap()), shown, "what is shown is a recipe");
}

#[test]
fn a_base_is_extended_key_by_key_and_set_comes_last() {
    let toy = Toy::new(1);
    toy.write(
        "base/recipe.yaml",
        "name: base\nseed: 5\nlearn:\n  steps: 9\n  optim: {learning_rate: 0.1, name: sgd}\n",
    );
    toy.write("recipe.yaml", "base: base\nname: toy\nlearn:\n  optim:\n    learning_rate: 0.2\n");
    let recipe = toy.recipe(&["learn.steps=4", "read.dir=other", "join.separator=\"=\""]).unwrap();
    let learn: LearnConfig = recipe.section("learn").unwrap();
    assert_eq!((recipe.name(), recipe.seed(), learn.steps), ("toy", 5, 4));
    assert_eq!((learn.optim.learning_rate, learn.optim.name as u8), (0.2, OptimName::Sgd as u8));
    assert_eq!(Experiment::of_recipe(&recipe).dir(), toy.exp());
    toy.write("base/recipe.yaml", "learn:\n  optim: {nam: sgd}\n");
    let recipe = toy.recipe(&[]).unwrap();
    let error = recipe.section::<LearnConfig>("learn").unwrap_err();
    expect(&error, 2, "learn.optim.nam", &["base/recipe.yaml:2: ", "did you mean \"name\"?"]);
}

#[test]
fn mistakes_in_set_name_the_option() {
    let cases: [(&str, &str, &[&str]); 7] = [
        ("learn.steps=x", "learn.steps", &["\"x\""]),
        ("learn.steps=null", "learn.steps", &[]),
        ("learn.stps=1", "learn.stps", &["did you mean \"steps\"?", "known: steps, optim"]),
        ("learn", "", &["KEY=VALUE"]),
        ("=1", "", &["``"]),
        ("name.x=1", "name.x", &["`x`", "\"toy\""]),
        ("learn.steps=[1", "learn.steps", &["YAML"]),
    ];
    for (set, key, values) in cases {
        let error = error_of("name: toy\n", &[set]);
        assert_eq!((error.line(), error.key()), (None, key), "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("--set {set}: ")), "{text}");
        assert!(values.iter().all(|value| text.contains(value)), "{values:?}: {text}");
    }
}

#[test]
fn text_keeps_its_writing_and_numbers_may_be_written_as_people_do() {
    let toy = Toy::new(1);
    toy.write(
        "recipe.yaml",
        "\u{feff}read: {dir: 1089}\r\nlearn:\r\n  steps: 1e3\r\n  optim: {learning_rate: 1e-4}\r\n",
    );
    let recipe = toy.recipe(&[]).unwrap();
    assert_eq!(recipe.section::<ReadConfig>("read").unwrap().dir, "1089");
    let learn: LearnConfig = recipe.section("learn").unwrap();
    assert_eq!((learn.steps, learn.optim.learning_rate), (1000, 1e-4));
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Tagged {
    model: Option<Model>,
    sources: Vec<Source>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(tag = "family")]
enum Model {
    #[serde(rename = "flow")]
    Flow(#[allow(dead_code)] Flow),
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Flow {
    width: u32,
    encoder: Encoder,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Encoder {
    layers: u32,
    rate: f64,
}

#[derive(Debug, serde::Deserialize)]
struct Source {
    #[serde(rename = "dir")]
    _dir: String,
}

#[test]
fn mistakes_inside_a_choice_by_tag_are_told_with_their_own_line() {
    let cases: [(&str, usize, &str, &[&str]); 7] = [
        (
            "    encoder:\n      layrs: 2\n",
            4,
            "read.model.encoder.layrs",
            &["did you mean \"layers\"?", "known: layers, rate"],
        ),
        (
            "    encoder: {rate: 1}\n    widht: 3\n",
            4,
            "read.model.widht",
            &["did you mean \"width\"?", "known: width, encoder"],
        ),
        ("    encoder:\n      rate: fast\n", 4, "read.model.encoder.rate", &["\"fast\""]),
        ("    encoder: 3\n", 3, "read.model.encoder", &["mapping", "3"]),
        ("    encoder: {rate: a, layers: b}\n", 3, "read.model.encoder.rate", &["\"a\""]),
        ("    family: flaw\n", 3, "read.model.family", &["\"flaw\"", "did you mean \"flow\"?", "known: flow"]),
        ("    width: 4294967296\n", 3, "read.model.width", &["4294967295", "4294967296"]),
    ];
    for (text, line, key, values) in cases {
        let family = if text.contains("family") { "" } else { "    family: flow\n" };
        let toy = Toy::new(1);
        toy.write("recipe.yaml", &format!("read:\n  model:\n{text}{family}"));
        let error = toy.recipe(&[]).unwrap().section::<Tagged>("read").unwrap_err();
        expect(&error, line, key, values);
    }
}

#[test]
fn mistakes_inside_lists_are_told_with_their_index() {
    let toy = Toy::new(1);
    toy.write("recipe.yaml", "read:\n  sources:\n    - dir: a\n    - dri: b\n");
    let recipe = toy.recipe(&[]).unwrap();
    let error = recipe.section::<Tagged>("read").unwrap_err();
    expect(&error, 4, "read.sources[1].dri", &["did you mean \"dir\"?", "known: dir"]);
    let error = recipe.error("read.sources[1].dir", "there is no folder b");
    expect(&error, 4, "read.sources[1].dir", &["recipe.yaml:4: read.sources[1].dir: there is no folder b"]);
    toy.write("recipe.yaml", "read:\n  sources:\n    - {}\n");
    let error = toy.recipe(&[]).unwrap().section::<Tagged>("read").unwrap_err();
    expect(&error, 3, "read.sources[0]", &["`dir`"]);
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Pace {
    rate: f64,
    steps: u32,
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Place {
    folder: String,
}

#[test]
fn several_structs_share_a_mapping_and_know_each_others_keys() {
    let known = [keys_of::<Pace>(), keys_of::<Place>()].concat();
    assert_eq!(known, ["rate", "steps", "folder"]);
    let toy = Toy::new(1);
    let read = |text: &str| {
        toy.write("recipe.yaml", text);
        let recipe = toy.recipe(&[])?;
        Ok((recipe.shared::<Pace>("read", &known)?, recipe.shared::<Place>("read", &known)?))
    };
    let pace = Pace { rate: 0.5, steps: 0 };
    let both = read("read:\n  folder: a\n  rate: 0.5\n").unwrap();
    assert_eq!(both, (pace, Place { folder: "a".to_owned() }));
    assert_eq!(read("read:\n").unwrap(), Default::default());
    for (text, line, key, value) in [
        ("read:\n  rate: 1\n  foldr: a\n", 3, "read.foldr", "did you mean \"folder\"?"),
        ("read:\n  folder: [a]\n  rate: 1\n", 2, "read.folder", "text"),
        ("read:\n  folder: a\n  steps: -1\n", 3, "read.steps", "-1"),
    ] {
        let error: RecipeError = read(text).unwrap_err();
        expect(&error, line, key, &[value]);
    }
}

/// Settings one of which is converted, so that its error names no place within the mapping.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Checked {
    network: Option<Network>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(try_from = "Settings")]
struct Network;

#[derive(Debug, serde::Deserialize)]
struct Settings {
    #[serde(rename = "extractor")]
    _extractor: ByKind,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    depth: u32,
}

impl TryFrom<Settings> for Network {
    type Error = String;

    fn try_from(settings: Settings) -> Result<Self, String> {
        match settings {
            Settings { width: 9.., .. } => Err("too wide".to_owned()),
            Settings { depth: 9.., .. } => Err("too deep".to_owned()),
            _ => Ok(Self),
        }
    }
}

/// Fails with another error without its kind, like extractors do.
#[derive(Debug, serde::Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
struct ByKind;

impl TryFrom<BTreeMap<String, String>> for ByKind {
    type Error = &'static str;

    fn try_from(settings: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        if settings.contains_key("kind") { Ok(Self) } else { Err("an extractor begins with its `kind`") }
    }
}

#[test]
fn a_tag_is_not_blamed_for_what_is_wrong_elsewhere() {
    let cases = [
        ("    extractor: {kind: a}\n    width: 10\n", 4),
        ("    width: 10\n    extractor:\n      kind: a\n", 3),
        // Two mistakes.
        ("    extractor: {kind: a}\n    depth: 10\n    width: 10\n", 5),
    ];
    for (text, line) in cases {
        let toy = Toy::new(1);
        toy.write("recipe.yaml", &format!("read:\n  network:\n{text}"));
        let error = toy.recipe(&[]).unwrap().section::<Checked>("read").unwrap_err();
        expect(&error, line, "read.network.width", &["too wide"]);
    }
}
