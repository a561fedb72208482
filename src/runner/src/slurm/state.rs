//! The states of jobs, as `squeue` and `sacct` name them.

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TaskState {
    /// It waits; Slurm's reason.
    Pending(String),
    Running,
    Ended(End),
}

/// The way in which a task ended, as Slurm sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    /// With an exit code that is not 0, or a signal.
    Failed,
    OutOfMemory,
    TimeLimit,
    NodeFailed,
    Preempted,
    Cancelled,
}

/// Returns the state that a name stands for; `reason` is why the task waits.
pub(super) fn state(name: &str, reason: &str) -> TaskState {
    // `CANCELLED by 1000`, `COMPLETED+`
    let name = name.split([' ', '+']).next().unwrap_or_default();
    let end = match name {
        "COMPLETED" => End::Completed,
        "OUT_OF_MEMORY" => End::OutOfMemory,
        "TIMEOUT" | "DEADLINE" => End::TimeLimit,
        "NODE_FAIL" | "BOOT_FAIL" => End::NodeFailed,
        "PREEMPTED" => End::Preempted,
        "CANCELLED" | "REVOKED" => End::Cancelled,
        "FAILED" => End::Failed,
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => {
            return TaskState::Pending(reason.to_owned());
        }
        // Running, or about to begin or end: CONFIGURING, COMPLETING, STAGE_OUT, SUSPENDED, STOPPED, SIGNALING, RESIZING.
        _ => return TaskState::Running,
    };
    TaskState::Ended(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_both_programs_are_understood() {
        assert_eq!(state("PENDING", "Resources"), TaskState::Pending("Resources".to_owned()));
        assert_eq!(state("COMPLETING", "None"), TaskState::Running);
        assert_eq!(state("CANCELLED by 1000", ""), TaskState::Ended(End::Cancelled));
        assert_eq!(state("OUT_OF_MEMORY", "OutOfMemory"), TaskState::Ended(End::OutOfMemory));
        assert_eq!(state("FAILED", "NonZeroExitCode"), TaskState::Ended(End::Failed));
    }
}
