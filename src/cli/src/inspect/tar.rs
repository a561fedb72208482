//! Tar shards: the kinds of their members, and the first members.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use flowmill_corpus::tar::{Damage, Member, MemberKind, Members};

use crate::human;
use crate::table::{Align, Cell, Table};

/// The number of characters of a name that are shown.
const NAME: usize = 90;
/// The number of kinds of members that are shown.
const KINDS: usize = 20;

/// Prints the members up to the end, or up to the damage in the file, which is then an error.
pub fn show(path: &Path, rows: usize, out: &mut dyn Write) -> Result<()> {
    let file = File::open(path)?;
    let mut kinds = BTreeMap::<String, (u64, u64)>::new();
    let mut first = Table::new(&[("member", Align::Left), ("kind", Align::Left), ("bytes", Align::Right)]);
    let (mut members, mut damage) = (0, None);
    for member in Members::of(&file)? {
        match member {
            Ok(member) => {
                if members < rows {
                    first.row([name(&member), kind(&member), Cell::from(human::count(member.size))]);
                }
                members += 1;
                let (count, bytes) = kinds.entry(ending(&member)).or_default();
                (*count, *bytes) = (*count + 1, bytes.saturating_add(member.size));
            }
            Err(found) => damage = Some(found),
        }
    }
    writeln!(out, "{} members", human::count(members as u64))?;
    print_kinds(&kinds, out)?;
    first.print(out)?;
    match damage {
        None => Ok(()),
        Some(Damage { at, problem }) => bail!("the file cannot be read after byte {at}: {problem}"),
    }
}

/// Prints the number of members and bytes for each extension.
fn print_kinds(kinds: &BTreeMap<String, (u64, u64)>, out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(&[("ending", Align::Left), ("members", Align::Right), ("size", Align::Right)]);
    for (ending, (count, bytes)) in kinds.iter().take(KINDS) {
        table.row([human::shortened(ending, NAME), human::count(*count), human::bytes(*bytes)].map(Cell::from));
    }
    table.print(out)?;
    if kinds.len() > KINDS {
        writeln!(out, "  and {} other extensions", human::count((kinds.len() - KINDS) as u64))?;
    }
    Ok(())
}

fn name(member: &Member) -> Cell {
    Cell::from(human::shortened(&String::from_utf8_lossy(&member.name), NAME))
}

fn kind(member: &Member) -> Cell {
    Cell::from(match member.kind {
        MemberKind::File => "file",
        MemberKind::Directory => "directory",
        MemberKind::Other(kind) => kind,
    })
}

/// Returns the part of a file's name after its first dot, which is the field in WebDataset.
fn ending(member: &Member) -> String {
    if member.kind != MemberKind::File {
        return "(no file)".to_owned();
    }
    let name = String::from_utf8_lossy(&member.name);
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split_once('.').map_or("(none)".to_owned(), |(_, ending)| ending.to_owned())
}
