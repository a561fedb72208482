//! One entry of a file of users.

use super::{HistoryFault, HistoryItem, HistoryOptions, UserHistory, image_in};
use serde_json::Value;
use std::path::Path;

/// Returns an id, which may be a string or a whole number.
fn id(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        _ => None,
    }
}

/// Returns the id of the user of an entry.
pub(super) fn user_id(entry: &Value) -> Option<String> {
    ["user_id", "worker_id"].into_iter().find_map(|key| id(entry.get(key)?))
}

/// Returns the first of some texts that is not empty.
fn text(entry: &Value, keys: &[&str]) -> Option<String> {
    let texts = keys.iter().filter_map(|key| entry.get(key)?.as_str());
    texts.map(str::trim).find(|text| !text.is_empty()).map(str::to_owned)
}

/// Reads an entry.
pub(super) fn user(entry: &Value, images: &Path, options: &HistoryOptions) -> Result<UserHistory, HistoryFault> {
    let field = |field, expected| HistoryFault::Field { place: "the entry".to_owned(), field, expected };
    let id = user_id(entry).ok_or_else(|| field("user_id", "a text or a number"))?;
    let items = match entry.get("history_items_info") {
        None | Some(Value::Null) => return Err(HistoryFault::EmptyHistory),
        Some(items) => items.as_array().ok_or_else(|| field("history_items_info", "an array"))?,
    };
    if items.is_empty() {
        return Err(HistoryFault::EmptyHistory);
    }
    let target = entry.get("target_item_info").filter(|target| target.as_object().is_some_and(|item| !item.is_empty()));
    let target = item(target.ok_or(HistoryFault::NoTarget)?, images, options, || "the target".to_owned())?;
    let numbered = items.iter().enumerate();
    let history =
        numbered.map(|(number, value)| item(value, images, options, || format!("history item {}", number + 1)));
    let history = history.collect::<Result<Vec<_>, _>>()?;
    if !options.allow_repeats && history.iter().any(|item| item.id == target.id) {
        return Err(HistoryFault::TargetInHistory { item: target.id });
    }
    let style = text(entry, &["user_style", "worker_style"]);
    let (dialogue, emotion) = (text(entry, &["dialogue"]), text(entry, &["target_emotion"]));
    Ok(UserHistory { id, history, target, style, dialogue, emotion })
}

fn item(
    value: &Value,
    images: &Path,
    options: &HistoryOptions,
    place: impl Fn() -> String,
) -> Result<HistoryItem, HistoryFault> {
    let field = |field, expected| HistoryFault::Field { place: place(), field, expected };
    let id = value.get("item_id").and_then(id).ok_or_else(|| field("item_id", "a text or a number"))?;
    let caption = match value.get("caption") {
        None | Some(Value::Null) => return Err(HistoryFault::EmptyCaption { place: place() }),
        Some(caption) => caption.as_str().ok_or_else(|| field("caption", "a text"))?.trim(),
    };
    if caption.is_empty() {
        return Err(HistoryFault::EmptyCaption { place: place() });
    }
    let path = value.get("image_path").and_then(Value::as_str).filter(|path| !path.is_empty());
    let image = image_in(images, path.ok_or_else(|| field("image_path", "a path"))?, options, &place)?;
    Ok(HistoryItem { id, caption: caption.to_owned(), image })
}
