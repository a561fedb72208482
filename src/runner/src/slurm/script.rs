//! The script of an array of tasks: each does one part, and leaves its exit code in a file.

use std::fmt::Write;
use std::path::Path;

use super::JobCommand;
use super::settings::StageJobs;
use crate::lockfile::WITHIN_SLURM_RUN;
use crate::shell::quoted;

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
# A signal that came before this line has not reached it.
[ -z "$warned" ] || kill -USR1 "$work" 2>/dev/null
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// A script in a folder, whose program is `lines` of shell.
    fn written(lines: &str, cores: Option<u32>) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("a program's");
        fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let job = JobCommand {
            program: program.to_string_lossy().into_owned(),
            recipe: "my recipe.yaml".to_owned(),
            options: vec!["--set".to_owned(), "name='$x'".to_owned()],
        };
        let settings = StageJobs {
            options: Vec::new(),
            time: None,
            memory: None,
            cores,
            processes: 1,
            mpi: "pmix".to_owned(),
            setup: "echo set up".to_owned(),
            max_tasks: 1,
            retries: 0,
            retry_time: None,
            retry_memory: None,
            save_before: 1,
            local: false,
        };
        let exits = dir.path().join("exits of it");
        let keys = vec![Some("train/a"), None];
        let text = Script { job: &job, stage: 3, keys, settings: &settings, exits: &exits }.text();
        let script = dir.path().join("script");
        fs::write(&script, text).unwrap();
        (dir, script, exits)
    }

    #[test]
    fn a_task_does_its_part_and_leaves_the_exit_code() {
        let (_dir, script, exits) = written("for word; do echo \"$word\"; done; exit 7", Some(5));
        let task = |number: &str| Command::new("sh").arg(&script).env("SLURM_ARRAY_TASK_ID", number).output().unwrap();
        let expected = [
            "set up\nrun-part\nmy recipe.yaml\n3\ntrain/a\n--wait\n--jobs\n5\n--set\nname='$x'\n",
            "set up\nrun\nmy recipe.yaml\n--stage\n3\n--stop-stage\n3\n--wait\n--jobs\n5\n--set\nname='$x'\n",
        ];
        for (number, expected) in expected.into_iter().enumerate() {
            let done = task(&number.to_string());
            assert_eq!(done.status.code(), Some(7));
            assert_eq!(String::from_utf8(done.stdout).unwrap(), expected);
            assert_eq!(read_exit(&exit_file(&exits, number)), Some(Exit { code: 7, warned: false }));
        }
        assert_eq!(task("2").status.code(), Some(2));
        assert_eq!(read_exit(&exit_file(&exits, 2)), None);
    }

    #[test]
    fn the_signal_before_the_time_limit_reaches_the_program() {
        let lines = "trap 'exit 130' USR1; echo ready > \"$0.ready\"; i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done";
        let (dir, script, exits) = written(lines, None);
        let mut shell = Command::new("sh").arg(&script).stdout(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !dir.path().join("a program's.ready").exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_raw(shell.id() as i32).unwrap(), Signal::USR1).unwrap();
        assert_eq!(shell.wait().unwrap().code(), Some(130));
        assert_eq!(read_exit(&exit_file(&exits, 0)), Some(Exit { code: 130, warned: true }));
    }
}
