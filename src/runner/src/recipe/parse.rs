//! Parser from YAML text to a tree, with bounded memory for any text.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::RecipeError;
use super::node::{Content, Entry, Node, Place};

/// The largest nesting depth. It also bounds every recursion over a tree.
const MAX_DEPTH: usize = 64;
/// The largest number of values, with aliases expanded.
const MAX_VALUES: usize = 100_000;

/// Parses one YAML document; an empty one is an empty mapping.
pub(crate) fn parse(text: &str, origin: &Arc<str>) -> Result<Node, RecipeError> {
    let mut builder = Builder::new(origin);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let place = Place::new(origin, e.marker().line());
            RecipeError::new(place, format!("not valid YAML: {}", e.info()))
        })?;
        builder.take(event, span.start.line())?;
    }
    let root = builder.root.unwrap_or_else(|| Node::empty_map(Place::new(origin, 1)));
    if root.is_null() {
        return Ok(Node::empty_map(root.place));
    }
    Ok(root)
}

/// A collection whose end has not been read yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value, in a mapping.
    key: Option<(String, Place)>,
    /// The keys of a mapping so far, with their lines.
    seen: HashMap<String, usize>,
}

struct Builder<'a> {
    origin: &'a Arc<str>,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    values: usize,
    documents: usize,
}

impl<'a> Builder<'a> {
    fn new(origin: &'a Arc<str>) -> Self {
        Self { origin, open: Vec::new(), root: None, anchors: HashMap::new(), values: 0, documents: 0 }
    }

    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), RecipeError> {
        let place = Place::new(self.origin, line);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.start_document(place),
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = tag.is_some_and(|tag| tag.suffix == "str");
                let quoted = style != ScalarStyle::Plain || text_tag;
                let node = Node { content: Content::Scalar { raw: text.into_owned(), quoted }, place };
                self.complete(node, anchor)
            }
            Event::SequenceStart(anchor, _) => self.start(Content::List(Vec::new()), anchor, place),
            Event::MappingStart(anchor, _) => self.start(Content::Map(Vec::new()), anchor, place),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, &place),
        }
    }

    fn start_document(&mut self, place: Place) -> Result<(), RecipeError> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(RecipeError::new(place, "a second document starts here; a recipe is one document"));
        }
        Ok(())
    }

    fn start(&mut self, content: Content, anchor: usize, place: Place) -> Result<(), RecipeError> {
        self.refuse_as_key(&place)?;
        self.check_depth(1, &place)?;
        self.open.push(Open { node: Node { content, place }, anchor, key: None, seen: HashMap::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), RecipeError> {
        match self.open.pop() {
            Some(open) => self.complete(open.node, open.anchor),
            None => Ok(()),
        }
    }

    fn alias(&mut self, anchor: usize, place: &Place) -> Result<(), RecipeError> {
        self.refuse_as_key(place)?;
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(RecipeError::new(place.clone(), "an alias to an anchor that is not complete at this point"));
        };
        self.check_depth(node.depth(), place)?;
        // The value itself is counted when it is attached.
        let inner = node.size() - 1;
        if self.values + inner > MAX_VALUES {
            return Err(too_many_values(place.clone()));
        }
        let node = node.clone();
        self.values += inner;
        self.attach(node)
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), RecipeError> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
            self.values += node.size();
        }
        self.attach(node)
    }

    /// Puts a complete value in its place: into the open collection, as a key, or as the root.
    fn attach(&mut self, node: Node) -> Result<(), RecipeError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(too_many_values(node.place));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.node.content {
            Content::List(items) => items.push(node),
            Content::Map(entries) => match open.key.take() {
                Some((key, key_place)) => entries.push(Entry { key, key_place, node }),
                None => open.key = Some(new_key(&mut open.seen, node)?),
            },
            // Only collections are opened.
            Content::Scalar { .. } => {}
        }
        Ok(())
    }

    fn refuse_as_key(&self, place: &Place) -> Result<(), RecipeError> {
        match self.open.last() {
            Some(Open { node: Node { content: Content::Map(_), .. }, key: None, .. }) => {
                Err(RecipeError::new(place.clone(), "a key must be plain text"))
            }
            _ => Ok(()),
        }
    }

    fn check_depth(&self, more: usize, place: &Place) -> Result<(), RecipeError> {
        if self.open.len() + more > MAX_DEPTH {
            return Err(RecipeError::new(place.clone(), format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }
}

fn too_many_values(place: Place) -> RecipeError {
    RecipeError::new(place, format!("more than {MAX_VALUES} values with aliases expanded"))
}

fn new_key(seen: &mut HashMap<String, usize>, node: Node) -> Result<(String, Place), RecipeError> {
    let Content::Scalar { raw, .. } = node.content else {
        return Err(RecipeError::new(node.place, "a key must be plain text"));
    };
    if let Some(line) = seen.insert(raw.clone(), node.place.line) {
        return Err(RecipeError::new(node.place, format!("`{raw}` is already given on line {line}")));
    }
    Ok((raw, node.place))
}
