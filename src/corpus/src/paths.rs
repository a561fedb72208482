//! Joining of paths as text, in the form in which data files and recipes give them.

/// Returns `dir`, followed by `/` if a separator is needed before a relative path.
pub(crate) fn prefix_of(dir: &str) -> String {
    match dir {
        "" | "." => String::new(),
        dir if dir.ends_with('/') => dir.to_owned(),
        dir => format!("{dir}/"),
    }
}

/// Returns `path` relative to the base of `prefix` (from [`prefix_of`]); absolute paths are unchanged.
pub(crate) fn joined(prefix: &str, path: &str) -> String {
    let (prefix, path) = pieces(prefix, path);
    format!("{prefix}{path}")
}

/// Returns the two pieces of [`joined`], for columns that take a path in pieces.
pub(crate) fn pieces<'a>(prefix: &'a str, path: &'a str) -> (&'a str, &'a str) {
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.starts_with('/') { ("", path) } else { (prefix, path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_hang_below_the_directory_and_absolute_ones_do_not() {
        assert_eq!(joined(&prefix_of("data/a b"), "x y.wav"), "data/a b/x y.wav");
        assert_eq!(joined(&prefix_of("data/"), "./x.wav"), "data/x.wav");
        assert_eq!(joined(&prefix_of("."), "x.wav"), "x.wav");
        assert_eq!(joined(&prefix_of("data"), "/abs/x.wav"), "/abs/x.wav");
    }
}
