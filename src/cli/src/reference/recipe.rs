//! The reference of every key of a recipe, from its JSON schema.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde_json::{Map, Value};

use super::{cell, code};

const INTRODUCTION: &str = "\
<!-- Made by `flowmill reference recipe > docs/RECIPE.md`. Change the documentation of the settings in the code instead. -->

# The recipe

A recipe is a YAML file. Every key has a default, and `flowmill recipe show RECIPE` prints all of them for a recipe. An unknown key is an error \
that names the nearest known one. Relative paths start from the folder of the file that contains them, those of `--set` from the folder of the \
recipe. `base: FILE` makes a recipe extend another one: mappings are merged key by key, everything else is replaced, and so is an extractor of \
another `kind` and a model of another `family`. `--set train.optim.lr=1e-4` changes one value from the command line.

`flowmill recipe schema > recipe.schema.json` writes the schema for editors, which then complete and check keys. With the YAML language server \
(VS Code, Neovim, Emacs and others) a recipe names the schema in its first line:

```yaml
# yaml-language-server: $schema=recipe.schema.json
```

A *counterpart* is the name of the same setting in other trainers: CosyVoice, Step-Audio, RWKVTTS's SFM scripts, FLOAT, VALL-E, \
PMG, Hugging Face, PyTorch. A default of *none* is `null`, and a key whose default comes from other keys says so.
";

/// The keys that determine which other keys a mapping has, and the headings of the alternatives.
const TAGS: [(&str, &str); 2] = [("kind", "Extractors"), ("family", "Models")];

/// Returns the reference of all keys, as Markdown, from the JSON schema of a recipe.
pub fn recipe(schema: &Value) -> String {
    let mut page = Page { schema, text: INTRODUCTION.to_owned(), tagged: BTreeMap::new(), told: HashMap::new() };
    let properties = schema["properties"].as_object();
    let (sections, own): (Vec<_>, Vec<_>) =
        properties.into_iter().flatten().partition(|(_, property)| page.fields(property).is_some());
    page.heading("## Keys of the recipe itself", "");
    page.table(own.into_iter(), "the recipe");
    for (name, section) in sections {
        page.heading(&format!("## {}", code(name)), description(page.resolve(section)));
        let fields = page.fields(section).into_iter().flatten();
        page.table(fields, name);
    }
    for (tag, title) in TAGS {
        let Some(union) = page.tagged.get(tag).copied() else { continue };
        page.heading(&format!("## {title}"), description(union));
        for alternative in alternatives(union) {
            let name = alternative["properties"][tag]["const"].as_str().unwrap_or_default();
            page.heading(&format!("### {}", code(&format!("{tag}: {name}"))), description(alternative));
            let fields = page.fields(alternative).into_iter().flatten().filter(|(key, _)| *key != tag);
            page.table(fields, &format!("{tag}: {name}"));
        }
    }
    page.text
}

struct Page<'a> {
    schema: &'a Value,
    text: String,
    /// Mappings of several kinds, by the key that distinguishes them; each has its own heading.
    tagged: BTreeMap<&'static str, &'a Value>,
    /// The place where the keys of a mapping were already printed, by these keys.
    told: HashMap<String, String>,
}

impl<'a> Page<'a> {
    fn heading(&mut self, line: &str, text: &str) {
        self.text += &format!("\n{line}\n");
        if !text.is_empty() {
            self.text += &format!("\n{}\n", text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }

    fn table(&mut self, properties: impl Iterator<Item = (&'a String, &'a Value)>, place: &str) {
        self.text += "\n| key | type | default | meaning |\n|---|---|---|---|\n";
        self.rows(properties, "", place);
    }

    fn rows(&mut self, properties: impl Iterator<Item = (&'a String, &'a Value)>, prefix: &str, place: &str) {
        for (name, property) in properties {
            let key = format!("{prefix}{name}");
            let mut meaning = cell(described(property, self.resolve(property)));
            meaning += &self.choices(property);
            let nested = self.nested(property);
            let told = nested.and_then(|fields| self.told.get(&as_text(fields)).cloned());
            if let Some(told) = &told {
                let _ = write!(meaning, " Keys: as in {told}.");
            }
            let default = match property.get("default") {
                None | Some(Value::Null) => "none".to_owned(),
                Some(default) => code(&plain(default)),
            };
            let row = format!("| {} | {} | {default} | {meaning} |\n", code(&key), self.kind(property));
            self.text += &row;
            let (Some(fields), None) = (nested, told) else { continue };
            self.told.insert(as_text(fields), format!("{} of {}", code(&key), code(place)));
            let list = if self.is_list(property) { "[]." } else { "." };
            self.rows(fields.iter(), &format!("{key}{list}"), place);
        }
    }

    /// Returns the schema that a reference points to.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let reference = |schema: &Value| schema.get("$ref")?.as_str()?.strip_prefix('#').map(str::to_owned);
        let inner = match &schema["allOf"] {
            Value::Array(all) if all.len() == 1 => &all[0],
            _ => schema,
        };
        match reference(inner) {
            Some(pointer) => self.schema.pointer(&pointer).unwrap_or(inner),
            None => inner,
        }
    }

    /// Returns the keys of a mapping that has some of its own.
    fn fields(&self, schema: &'a Value) -> Option<&'a Map<String, Value>> {
        self.resolve(schema)["properties"].as_object()
    }

    /// Returns the keys below a property: of the mapping that it is, may be, or is a list of.
    fn nested(&mut self, property: &'a Value) -> Option<&'a Map<String, Value>> {
        let resolved = self.resolve(property);
        for (tag, _) in TAGS {
            if alternatives(resolved).any(|alternative| alternative["properties"].get(tag).is_some()) {
                self.tagged.entry(tag).or_insert(resolved);
                return None;
            }
        }
        let of_list = |schema: &'a Value| schema.get("items").and_then(|items| self.fields(items));
        let candidates = std::iter::once(resolved).chain(alternatives(resolved));
        let found = candidates.filter_map(|schema| self.fields(schema).or_else(|| of_list(schema))).next();
        // `{epochs: N}` is shown in the type.
        found.filter(|fields| fields.len() > 1)
    }

    fn is_list(&self, property: &'a Value) -> bool {
        let resolved = self.resolve(property);
        std::iter::once(resolved).chain(alternatives(resolved)).any(|schema| schema.get("items").is_some())
    }

    /// Lists the choices of an enumeration, as the end of its description.
    fn choices(&self, property: &'a Value) -> String {
        let resolved = self.resolve(property);
        let inner =
            alternatives(resolved).find(|schema| schema.get("$ref").is_some()).map(|schema| self.resolve(schema));
        let mut text = String::new();
        for choice in alternatives(resolved).chain(inner.into_iter().flat_map(alternatives)) {
            if let Some(name) = choice.get("const").and_then(Value::as_str) {
                let _ = write!(text, "<br>{}: {}", code(name), cell(description(choice)));
            } else if choice.get("pattern").is_some() {
                let _ = write!(text, "<br>{}", cell(description(choice)));
            }
        }
        text
    }

    /// Describes the type.
    fn kind(&self, property: &'a Value) -> String {
        let resolved = self.resolve(property);
        let mut kinds: Vec<String> = Vec::new();
        let mut add = |kind: String| {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        };
        for alternative in alternatives(resolved) {
            add(self.kind(alternative));
        }
        let names = match &resolved["type"] {
            Value::String(name) => vec![name.as_str()],
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        for name in &names {
            match *name {
                _ if resolved.get("const").is_some() || resolved.get("pattern").is_some() => add("choice".to_owned()),
                // Numbers are accepted as text, so they are not listed next to it; the same holds for a mapping
                // without keys.
                "number" | "boolean" if names.contains(&"string") => {}
                "null" if names.contains(&"object") => {}
                "string" => add("text".to_owned()),
                "integer" => add("whole number".to_owned()),
                "boolean" => add("true or false".to_owned()),
                "array" => {
                    let items = resolved.get("items").map(|items| self.kind(items)).unwrap_or_default();
                    let length = resolved.get("maxItems").map(|length| format!("{length} ")).unwrap_or_default();
                    add(format!("list of {length}{items}"));
                }
                "object" => match self.fields(resolved) {
                    Some(fields) if fields.len() == 1 => {
                        add(code(&format!("{{{}: …}}", fields.keys().next().map_or("", String::as_str))));
                    }
                    _ => add("mapping".to_owned()),
                },
                "null" => add("`null`".to_owned()),
                other => add(other.to_owned()),
            }
        }
        if resolved.get("const").is_some() && names.is_empty() {
            kinds.push("choice".to_owned());
        }
        kinds.join(" or ")
    }
}

fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["anyOf"].as_array().into_iter().flatten()
}

fn description(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

/// Returns a property's own description, or else that of its type.
fn described<'v>(property: &'v Value, resolved: &'v Value) -> &'v str {
    match description(property) {
        "" => description(resolved),
        own => own,
    }
}

fn as_text(fields: &Map<String, Value>) -> String {
    fields
        .iter()
        .filter(|(key, _)| TAGS.iter().all(|(tag, _)| key != tag))
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect()
}

/// Formats a default like a recipe.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {}", plain(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}
