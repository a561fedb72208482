//! One file or several: the public recipes write one per split, and a recipe may say which is whose.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Files relative to the recipe's folder, written as one path, as a list of them, or as a mapping from splits to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(Vec<(Option<String>, PathBuf)>);

impl Files {
    /// Returns true if no file is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The files, in the recipe's order.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(_, file)| file.as_path())
    }

    /// The splits that the recipe gives files, in its order; empty when it names none.
    pub fn splits(&self) -> Vec<&str> {
        self.0.iter().filter_map(|(split, _)| split.as_deref()).collect()
    }

    /// The files below a folder.
    pub fn below(&self, root: &Path) -> Vec<PathBuf> {
        self.iter().map(|file| root.join(file)).collect()
    }
}

/// "a.pt and b.pt".
impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.iter().map(|file| file.display().to_string()).collect();
        f.write_str(&names.join(" and "))
    }
}

impl Serialize for Files {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.iter().any(|(split, _)| split.is_some()) {
            return serializer.collect_map(self.0.iter().map(|(split, file)| (split.as_deref().unwrap_or(""), file)));
        }
        match self.0.as_slice() {
            [(_, one)] => one.serialize(serializer),
            several => serializer.collect_seq(several.iter().map(|(_, file)| file)),
        }
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathOrList)
    }
}

impl JsonSchema for Files {
    fn schema_name() -> Cow<'static, str> {
        "Files".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Files, relative to the folder of the recipe.",
            "anyOf": [
                { "type": "string", "description": "One file." },
                { "type": "array", "items": { "type": "string" }, "description": "Several files." },
                { "type": "object", "additionalProperties": { "type": "string" }, "description": "A file for each split." },
                { "type": "null", "description": "No file." },
            ],
        })
    }
}

struct PathOrList;

impl<'de> Visitor<'de> for PathOrList {
    type Value = Files;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, a list of paths, or a mapping from splits to paths")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<Files, E> {
        Ok(Files(vec![(None, path.into())]))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Files, E> {
        Ok(Files::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Files, A::Error> {
        let mut files = Vec::new();
        while let Some(file) = seq.next_element::<PathBuf>()? {
            files.push((None, file));
        }
        Ok(Files(files))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Files, A::Error> {
        let mut files = Vec::new();
        while let Some((split, file)) = map.next_entry::<String, PathBuf>()? {
            files.push((Some(split), file));
        }
        Ok(Files(files))
    }
}
