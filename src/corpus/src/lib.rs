//! Corpora: what rows of data there are, how they are stored, and in which order training sees them.
//!
//! | module | concern |
//! |---|---|
//! | [`array`], [`column`] | the typed value of a column in a row, and what a column holds ([`Row`] has them with its media) |
//! | [`kaldi`], [`folder`], [`ljspeech`], [`manifest`], [`webdataset`] | read and validate the formats people keep recordings in; each gives a [`Reading`] |
//! | [`fields`] | what a JSON object says of an utterance, by all the names its fields go by |
//! | [`hints`] | what a folder seems to be that is not of the format it is read as |
//! | [`utterances`] | the columnar, memory-lean table a reading fills (a million rows fit easily) |
//! | [`split`] | train / dev / test by lists or by a hash of the id |
//! | [`table`] | utterance tables, embeddings and tokens as Parquet, through Polars |
//! | [`source`] | the bytes behind an utterance: a file, a member of a tar file, or a piped command when allowed |
//! | [`tar`] | tar files: their members and where their bytes lie, safely |
//! | [`shard`] | training shards with CosyVoice's columns, their index, and random access to their rows |
//! | [`sampling`] | epochs and batches, curricula, balanced speakers and mixtures, computed from lengths alone |
//!
//! This crate may not know of stages, recipes or networks, and of audio only what recordings are called and how they begin
//! (`flowmill_audio::media`): it moves bytes and rows.
//! It writes only to the paths it is given; making files durable is the caller's business.

pub mod array;
mod checksum;
pub mod column;
mod delimited;
mod encoding;
mod error;
pub mod fields;
pub mod folder;
pub mod hints;
mod ids;
pub mod kaldi;
mod lines;
pub mod ljspeech;
pub mod manifest;
mod options;
mod paths;
mod reading;
mod row;
mod samples;
pub mod sampling;
pub mod shard;
pub mod source;
pub mod split;
mod strings;
pub mod table;
pub mod tar;
pub mod utterances;
mod values;
mod walk;
pub mod webdataset;

pub use array::{Array, ArrayData, ArrayError, DType, Element};
pub use checksum::{Checksum, file_checksum};
pub use column::{Axis, ColumnError, ColumnSpec};
pub use error::CorpusError;
pub use options::{Ids, ReadOptions};
pub use reading::{Reading, Rejection};
pub use row::{MediaRef, Role, Row};
pub use utterances::{Extra, Utterance, UtteranceRow, Utterances};
