//! Merging one tree over another: `base:` and `--set`.

use std::sync::Arc;

use super::RecipeError;
use super::node::{Content, Entry, Node, Place};
use super::parse::parse;

/// Keys whose value determines which other keys a mapping may have.
pub(super) const DECIDING: [&str; 2] = ["kind", "family"];

/// Merges `above` over `below`: mappings key by key; everything else is replaced. A mapping of another kind is also
/// replaced, because the settings of one extractor or model mean nothing to another.
pub(crate) fn merge(below: Node, above: Node) -> Node {
    if DECIDING.iter().any(|key| differ(&below, &above, key)) {
        return above;
    }
    match (below.content, above.content) {
        (Content::Map(mut entries), Content::Map(upper)) => {
            for entry in upper {
                match entries.iter().position(|e| e.key == entry.key) {
                    Some(at) => {
                        let old = entries.remove(at);
                        let node = merge(old.node, entry.node);
                        entries.insert(at, Entry { key: entry.key, key_place: entry.key_place, node });
                    }
                    None => entries.push(entry),
                }
            }
            Node { content: Content::Map(entries), place: above.place }
        }
        (_, content) => Node { content, place: above.place },
    }
}

/// Returns whether both mappings have a key, with different scalars.
fn differ(below: &Node, above: &Node, key: &str) -> bool {
    let scalar = |node: &Node| match &node.get(key)?.node.content {
        Content::Scalar { raw, .. } => Some(raw.clone()),
        _ => None,
    };
    matches!((scalar(below), scalar(above)), (Some(below), Some(above)) if below != above)
}

/// Applies one `--set a.b.c=VALUE`; the value is YAML, so `[1, 2]` and `{a: 1}` work too.
pub(crate) fn set(root: &mut Node, assignment: &str) -> Result<(), RecipeError> {
    let origin: Arc<str> = format!("--set {assignment}").into();
    let place = Place::new(&origin, 0);
    let fail = |key: &str, message: String| RecipeError::at(Some(place.clone()), key, message);
    let Some((path, value)) = assignment.split_once('=') else {
        return Err(fail("", "write it as KEY=VALUE, such as train.optim.lr=1e-4".to_owned()));
    };
    let path = path.trim();
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err(fail("", format!("`{path}` is not a key; write it as train.optim.lr")));
    }
    let plain = Node { content: Content::Scalar { raw: value.trim().to_owned(), quoted: false }, place: place.clone() };
    let mut value = match value.trim() {
        "" => Node { content: Content::Scalar { raw: String::new(), quoted: true }, place: place.clone() },
        // A comment or an empty text would otherwise be read as an empty recipe.
        _ if plain.is_null() => plain,
        value => parse(value, &origin).map_err(|e| fail(path, e.message))?,
    };
    forget_lines(&mut value, &place);
    let slot = descend(root, path, &place).map_err(|message| fail(path, message))?;
    *slot = value;
    Ok(())
}

/// Returns the node at a dotted path, creating missing mappings on the way.
fn descend<'a>(root: &'a mut Node, path: &str, place: &Place) -> Result<&'a mut Node, String> {
    let mut node = root;
    for key in path.split('.') {
        if node.is_null() {
            *node = Node::empty_map(place.clone());
        }
        let found = node.describe();
        node = match &mut node.content {
            Content::Map(entries) => entry_or_new(entries, key, place),
            Content::List(items) => {
                let length = items.len();
                let index = key.parse::<usize>().ok().filter(|&index| index < length);
                let index = index.ok_or_else(|| format!("`{key}` is not an index into a list of {length}"))?;
                &mut items[index]
            }
            Content::Scalar { .. } => return Err(format!("the parent of `{key}` is {found}, not a mapping")),
        };
    }
    Ok(node)
}

fn entry_or_new<'a>(entries: &'a mut Vec<Entry>, key: &str, place: &Place) -> &'a mut Node {
    let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        let nothing = Node { content: Content::Scalar { raw: String::new(), quoted: false }, place: place.clone() };
        entries.push(Entry { key: key.to_owned(), key_place: place.clone(), node: nothing });
        entries.len() - 1
    });
    entries[at].key_place = place.clone();
    &mut entries[at].node
}

/// Removes the line numbers of text that was typed on a command line.
fn forget_lines(node: &mut Node, place: &Place) {
    node.place = place.clone();
    match &mut node.content {
        Content::Scalar { .. } => {}
        Content::List(items) => items.iter_mut().for_each(|item| forget_lines(item, place)),
        Content::Map(entries) => {
            for entry in entries {
                entry.key_place = place.clone();
                forget_lines(&mut entry.node, place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        parse(text, &Arc::from("test")).unwrap()
    }

    /// The keys of the mapping `x`.
    fn keys(below: &str, above: &str) -> Vec<String> {
        let merged = merge(node(below), node(above));
        let entries = merged.get("x").unwrap().node.entries().unwrap();
        entries.iter().map(|entry| entry.key.clone()).collect()
    }

    #[test]
    fn mappings_of_another_kind_are_replaced_and_others_merged() {
        assert_eq!(keys("x: {kind: a, k: 1}", "x: {kind: a, l: 2}"), ["kind", "k", "l"]);
        assert_eq!(keys("x: {kind: a, k: 1}", "x: {l: 2}"), ["kind", "k", "l"]);
        assert_eq!(keys("x: {kind: a, k: 1}", "x: {kind: b, l: 2}"), ["kind", "l"]);
        assert_eq!(keys("x: {family: a, k: 1}", "x: {family: b}"), ["family"]);
    }
}
