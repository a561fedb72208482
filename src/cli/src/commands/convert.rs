//! `flowmill convert IN OUT`: the tensors of a weight file in another format, bit for bit.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flowmill_nn::weights::{Archive, Target, write_archive};

use crate::args::ConvertArgs;
use crate::failure::Failure;
use crate::human;
use crate::style;

/// Converts, and says what was written and what was not.
pub fn run(arguments: &ConvertArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let target = Target::of(&arguments.output).ok_or_else(|| {
        let output = arguments.output.display();
        Failure::usage(format!("{output}: its ending says no format; use .safetensors, .pt, .pth or .bin"))
    })?;
    let mut archive = Archive::open(&arguments.input).map_err(|error| Failure::Failed(error.into()))?;
    if let Some(prefix) = &arguments.strip_prefix {
        archive.strip_prefix(prefix).map_err(|error| Failure::Failed(error.into()))?;
    }
    write(&arguments.output, &mut archive, target).map_err(Failure::Failed)?;
    describe(&archive, target, &arguments.output, out)
}

/// Writes beside the target and renames, so that what is there stays until the new file is whole. (It may be what is read.)
fn write(output: &Path, archive: &mut Archive<'_>, target: Target) -> anyhow::Result<()> {
    let mut name = OsString::from(output);
    name.push(".partial");
    let partial = PathBuf::from(name);
    let written = write_archive(&partial, archive, target).map_err(anyhow::Error::from).and_then(|()| {
        fs::File::open(&partial)?.sync_all()?;
        fs::rename(&partial, output).with_context(|| format!("cannot write {}", output.display()))
    });
    if written.is_err() {
        // What is left of a failed attempt is of no use; that it cannot be removed either is not news.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Prints what was written and what was left out.
fn describe(archive: &Archive<'_>, target: Target, output: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let bytes: u64 = archive.tensors.iter().map(|(_, tensor)| tensor.byte_count()).sum();
    let tensors = human::count(archive.tensors.len() as u64);
    writeln!(out, "{}: {tensors} tensors, {}", output.display(), human::bytes(bytes))?;
    if let Some(entry) = &archive.entry {
        writeln!(out, "  the tensors of its entry `{entry}`")?;
    }
    for (name, scalar) in &archive.scalars {
        writeln!(out, "  {} {}", human::shortened(name, 60), human::shortened(&scalar.to_string(), 60))?;
    }
    for (name, what) in &archive.left_out {
        style::warning(&format!("left out: {} ({what})", human::shortened(name, 60)));
    }
    if target == Target::Torch && !archive.metadata.is_empty() {
        let names: Vec<String> = archive.metadata.keys().map(|name| human::shortened(name, 60)).collect();
        style::warning(&format!("left out: the notes {} (a state dict has none)", names.join(", ")));
    }
    Ok(())
}
