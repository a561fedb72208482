//! `flowmill convert IN OUT`: writes the tensors of a weight file in another format, bit for bit.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use flowmill_runner::WholeFile;
use flowmill_weights::{Archive, Target, WeightError, write_archive};

use crate::args::ConvertArgs;
use crate::failure::Failure;
use crate::human;
use crate::style;

/// Converts the file, and prints what was written and what was left out.
pub fn run(arguments: &ConvertArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let target = Target::of(&arguments.output).ok_or_else(|| {
        let output = arguments.output.display();
        Failure::usage(format!("{output}: unknown extension; use .safetensors, .pt, .pth, .bin or .sft"))
    })?;
    let mut archive = Archive::open(&arguments.input).map_err(|error| Failure::Failed(error.into()))?;
    if archive.tensors.is_empty() {
        let input = arguments.input.display();
        return Err(Failure::Failed(anyhow::anyhow!("{input}: it has no tensors, so there is nothing to convert")));
    }
    if let Some(prefix) = &arguments.strip_prefix {
        archive.strip_prefix(prefix).map_err(|error| Failure::Failed(error.into()))?;
    }
    write(&arguments.output, &mut archive, target).map_err(Failure::Failed)?;
    describe(&archive, target, [&arguments.input, &arguments.output], out)
}

/// Writes next to the target, so that an existing file stays until the new one is complete. (The two may be the same
/// file.)
fn write(output: &Path, archive: &mut Archive<'_>, target: Target) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", output.display());
    let file = WholeFile::beside(output).with_context(cannot)?;
    write_archive(file.path(), archive, target).map_err(|error| match error {
        // The temporary name means nothing to anyone.
        WeightError::File { path, message, .. } if Path::new(&path) == file.path() => {
            anyhow::anyhow!("{}: {message}", output.display())
        }
        other => other.into(),
    })?;
    file.put().with_context(cannot)
}

/// Prints what was written and what was left out.
fn describe(archive: &Archive<'_>, target: Target, paths: [&Path; 2], out: &mut dyn Write) -> Result<(), Failure> {
    let [input, output] = paths;
    let bytes: u64 = archive.tensors.iter().map(|(_, tensor)| tensor.byte_count()).sum();
    let tensors = human::count(archive.tensors.len() as u64);
    writeln!(out, "{}: {tensors} tensors, {}", output.display(), human::bytes(bytes))?;
    if archive.path() != input {
        writeln!(out, "  read from {}", archive.path().display())?;
    }
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
