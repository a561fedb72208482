//! Errors of starting and using several ranks.

/// Reason why ranks could not be started, or could not exchange something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectiveError {
    /// Several processes were started, or asked for, and this build has no engine.
    #[error(
        "{wanted}, but this build of flowmill has no MPI, so it can only work alone. Build it with MPI: `cargo build --release --workspace \
         --features mpi --bin flowmill` (it needs the packages libopenmpi-dev, openmpi-bin and libclang-dev, or their counterparts)"
    )]
    NotBuilt {
        /// The processes that were started or asked for.
        wanted: String,
    },
    /// A launcher that is not one of MPI has started several processes.
    #[error(
        "{launcher} started {size} processes, which the MPI of this build cannot connect. Use `flowmill run RECIPE --nproc {size}`, \
         `mpirun -n {size} flowmill run RECIPE`, or `srun --mpi=pmix -n {size} flowmill run RECIPE`"
    )]
    Launcher {
        /// The launcher.
        launcher: &'static str,
        /// The number of processes.
        size: usize,
    },
    /// The variables of a launcher contradict each other.
    #[error("the environment of {launcher} is not usable: {reason}. Unset these variables to run one process")]
    Environment {
        /// The launcher.
        launcher: &'static str,
        /// The problem.
        reason: String,
    },
    /// MPI sees another number of processes than the launcher has started.
    #[error(
        "{launcher} started {started} processes, but MPI sees {seen}: the processes cannot find each other, and each would train alone. \
         With srun, add `--mpi=pmix`; with mpirun, use the mpirun of the MPI that flowmill was built with (`mpirun --version`)"
    )]
    NotConnected {
        /// The launcher.
        launcher: &'static str,
        /// The number of processes that it started.
        started: usize,
        /// The number of processes that MPI sees.
        seen: usize,
    },
    /// MPI could not be initialized.
    #[error("MPI cannot be used: {0}")]
    Engine(String),
    /// The program that starts the processes cannot be run.
    #[error(
        "{program} cannot be started: {reason}. It comes with OpenMPI (package openmpi-bin); FLOWMILL_MPIRUN names another one"
    )]
    Start {
        /// The program.
        program: String,
        /// The reason.
        reason: String,
    },
    /// An exchange that is larger than an engine can do at once.
    #[error("{0} values cannot be exchanged at once; the limit is {max}", max = i32::MAX)]
    TooLarge(usize),
    /// The parts of an exchange do not match its values: a bug in the caller.
    #[error("{values} values cannot be cut into {counts:?} for {size} ranks")]
    Counts {
        /// The number of values.
        values: usize,
        /// The sizes of the parts.
        counts: Vec<usize>,
        /// The number of ranks.
        size: usize,
    },
    /// A rank waits for a call that nobody can make: a bug in the caller.
    #[error("a single process waits for a call of another one")]
    NobodyCalls,
    /// Another rank is gone.
    #[error("another rank has ended")]
    Gone,
}
