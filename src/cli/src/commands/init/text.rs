//! The text of a recipe for data: that of a published setting with another `prep.data`. Comments stay.

use std::path::Path;

use flowmill_stage_prep::Survey;
use serde_json::json;

/// The smallest number of rows that a held-out split should have.
const LEAST_HELD_OUT: f64 = 6.0;
/// The share of rows that is held out in each of two splits, and the largest share in small corpora.
const SHARES: [f64; 2] = [0.05, 0.2];

/// A recipe that is made.
pub struct Made<'a> {
    /// The experiment's name.
    pub name: &'a str,
    /// The path of the data.
    pub data: &'a str,
    /// The survey of the data.
    pub survey: &'a Survey,
}

/// A key of a mapping with its comments and its value, as text.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    key: String,
    text: String,
}

/// Returns a name for experiments from the name of a folder or file.
pub fn name_of(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let name = whole.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let name: String = name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "data".to_owned() } else { name.to_owned() }
}

impl Made<'_> {
    /// Returns the recipe; `bases` are the texts that it is made from, those that the others are laid over first.
    pub fn recipe(&self, bases: &[&str]) -> String {
        let mut blocks: Vec<Block> = Vec::new();
        for block in bases.iter().flat_map(|text| blocks_of(text, 0)) {
            match blocks.iter_mut().find(|own| own.key == block.key) {
                Some(own) => *own = block,
                None => blocks.push(block),
            }
        }
        let scores = |block: &Block| block.key == "export" && block.text.contains("split: test");
        let needs_test = blocks.iter().any(scores);
        let prep = blocks.iter().find(|block| block.key == "prep").map(|block| inner(&block.text)).unwrap_or_default();
        let others = blocks.iter().filter(|block| !["base", "name", "seed", "prep"].contains(&block.key.as_str()));
        let mut text = format!(
            "# Written by `flowmill init`. {} rows of {}: {}.\nname: {}\nseed: 2026\n\n{}",
            self.survey.rows,
            self.data,
            self.survey.what,
            self.name,
            self.prep(&prep, needs_test)
        );
        // Sections come in the order of the stages.
        let order = ["embed", "tokens", "pack", "train", "average", "export"];
        let place = |block: &&Block| order.iter().position(|key| *key == block.key).unwrap_or(order.len());
        let mut others: Vec<&Block> = others.collect();
        others.sort_by_key(place);
        for block in others {
            text.push('\n');
            text += block.text.trim_end();
            text.push('\n');
        }
        text
    }

    /// Returns the section `prep`; `base` is its text in the base.
    fn prep(&self, base: &str, needs_test: bool) -> String {
        let format = self.survey.format.name();
        let path = |below: &str| match below {
            "" => self.data.to_owned(),
            below => format!("{}/{below}", self.data.trim_end_matches('/')),
        };
        let source = |(below, split): &(String, Option<String>)| {
            let split = split.as_ref().map(|split| format!(", split: {split}")).unwrap_or_default();
            format!("    - {{dir: {}, format: {format}{split}}}\n", json!(path(below)))
        };
        let mut text = "prep:\n  data:\n".to_owned();
        text.extend(self.survey.sources.iter().map(source));
        let own = ["data", "split", "format", "media", "references", "columns"];
        for block in blocks_of(base, 2).into_iter().filter(|block| !own.contains(&block.key.as_str())) {
            text += block.text.trim_end();
            text.push('\n');
        }
        let base_split = blocks_of(base, 2).into_iter().find(|block| block.key == "split");
        text + &self.split(base_split.as_ref(), needs_test)
    }

    /// Returns the key `prep.split`: the splits of the data if they can be trained and validated on, and shares otherwise.
    fn split(&self, base: Option<&Block>, needs_test: bool) -> String {
        let has = |name: &str| self.survey.splits.get(name).is_some_and(|rows| *rows > 0);
        let is_complete = has("train") && has("dev") && (!needs_test || has("test"));
        if self.survey.sources.iter().all(|(_, split)| split.is_some()) && is_complete {
            return "  split: {by: given}\n".to_owned();
        }
        let all: u64 = self.survey.splits.values().sum();
        if is_complete && all == self.survey.rows {
            return "  # The data bring these splits.\n  split: {by: corpus}\n".to_owned();
        }
        let share = (LEAST_HELD_OUT / self.survey.rows.max(1) as f64).clamp(SHARES[0], SHARES[1]);
        let unit = base.is_some_and(|block| block.text.contains("unit: speaker")) && self.survey.groups >= 10;
        let unit = if unit { ", unit: speaker" } else { "" };
        let share = (share * 100.0).ceil() / 100.0;
        format!("  split: {{by: fraction{unit}, fractions: {{dev: {share}, test: {share}}}}}\n")
    }
}

/// Returns the text of a section below its key. A value in braces has none.
fn inner(section: &str) -> String {
    let after = section.lines().skip_while(|line| line.trim_start().starts_with('#') || line.trim().is_empty()).skip(1);
    after.map(|line| format!("{line}\n")).collect()
}

/// Cuts a mapping into its keys, each with the comments before it. Keys begin at column `indent`.
fn blocks_of(text: &str, indent: usize) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut comments = String::new();
    for line in text.lines() {
        let at = line.len() - line.trim_start().len();
        let content = line.trim();
        if content.is_empty() {
            // Comments before an empty line are about the whole file.
            comments.clear();
        } else if content.starts_with('#') && at == indent {
            comments += &format!("{line}\n");
        } else if at == indent && !content.starts_with('-') {
            let key = content.split(':').next().unwrap_or_default().to_owned();
            blocks.push(Block { key, text: format!("{}{line}\n", std::mem::take(&mut comments)) });
        } else if let Some(block) = blocks.last_mut() {
            block.text += &std::mem::take(&mut comments);
            block.text += &format!("{line}\n");
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_comments() {
        let text = "# The file.\n\nname: a\n# About b.\nb:\n  # Inside.\n  c: 1\n  d: [1,\n    2]\n\ne: {f: 1}\n";
        let blocks = blocks_of(text, 0);
        let keys: Vec<&str> = blocks.iter().map(|block| block.key.as_str()).collect();
        assert_eq!(keys, ["name", "b", "e"]);
        assert_eq!(blocks[1].text, "# About b.\nb:\n  # Inside.\n  c: 1\n  d: [1,\n    2]\n");
        let inside: Vec<String> = blocks_of(&inner(&blocks[1].text), 2).into_iter().map(|block| block.key).collect();
        assert_eq!(inside, ["c", "d"]);
    }
}
