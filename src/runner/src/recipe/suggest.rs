//! "Did you mean" hints: the nearest existing name.

/// Returns the known name nearest to the written one, if it is near enough.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&written, name), name))
        .filter(|&(distance, name)| distance <= 1 + name.chars().count().min(written.chars().count()) / 4)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// Formats a hint: `; did you mean "lr"? (known: lr, warmup)`.
pub(crate) fn hint(written: &str, known: &[&str]) -> String {
    let list = known.join(", ");
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("; did you mean \"{name}\"? (known: {list})"),
        None if known.is_empty() => String::new(),
        None => format!(" (known: {list})"),
    }
}
