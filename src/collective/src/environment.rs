//! The variables by which launchers tell a process its rank.

use crate::CollectiveError;

/// The place of this process among those that a launcher has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Environment {
    /// The launcher, for people.
    pub launcher: &'static str,
    /// True if processes of this launcher can find each other through MPI.
    pub is_mpi: bool,
    /// The number of this process, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
    /// The number of this process among those on its machine, from 0.
    pub local_rank: usize,
    /// The number of processes on this machine.
    pub local_size: usize,
}

/// The variables of one launcher, in the order of the fields of [`Environment`]. The last two may be absent.
struct Variables {
    launcher: &'static str,
    is_mpi: bool,
    rank: &'static str,
    size: &'static str,
    local_rank: &'static str,
    local_size: &'static str,
}

/// The launchers, those that set the most specific variables first: under `mpirun` in a Slurm job both sets exist.
const LAUNCHERS: [Variables; 4] = [
    Variables {
        launcher: "mpirun",
        is_mpi: true,
        rank: "OMPI_COMM_WORLD_RANK",
        size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_size: "OMPI_COMM_WORLD_LOCAL_SIZE",
    },
    Variables {
        launcher: "mpiexec (PMI)",
        is_mpi: true,
        rank: "PMI_RANK",
        size: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
        local_size: "MPI_LOCALNRANKS",
    },
    // Only srun sets the number of tasks of a step: a batch script alone is one process, whatever its allocation.
    Variables {
        launcher: "srun",
        is_mpi: true,
        rank: "SLURM_PROCID",
        size: "SLURM_STEP_NUM_TASKS",
        local_rank: "SLURM_LOCALID",
        local_size: "SLURM_STEP_TASKS_PER_NODE",
    },
    Variables {
        launcher: "torchrun",
        is_mpi: false,
        rank: "RANK",
        size: "WORLD_SIZE",
        local_rank: "LOCAL_RANK",
        local_size: "LOCAL_WORLD_SIZE",
    },
];

impl Environment {
    /// Returns the place of this process; `None` if it was started alone.
    ///
    /// # Errors
    /// When the variables of a launcher are incomplete or contradict each other.
    pub fn detect() -> Result<Option<Self>, CollectiveError> {
        Self::of(&|name| std::env::var(name).ok())
    }

    /// The same as [`detect`](Self::detect) with other variables.
    ///
    /// # Errors
    /// Those of [`detect`](Self::detect).
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, CollectiveError> {
        let found = LAUNCHERS.iter().find(|launcher| variable(launcher.size).is_some());
        let Some(Variables { launcher, is_mpi, rank, size, local_rank, local_size }) = found else { return Ok(None) };
        let fail = |reason: String| CollectiveError::Environment { launcher, reason };
        let number = |name: &str| {
            // Slurm writes `4(x2)` for four tasks on each of two nodes, `4,3` for different ones.
            let text = variable(name)?;
            let digits = text.split(['(', ',']).next().unwrap_or_default().trim().to_owned();
            Some(digits.parse::<usize>().map_err(|_| fail(format!("{name} is {text:?} instead of a number"))))
        };
        let Some(size_found) = number(size).transpose()? else { return Ok(None) };
        if size_found <= 1 {
            return Ok(None);
        }
        let found = number(rank).transpose()?;
        let found = found.ok_or_else(|| fail(format!("{size} is {size_found}, but {rank} is not set")))?;
        if found >= size_found {
            return Err(fail(format!("{rank} is {found}, but there are only {size_found} processes ({size})")));
        }
        let local_rank = number(local_rank).transpose()?.unwrap_or(found);
        let local_size = number(local_size).transpose()?.unwrap_or(size_found).max(local_rank + 1);
        Ok(Some(Self { launcher, is_mpi: *is_mpi, rank: found, size: size_found, local_rank, local_size }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Environment>, CollectiveError> {
        Environment::of(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_launcher_is_recognized() {
        let place = |launcher, is_mpi, rank, size, local_rank, local_size| {
            Some(Environment { launcher, is_mpi, rank, size, local_rank, local_size })
        };
        assert_eq!(of(&[]), Ok(None));
        let mpirun = [("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "4")];
        assert_eq!(of(&mpirun), Ok(place("mpirun", true, 2, 4, 2, 4)));
        let mpiexec = [("PMI_RANK", "3"), ("PMI_SIZE", "4"), ("MPI_LOCALRANKID", "1"), ("MPI_LOCALNRANKS", "2")];
        assert_eq!(of(&mpiexec), Ok(place("mpiexec (PMI)", true, 3, 4, 1, 2)));
        let srun = [
            ("SLURM_PROCID", "5"),
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_TASKS_PER_NODE", "4(x2)"),
        ];
        assert_eq!(of(&srun), Ok(place("srun", true, 5, 8, 1, 4)));
        let torchrun = [("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")];
        assert_eq!(of(&torchrun), Ok(place("torchrun", false, 1, 2, 1, 2)));
        let both = [&mpirun[..], &srun[..]].concat();
        assert_eq!(of(&both).unwrap().unwrap().launcher, "mpirun");
    }

    #[test]
    fn one_process_is_alone_and_a_batch_script_is_one_process() {
        assert_eq!(of(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")]), Ok(None));
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8"), ("SLURM_JOB_ID", "7")]), Ok(None));
    }

    #[test]
    fn variables_that_contradict_each_other_are_refused() {
        for variables in [
            &[("WORLD_SIZE", "2")][..],
            &[("WORLD_SIZE", "2"), ("RANK", "2")],
            &[("WORLD_SIZE", "two"), ("RANK", "0")],
            &[("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "-1")],
        ] {
            assert!(matches!(of(variables), Err(CollectiveError::Environment { .. })), "{variables:?}");
        }
    }
}
