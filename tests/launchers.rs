//! Programs that start several processes, and a build that cannot connect them. Training on several processes is in `tests/ranks.rs`.

use crate::support::Mini;
use crate::support::flowmill::outcome;

/// Runs with the variables of a launcher.
fn run_under(variables: &[(&str, &str)], arguments: &[&str]) -> crate::support::Outcome {
    let mini = Mini::new();
    let started = std::time::Instant::now();
    let mut command = mini.command("run", arguments);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let found = outcome(output, started.elapsed()).expect_no_panic();
    assert!(!mini.exp("").exists() || found.code == Some(0), "nothing was begun: {}", found.text());
    found
}

#[test]
fn processes_that_cannot_be_connected_are_refused_once_and_not_trained_apart() {
    let torchrun = |rank| [("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank)];
    run_under(&torchrun("0"), &[]).expect_error("processes", 2).expect_words(&["torchrun", "2 processes"]);
    let silent = run_under(&torchrun("1"), &[]).expect_code(2);
    assert_eq!(silent.text(), "", "the first process has told");
    if cfg!(feature = "mpi") {
        return;
    }
    let mpirun = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "4")];
    run_under(&mpirun, &[]).expect_error("processes", 2).expect_words(&["--features mpi"]);
    let srun = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_LOCALID", "0")];
    run_under(&srun, &[]).expect_error("processes", 2).expect_words(&["srun"]);
    run_under(&[], &["--nproc", "2"]).expect_error("processes", 2).expect_words(&["--nproc", "--features mpi"]);
}

#[test]
fn variables_that_contradict_each_other_are_refused() {
    for variables in [[("WORLD_SIZE", "2"), ("RANK", "5")], [("WORLD_SIZE", "many"), ("RANK", "0")]] {
        run_under(&variables, &[]).expect_error("processes", 2);
    }
}

#[test]
fn one_process_is_alone_under_any_launcher() {
    let alone = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1"), ("SLURM_NTASKS", "8")];
    run_under(&alone, &["--stop-stage", "prep", "--nproc", "1"]).expect_code(0);
}
