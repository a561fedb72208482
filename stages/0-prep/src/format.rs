//! The formats of sources.

use flowmill_corpus::clips;
use flowmill_corpus::corpora::Corpus;
use flowmill_corpus::histories::Dataset;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A layout of data on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The format that the files of the source show; `kaldi` if they show none.
    #[default]
    Auto,
    /// A Kaldi data directory with `wav.scp`.
    Kaldi,
    /// A folder of recordings with a `.txt`, `.lab` or `.json` next to each.
    Folder,
    /// `metadata.csv` and `wavs/`.
    Ljspeech,
    /// A manifest as NeMo, WeNet, FunASR and others write it: JSON lines (also `.jsonl.gz`), or a table with a header. A folder is read
    /// as all the manifests below it, such as Emilia and Hugging Face's `audiofolder`.
    Manifest,
    /// Lines of `path|speaker|language|text`, or in the order that `columns` states.
    List,
    /// Tar files in which the members with one key are an utterance.
    Webdataset,
    /// Packed shards: Parquet files as CosyVoice packs them (also named `.tar`), and the Parquet and tar shards of stage 3; a shard, a folder of
    /// them, or a list (`data.list`). Embeddings and tokens are taken from the columns, so stages 1 and 2 have nothing to do.
    /// `format: huggingface` and `format: webdataset` read only the recordings of such files.
    Shards,
    /// A dataset of Hugging Face that holds its recordings: Parquet files of the hub, or Arrow files of `save_to_disk`.
    HuggingFace,
    /// Manifests of lhotse: cuts, recordings with supervisions, or shar.
    Lhotse,
    /// LibriTTS and LibriTTS-R.
    LibriTts,
    /// LibriSpeech.
    LibriSpeech,
    /// VCTK 0.92; `microphone` chooses one of its two.
    Vctk,
    /// AISHELL-3.
    Aishell3,
    /// Multilingual LibriSpeech.
    Mls,
    /// Mozilla Common Voice: the clips of `train.tsv`, `dev.tsv`, `test.tsv` and `validated.tsv`, or of one table.
    CommonVoice,
    /// GigaSpeech: segments of long recordings.
    GigaSpeech,
    /// Codes of a neural codec without recordings, as the public VALL-E trainer keeps them: a folder of `.enc` or
    /// `.dac` files, an HDF5 file (`data.h5`), or a group in one (`data.h5#training`).
    Codes,
    /// A folder of video clips with their sound, such as HDTF. The group is the folder of the clip, or its own name.
    Clips,
    /// A folder with the names of RAVDESS (`01-01-03-01-02-01-21.mp4`): video with and without sound, and sound alone.
    /// The group is the actor, and the emotion is the column `emotion_label`.
    Ravdess,
    /// A folder of images with captions: `items.json`, or `metadata.jsonl` or `metadata.csv` of Hugging Face's `imagefolder`, or a
    /// `.txt` next to each image.
    Images,
    /// A JSON file of users with `history_items_info` and `target_item_info`, as the public PMG code reads it.
    Histories,
    /// FLICKR-AES from its own files: `FLICKR-AES_image_labeled_by_each_worker.csv`, `FLICKR_captions.json`, `FLICKR_styles.json` and `40K/`.
    #[serde(rename = "flickr-aes")]
    FlickrAes,
    /// POG from its own files: `user_data.txt`, `captions_sampled.json`, `user_styles.json` and `images/`.
    Pog,
    /// SER30K from its own files: `Images/TOPIC/` and `ser30k_captions.json`.
    Ser30k,
}

impl Format {
    /// Returns the layout of a folder of clips.
    pub fn clips(self) -> Option<clips::Layout> {
        match self {
            Self::Clips => Some(clips::Layout::Clips),
            Self::Ravdess => Some(clips::Layout::Ravdess),
            _ => None,
        }
    }

    /// Returns whether its rows have images and no recordings.
    pub fn has_images(self) -> bool {
        self == Self::Images || self.has_histories()
    }

    /// Returns whether its rows are users.
    pub(crate) fn has_histories(self) -> bool {
        self == Self::Histories || self.dataset().is_some()
    }

    /// Returns the public dataset that it reads.
    pub(crate) fn dataset(self) -> Option<Dataset> {
        match self {
            Self::FlickrAes => Some(Dataset::FlickrAes),
            Self::Pog => Some(Dataset::Pog),
            Self::Ser30k => Some(Dataset::Ser30k),
            _ => None,
        }
    }

    /// Returns the public corpus that it reads.
    pub(crate) fn corpus(self) -> Option<Corpus> {
        match self {
            Self::LibriTts => Some(Corpus::LibriTts),
            Self::LibriSpeech => Some(Corpus::LibriSpeech),
            Self::Vctk => Some(Corpus::Vctk),
            Self::Aishell3 => Some(Corpus::Aishell3),
            Self::Mls => Some(Corpus::Mls),
            Self::CommonVoice => Some(Corpus::CommonVoice),
            Self::GigaSpeech => Some(Corpus::GigaSpeech),
            _ => None,
        }
    }

    /// Returns whether its rows are objects with fields, which may become columns.
    pub(crate) fn has_fields(self) -> bool {
        matches!(
            self,
            Self::Manifest
                | Self::List
                | Self::Shards
                | Self::HuggingFace
                | Self::Lhotse
                | Self::CommonVoice
                | Self::GigaSpeech
        )
    }

    /// Returns the format with this name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        serde_json::from_value(json!(name)).ok()
    }

    /// Returns its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::List => "list",
            Self::Shards => "shards",
            Self::HuggingFace => "huggingface",
            Self::Lhotse => "lhotse",
            Self::LibriTts => "libritts",
            Self::LibriSpeech => "librispeech",
            Self::Vctk => "vctk",
            Self::Aishell3 => "aishell3",
            Self::Mls => "mls",
            Self::CommonVoice => "commonvoice",
            Self::GigaSpeech => "gigaspeech",
            Self::Kaldi => "kaldi",
            Self::Folder => "folder",
            Self::Ljspeech => "ljspeech",
            Self::Manifest => "manifest",
            Self::Webdataset => "webdataset",
            Self::Codes => "codes",
            Self::Clips => "clips",
            Self::Ravdess => "ravdess",
            Self::Images => "images",
            Self::Histories => "histories",
            Self::FlickrAes => "flickr-aes",
            Self::Pog => "pog",
            Self::Ser30k => "ser30k",
        }
    }

    /// Describes what a source of this format must name.
    pub(crate) fn place(self) -> &'static str {
        match self {
            Self::Shards => "shard, list of shards or folder of shards",
            Self::Auto | Self::HuggingFace | Self::Lhotse | Self::CommonVoice | Self::GigaSpeech => "directory or file",
            Self::List => "list",
            Self::LibriTts | Self::LibriSpeech | Self::Vctk | Self::Aishell3 | Self::Mls => "directory",
            Self::Kaldi | Self::Folder | Self::Ljspeech | Self::Clips | Self::Ravdess | Self::Images => "directory",
            Self::FlickrAes | Self::Pog | Self::Ser30k => "directory",
            Self::Histories => "file of users",
            Self::Manifest => "manifest",
            Self::Webdataset => "tar file",
            Self::Codes => "folder or HDF5 file",
        }
    }
}
