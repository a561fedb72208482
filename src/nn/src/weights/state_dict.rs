//! Finding the state dict in what `torch.save` was given.

use super::archive::Contents;
use super::{Parsed, PickleValue, Scalar};

/// Keys under which training scripts keep the state dict, most telling first.
const KEYS: [&str; 6] = ["state_dict", "model_state_dict", "model", "module", "generator", "net"];
/// How many such keys may be inside each other.
const DEEPEST: usize = 3;
/// How many keys a message names.
const SHOWN: usize = 5;

/// The tensors and scalars of a state dict: of the top-level dict when it holds tensors, else of the one under a usual key, else
/// of the dicts directly inside it.
pub(super) fn find(value: PickleValue) -> Parsed<Contents> {
    let mut contents = Contents::default();
    search(value, &mut contents, 0)?;
    Ok(contents)
}

fn search(value: PickleValue, contents: &mut Contents, depth: usize) -> Parsed<()> {
    let items = match value {
        PickleValue::Dict(items) => items,
        PickleValue::Tensor(tensor) => {
            contents.tensors.push(("tensor".to_owned(), *tensor));
            return Ok(());
        }
        other => return Err(format!("it holds a {}, not a dict of tensors", other.summary())),
    };
    let has_tensors = items.iter().any(|(_, value)| matches!(value, PickleValue::Tensor(_)));
    let key = KEYS.into_iter().find(|key| items.iter().any(|(name, value)| is_dict(name, value, key)));
    if !has_tensors && !items.is_empty() && (key.is_none() || depth == DEEPEST) {
        return flatten(items, contents);
    }
    let mut inner = None;
    for (name, value) in items {
        if !has_tensors && inner.is_none() && key.is_some_and(|key| is_dict(&name, &value, key)) {
            inner = Some(value);
        } else {
            sort(name, value, contents)?;
        }
    }
    inner.map_or(Ok(()), |inner| search(inner, contents, depth + 1))
}

/// Takes the tensors of the dicts inside a dict, as `outer.inner`.
fn flatten(items: Vec<(PickleValue, PickleValue)>, contents: &mut Contents) -> Parsed<()> {
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
