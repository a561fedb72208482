//! Training shards: Parquet files with the columns CosyVoice's `tools/make_parquet_list.py` writes, plus the training mel.
//!
//! | column | type | what |
//! |---|---|---|
//! | `utt` `wav` `text` `spk` | string | id, path as the data say, transcript, speaker |
//! | `audio_data` | binary | the recording's own bytes; a cut WAV for a piece of a longer recording |
//! | `utt_embedding` `spk_embedding` | list of float32 | of the utterance, of its speaker |
//! | `speech_token` | list of int64 | |
//! | `lang` | string or null | |
//! | `duration` `sample_rate` | float64, int32 | seconds and Hz of `audio_data` |
//! | `mel` | list of float16 or float32 | frame after frame, `mel_frames` × `mel_bins` values |
//! | `mel_frames` `mel_bins` | int32 | the layout of `mel` |
//!
//! Or, with the same rows, WebDataset tar files ([`TarShardWriter`]).
//!
//! Row groups are small (8 MiB or 50 rows) and pages smaller still, so that single rows can be fetched without reading their
//! neighbours. A split's shards are listed with their checksums in `index.json` ([`ShardIndex`]), which [`Shards`] verifies; `content.json`
//! has digests of their columns ([`SplitContent`]).

mod cache;
mod columns;
mod content;
mod decode;
mod index;
mod lists;
mod mel_statistics;
mod reader;
mod row;
mod store;
mod tallying;
mod tar;
mod writer;

pub use columns::{Column, MelStore};
pub use content::{ColumnDigests, ContentHasher, SplitContent};
pub use index::{MadeBy, ShardEntry, ShardIndex};
pub use lists::{ListPaths, write_data_list, write_row_lists, write_shard_lists};
pub use mel_statistics::MelStatistics;
pub use reader::ShardReader;
pub use row::{Mel, ShardRow};
pub use store::Shards;
pub use tar::TarShardWriter;
pub use writer::{ShardOptions, ShardSummary, ShardWriter};
