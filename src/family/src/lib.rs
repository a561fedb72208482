//! The interface between the stages and a model family.
//!
//! A family is a type that implements [`Family`]: its settings, the columns that it reads from a row, examples and
//! batches, the network with its loss, previews, export, scores and synthesis. A [`Registry`] contains the families
//! of a program. Stages 4 and 6 and the commands look up a family by its name in the registry and use it through
//! [`Configured`], [`AnyModel`] and [`AnyExported`], so they depend on no particular family.
//!
//! | step | functions of [`Family`] |
//! |---|---|
//! | the recipe is read and checked | `check`, `check_columns`, `check_initial_weights`, `check_export`, `adapters`, `loss_scale` |
//! | stage 3 packs shards | [`Family::SHARD_COLUMNS`] |
//! | stage 4 opens shards | `columns`, `reader`, `cost`, `example`, `collate` |
//! | stage 4 trains | `complete`, `build`, `initialize`; [`Model::loss`], [`Model::preview`], `describe`; [`Family::REFERENCES`] |
//! | `flowmill train --overfit`, `--eval` | `variants`, `take_text`, [`Model::distances`] |
//! | stage 6 exports, samples and scores | `sampling`, `export`, `export_adapters`, `scorer`, `card` |
//! | `flowmill synth` | `synthesizer` |
//! | `flowmill report` | `explain` |

mod configured;
mod error;
mod exported;
mod family;
mod output;
mod registry;

pub use configured::{AnyModel, Batch, Configured, Examples, Reader, ReaderRow};
pub use error::{FamilyError, KeyError};
pub use exported::{
    AnyExported, Card, ExplainedScore, HubMetadata, Input, Loaded, Play, Report, Request, Scored, Scorer, Synthesis,
    Synthesizer,
};
pub use family::{
    Artifacts, Columns, Derived, ExtractorFiles, Family, FittedExtractor, Model, NoOptions, Provided, Settings,
    TrainSettings,
};
pub use flowmill_train::metrics::Reference;
pub use flowmill_train::{BoxError, LoraConfig, Loss, LossScaleConfig};
pub use output::{Audio, Image, Made, MelOutput, Output};
pub use registry::{Registered, Registry};
