//! The tree of a recipe: every value with the place where it was written.

use std::fmt;
use std::sync::Arc;

/// The place where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file as the user named it, or `--set KEY=VALUE`.
    pub origin: Arc<str>,
    /// The line, from 1; 0 if the origin has no lines.
    pub line: usize,
}

impl Place {
    pub fn new(origin: &Arc<str>, line: usize) -> Self {
        Self { origin: Arc::clone(origin), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.origin),
            line => write!(f, "{}:{line}", self.origin),
        }
    }
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub content: Content,
    pub place: Place,
}

/// The content of a value.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A scalar as written. Quoted ones are always text.
    Scalar { raw: String, quoted: bool },
    /// The items in order.
    List(Vec<Node>),
    /// The entries in the order they were written, keys unique.
    Map(Vec<Entry>),
}

/// A key of a mapping with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

/// A scalar as YAML 1.2's core schema reads it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(&'a str),
}

impl Node {
    /// An empty mapping.
    pub fn empty_map(place: Place) -> Self {
        Self { content: Content::Map(Vec::new()), place }
    }

    /// Returns the entries if this is a mapping.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.content {
            Content::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// Returns the value of a key if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// Returns an item if this is a list that has it.
    pub fn item(&self, at: usize) -> Option<&Node> {
        match &self.content {
            Content::List(items) => items.get(at),
            _ => None,
        }
    }

    /// Returns whether the value is empty.
    pub fn is_null(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Null))
    }

    /// Returns the typed scalar if this is one.
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.content {
            Content::Scalar { raw, quoted: true } => Some(Scalar::Text(raw)),
            Content::Scalar { raw, quoted: false } => Some(resolve(raw)),
            _ => None,
        }
    }

    /// Returns the depth of the tree; 1 for a scalar.
    pub fn depth(&self) -> usize {
        match &self.content {
            Content::Scalar { .. } => 1,
            Content::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Content::Map(entries) => 1 + entries.iter().map(|e| e.node.depth()).max().unwrap_or(0),
        }
    }

    /// Returns the number of values in the tree.
    pub fn size(&self) -> usize {
        match &self.content {
            Content::Scalar { .. } => 1,
            Content::List(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Content::Map(entries) => 1 + entries.iter().map(|e| e.node.size()).sum::<usize>(),
        }
    }

    /// Describes the value for messages: `the text "abc"`, `a list`.
    pub fn describe(&self) -> String {
        match (&self.content, self.scalar()) {
            (Content::List(_), _) => "a list".to_owned(),
            (Content::Map(_), _) => "a mapping".to_owned(),
            (_, None | Some(Scalar::Null)) => "nothing".to_owned(),
            (Content::Scalar { raw, .. }, Some(Scalar::Text(_))) => {
                format!("the text \"{}\"", shorten(raw))
            }
            (Content::Scalar { raw, .. }, Some(Scalar::Bool(_))) => raw.clone(),
            (Content::Scalar { raw, .. }, Some(_)) => format!("the number {}", shorten(raw)),
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn resolve(raw: &str) -> Scalar<'_> {
    match raw {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    resolve_integer(raw).or_else(|| resolve_float(raw)).unwrap_or(Scalar::Text(raw))
}

fn resolve_integer(raw: &str) -> Option<Scalar<'_>> {
    let based = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(Scalar::Unsigned);
    match raw.get(..2) {
        Some("0x") if !raw[2..].starts_with('+') => return based(&raw[2..], 16),
        Some("0o") if !raw[2..].starts_with('+') => return based(&raw[2..], 8),
        _ => {}
    }
    let digits = raw.strip_prefix(['+', '-']).unwrap_or(raw);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if raw.starts_with('-') {
        return raw.parse().ok().map(Scalar::Negative);
    }
    digits.parse().ok().map(Scalar::Unsigned)
}

fn resolve_float(raw: &str) -> Option<Scalar<'_>> {
    let unsigned = raw.strip_prefix(['+', '-']).unwrap_or(raw);
    let sign = if raw.starts_with('-') { -1.0 } else { 1.0 };
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(Scalar::Float(sign * f64::INFINITY));
    }
    let mantissa = unsigned.split(['e', 'E']).next().unwrap_or_default();
    let has_digit = mantissa.bytes().any(|b| b.is_ascii_digit());
    let plain = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if !has_digit || !plain {
        return None;
    }
    unsigned.parse::<f64>().ok().map(|value| Scalar::Float(sign * value))
}
