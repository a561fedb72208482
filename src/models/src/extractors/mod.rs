//! Extractors: what stages 1 and 2 run over rows to add a column.
//!
//! An extractor has a *kind* (its name in a recipe), possibly *weights* (fitted on the corpus, or published ones), and
//! one *output column*. It sees the [`Media`] of a row — audio today; video and images have their place there — and
//! gives one [`Extracted`] value. The kinds that need no downloaded weights are fitted on the training split first;
//! see [`Fit`].
//!
//! | kind | column | values |
//! |---|---|---|
//! | `statistics` | `utt_embedding` | 192 numbers of unit length: whitened mean and deviation of log-mel and its deltas |
//! | `campplus` | `utt_embedding` | 192 numbers from the CAM++ speaker encoder, with published weights |
//! | `kmeans` | `speech_token` | units at 25 Hz: nearest centres of log-mel, level and pitch |
//! | `paraformer-units` | `speech_token` | Step-Audio's linguistic tokens at 16.7 Hz |
//! | `step-audio-dual` | `speech_token` | Step-Audio's linguistic and semantic tokens, mixed |
//! | `import` | either | what another tool extracted, by id; see [`import`] |
//! | `s3-tokenizer` | `speech_token` | CosyVoice's supervised semantic tokens at 25 Hz, version 1 or 2 |
//! | `dual-kmeans` | `speech_token` | such units of two codebooks, at 16.7 and 25 Hz, as a mixed sequence |
//!
//! A new kind is a module here with a configuration struct, a type that implements [`Extractor`] (and [`Fit`], if it
//! learns from the corpus), and one variant of [`ExtractorConfig`]. The stages need no change.

pub mod campplus;
mod config;
pub mod dual_kmeans;
mod error;
mod extractor;
mod fit;
mod graph_attributes;
pub mod import;
pub mod kmeans;
mod linear_algebra;
mod matrix;
mod media;
mod nearest;
pub mod paraformer;
mod rows;
pub mod s3;
mod sinusoids;
mod state;
pub mod statistics;
pub mod step_audio;
mod tensors;
mod weights;

pub use config::{ExtractorConfig, from_state};
pub use error::{ConfigError, ExtractError, StateError, UnusableWeights};
pub use extractor::{Column, Extracted, Extractor, ValueType};
pub use fit::{Accumulator, Facts, Fit, Fitted, Scope};
pub use matrix::Matrix;
pub use media::{LazyAudio, Media, MediaError};
pub use rows::{Interrupted, RowEvents, RowWork, apply, fit_parts, fit_rows, for_each_row};
pub use state::State;
pub use weights::Weights;
