//! Search for the state dict in a value of `torch.save`.

use super::archive::Contents;
use super::{Parsed, PickleValue, Scalar};
use crate::fault::Fault;

/// Keys under which training scripts store the state dict, most specific first.
const KEYS: [&str; 6] = ["state_dict", "model_state_dict", "model", "module", "generator", "net"];
/// Largest nesting depth of such keys.
const DEEPEST: usize = 3;
/// Largest nesting depth of dicts with tensors if none has a usual key.
const DEEPEST_UNNAMED: usize = 3;
/// Number of keys that a message names.
const SHOWN: usize = 5;

type Item = (PickleValue, PickleValue);

/// Returns the tensors and scalars of a state dict: of the top-level dict, or of one under a usual key if that has at least as many
/// tensors (a loss next to a model is not a state dict); if neither has any, of the dicts inside it.
pub(super) fn find(value: PickleValue) -> Parsed<Contents> {
    let mut contents = Contents::default();
    search(value, &mut contents, 0)?;
    Ok(contents)
}

fn search(value: PickleValue, contents: &mut Contents, depth: usize) -> Parsed<()> {
    let mut items = match value {
        PickleValue::Dict(items) => items,
        PickleValue::Tensor(tensor) => {
            contents.tensors.push(("tensor".to_owned(), *tensor));
            return Ok(());
        }
        PickleValue::Unreadable(problem) => {
            return Err(Fault::unsupported(format!("it holds a tensor that has {problem}")));
        }
        PickleValue::Object(name) => {
            return Err(Fault::not_weights(format!(
                "it holds `{name}`, an object and not a dict of tensors; files are read, never executed. Of a model save the \
                 `state_dict()`, with torch.save"
            )));
        }
        other => return Err(Fault::not_weights(format!("it holds a {}, not a dict of tensors", other.summary()))),
    };
    let own = own_tensors(&items);
    if let Some((at, key, _)) = wrapped(&items, depth).filter(|(_, _, tensors)| *tensors >= own) {
        let (_, inner) = items.remove(at);
        let path = contents.entry.take().map_or(String::new(), |outer| format!("{outer}."));
        contents.entry = Some(format!("{path}{key}"));
        items.into_iter().for_each(|(name, value)| sort_beside(&name, value, contents));
        return search(inner, contents, depth + 1);
    }
    if own > 0 || items.is_empty() {
        return items.into_iter().try_for_each(|(name, value)| sort(&name, value, contents));
    }
    // Takes the nearest dicts with tensors, whatever their keys.
    match (1..=DEEPEST_UNNAMED).find(|level| items.iter().any(|(_, value)| holds_tensors(value, *level))) {
        Some(level) => flatten("", items, level, contents),
        None => Err(Fault::not_weights(without_tensors(&items))),
    }
}

fn own_tensors(items: &[Item]) -> usize {
    items.iter().filter(|(_, value)| is_tensor(value)).count()
}

fn is_tensor(value: &PickleValue) -> bool {
    matches!(value, PickleValue::Tensor(_) | PickleValue::Unreadable(_))
}

/// Returns whether it is a dict with tensors at this level below it.
fn holds_tensors(value: &PickleValue, level: usize) -> bool {
    let Some(items) = value.as_dict() else { return false };
    match level {
        1 => own_tensors(items) > 0,
        _ => items.iter().any(|(_, value)| holds_tensors(value, level - 1)),
    }
}

/// Returns the entry under a usual key with the most tensors: its position, its key, and the number of tensors. Among equal ones, the
/// most specific key.
fn wrapped(items: &[Item], depth: usize) -> Option<(usize, &'static str, usize)> {
    if depth == DEEPEST {
        return None;
    }
    let mut best: Option<(usize, &'static str, usize)> = None;
    for key in KEYS {
        let Some(at) = items.iter().position(|(name, value)| is_dict(name, value, key)) else { continue };
        let tensors = tensors_within(&items[at].1, depth + 1);
        if tensors > best.map_or(0, |(_, _, most)| most) {
            best = Some((at, key, tensors));
        }
    }
    best
}

/// Counts the tensors that a search in this dict would find.
fn tensors_within(value: &PickleValue, depth: usize) -> usize {
    let PickleValue::Dict(items) = value else { return 0 };
    let (own, inner) = (own_tensors(items), wrapped(items, depth).map_or(0, |(_, _, tensors)| tensors));
    if own.max(inner) > 0 {
        return own.max(inner);
    }
    items.iter().map(|(_, value)| if let PickleValue::Dict(items) = value { own_tensors(items) } else { 0 }).sum()
}

fn is_dict(name: &PickleValue, value: &PickleValue, key: &str) -> bool {
    name.as_text() == Some(key) && matches!(value, PickleValue::Dict(items) if !items.is_empty())
}

/// Sorts an entry next to the state dict; a tensor there is not a weight.
fn sort_beside(name: &PickleValue, value: PickleValue, contents: &mut Contents) {
    let name = entry_name(name);
    match scalar(&value) {
        Some(scalar) => contents.scalars.push((name, scalar)),
        None => contents.left_out.push((name, value.summary())),
    }
}

/// Takes the tensors of the dicts inside a dict, at this level below it, as `outer.inner`.
fn flatten(outer: &str, items: Vec<Item>, level: usize, contents: &mut Contents) -> Parsed<()> {
    for (name, value) in items {
        let full = PickleValue::Text(format!("{outer}{}", entry_name(&name)).into());
        match value {
            value @ PickleValue::Dict(_) if level > 0 && holds_tensors(&value, level) => {
                let PickleValue::Dict(inner) = value else { continue };
                flatten(&format!("{outer}{}.", entry_name(&name)), inner, level - 1, contents)?;
            }
            value if level == 0 => sort(&full, value, contents)?,
            other => sort_beside(&full, other, contents),
        }
    }
    Ok(())
}

/// Returns the name of an entry; if its key is not a name, a description.
fn entry_name(name: &PickleValue) -> String {
    match name {
        PickleValue::Text(name) => name.to_string(),
        PickleValue::Int(name) => name.to_string(),
        other => other.summary(),
    }
}

/// Sorts one entry of the state dict.
fn sort(name: &PickleValue, value: PickleValue, contents: &mut Contents) -> Parsed<()> {
    let named = matches!(name, PickleValue::Text(_) | PickleValue::Int(_));
    match value {
        value if is_tensor(&value) && !named => Err(format!("a {} as the name of a tensor", name.summary()).into()),
        PickleValue::Tensor(tensor) => {
            contents.tensors.push((entry_name(name), *tensor));
            Ok(())
        }
        PickleValue::Unreadable(problem) => {
            let shown: String = entry_name(name).escape_debug().take(200).collect();
            Err(Fault::unsupported(format!("tensor `{shown}` has {problem}")))
        }
        other => {
            sort_beside(name, other, contents);
            Ok(())
        }
    }
}

fn scalar(value: &PickleValue) -> Option<Scalar> {
    Some(match value {
        PickleValue::Bool(value) => Scalar::Bool(*value),
        PickleValue::Int(value) => Scalar::Int(*value),
        PickleValue::Float(value) => Scalar::Float(*value),
        PickleValue::Text(value) => Scalar::Text(value.to_string()),
        _ => return None,
    })
}

fn without_tensors(items: &[(PickleValue, PickleValue)]) -> String {
    let name = |name: &PickleValue| match name {
        PickleValue::Text(text) => format!("`{}`", text.escape_debug().take(60).collect::<String>()),
        PickleValue::Int(number) => number.to_string(),
        other => other.summary(),
    };
    let names: Vec<String> =
        items.iter().take(SHOWN).map(|(key, value)| format!("{} ({})", name(key), value.summary())).collect();
    let rest = if items.len() > SHOWN { format!(" and {} more", items.len() - SHOWN) } else { String::new() };
    format!("it holds no tensors, neither itself nor under {}: {}{rest}", KEYS.join(", "), names.join(", "))
}
