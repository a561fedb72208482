//! `flowmill inspect FILE…`: shows the content of files and folders.

use std::io::Write;

use crate::args::InspectArgs;
use crate::failure::Failure;
use crate::inspect::{View, inspect};

/// Shows one file after the other. An error of one is printed, and the others are still shown.
pub fn run(arguments: &InspectArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut failed = false;
    let view = View { rows: arguments.rows, full: arguments.full };
    for (index, file) in arguments.files.iter().enumerate() {
        if index > 0 && !arguments.json {
            writeln!(out)?;
        }
        if let Err(error) = inspect(file, view, arguments.json, out) {
            let failure = Failure::from_any(error);
            if matches!(failure, Failure::Closed) {
                return Err(failure);
            }
            failure.report();
            failed = true;
        }
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}
