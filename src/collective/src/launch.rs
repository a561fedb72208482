//! Starting several processes of this program on this machine.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::CollectiveError;

/// The variable that names the program that starts the processes.
const PROGRAM: &str = "FLOWMILL_MPIRUN";
/// The pause between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(50);

/// Starts `count` processes of this program with `arguments` through `mpirun` and waits for them. When `interrupted` returns true for the
/// first time, all of them get SIGUSR1, on which a training saves and stops.
///
/// # Errors
/// When this build has no MPI, or `mpirun` cannot be started.
pub fn launch(
    count: usize,
    arguments: &[OsString],
    interrupted: &dyn Fn() -> bool,
) -> Result<ExitStatus, CollectiveError> {
    if cfg!(not(feature = "mpi")) {
        return Err(CollectiveError::NotBuilt { wanted: format!("--nproc asks for {count} processes") });
    }
    let program = std::env::var(PROGRAM).unwrap_or_else(|_| "mpirun".to_owned());
    let fail = |reason: std::io::Error| CollectiveError::Start { program: program.clone(), reason: reason.to_string() };
    let mut command = Command::new(&program);
    command.args(["-n", &count.to_string(), "--bind-to", "none", "--oversubscribe"]);
    if getuid().is_root() {
        command.arg("--allow-run-as-root");
    }
    command.arg(std::env::current_exe().map_err(fail)?).args(arguments);
    // In a group of its own: Ctrl-C at the terminal reaches this process only, because mpirun answers it by ending the processes
    // within a second, which is too short to save.
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(fail)?;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().map_err(fail)? {
            return Ok(status);
        }
        if interrupted() && !told {
            // mpirun passes SIGUSR1 on.
            signal(&child, Signal::USR1);
            told = true;
        }
        sleep(PAUSE);
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in the meantime.
        let _ended = kill_process(pid, signal);
    }
}

/// Returns the exit code of ended processes; one that a signal has ended has the code of a shell.
#[must_use]
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
