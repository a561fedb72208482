//! One file or several: the public recipes write one per split.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Files relative to the recipe's folder, written as one path or as a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(Vec<PathBuf>);

impl Files {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The files, in the recipe's order.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
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
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathOrList)
    }
}

struct PathOrList;

impl<'de> Visitor<'de> for PathOrList {
    type Value = Files;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path or a list of paths")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<Files, E> {
        Ok(Files(vec![path.into()]))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Files, E> {
        Ok(Files::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Files, A::Error> {
        let mut files = Vec::new();
        while let Some(file) = seq.next_element::<PathBuf>()? {
            files.push(file);
        }
        Ok(Files(files))
    }
}
