//! Relative paths in a base recipe: they start from the folder of its own file, wherever the recipe above is.

use std::path::Path;

use super::node::{Content, Node, Scalar};
use crate::StagePaths;

/// Converts the relative paths of a tree, whose file is in `folder`, so that they start from the same folder as
/// `folder` itself. `stages` are the names of the sections with the keys that hold paths.
pub(crate) fn rebase(root: &mut Node, folder: &Path, stages: &[(&str, StagePaths)]) {
    if folder.as_os_str().is_empty() {
        return;
    }
    for (section, paths) in stages {
        for key in &paths.keys {
            let steps: Vec<&str> = std::iter::once(*section).chain(key.split('.')).collect();
            each(root, &steps, &mut |node: &mut Node| prefix(node, folder, &paths.words));
        }
    }
}

/// Visits the values at the end of `steps`: keys, `[]` for each item of a list, `*` for each entry of a mapping.
fn each(node: &mut Node, steps: &[&str], act: &mut impl FnMut(&mut Node)) {
    let Some((step, rest)) = steps.split_first() else { return act(node) };
    match &mut node.content {
        Content::Scalar { .. } => {}
        Content::List(items) if *step == "[]" => items.iter_mut().for_each(|item| each(item, rest, act)),
        Content::List(_) => {}
        Content::Map(entries) => {
            let wanted = entries.iter_mut().filter(|entry| *step == "*" || entry.key == *step);
            wanted.for_each(|entry| each(&mut entry.node, rest, act));
        }
    }
}

/// Prefixes a relative path with `folder`. A value that is not text, or is a word that names no file, is kept.
fn prefix(node: &mut Node, folder: &Path, words: &[&str]) {
    let Some(Scalar::Text(path)) = node.scalar() else { return };
    if path.is_empty() || words.contains(&path) || Path::new(path).is_absolute() {
        return;
    }
    let raw = folder.join(path).to_string_lossy().into_owned();
    node.content = Content::Scalar { raw, quoted: true };
}
