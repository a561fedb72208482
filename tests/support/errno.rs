//! Making system calls fail, to stand for file systems that lack something.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use super::flowmill::outcome;
use super::{Mini, Outcome};

/// The wrapper, compiled once; or why it cannot be.
fn wrapper() -> Result<&'static PathBuf, &'static String> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(build).as_ref()
}

fn build() -> Result<PathBuf, String> {
    let source = super::mini::repository().join("tests/support/errno.c");
    // One per process of tests, in the folder that cargo gives them.
    let binary = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("errno-{}", std::process::id()));
    let compiled = Command::new("cc").arg("-o").arg(&binary).arg(source).output().map_err(|e| format!("cc: {e}"))?;
    if !compiled.status.success() {
        return Err(String::from_utf8_lossy(&compiled.stderr).into_owned());
    }
    let tried = Command::new(&binary).args(["flock", "38", "--", "true"]).output().map_err(|e| e.to_string())?;
    if !tried.status.success() {
        return Err(String::from_utf8_lossy(&tried.stderr).into_owned());
    }
    Ok(binary)
}

/// Runs `flowmill run` with further arguments, while calls fail: `[("flock", 37)]`. Prints the reason where that cannot be done.
pub fn run_failing(mini: &Mini, calls: &[(&str, i32)], arguments: &[&str]) -> Option<Outcome> {
    failing(mini.command("run", arguments), mini.folder(), calls)
}

/// The same as a process of another machine, as far as its name goes, that is not started yet.
pub fn failing_on(host: &str, run: &Command, calls: &[(&str, i32)]) -> Option<Command> {
    let set_name = ["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", host];
    let tried = Command::new("unshare").args(set_name).arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        println!("skipped: the machine cannot have another name here");
        return None;
    }
    let Ok(wrapper) = wrapper() else {
        println!("skipped: system calls cannot be made to fail here");
        return None;
    };
    let mut command = Command::new("unshare");
    command.args(set_name).arg(wrapper);
    for (call, number) in calls {
        command.arg(call).arg(number.to_string());
    }
    command.arg("--").arg(run.get_program()).args(run.get_args());
    command.current_dir(run.get_current_dir().unwrap_or(Path::new("."))).stdin(Stdio::null());
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").env_remove("RAYON_NUM_THREADS");
    Some(command)
}

/// A command in a folder, while calls fail. Prints why not, where that cannot be done.
pub fn failing(run: Command, folder: &Path, calls: &[(&str, i32)]) -> Option<Outcome> {
    let wrapper = match wrapper() {
        Ok(wrapper) => wrapper,
        Err(reason) => {
            println!("skipped: system calls cannot be made to fail here ({reason})");
            return None;
        }
    };
    let mut command = Command::new(wrapper);
    for (call, number) in calls {
        command.arg(call).arg(number.to_string());
    }
    command.arg("--").arg(run.get_program()).args(run.get_args()).current_dir(folder).stdin(Stdio::null());
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").env_remove("RAYON_NUM_THREADS");
    let start = Instant::now();
    let output = command.output().expect("the wrapper can be started");
    Some(outcome(output, start.elapsed()))
}
