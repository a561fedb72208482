//! Steering a run while it runs: commands as people write them, where they come from, what they change for good.
//!
//! [`Command`] is what can be said. [`Control`] is the socket in the experiment through which [`send`] delivers a command from
//! anywhere on the machine, [`Terminal`] reads what is typed. Neither has a thread: both are looked at between two steps, which
//! is when commands take effect. A command that changes results is kept in [`COMMANDS_FILE`] before it is acknowledged, any other one
//! that waits for its step in a file that goes when the run is complete, so that a run that is killed and resumed does the same at the
//! same step.

mod client;
mod command;
mod control;
mod kept;
mod lines;
mod obey;
mod positive;
mod put_off;
mod queue;
mod terminal;

pub use client::{ControlError, send};
pub use command::{Command, CommandError, Order};
pub use control::{CONTROL_FOLDER, Control};
pub use kept::{COMMANDS_FILE, forget_from};
pub use positive::Positive;
pub use terminal::Terminal;

pub(crate) use kept::{Change, Kept};
pub(crate) use put_off::PutOff;
pub(crate) use queue::Steering;

/// Who gave a command, and so who is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Somebody at the terminal.
    Terminal,
    /// Somebody connected to the socket, by number.
    Control(u64),
}

/// A command as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The line.
    pub text: String,
    /// Who wrote it.
    pub source: Source,
}

/// What became of a command: what was done and at which step, or why nothing was.
pub type Answer = Result<String, String>;
