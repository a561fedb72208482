//! Control of a run in progress: commands in the form that people write, their sources, and their lasting effects.
//!
//! [`Command`] lists the commands. [`Control`] is the socket in the experiment through which [`send`] delivers a command from anywhere on
//! the machine; [`Terminal`] reads what is typed. Neither has a thread: both are polled between two steps, which is when commands take
//! effect. A command that changes results is stored in [`COMMANDS_FILE`] before it is acknowledged. Any other command that waits for its
//! step is stored in a file that is removed when the run is complete, so that a killed and resumed run does the same at the same step.

mod apply;
mod client;
mod command;
mod command_log;
mod control;
mod lines;
mod positive;
mod put_off;
mod queue;
mod terminal;

pub use client::{ControlError, send};
pub use command::{Command, CommandError, Order};
pub use command_log::{COMMANDS_FILE, forget_from};
pub use control::{CONTROL_FOLDER, Control};
pub use positive::Positive;
pub use terminal::Terminal;

pub(crate) use command_log::{Change, CommandLog};
pub(crate) use put_off::PutOff;
pub(crate) use queue::Steering;

/// Sender of a command, who gets the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A person at the terminal.
    Terminal,
    /// A client of the socket, by number.
    Control(u64),
}

/// A command as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The line.
    pub text: String,
    /// The sender.
    pub source: Source,
}

/// Result of a command: what was done and at which step, or why nothing was done.
pub type Answer = Result<String, String>;
