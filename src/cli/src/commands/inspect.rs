//! `flowmill inspect FILE…`: shows the content of files.

use std::io::Write;

use crate::args::InspectArgs;
use crate::failure::Failure;
use crate::inspect::inspect;

/// Shows one file after the other. An error of one is printed, and the others are still shown.
pub fn run(arguments: &InspectArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut failed = false;
    for (index, file) in arguments.files.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        if let Err(error) = inspect(file, arguments.rows, arguments.full, out) {
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
