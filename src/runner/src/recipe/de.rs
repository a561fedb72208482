//! Deserialization of a recipe's tree to typed configuration. Every error has the key and the line it was written on.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::RecipeError;
use super::node::{Content, Entry, Node, Place, Scalar};
use super::{pinpoint, suggest};

/// Reads `node`, which is at the dotted `path`, as a `T`.
pub(crate) fn from_node<T: de::DeserializeOwned>(node: &Node, path: &str) -> Result<T, RecipeError> {
    from_shared(node, path, &[])
}

/// Reads like [`from_node`], from a mapping some of whose keys belong to other structs.
pub(super) fn from_shared<T: de::DeserializeOwned>(node: &Node, path: &str, others: &[&str]) -> Result<T, RecipeError> {
    read(node, path, others).map_err(|error: Error| {
        let (place, found) = error.found.clone().unwrap_or_else(|| (node.place.clone(), path.to_owned()));
        let exact = if error.vague { pinpoint::find::<T>(node, path, others, &found, &error) } else { None };
        let (place, found) = exact.unwrap_or((place, found));
        RecipeError::at(Some(place), found, error.message)
    })
}

pub(super) fn read<T: de::DeserializeOwned>(node: &Node, path: &str, others: &[&str]) -> Result<T, Error> {
    T::deserialize(Reader { node, path: path.to_owned(), others })
}

/// A deserialization error. serde's errors have no place; the innermost reader that sees one adds its own.
#[derive(Debug)]
pub(crate) struct Error {
    found: Option<(Place, String)>,
    pub(super) message: String,
    unknown: Option<String>,
    /// True if the place is only that of a mapping or list that contains the mistake.
    vague: bool,
    /// True if something is missing rather than wrong.
    pub(super) missing: bool,
}

impl Error {
    fn at(place: &Place, path: &str, message: String) -> Self {
        Self { found: Some((place.clone(), path.to_owned())), message, unknown: None, vague: false, missing: false }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self { found: None, message: message.to_string(), unknown: None, vague: false, missing: false }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("expected {}, found {}", plain_words(&expected.to_string()), describe(found)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = format!("unknown key{}", suggest::hint(field, expected));
        Self { found: None, message, unknown: Some(field.to_owned()), vague: false, missing: false }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format!("unknown choice \"{variant}\"{}", suggest::hint(variant, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: true, ..Self::custom(format!("`{field}` is missing")) }
    }
}

/// Describes the value that was found.
fn describe(found: de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Bool(value) => value.to_string(),
        de::Unexpected::Unsigned(value) => format!("the number {value}"),
        de::Unexpected::Signed(value) => format!("the number {value}"),
        de::Unexpected::Float(value) => format!("the number {value}"),
        de::Unexpected::Str(value) => format!("the text \"{value}\""),
        de::Unexpected::Unit => "nothing".to_owned(),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// Translates Rust's names of types into the words of a recipe.
fn plain_words(expected: &str) -> String {
    match expected {
        "u8" => format!("a whole number from 0 to {}", u8::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" => format!("a whole number from {} to {}", i8::MIN, i8::MAX),
        "i16" => format!("a whole number from {} to {}", i16::MIN, i16::MAX),
        "i32" => format!("a whole number from {} to {}", i32::MIN, i32::MAX),
        "i64" | "isize" => "a whole number".to_owned(),
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => {
            "a whole number, 1 or more".to_owned()
        }
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" | "string" | "a borrowed string" | "path string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other if other.contains("enum ") => "a choice".to_owned(),
        other => other.to_owned(),
    }
}

struct Reader<'a> {
    node: &'a Node,
    path: String,
    /// Keys of the mapping that belong to other structs.
    others: &'a [&'a str],
}

impl<'a> Reader<'a> {
    /// Creates a reader of a value that belongs to one type alone.
    fn whole(node: &'a Node, path: String) -> Self {
        Self { node, path, others: &[] }
    }

    fn child(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Adds place and path to an error that has none.
    fn locate(&self, error: Error) -> Error {
        if error.found.is_some() {
            return error;
        }
        let unknown = error.unknown.as_deref().and_then(|key| self.node.get(key));
        let vague = unknown.is_none() && !error.missing && !matches!(self.node.content, Content::Scalar { .. });
        let found = match unknown {
            Some(entry) => (entry.key_place.clone(), self.child(&entry.key)),
            None => (self.node.place.clone(), self.path.clone()),
        };
        Error { found: Some(found), vague, ..error }
    }

    fn expected(&self, what: &str) -> Error {
        let message = format!("expected {what}, found {}", self.node.describe());
        Error::at(&self.node.place, &self.path, message)
    }

    fn refuse_unknown(&self, entries: &[Entry], fields: &[&str]) -> Result<(), Error> {
        let known = [fields, self.others].concat();
        match entries.iter().find(|entry| !known.contains(&entry.key.as_str())) {
            None => Ok(()),
            Some(entry) => {
                let message = format!("unknown key{}", suggest::hint(&entry.key, &known));
                Err(Error::at(&entry.key_place, &self.child(&entry.key), message))
            }
        }
    }

    fn visit_entries<'de, V: Visitor<'de>>(self, entries: &'a [Entry], visitor: V) -> Result<V::Value, Error> {
        self.visit_own(entries, None, visitor)
    }

    /// Visits the entries with one of these keys.
    fn visit_own<'de, V: Visitor<'de>>(
        self,
        entries: &'a [Entry],
        own: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let access = Entries { parent: &self, entries: entries.iter(), own, value: None };
        visitor.visit_map(access).map_err(|e| self.locate(e))
    }

    fn visit_scalar<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let visited = match self.node.scalar() {
            None | Some(Scalar::Null) => visitor.visit_unit(),
            Some(Scalar::Bool(value)) => visitor.visit_bool(value),
            Some(Scalar::Unsigned(value)) => visitor.visit_u64(value),
            Some(Scalar::Negative(value)) => visitor.visit_i64(value),
            Some(Scalar::Float(value)) if value.is_finite() => visitor.visit_f64(value),
            Some(Scalar::Float(_)) => Err(de::Error::custom("a number must be finite")),
            Some(Scalar::Text(value)) => visitor.visit_str(value),
        };
        visited.map_err(|e| self.locate(e))
    }

    fn number<'de, V: Visitor<'de>>(self, what: &str, visitor: V) -> Result<V::Value, Error> {
        match self.node.scalar() {
            Some(Scalar::Unsigned(_) | Scalar::Negative(_) | Scalar::Float(_)) => {}
            _ => return Err(self.expected(what)),
        }
        self.visit_scalar(visitor)
    }

    fn integer<'de, V: Visitor<'de>>(self, what: &str, visitor: V) -> Result<V::Value, Error> {
        match self.node.scalar() {
            Some(Scalar::Unsigned(_) | Scalar::Negative(_)) => self.visit_scalar(visitor),
            // 1e6 is a float in YAML and a whole number to people.
            Some(Scalar::Float(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
                let visited =
                    if value < 0.0 { visitor.visit_i64(value as i64) } else { visitor.visit_u64(value as u64) };
                visited.map_err(|e| self.locate(e))
            }
            _ => Err(self.expected(what)),
        }
    }
}

macro_rules! numbers {
    ($($method:ident: $how:ident $what:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> { self.$how($what, visitor) })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Error;

    numbers! {
        deserialize_u8: integer "a whole number, 0 or more";
        deserialize_u16: integer "a whole number, 0 or more";
        deserialize_u32: integer "a whole number, 0 or more";
        deserialize_u64: integer "a whole number, 0 or more";
        deserialize_i8: integer "a whole number";
        deserialize_i16: integer "a whole number";
        deserialize_i32: integer "a whole number";
        deserialize_i64: integer "a whole number";
        deserialize_f32: number "a number";
        deserialize_f64: number "a number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.content {
            Content::Scalar { .. } => self.visit_scalar(visitor),
            Content::List(_) => self.deserialize_seq(visitor),
            Content::Map(entries) => self.visit_entries(entries, visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.scalar() {
            Some(Scalar::Bool(_)) => self.visit_scalar(visitor),
            _ => Err(self.expected("true or false")),
        }
    }

    /// A number in place of text is taken as written: speakers have names like `1089`.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.content {
            Content::Scalar { raw, .. } if !self.node.is_null() => visitor.visit_str(raw).map_err(|e| self.locate(e)),
            _ => Err(self.expected("text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_unit() } else { Err(self.expected("nothing")) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Content::List(items) = &self.node.content else {
            return Err(self.expected("a list"));
        };
        let access = Items { parent: &self, items: items.iter(), next: 0 };
        visitor.visit_seq(access).map_err(|e| self.locate(e))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        match &self.node.content {
            Content::List(items) if items.len() == length => self.deserialize_seq(visitor),
            Content::List(items) => {
                let message = format!("expected a list of {length}, found one of {}", items.len());
                Err(Error::at(&self.node.place, &self.path, message))
            }
            _ => Err(self.expected(&format!("a list of {length}"))),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.content {
            Content::Map(entries) => self.visit_entries(entries, visitor),
            _ if self.node.is_null() => self.visit_entries(&[], visitor),
            _ => Err(self.expected("a mapping")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Content::Map(entries) = &self.node.content {
            self.refuse_unknown(entries, fields)?;
            return self.visit_own(entries, Some(fields), visitor);
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (name, place, value) = match &self.node.content {
            Content::Scalar { raw, .. } if !self.node.is_null() => (raw, &self.node.place, None),
            Content::Map(entries) => match entries.as_slice() {
                [entry] => (&entry.key, &entry.key_place, Some(&entry.node)),
                _ => return Err(self.expected(&format!("one of {}", variants.join(", ")))),
            },
            _ => return Err(self.expected(&format!("one of {}", variants.join(", ")))),
        };
        if !variants.contains(&name.as_str()) {
            let message = format!("unknown choice \"{name}\"{}", suggest::hint(name, variants));
            return Err(Error::at(place, &self.path, message));
        }
        let access = Choice { parent: &self, name, value };
        visitor.visit_enum(access).map_err(|e| self.locate(e))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit_struct }
}

struct Entries<'p, 'a> {
    parent: &'p Reader<'a>,
    entries: std::slice::Iter<'a, Entry>,
    /// The keys that are visited, if not all.
    own: Option<&'static [&'static str]>,
    value: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let own = self.own;
        let is_own = |entry: &&Entry| own.is_none_or(|own| own.contains(&entry.key.as_str()));
        let Some(entry) = self.entries.find(is_own) else {
            return Ok(None);
        };
        self.value = Some(entry);
        let key = key_node(entry);
        let key = Reader::whole(&key, self.parent.child(&entry.key));
        let located = seed.deserialize(key).map_err(|e| match &e.unknown {
            Some(_) => Error { found: Some((entry.key_place.clone(), self.parent.child(&entry.key))), ..e },
            None => e,
        });
        located.map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        value_of(seed, &Reader::whole(&entry.node, self.parent.child(&entry.key)))
    }
}

/// Reads a value. A type that is converted from another one after reading fails outside the reader; such an error
/// concerns the whole value.
fn value_of<'de, V: DeserializeSeed<'de>>(seed: V, reader: &Reader<'_>) -> Result<V::Value, Error> {
    seed.deserialize(Reader::whole(reader.node, reader.path.clone())).map_err(|error| reader.locate(error))
}

/// Returns a key as a value, so that maps may have numbers as keys.
fn key_node(entry: &Entry) -> Node {
    let content = Content::Scalar { raw: entry.key.clone(), quoted: false };
    Node { content, place: entry.key_place.clone() }
}

struct Items<'p, 'a> {
    parent: &'p Reader<'a>,
    items: std::slice::Iter<'a, Node>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.items.next() else {
            return Ok(None);
        };
        let path = format!("{}[{}]", self.parent.path, self.next);
        self.next += 1;
        value_of(seed, &Reader::whole(node, path)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// A choice, written `kind` or `kind: {…}`.
struct Choice<'p, 'a> {
    parent: &'p Reader<'a>,
    name: &'a str,
    value: Option<&'a Node>,
}

impl<'a> Choice<'_, 'a> {
    fn content(&self) -> Result<Reader<'a>, Error> {
        let Some(node) = self.value else {
            let message = format!("`{}` needs its settings: `{}: {{…}}`", self.name, self.name);
            return Err(de::Error::custom(message));
        };
        Ok(Reader::whole(node, self.parent.child(self.name)))
    }
}

impl<'de> EnumAccess<'de> for Choice<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.value {
            Some(node) if !node.is_null() => Err(de::Error::custom(format!("`{}` takes no settings", self.name))),
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        let empty = Node::empty_map(self.parent.node.place.clone());
        match self.value {
            Some(node) => seed.deserialize(Reader::whole(node, self.parent.child(self.name))),
            // All settings are left out: their defaults apply.
            None => seed.deserialize(Reader::whole(&empty, self.parent.child(self.name))),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self.content()?, length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let empty = Node::empty_map(self.parent.node.place.clone());
        let node = self.value.unwrap_or(&empty);
        let reader = Reader::whole(node, self.parent.child(self.name));
        de::Deserializer::deserialize_struct(reader, "", fields, visitor)
    }
}
