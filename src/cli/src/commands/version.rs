//! `flowmill version`: prints the version and how this binary was built.

use std::io::Write;

use crate::doctor::build;
use crate::failure::Failure;
use crate::table::print_pairs;

/// Prints the version, the target, and the features that were compiled in.
pub fn run(out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "flowmill {}", env!("CARGO_PKG_VERSION"))?;
    Ok(print_pairs(&build::describe(), 2, out)?)
}
