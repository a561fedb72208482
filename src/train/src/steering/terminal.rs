//! Commands typed at the terminal.

use std::io::{IsTerminal, stdin};
use std::os::fd::AsFd;

/// Largest number of bytes of a line; longer ones are cut.
const LONGEST_LINE: usize = 1024;

/// The standard input, if it is a terminal. It is polled, never waited for.
#[derive(Debug, Default)]
pub struct Terminal {
    received: Vec<u8>,
}

impl Terminal {
    /// Returns `None` if the standard input is closed, a file, a pipe or `/dev/null`, which never send commands.
    pub fn open() -> Option<Self> {
        stdin().is_terminal().then(Self::default)
    }

    /// Returns the lines typed since the last call. Nothing while the process is in the background, where reading would stop it.
    pub fn lines(&mut self) -> Vec<String> {
        let stdin = stdin();
        let mut chunk = [0; LONGEST_LINE];
        while rustix::io::ioctl_fionread(&stdin).is_ok_and(|bytes| bytes > 0) && in_foreground(&stdin) {
            match rustix::io::read(&stdin, &mut chunk) {
                Ok(count) if count > 0 => self.received.extend_from_slice(&chunk[..count]),
                _ => break,
            }
        }
        let mut lines = Vec::new();
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).take(LONGEST_LINE).collect();
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
        }
        self.received.truncate(LONGEST_LINE);
        lines.retain(|line| !line.is_empty());
        lines
    }
}

fn in_foreground(terminal: impl AsFd) -> bool {
    rustix::termios::tcgetpgrp(terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}
