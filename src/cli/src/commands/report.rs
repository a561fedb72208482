//! `flowmill report EXP`: one HTML page about an experiment.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flowmill_runner::WholeFile;

use crate::args::ReportArgs;
use crate::experiment::named;
use crate::failure::Failure;
use crate::{human, report};

/// Writes the page and prints its path.
pub fn run(arguments: &ReportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let experiment = named(&arguments.experiment)?;
    if !experiment.dir().is_dir() {
        return Err(Failure::usage(format!("nothing has run yet: there is no {}", experiment.dir().display())));
    }
    let page = report::render(&experiment);
    let path = arguments.out.clone().unwrap_or_else(|| experiment.dir().join("report.html"));
    write(&path, page.as_bytes()).map_err(Failure::Failed)?;
    Ok(writeln!(out, "{}  {}", path.display(), human::bytes(page.len() as u64))?)
}

/// Writes a file in one step, so that no reader sees an incomplete one.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = WholeFile::beside(path).and_then(|file| {
        std::fs::write(file.path(), bytes)?;
        file.put()
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}
