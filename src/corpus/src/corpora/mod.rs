//! Public corpora as their archives unpack: folder trees whose transcripts are in lists or in a folder of their own.
//!
//! | corpus | recordings | transcripts | splits |
//! |---|---|---|---|
//! | LibriTTS, LibriTTS-R | `train-clean-100/84/121123/84_121123_000007_000000.wav` | `….normalized.txt`, or `….original.txt` | the first folder |
//! | LibriSpeech | `train-clean-100/84/121123/84-121123-0000.flac` | `84-121123.trans.txt` | the first folder |
//! | VCTK 0.92 | `wav48_silence_trimmed/p225/p225_001_mic1.flac` | `txt/p225/p225_001.txt` | none |
//! | AISHELL-3 | `train/wav/SSB0005/SSB00050001.wav` | `train/content.txt` | the first folder |
//! | MLS | `train/audio/84/121123/84_121123_000000.opus` | `train/transcripts.txt` | the first folder |
//! | Common Voice | `en/clips/common_voice_en_1.mp3` | `en/train.tsv`, `dev.tsv`, `test.tsv`, `validated.tsv` | the table |
//! | GigaSpeech | segments of `audio/podcast/P0001/POD0000000001.opus` | `GigaSpeech.json` | `{DEV}` and `{TEST}` among the subsets |
//!
//! Every recording and every transcript becomes a row or a rejection. The languages are those of the corpora.

mod common_voice;
mod giga_speech;
mod names;
mod tree;

use std::path::{Path, PathBuf};

use crate::{CorpusError, ReadOptions, Reading};

/// A public corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corpus {
    /// LibriTTS and LibriTTS-R.
    LibriTts,
    /// LibriSpeech.
    LibriSpeech,
    /// VCTK, version 0.92 or 0.80.
    Vctk,
    /// AISHELL-3.
    Aishell3,
    /// Multilingual LibriSpeech.
    Mls,
    /// Mozilla Common Voice.
    CommonVoice,
    /// GigaSpeech.
    GigaSpeech,
}

/// The files of a corpus.
#[derive(Debug, Default)]
pub struct Listing {
    /// The files with transcripts.
    pub files: Vec<PathBuf>,
    /// The recordings, as far as a folder was searched for them.
    pub recordings: Vec<String>,
}

/// Lists the files of a corpus.
///
/// # Errors
/// As [`read`], without the content of files.
pub fn list(root: &Path, dir: &str, corpus: Corpus) -> Result<Listing, CorpusError> {
    let at = |paths: Vec<String>| paths.into_iter().map(|path| root.join(path)).collect();
    match corpus {
        Corpus::CommonVoice => Ok(Listing { files: at(common_voice::tables(root, dir)?), recordings: Vec::new() }),
        Corpus::GigaSpeech => Ok(Listing { files: at(vec![giga_speech::index(root, dir)?]), recordings: Vec::new() }),
        corpus => tree::list(root, dir, corpus),
    }
}

/// Reads a corpus; `dir` is its folder or one above or below it, as the recipe names it.
///
/// # Errors
/// [`CorpusError::Structure`] if a file that the corpus always has is missing; [`CorpusError::Io`] if one cannot be read.
pub fn read(root: &Path, dir: &str, corpus: Corpus, options: &ReadOptions<'_>) -> Result<Reading, CorpusError> {
    match corpus {
        Corpus::CommonVoice => common_voice::read(root, dir, options),
        Corpus::GigaSpeech => giga_speech::read(root, dir, options),
        corpus => tree::read(root, dir, corpus, options),
    }
}
