//! `flowmill ctl EXP COMMAND`: steers a training while it runs.

use std::io::Write;

use flowmill_runner::holder;
use flowmill_train::steering::{ControlError, Order, send};

use crate::args::CtlArgs;
use crate::experiment::named;
use crate::failure::Failure;

/// Sends the command and prints the answer.
pub fn run(arguments: &CtlArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let command = arguments.command.join(" ");
    command.parse::<Order>().map_err(Failure::usage)?;
    let experiment = named(&arguments.experiment)?;
    match send(experiment.dir(), &command) {
        Ok(Ok(done)) => Ok(writeln!(out, "{done}")?),
        Ok(Err(reason)) => Err(Failure::Failed(anyhow::anyhow!("{reason}"))),
        Err(error @ ControlError::NobodyListens { .. }) => {
            let who = holder(&experiment)
                .map_or_else(String::new, |who| format!("; the experiment is in use, but not for training: {who}"));
            Err(Failure::Failed(anyhow::anyhow!("{error}{who}")))
        }
        Err(error) => Err(Failure::Failed(error.into())),
    }
}
