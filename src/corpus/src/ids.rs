//! Ids made from paths, unique by construction.

use rayon::prelude::*;

/// A row with its id and the origin of the id. Ids that the data provide have no origin and are never changed.
pub(crate) trait Named {
    /// The id.
    fn id(&self) -> &str;
    /// Returns the text that distinguishes rows whose generated ids are the same.
    fn origin(&self) -> Option<&str>;
    /// Changes the id.
    fn rename(&mut self, id: String);
}

/// Creates an id from a path below a source: `/` and white space of any kind are replaced by `-`.
pub fn of_path(path: &str) -> String {
    path.replace(|c: char| c == '/' || c.is_whitespace(), "-")
}

/// Makes equal generated ids with different origins unique, such as those of `a/b` and `a-b`: an id that differs from its
/// origin gets a hash of the origin appended. The result does not depend on the order of the rows.
pub(crate) fn tell_apart<T: Named + Sync>(rows: &mut [T]) {
    let order = in_order(rows);
    let mut renamed = Vec::new();
    for places in order.chunk_by(|a, b| rows[*a].id() == rows[*b].id()).filter(|places| places.len() > 1) {
        let id = rows[places[0]].id();
        let origin = |at: usize| rows[at].origin().unwrap_or(id);
        if places.iter().all(|at| origin(*at) == origin(places[0])) {
            continue;
        }
        for at in places {
            if let Some(origin) = rows[*at].origin().filter(|origin| *origin != id) {
                renamed.push((*at, format!("{id}-{}", &blake3::hash(origin.as_bytes()).to_hex()[..8])));
            }
        }
    }
    for (at, id) in renamed {
        rows[at].rename(id);
    }
}

/// Returns the positions of rows in the order of their ids, those with the same id in their own order. The rows, which are large, stay where
/// they are.
pub(crate) fn in_order<T: Named + Sync>(rows: &[T]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.par_sort_unstable_by(|a, b| rows[*a].id().cmp(rows[*b].id()).then(a.cmp(b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(String, Option<String>);

    impl Named for Row {
        fn id(&self) -> &str {
            &self.0
        }

        fn origin(&self) -> Option<&str> {
            self.1.as_deref()
        }

        fn rename(&mut self, id: String) {
            self.0 = id;
        }
    }

    #[test]
    fn only_rows_of_different_origin_get_other_ids() {
        let row = |id: &str, origin: &str| Row(id.into(), (!origin.is_empty()).then(|| origin.into()));
        let mut rows = vec![
            row("a-b", "a/b"),
            row("a-b", "a-b"),
            row("c-d-e", "c/d-e"),
            row("c-d-e", "c-d/e"),
            row("same", "x"),
            row("same", "x"),
            row("given", ""),
            row("given", ""),
            row("alone", "/alone"),
        ];
        tell_apart(&mut rows);
        let ids: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
        assert!(ids[0].starts_with("a-b-") && ids[1] == "a-b", "{ids:?}");
        assert!(ids[2].starts_with("c-d-e-") && ids[3].starts_with("c-d-e-") && ids[2] != ids[3], "{ids:?}");
        assert_eq!(ids[4..], ["same", "same", "given", "given", "alone"]);
    }
}
