//! The rows of all sources as one list, in which every id is unique.

use std::collections::{BTreeMap, HashSet};

use flowmill_corpus::Utterances;
use flowmill_runner::PartWork;
use rayon::prelude::*;

use crate::Source;
use crate::collect::{Place, row};

/// Returns all rows in C order of their ids.
///
/// If several sources have an id, it stays with the first source that provides it, or else with the first that made
/// it from a file's name. Another row with a generated id gets its source's name as a prefix, unless it is the same
/// recording. All others are rejected.
pub(crate) fn merged(sources: &[Source], tables: &mut [Utterances], work: &PartWork) -> Vec<Place> {
    let places = sorted(tables);
    if tables.len() < 2 {
        return places;
    }
    let names = names(sources);
    let mut renamed: Vec<BTreeMap<usize, String>> = vec![BTreeMap::new(); tables.len()];
    let mut rejected: HashSet<(u32, u32)> = HashSet::new();
    let mut new: HashSet<String> = HashSet::new();
    let has = |id: &str| places.binary_search_by(|place| row(tables, place).utt.cmp(id)).is_ok();
    for group in places.chunk_by(|a, b| row(tables, a).utt == row(tables, b).utt).filter(|group| group.len() > 1) {
        let made_up = |place: &&Place| tables[place.source as usize].is_made_up(place.row as usize);
        let keeps = group.iter().find(|place| !made_up(place)).unwrap_or(&group[0]);
        let mut kept = vec![*keeps];
        for place in group.iter().filter(|place| (place.source, place.row) != (keeps.source, keeps.row)) {
            let (own, utt) = (row(tables, place), row(tables, place).utt);
            let is_own = |other: &Place| {
                let other = row(tables, other);
                (own.wav, own.start, own.end, own.channel) == (other.wav, other.start, other.end, other.channel)
            };
            let (dir, name) = (&sources[place.source as usize].dir, &names[place.source as usize]);
            let there = &sources[keeps.source as usize].dir;
            let plain = format!("{name}-{utt}");
            let hash = blake3::hash(format!("{dir}\n{utt}").as_bytes()).to_hex();
            let free =
                [plain.clone(), format!("{plain}-{}", &hash[..8])].into_iter().find(|id| !has(id) && !new.contains(id));
            match free.filter(|_| made_up(&place) && !kept.iter().any(is_own)) {
                Some(id) => {
                    new.insert(id.clone());
                    renamed[place.source as usize].insert(place.row as usize, id);
                    kept.push(*place);
                }
                None => {
                    rejected.insert((place.source, place.row));
                    let way_on = "if they are different utterances, set `prefix: NAME-` at one of the two sources";
                    work.reject(utt, format!("id in two sources: in {dir}, taken from {there}; {way_on}"));
                }
            }
        }
    }
    for ((source, table), renamed) in sources.iter().zip(tables.iter_mut()).zip(&renamed) {
        if let Some(first) = renamed.values().next() {
            work.message(format!(
                "{}: {} ids, made from file names, also exist in another source and get the source's name as a prefix (first: {first}); \
                 `prefix: NAME-` at the source sets another prefix",
                source.dir,
                renamed.len()
            ));
            table.rename(|index, _| renamed.get(&index).cloned());
        }
    }
    let mut places = if renamed.iter().all(BTreeMap::is_empty) { places } else { sorted(tables) };
    places.retain(|place| !rejected.contains(&(place.source, place.row)));
    places
}

/// Returns all rows in order of their ids, then of their sources.
fn sorted(tables: &[Utterances]) -> Vec<Place> {
    let place = |source: usize| move |row: usize| Place { source: source as u32, row: row as u32 };
    let places = tables.iter().enumerate().flat_map(|(source, table)| (0..table.len()).map(place(source)));
    let mut places: Vec<Place> = places.collect();
    if tables.len() > 1 {
        places.par_sort_by(|a, b| (row(tables, a).utt, a.source).cmp(&(row(tables, b).utt, b.source)));
    }
    places
}

/// Returns a unique name for every source: the last part of its path, or else the whole path, or else with its
/// number.
fn names(sources: &[Source]) -> Vec<String> {
    let plain = |text: &str| -> String {
        let allowed = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let name: String = text.chars().map(allowed).collect();
        let name = name.trim_matches(['-', '.']).to_owned();
        if name.is_empty() { "data".to_owned() } else { name }
    };
    let last = |source: &Source| {
        let name = source.dir.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let endings = [".tar", ".jsonl", ".json"];
        plain(endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name))
    };
    let unique = |names: &[String], at: usize| names.iter().filter(|name| **name == names[at]).count() == 1;
    let short: Vec<String> = sources.iter().map(last).collect();
    let long: Vec<String> = sources.iter().map(|source| plain(&source.dir)).collect();
    let name = |at: usize| match (unique(&short, at), unique(&long, at)) {
        (true, _) => short[at].clone(),
        (false, true) => long[at].clone(),
        (false, false) => format!("{}-{}", long[at], at + 1),
    };
    (0..sources.len()).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_names_of_their_own() {
        let names_of = |dirs: &[&str]| names(&dirs.iter().map(|dir| Source::at(dir)).collect::<Vec<_>>());
        assert_eq!(names_of(&["data/anna/", "data/ben.jsonl"]), ["anna", "ben"]);
        assert_eq!(names_of(&["a/wavs", "b/wavs", "."]), ["a-wavs", "b-wavs", "data"]);
        assert_eq!(names_of(&["a", "a"]), ["a-1", "a-2"]);
        assert_eq!(names_of(&["x-{000..010}.tar"]), ["x--000..010"]);
    }
}
