//! The script of an array of tasks: each does one part, and leaves its exit code in a file.

use std::fmt::Write;
use std::path::Path;

use super::JobCommand;
use super::settings::StageJobs;
use crate::lockfile::WITHIN_SLURM_RUN;

/// The exit code of a task, from the file that its script leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    pub code: i32,
    /// True if Slurm had announced the time limit.
    pub warned: bool,
}

/// The parts of a script.
pub(super) struct Script<'a> {
    pub job: &'a JobCommand,
    /// The number of the stage.
    pub stage: u8,
    /// The parts of the tasks, in order. None stands for the whole stage.
    pub keys: Vec<Option<&'a str>>,
    pub settings: &'a StageJobs,
    /// The beginning of the paths of the files with exit codes.
    pub exits: &'a Path,
}

/// Returns the file with the exit code of a task.
pub(super) fn exit_file(exits: &Path, task: usize) -> std::path::PathBuf {
    let name = exits.file_name().unwrap_or_default().to_string_lossy();
    exits.with_file_name(format!("{name}-{task}.exit"))
}

/// Reads such a file; none if it is not there (yet).
pub(super) fn read_exit(file: &Path) -> Option<Exit> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut words = text.split_whitespace();
    Some(Exit { code: words.next()?.parse().ok()?, warned: words.next() == Some("warned") })
}

impl Script<'_> {
    /// Returns the text.
    pub fn text(&self) -> String {
        let Self { job, stage, keys, settings, exits } = self;
        let program = quoted(&job.program);
        let recipe = quoted(&job.recipe);
        let options: String = job.options.iter().map(|word| format!(" {}", quoted(word))).collect();
        let mut text = "#!/bin/sh\n# Written by flowmill run --executor slurm.\n".to_owned();
        let _ = writeln!(text, "task=\"${{SLURM_ARRAY_TASK_ID:-0}}\"\ncase \"$task\" in");
        for (task, key) in keys.iter().enumerate() {
            let command = match key {
                Some(key) => format!("run-part {recipe} {stage} {}", quoted(key)),
                None => format!("run {recipe} --stage {stage} --stop-stage {stage}"),
            };
            let _ = writeln!(text, "{task}) set -- {command} ;;");
        }
        let _ = writeln!(text, "*) echo \"no task $task\" >&2; exit 2 ;;\nesac");
        let threads = settings.cores.map_or_else(
            || "\"${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}\"".to_owned(),
            |cores| cores.to_string(),
        );
        let _ = writeln!(text, "set -- {program} \"$@\" --wait --jobs {threads}{options}");
        if settings.processes > 1 {
            let cores = settings.cores.map_or_else(String::new, |cores| format!(" --cpus-per-task={cores}"));
            let _ = writeln!(text, "set -- srun --mpi={} --kill-on-bad-exit=1{cores} \"$@\"", quoted(&settings.mpi));
        }
        let exits = quoted(&exits.to_string_lossy());
        if !settings.setup.is_empty() {
            let _ = writeln!(text, "{}", settings.setup.trim_end());
        }
        let _ = write!(
            text,
            r#"export {WITHIN_SLURM_RUN}=1
warned=
# Slurm's signal before the time limit goes to this shell. At the end of a job Slurm signals all processes itself.
trap 'warned=" warned"; kill -USR1 "$work" 2>/dev/null' USR1
trap : TERM
"$@" &
work=$!
wait "$work"
code=$?
while kill -0 "$work" 2>/dev/null; do
    wait "$work"
    code=$?
done
exits={exits}-$task.exit
echo "$code$warned" > "$exits.new" && mv "$exits.new" "$exits"
exit "$code"
"#
        );
        text
    }
}

/// Returns a word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_./=:,+@%".contains(character);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
