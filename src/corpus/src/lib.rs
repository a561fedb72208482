//! Corpora: rows of data, their storage, and the order in which training sees them.
//!
//! | module | content |
//! |---|---|
//! | [`array`], [`column`] | the typed value of a column in a row, and the specification of a column ([`Row`] has them with its media) |
//! | [`kaldi`], [`folder`], [`ljspeech`], [`manifest`], [`webdataset`], [`codes`], [`clips`] | readers of common formats; each returns a [`Reading`] |
//! | [`corpora`], [`list`] | readers of public corpora as they unpack, and of lists in a stated order |
//! | [`huggingface`], [`lhotse`] | readers of Parquet and Arrow files with recordings, and of lhotse's manifests |
//! | [`extracted`] | files of tokens and embeddings that another program extracted, outside of a corpus |
//! | [`packed`] | packed shards as a source: their rows, and their columns by the places of recordings |
//! | [`fields`] | the fields of a JSON object that describes an utterance, with all their alternative names |
//! | [`images`] | folders of images with captions |
//! | [`histories`] | users with items that they liked, from the JSON files of PMG |
//! | [`detect`] | the format of a source, told by its files |
//! | [`hints`] | hints about the actual format of a folder that cannot be read |
//! | [`utterances`] | the compact columnar table that a reader fills (a million rows fit easily) |
//! | [`split`] | train, dev and test splits by lists or by a hash of the id |
//! | [`table`] | utterance tables, embeddings and tokens as Parquet, through Polars |
//! | [`source`] | the source of an utterance's bytes: a file, a member of a tar file, or a piped command if allowed |
//! | [`tar`] | tar files: safe reading of their members and the positions of their bytes |
//! | [`shard`] | training shards with CosyVoice's columns, their index, and random access to their rows |
//! | [`sampling`] | epochs and batches, curricula, balanced speakers and mixtures, computed from lengths alone |
//!
//! This crate does not depend on stages, recipes or networks. Of audio it knows only the names and first bytes of
//! recordings (`flowmill_audio::media`): it moves bytes and rows.
//! It writes only to the paths it is given. The caller is responsible for making files durable.

pub mod array;
pub mod arrow_file;
mod checksum;
pub mod clips;
pub mod codes;
pub mod column;
pub mod corpora;
mod delimited;
pub mod detect;
mod encoding;
mod error;
pub mod extracted;
pub mod fields;
pub mod folder;
pub mod hints;
pub mod histories;
pub mod huggingface;
mod ids;
pub mod images;
pub mod kaldi;
pub mod lhotse;
mod lines;
pub mod list;
pub mod ljspeech;
pub mod manifest;
mod objects;
mod options;
pub mod packed;
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
mod waveform;
pub mod webdataset;

pub use array::{Array, ArrayData, ArrayError, DType, Element};
pub use checksum::{Checksum, file_checksum};
pub use column::{Axis, ColumnError, ColumnSpec};
pub use error::CorpusError;
pub use ids::of_path as id_of_path;
pub use options::{Ids, ReadOptions};
pub use reading::{Reading, Rejection};
pub use row::{MediaRef, Role, Row};
pub use utterances::{Extra, Utterance, UtteranceRow, Utterances};
