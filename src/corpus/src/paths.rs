//! Joining paths as text, the way data files and recipes give them.

/// `dir` followed by `/` where something must stand between it and a relative path.
pub(crate) fn prefix_of(dir: &str) -> String {
    match dir {
        "" | "." => String::new(),
        dir if dir.ends_with('/') => dir.to_owned(),
        dir => format!("{dir}/"),
    }
}

/// `path` as seen from where `prefix` (of [`prefix_of`]) starts; absolute paths stay as they are.
pub(crate) fn joined(prefix: &str, path: &str) -> String {
    let (prefix, path) = pieces(prefix, path);
    format!("{prefix}{path}")
}

/// The two pieces of [`joined`], for columns that take a path in pieces.
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
