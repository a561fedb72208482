//! References between rows: every row that another one names must exist.

use std::collections::HashSet;

use flowmill_corpus::{Extra, Utterances};
use flowmill_runner::PartWork;

use crate::Source;
use crate::collect::{Place, row};

/// Rejects rows that name missing rows, and then those that name rejected rows, until none is left. For a source with
/// a prefix, ids match with and without it.
pub(crate) fn resolve(sources: &[Source], tables: &[Utterances], places: &mut Vec<Place>, work: &PartWork) {
    let extra = |place: &Place| row(tables, place).extra.filter(|extra| !extra.references.is_empty());
    if !places.iter().any(|place| extra(place).is_some()) {
        return;
    }
    let mut ids: HashSet<&str> = places.iter().map(|place| row(tables, place).utt).collect();
    loop {
        let before = places.len();
        let mut gone = Vec::new();
        places.retain(|place| {
            let prefix = sources[place.source as usize].prefix.as_deref();
            let Some((name, id)) = extra(place).and_then(|extra| dangling(extra, prefix, &ids)) else { return true };
            let utt = row(tables, place).utt;
            work.reject(utt, format!("reference to a missing row: `{name}` names {id}"));
            gone.push(utt);
            false
        });
        for id in gone {
            ids.remove(id);
        }
        if places.len() == before {
            return;
        }
    }
}

/// Returns the first reference of a row to an id that is not in `ids`.
fn dangling<'a>(extra: &'a Extra, prefix: Option<&str>, ids: &HashSet<&str>) -> Option<(&'a str, &'a str)> {
    let is_there =
        |id: &str| ids.contains(id) || prefix.is_some_and(|prefix| ids.contains(format!("{prefix}{id}").as_str()));
    let mut named =
        extra.references.iter().flat_map(|(name, ids)| ids.iter().map(move |id| (name.as_str(), id.as_str())));
    named.find(|(_, id)| !is_there(id))
}
