//! The runner: everything that a numbered, idempotent stage needs around it, implemented once for all stages.
//!
//! It reads a recipe, asks each stage for its parts and compares every part with the receipt of its last run. It runs
//! what changed on local threads, puts the outputs in place atomically, counts rows and reports progress. It knows
//! nothing of audio, corpora or networks: a stage is any type that implements [`Stage`].
//!
//! | to learn about | read |
//! |---|---|
//! | what a stage provides | [`Stage`], [`Phase`], [`Part`], [`PartWork`], [`PartReport`] |
//! | the recipe file | [`Recipe`], [`RecipeError`] |
//! | running, asking, removing | [`run`], [`status`], [`clean`], [`show`], [`check`] |
//! | several processes on one experiment | [`run_part`], [`open_parts`] |
//! | parts as jobs of a cluster | [`run_on_slurm`] |
//! | what lies on disk | [`Experiment`], [`Receipt`] |
//! | files outside of experiments | [`WholeFile`] |

mod assess;
mod cache;
mod checksummed_json;
mod clean;
mod clock;
mod context;
mod damage;
mod dry_run;
mod error;
mod executor;
mod file_system_limits;
mod files;
mod foresight;
mod interrupt;
mod journal;
mod layout;
mod lockfile;
mod names;
mod panics;
mod part;
mod previous;
mod prior_work;
mod reason;
mod receipt;
mod recipe;
mod rejects;
mod remedy;
mod report;
mod rollback;
mod run;
mod run_error;
mod run_part;
mod session;
mod shell;
mod slurm;
mod stage;
mod staging;
mod status;
mod store;
mod totals;
mod whole_file;
mod work;
mod yaml;

pub use clean::clean;
pub use context::PlanContext;
pub use damage::{StageFiles, damage, sealed_content};
pub use error::StageError;
pub use files::copy_bytes;
pub use interrupt::Interrupt;
pub use journal::read_journal;
pub use layout::{Experiment, part_state};
pub use lockfile::{Holder, dead_owner, holder};
pub use part::{End, Part, Phase, Reached, Recorded, Restored, Resumable, WorkRecord};
pub use reason::{ReasonCount, ReasonKind};
pub use receipt::{InputRecord, OutputRecord, Receipt, Rejection, RejectionReason};
pub use recipe::{Recipe, RecipeError, joined_schema, keys_of, schema, tagged_schema};
pub use rejects::RejectionKind;
pub use report::Reporter;
pub use rollback::{Rollback, RolledBack, rollback};
pub use run::{RunOptions, RunSummary, StageOutcome, run};
pub use run_error::RunError;
pub use run_part::{OpenPart, OpenParts, PartOutcome, open_parts, run_part};
pub use session::{StageRange, check, show, warnings};
pub use shell::quoted;
pub use slurm::{FailedPart, JobCommand, SlurmError, check_slurm, run_on_slurm, slurm_jobs, slurm_processes};
pub use stage::{Stage, StagePaths};
pub use status::{StageState, StageStatus, status};
pub use whole_file::WholeFile;
pub use work::{PartReport, PartWork};
pub use yaml::{from_yaml, to_yaml};
