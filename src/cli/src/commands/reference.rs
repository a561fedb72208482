//! `flowmill reference recipe` and `flowmill reference commands`.

use std::io::Write;

use crate::args::{ReferenceArgs, ReferencePage};
use crate::failure::Failure;
use crate::{reference, stages};

/// Prints a page of the reference.
pub fn run(arguments: &ReferenceArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let page = match arguments.page {
        ReferencePage::Recipe => reference::recipe(&flowmill_runner::schema(&stages::all())),
        ReferencePage::Commands => reference::commands(),
    };
    Ok(out.write_all(page.as_bytes())?)
}
