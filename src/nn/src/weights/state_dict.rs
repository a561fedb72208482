//! Finding the state dict in what `torch.save` was given.

use super::archive::Contents;
use super::{Parsed, PickleValue, Scalar};

/// Keys under which training scripts keep the state dict, most telling first.
const KEYS: [&str; 6] = ["state_dict", "model_state_dict", "model", "module", "generator", "net"];
/// How many such keys may be inside each other.
const DEEPEST: usize = 3;
/// How many keys a message names.
const SHOWN: usize = 5;

type Item = (PickleValue, PickleValue);

/// The tensors and scalars of a state dict: of the top-level dict, or of one under a usual key where that has as many tensors or
/// more (a loss beside a model is no state dict); where none has any, of the dicts directly inside it.
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
        other => return Err(format!("it holds a {}, not a dict of tensors", other.summary())),
    };
    let own = own_tensors(&items);
    if let Some((at, key, _)) = wrapped(&items, depth).filter(|(_, _, tensors)| *tensors >= own) {
        let (_, inner) = items.remove(at);
        let path = contents.entry.take().map_or(String::new(), |outer| format!("{outer}."));
        contents.entry = Some(format!("{path}{key}"));
        items.into_iter().try_for_each(|(name, value)| sort_beside(name, value, contents))?;
        return search(inner, contents, depth + 1);
    }
    if own == 0 && !items.is_empty() {
        return flatten(items, contents);
    }
    items.into_iter().try_for_each(|(name, value)| sort(name, value, contents))
}

fn own_tensors(items: &[Item]) -> usize {
    items.iter().filter(|(_, value)| matches!(value, PickleValue::Tensor(_))).count()
}

/// The entry under a usual key that has most tensors: its position, its key, and how many. The most telling key among equals.
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

/// How many tensors a search in this dict would find.
fn tensors_within(value: &PickleValue, depth: usize) -> usize {
    let PickleValue::Dict(items) = value else { return 0 };
    let (own, inner) = (own_tensors(items), wrapped(items, depth).map_or(0, |(_, _, tensors)| tensors));
    if own.max(inner) > 0 {
        return own.max(inner);
    }
    items.iter().map(|(_, value)| if let PickleValue::Dict(items) = value { own_tensors(items) } else { 0 }).sum()
}

/// Puts an entry beside the state dict where it belongs; a tensor there is no weight.
fn sort_beside(name: PickleValue, value: PickleValue, contents: &mut Contents) -> Parsed<()> {
    if matches!(value, PickleValue::Tensor(_)) {
        contents.left_out.push((entry_name(&name)?, value.summary()));
        return Ok(());
    }
    sort(name, value, contents)
}

/// Takes the tensors of the dicts inside a dict, as `outer.inner`.
fn flatten(items: Vec<Item>, contents: &mut Contents) -> Parsed<()> {
    let holds_tensors = |value: &PickleValue| {
        value.as_dict().is_some_and(|items| items.iter().any(|(_, value)| matches!(value, PickleValue::Tensor(_))))
    };
    if !items.iter().any(|(_, value)| holds_tensors(value)) {
        return Err(without_tensors(&items));
    }
    for (outer, value) in items {
        let holds_tensors = holds_tensors(&value);
        match value {
            PickleValue::Dict(inner) if holds_tensors => {
                for (name, value) in inner {
                    let name = format!("{}.{}", entry_name(&outer)?, entry_name(&name)?);
                    sort(PickleValue::Text(name.into()), value, contents)?;
                }
            }
            other => sort(outer, other, contents)?,
        }
    }
    Ok(())
}

fn entry_name(name: &PickleValue) -> Parsed<String> {
    match name {
        PickleValue::Text(name) => Ok(name.to_string()),
        PickleValue::Int(name) => Ok(name.to_string()),
        other => Err(format!("a {} as the name of an entry", other.summary())),
    }
}

fn is_dict(name: &PickleValue, value: &PickleValue, key: &str) -> bool {
    name.as_text() == Some(key) && matches!(value, PickleValue::Dict(items) if !items.is_empty())
}

/// Puts one entry where it belongs.
fn sort(name: PickleValue, value: PickleValue, contents: &mut Contents) -> Parsed<()> {
    let name = entry_name(&name)?;
    let scalar = match value {
        PickleValue::Tensor(tensor) => {
            contents.tensors.push((name, *tensor));
            return Ok(());
        }
        PickleValue::Bool(value) => Scalar::Bool(value),
        PickleValue::Int(value) => Scalar::Int(value),
        PickleValue::Float(value) => Scalar::Float(value),
        PickleValue::Text(value) => Scalar::Text(value.to_string()),
        other => {
            contents.left_out.push((name, other.summary()));
            return Ok(());
        }
    };
    contents.scalars.push((name, scalar));
    Ok(())
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
