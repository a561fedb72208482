//! Extractors: what stages 1 and 2 run over rows to add a column.
//!
//! An extractor has a *kind* (its name in a recipe), possibly *weights* (fitted on the corpus, or published ones), and
//! one or more *columns* of any type and shape. It sees the [`Media`] of a row, its recording, video or pictures, and
//! gives its [`Extracted`] values. The kinds that need no downloaded weights are fitted on the training split first;
//! see [`Fit`].
//!
//! | kind | column | values |
//! |---|---|---|
//! | `statistics` | `utt_embedding` | 192 numbers of unit length: whitened mean and deviation of log-mel and its deltas |
//! | `campplus` | `utt_embedding` | 192 numbers from the CAM++ speaker encoder, with published weights |
//! | `kmeans` | `speech_token` | units at 25 Hz: nearest centres of log-mel, level and pitch |
//! | `paraformer-units` | `speech_token` | Step-Audio's linguistic tokens at 16.7 Hz |
//! | `step-audio-dual` | `speech_token` | Step-Audio's linguistic and semantic tokens, mixed |
//! | `import` | either | what another tool extracted, by id; see [`extractors::import`] |
//! | `import-codes` | `codes` | codes of a neural codec that another tool made, from the file of the row |
//! | `s3-tokenizer` | `speech_token` | CosyVoice's supervised semantic tokens at 25 Hz, version 1 or 2 |
//! | `phonemes` | `phonemes`, `language` | the row's text as phonemes or plain characters, and its language |
//! | `dual-kmeans` | `speech_token` | such units of two codebooks, at 16.7 and 25 Hz, as a mixed sequence |
//! | `rvq-kmeans` | `codes` | residual k-means on log-mel at 75 Hz, 8 levels; decoded by Griffin-Lim |
//! | `encodec` | `codes` | EnCodec's codes of 24 kHz sound at 75 Hz, 8 of 32 levels |
//! | `wav2vec2` | `speech_features`, `emotion` | hidden states of wav2vec 2.0 per video frame, probabilities of seven emotions |
//! | `dac` | `codes` | DAC's codes of 44.1 kHz sound at 86.13 Hz, 9 levels |
//! | `import-latents` | `motion`, `reference`, `speech_features`, `emotion` | what another tool made, from the `.pt` file of the row |
//! | `mel-windows` | `speech_features` | log-mel of each frame of a video and its neighbors |
//! | `pca-motion` | `motion`, `reference`, `portrait` | principal components of the frames of a face; they can be rendered |
//!
//! Extractors of codes also have a decoder, a [`Codec`], which [`Registry::codec`] opens. Extractors of motion have a [`Renderer`]
//! ([`Registry::renderer`]).
//!
//! A new kind is a folder in [`extractors`] with settings that implement [`Kind`], a type that implements [`Extractor`] (and [`Fit`], if it
//! learns from the corpus), and one line in [`extractors::registry`]. The stages need no change.

mod clustering;
mod codec;
mod column;
pub mod dual_codebook;
mod error;
mod extractor;
pub mod extractors;
mod fit;
mod graph_attributes;
mod kind;
mod linear_algebra;
mod matrix;
mod media;
mod nearest;
mod registry;
mod renderer;
mod residual_quantizer;
mod rows;
mod sinusoids;
mod state;
mod tensors;
mod video;
pub mod waveform;
mod weights;

pub use codec::{Codec, CodecError};
pub use column::{CODES, Column, Extracted, NOISE_CODES, NOISY_CODES, ValueType};
pub use error::{ConfigError, ExtractError, StateError, UnusableWeights};
pub use extractor::Extractor;
pub use fit::{Accumulator, Facts, Fit, Fitted, Scope};
pub use kind::Kind;
pub use matrix::Matrix;
pub use media::{LazyAudio, Media, MediaError};
pub use registry::{Chosen, Registry};
pub use renderer::{MOTION, PORTRAIT, REFERENCE, RenderError, Renderer, portrait_of};
pub use rows::{Interrupted, RowEvents, RowWork, apply, fit_parts, fit_rows, for_each_row};
pub use state::State;
pub use video::VideoPart;
pub use weights::{Pretrained, Weights, required as required_weights};
