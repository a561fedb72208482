//! Training: optimizers, schedules, the loop, checkpoints and metrics.
//!
//! [`train()`] runs a [`Task`] (a loss as a pure function of parameters, batch and draws) over a [`DataSource`] (batches in an
//! order that is a function of seed and epoch only), saves to a [`CheckpointStore`] and reports to an [`Observer`]. It guarantees
//!
//! * **exactness**: the same settings and data give the same weights, checkpoints and metrics, bit for bit, however often the
//!   run is killed and resumed, whatever the number of threads;
//! * **honesty**: a trainable parameter that gets no finite gradient on the first step stops the run by name; a step whose loss
//!   or gradient is not finite is skipped, counted and dumped; a damaged checkpoint is never used and never passed over in
//!   silence.
//!
//! This crate does not depend on corpora or particular models, and commits no files: durable folders are the store's responsibility.

pub mod checkpoint;
mod config;
pub mod coverage;
pub mod device;
mod disk_full;
mod ema;
mod error;
mod evaluate;
mod extend;
mod identity;
mod interval;
mod last_save;
mod loader;
pub mod lora;
mod loss_scale;
pub mod metrics;
pub mod optimizer;
mod overfit;
mod overflow;
pub mod parity;
mod pass;
mod plan_memory;
pub mod process_memory;
mod ranks;
mod replay;
mod samples;
pub mod schedule;
mod setup;
mod share;
mod skipped;
pub mod steering;
mod stopping;
mod summary;
mod synced;
mod task;
mod train;
mod waiting;
mod warnings;

pub use config::{KeepConfig, TrainConfig};
pub use error::{BoxError, DumpFault, TrainError};
pub use evaluate::{Evaluation, evaluate};
pub use identity::{Identity, RunIdentity};
pub use interval::{Epochs, Interval};
pub use last_save::Freeable;
pub use lora::LoraConfig;
pub use loss_scale::{LossScale, LossScaleConfig, Overflow};
pub use optimizer::OptimConfig;
pub use overfit::{Overfit, OverfitOptions, overfit};
pub use plan_memory::{BatchCost, LargestBatch, MemoryPlan, Source, plan_memory};
pub use ranks::{cannot_follow, follow};
pub use replay::{Replay, replay};
pub use samples::{Media, Sample, samples_step};
pub use schedule::ScheduleConfig;
pub use share::DataOfRank;
pub use skipped::{Dump, DumpedBatch, DumpedWeights, Figure, SKIPPED_FOLDER};
pub use stopping::{EarlyStopping, Limits, Patience};
pub use summary::Summary;
pub use task::{CheckpointStore, DataSource, Loss, Observer, Progress, Task};
pub use train::{train, train_with};
pub use warnings::RunLength;
