//! Mapping from a file's names to a model's: training scripts put prefixes before all names (`module.`, `ema_model.`) and wrappers
//! into them (`_orig_mod`). A removal is accepted only if every name of the model is found, with its shape.

use super::{Archive, TensorView};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// Modules that PyTorch wraps around others, anywhere in a model.
const WRAPPERS: [&str; 5] =
    ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];
/// Number of prefixes that a message shows.
const SHOWN: usize = 5;

/// Changes that turned a file's names into a model's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    /// The prefix that was removed; may be empty.
    pub prefix: String,
    /// The wrappers that were removed.
    pub wrappers: Vec<&'static str>,
}

impl fmt::Display for Naming {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |name: &str| format!("`{}`", name.escape_debug().take(80).collect::<String>());
        let mut parts = Vec::new();
        if !self.prefix.is_empty() {
            parts.push(format!("the prefix {}", quoted(&self.prefix)));
        }
        if !self.wrappers.is_empty() {
            let wrappers: Vec<String> = self.wrappers.iter().map(|wrapper| quoted(&format!("{wrapper}."))).collect();
            parts.push(format!("{} inside of names", wrappers.join(" and ")));
        }
        write!(formatter, "without {}", parts.join(" and "))
    }
}

/// Reason why a file's names cannot be mapped to a model's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// Several sets of tensors, at different places in the file, match the whole model.
    #[error("it holds the whole model {} times: {}", .0.len(), listed(.0))]
    Ambiguous(Vec<String>),
}

/// Formats prefixes for a message.
fn listed(prefixes: &[String]) -> String {
    let told = |prefix: &String| match prefix.as_str() {
        "" => "without a prefix".to_owned(),
        prefix => format!("under the prefix `{}`", prefix.escape_debug().take(80).collect::<String>()),
    };
    prefixes.iter().take(SHOWN).map(told).collect::<Vec<_>>().join(", ")
}

/// One spelling of the names of a file's tensors.
struct Spelling {
    names: Vec<String>,
    wrappers: Vec<&'static str>,
}

impl Archive<'_> {
    /// Renames the tensors to the names in a model with these names and shapes, if one prefix matches all of the
    /// model's names by name and shape. If none does but all names of the file have a common prefix, that is removed if more names
    /// fit without it. Returns the changes, if any; tensors outside of the prefix are moved to those left out.
    ///
    /// # Errors
    /// When several prefixes match all names; nothing is changed then.
    pub fn fit_names(&mut self, model: &BTreeMap<String, Vec<usize>>) -> Result<Option<Naming>, NamingError> {
        for spelling in self.spellings(model) {
            let explaining = self.explaining(&spelling, model);
            match explaining.as_slice() {
                [] => {}
                [prefix] => return Ok(self.apply(&spelling, prefix)),
                several => return Err(NamingError::Ambiguous(several.to_vec())),
            }
        }
        let mut best: Option<(usize, Spelling, String)> = None;
        let unchanged = self.spellings(model).first().map_or(0, |raw| self.matched(raw, "", model));
        for spelling in self.spellings(model) {
            for prefix in self.common_prefixes(&spelling) {
                let matched = self.matched(&spelling, &prefix, model);
                if matched > best.as_ref().map_or(unchanged, |(most, ..)| *most) {
                    let (names, wrappers) = (spelling.names.clone(), spelling.wrappers.clone());
                    best = Some((matched, Spelling { names, wrappers }, prefix));
                }
            }
        }
        Ok(best.and_then(|(_, spelling, prefix)| self.apply(&spelling, &prefix)))
    }

    /// Returns the names as they are, and without wrappers if they stay distinct. A wrapper that the model itself has is kept.
    fn spellings(&self, model: &BTreeMap<String, Vec<usize>>) -> Vec<Spelling> {
        let raw: Vec<String> = self.tensors.iter().map(|(name, _)| name.clone()).collect();
        let foreign = |wrapper: &&str| !model.keys().any(|name| name.split('.').any(|part| part == *wrapper));
        let wrappers: Vec<&'static str> = WRAPPERS.into_iter().filter(foreign).collect();
        let mut removed = HashSet::new();
        let mut without = |name: &String| {
            let kept = name.split('.').filter(|part| match wrappers.iter().find(|wrapper| *wrapper == part) {
                Some(wrapper) => {
                    removed.insert(*wrapper);
                    false
                }
                None => true,
            });
            kept.collect::<Vec<_>>().join(".")
        };
        let names: Vec<String> = raw.iter().map(&mut without).collect();
        let distinct = names.iter().collect::<HashSet<_>>().len() == names.len();
        let wrappers: Vec<&'static str> = wrappers.into_iter().filter(|wrapper| removed.contains(wrapper)).collect();
        let mut spellings = vec![Spelling { names: raw, wrappers: Vec::new() }];
        if distinct && !wrappers.is_empty() {
            spellings.push(Spelling { names, wrappers });
        }
        spellings
    }

    /// Returns the prefixes that match every name of the model, with its shape. Of several that lead to the same tensors of the file,
    /// only the first.
    fn explaining(&self, spelling: &Spelling, model: &BTreeMap<String, Vec<usize>>) -> Vec<String> {
        // Any prefix must match each single name; the longest name has the fewest matches.
        let Some(longest) = model.keys().max_by_key(|name| name.len()) else { return Vec::new() };
        let places: HashMap<&str, usize> =
            spelling.names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
        let mut found: Vec<(String, Vec<&TensorView>)> = Vec::new();
        for name in &spelling.names {
            let Some(prefix) = name.strip_suffix(longest.as_str()) else { continue };
            if !prefix.is_empty() && !prefix.ends_with('.') {
                continue;
            }
            let view = |(name, shape): (&String, &Vec<usize>)| {
                let (_, view) = &self.tensors[*places.get(format!("{prefix}{name}").as_str())?];
                (view.shape() == shape.as_slice()).then_some(view)
            };
            if let Some(views) = model.iter().map(view).collect::<Option<Vec<_>>>()
                && !found.iter().any(|(_, known)| *known == views)
            {
                found.push((prefix.to_owned(), views));
            }
        }
        found.into_iter().map(|(prefix, _)| prefix).collect()
    }

    /// Returns the common beginnings of all names, up to each of their dots, and the empty prefix. One-element counters next to the
    /// weights may have other names.
    fn common_prefixes(&self, spelling: &Spelling) -> Vec<String> {
        let weights = spelling.names.iter().zip(&self.tensors).filter(|(_, (_, view))| !view.shape().is_empty());
        let mut common: Option<&str> = None;
        for (name, _) in weights {
            let shared = common.map_or(name.as_str(), |common| {
                let same = common.char_indices().zip(name.chars()).take_while(|((_, one), other)| one == other);
                let end = same.last().map_or(0, |((at, last), _)| at + last.len_utf8());
                &common[..end]
            });
            common = Some(shared);
        }
        let common = common.unwrap_or("");
        let dots = common.char_indices().filter(|(_, character)| *character == '.');
        std::iter::once(String::new()).chain(dots.map(|(at, _)| common[..=at].to_owned())).collect()
    }

    /// Returns the number of the model's names that occur with a prefix, with their shapes.
    fn matched(&self, spelling: &Spelling, prefix: &str, model: &BTreeMap<String, Vec<usize>>) -> usize {
        let fits = |(name, (_, view)): &(&String, &(String, TensorView))| {
            let shape = name.strip_prefix(prefix).and_then(|name| model.get(name));
            shape.is_some_and(|shape| shape.as_slice() == view.shape())
        };
        spelling.names.iter().zip(&self.tensors).filter(fits).count()
    }

    /// Renames the tensors by a spelling and a prefix; `None` if that changes nothing.
    fn apply(&mut self, spelling: &Spelling, prefix: &str) -> Option<Naming> {
        if prefix.is_empty() && spelling.wrappers.is_empty() {
            return None;
        }
        let mut names = spelling.names.iter();
        self.rename(|_| {
            let short = names.next().and_then(|name| name.strip_prefix(prefix)).filter(|name| !name.is_empty());
            short.map(str::to_owned)
        });
        Some(Naming { prefix: prefix.to_owned(), wrappers: spelling.wrappers.clone() })
    }
}
