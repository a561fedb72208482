//! Tar shards: the kinds of their members, and the first members.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use flowmill_corpus::tar::{Damage, Member, MemberKind, Members};
use serde::Serialize;
use serde_json::Value;

use super::facts::{Facts, View};
use crate::human;
use crate::table::{Align, Cell, Table};

/// The number of characters of a name that are shown.
const NAME: usize = 90;
/// The number of kinds of members that are shown.
const KINDS: usize = 20;

/// The content of a tar file.
#[derive(Serialize)]
pub struct Tar {
    members: u64,
    /// The members by the part of their names after the first dot, which is the field in WebDataset.
    endings: BTreeMap<String, Ending>,
    first_members: Vec<Listed>,
    #[serde(skip)]
    damage: Option<String>,
}

/// The members with one ending.
#[derive(Serialize, Default)]
struct Ending {
    members: u64,
    bytes: u64,
}

/// A member of the file.
#[derive(Serialize)]
struct Listed {
    name: String,
    kind: &'static str,
    bytes: u64,
}

/// Reads the headers of the members up to the end, or up to damage.
pub fn read(path: &Path, view: View) -> Result<Tar> {
    let file = File::open(path)?;
    let mut found = Tar { members: 0, endings: BTreeMap::new(), first_members: Vec::new(), damage: None };
    for member in Members::of(&file)? {
        match member {
            Ok(member) => {
                if found.first_members.len() < view.rows {
                    let name = String::from_utf8_lossy(&member.name).into_owned();
                    found.first_members.push(Listed { name, kind: kind(&member), bytes: member.size });
                }
                found.members += 1;
                let ending = found.endings.entry(ending(&member)).or_default();
                (ending.members, ending.bytes) = (ending.members + 1, ending.bytes.saturating_add(member.size));
            }
            Err(Damage { at, problem }) => {
                found.damage = Some(format!("the file cannot be read after byte {at}: {problem}"));
            }
        }
    }
    Ok(found)
}

impl Facts for Tar {
    fn print(&self, view: View, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "{} members", human::count(self.members))?;
        self.print_endings(view, out)?;
        let mut first = Table::new(&[("member", Align::Left), ("kind", Align::Left), ("bytes", Align::Right)]);
        for Listed { name, kind, bytes } in &self.first_members {
            first.row([human::shortened(name, view.text(NAME)).into(), (*kind).into(), human::count(*bytes).into()]);
        }
        Ok(first.print(out)?)
    }

    fn json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }
}

impl Tar {
    /// Prints the number of members and bytes for each extension.
    fn print_endings(&self, view: View, out: &mut dyn Write) -> Result<()> {
        let mut table = Table::new(&[("ending", Align::Left), ("members", Align::Right), ("size", Align::Right)]);
        let kinds = view.items(KINDS);
        for (ending, Ending { members, bytes }) in self.endings.iter().take(kinds) {
            let name = human::shortened(ending, view.text(NAME));
            table.row([name, human::count(*members), human::bytes(*bytes)].map(Cell::from));
        }
        table.print(out)?;
        if self.endings.len() > kinds {
            writeln!(out, "  and {} other extensions", human::count((self.endings.len() - kinds) as u64))?;
        }
        Ok(())
    }
}

fn kind(member: &Member) -> &'static str {
    match member.kind {
        MemberKind::File => "file",
        MemberKind::Directory => "directory",
        MemberKind::Other(kind) => kind,
    }
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
