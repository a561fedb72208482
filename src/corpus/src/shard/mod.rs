//! Training shards: Parquet files whose schema follows from a list of [`ColumnSpec`](crate::ColumnSpec)s.
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `utt` `spk` | string | the row's id and its group (the speaker) |
//! | a column without axes | the type of its values | null where an optional one is missing |
//! | a column with one axis | list of values | |
//! | a column with two axes or more | list of values, and int32 fields `NAME_AXISs` | row-major, with the size of every axis: `mel`, `mel_frames`, `mel_bins` |
//!
//! The speech flows' columns are those of CosyVoice's `tools/make_parquet_list.py`, and the training mel ([`speech`]).
//! The same rows can also be WebDataset tar files ([`TarShardWriter`]).
//!
//! Row groups are small (8 MiB or 50 rows) and pages smaller still, so that single rows can be fetched without reading their
//! neighbors. A split's shards are listed with their checksums in `index.json` ([`ShardIndex`]), which [`Shards`] verifies; `content.json`
//! has digests of their columns ([`SplitContent`]).

mod cache;
mod content;
mod decode;
mod encode;
mod index;
mod lists;
mod mel_statistics;
mod reader;
mod schema;
pub mod speech;
mod store;
mod tallying;
mod tar;
mod writer;

pub use content::{ColumnDigests, ContentHasher, SplitContent};
pub use index::{MadeBy, RowSizes, ShardEntry, ShardIndex};
pub use lists::{ListPaths, write_data_list, write_row_lists, write_shard_lists};
pub use mel_statistics::{MEL_STATISTICS_FILE, MelStatistics};
pub use reader::ShardReader;
pub use schema::{columns_of, size_names};
pub use speech::MelStore;
pub use store::{AnyShard, Shards};
pub use tar::{TarShardReader, TarShardWriter};
pub use writer::{ShardOptions, ShardSummary, ShardWriter, without_keys};

/// The field of a row's id.
pub const ID: &str = "utt";
/// The field of a row's group.
pub const GROUP: &str = "spk";
