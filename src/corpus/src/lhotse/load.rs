//! Recordings by their ids, and the lines of manifests.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use super::Problem;
use crate::lines::TextFile;
use crate::manifest::batches;
use crate::samples::stem;
use crate::source::TarMember;
use crate::tar::{MemberKind, Members};
use crate::{CorpusError, fields};

/// Calls `each` with the number and the value, or its problem, of every line that is not blank.
pub(super) fn for_lines(path: &Path, each: &mut dyn FnMut(u32, Result<Value, Problem>)) -> Result<(), CorpusError> {
    let mut batch = |before: u32, bytes: Vec<u8>| {
        let file = TextFile::from_bytes("", path.to_path_buf(), bytes);
        let parse = |line: &crate::lines::Line| {
            let value = file.text(line).and_then(|text| fields::parse(text.as_bytes()));
            (before.saturating_add(line.number), value)
        };
        let parsed: Vec<(u32, Result<Value, Problem>)> = file.lines().par_iter().map(parse).collect();
        parsed.into_iter().for_each(|(number, value)| each(number, value));
    };
    if path.extension().is_some_and(|extension| extension == "gz") {
        for part in batches(path)? {
            let (before, bytes) = part?;
            batch(before, bytes);
        }
    } else {
        batch(0, std::fs::read(path).map_err(|e| CorpusError::io("read", path, e))?);
    }
    Ok(())
}

/// Reads recordings by their ids. A bad one is left out: its supervisions are rejected.
pub(super) fn recordings(path: &Path) -> Result<HashMap<String, Recording>, CorpusError> {
    let mut found = HashMap::new();
    for_lines(path, &mut |_, value| {
        if let Ok(value) = value
            && let (Some(id), recording) = (text(&value, "id"), Recording::of(&value))
        {
            found.insert(id, recording);
        }
    })?;
    Ok(found)
}

/// Returns the members of a tar file of shar by their names without extensions.
pub(super) fn members(root: &Path, tar: &str) -> Result<HashMap<String, String>, CorpusError> {
    let full = root.join(tar);
    let io = |e| CorpusError::io("read", &full, e);
    let file = File::open(&full).map_err(io)?;
    let mut found = HashMap::new();
    for member in Members::of(&file).map_err(io)? {
        let member = member.map_err(|damage| {
            CorpusError::structure(&full, format!("is damaged at byte {}: {}", damage.at, damage.problem))
        })?;
        let Ok(name) = std::str::from_utf8(&member.name) else { continue };
        // The manifest of each recording lies next to it.
        if member.kind == MemberKind::File && !name.ends_with(".json") {
            let wav = TarMember { archive: tar, name, offset: member.offset, length: member.size }.to_string();
            found.insert(stem(name).to_owned(), wav);
        }
    }
    Ok(found)
}

/// A recording.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    /// The path, or why there is none.
    pub(super) path: Result<String, Problem>,
    pub(super) duration: Option<f64>,
}

impl Recording {
    pub(super) fn of(value: &Value) -> Self {
        let sources = value.get("sources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let path = match sources {
            [source] => match (text(source, "type").as_deref(), text(source, "source")) {
                (Some("file" | "url"), Some(path)) => Ok(path),
                (Some("shar"), _) => Err("is of shar, without the tar file of its recordings".into()),
                (kind, _) => Err(format!("has a recording of type {}, not a file", kind.unwrap_or("none"))),
            },
            [] => Err("has a recording without sources".into()),
            _ => Err("has a recording of several files; export it with one".into()),
        };
        Self { path, duration: value.get("duration").and_then(Value::as_f64) }
    }
}

/// Returns a field that is a text, or a number as text.
pub(super) fn text(value: &Value, name: &str) -> Option<String> {
    match value.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
