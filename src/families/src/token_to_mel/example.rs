//! Conversion of a row of a shard to a training example of the flow.

use std::borrow::Cow;
use std::path::Path;

use flowmill_audio::features::{Features, MelConfig, MelSpectrogram};
use flowmill_audio::{decode_bytes, resample};
use flowmill_corpus::shard::{MelStore, ShardIndex, speech};
use flowmill_corpus::{ColumnError, ColumnSpec, DType, Row};
use flowmill_family::{BoxError, Derived};
use flowmill_networks::flow::{FlowConfig, FlowItem, TokenError};
use flowmill_networks::token_lengths::go_together;
use serde::Deserialize;

use super::SpeakerEmbedding;
use super::error::UseError;

/// The source of mels.
pub enum Mels {
    /// The shards.
    Stored,
    /// The audio: the shards contain no mels.
    Computed(MelSpectrogram),
}

impl Mels {
    /// Returns the source for the split of this index.
    ///
    /// # Errors
    /// Returns an error if the index does not describe its mels, or mels cannot be computed with its settings.
    pub fn of(index: &ShardIndex) -> Result<Self, BoxError> {
        let description = StoredMel::of(index)?;
        Ok(match description.is_stored() {
            true => Self::Stored,
            false => Self::Computed(MelSpectrogram::new(description.config)?),
        })
    }
}

/// The part of an index's `mel` that training reads.
#[derive(Deserialize)]
struct StoredMel {
    store: MelStore,
    config: MelConfig,
}

impl StoredMel {
    fn of(index: &ShardIndex) -> Result<Self, BoxError> {
        serde_json::from_value(index.mel.clone())
            .map_err(|error| format!("split {}: the mel's description: {error}", index.split).into())
    }

    fn is_stored(&self) -> bool {
        self.store != MelStore::None
    }
}

/// Returns the columns that the items of a split need.
///
/// # Errors
/// Returns an error if the index does not describe its mels.
pub fn columns(index: &ShardIndex, embedding: SpeakerEmbedding) -> Result<Vec<ColumnSpec>, BoxError> {
    let mut columns = vec![speech::speech_token(), embedding.spec()];
    match StoredMel::of(index)?.is_stored() {
        true => columns.push(speech::mel(DType::F32)),
        false => columns.extend(sound()),
    }
    Ok(columns)
}

/// Returns the columns from which a recording is decoded.
pub fn sound() -> Vec<ColumnSpec> {
    let names = [speech::WAV, speech::AUDIO_DATA];
    speech::recording().into_iter().filter(|column| names.contains(&column.name.as_str())).collect()
}

/// Returns the mels that are computed during training, and their settings.
pub fn derived(index: &ShardIndex) -> Option<Derived> {
    let description = StoredMel::of(index).ok()?;
    (!description.is_stored()).then(|| Derived { what: "mels", by: index.mel.clone() })
}

/// Checks that the mels match the model, and that all splits computed them in the same way.
///
/// # Errors
/// Returns the mismatch.
pub fn check_mels(splits: &[(&Path, &ShardIndex)], config: &FlowConfig) -> Result<(), BoxError> {
    let mels = splits.iter().map(|(_, index)| StoredMel::of(index)).collect::<Result<Vec<_>, _>>()?;
    for ((path, _), mel) in splits.iter().zip(&mels) {
        check_bins(mel.config.n_mels, config.output_size)?;
        if mel.config != mels[0].config {
            let (a, b) = (splits[0].0.display(), path.display());
            return Err(format!(
                "train.mixture: {a} and {b} contain mels with different definitions; pack them with the same pack.mel"
            )
            .into());
        }
    }
    Ok(())
}

/// Checks that mels have the number of bins of the model.
///
/// # Errors
/// Returns an error with the setting that would match.
pub fn check_bins(found: usize, wanted: usize) -> Result<(), BoxError> {
    if found == wanted {
        return Ok(());
    }
    Err(format!(
        "the shards contain mels of {found} bins, but the model makes {wanted}; set train.model.output_size to {found}"
    )
    .into())
}

/// Reason why a row cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum ItemFault {
    /// A column is missing or of another type.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The mel of the recording cannot be computed.
    #[error("its mel cannot be computed: {0}")]
    Mel(Box<UseError>),
    /// The mel has another number of bins than the model.
    #[error("its mel has {found} bins, the model makes {bins}")]
    Bins {
        /// Bins of the mel.
        found: usize,
        /// Bins of the model.
        bins: usize,
    },
    /// The tokens are not those of the model.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// Tokens and mel are of different lengths.
    #[error(
        "{tokens} tokens and {frames} mel frames do not go together at {ratio} frames per token (train.model.token_mel_ratio)"
    )]
    Lengths {
        /// Number of tokens.
        tokens: usize,
        /// Frames of the mel.
        frames: usize,
        /// Frames of a token.
        ratio: usize,
    },
    /// No token has all its frames.
    #[error("{tokens} tokens and {frames} mel frames are too short to train on")]
    TooShort {
        /// Number of tokens.
        tokens: usize,
        /// Frames of the mel.
        frames: usize,
    },
    /// The speaker embedding has another length than the model's.
    #[error("its speaker embedding has {found} values instead of {length} (train.model.spk_embed_dim)")]
    EmbeddingLength {
        /// Values of the embedding.
        found: usize,
        /// Values that the model reads.
        length: usize,
    },
    /// The speaker embedding has NaN or infinity.
    #[error("its speaker embedding has a value that is not finite")]
    EmbeddingNotFinite,
}

/// A row that cannot be trained on.
#[derive(Debug, thiserror::Error)]
#[error("utterance {id}: {fault}")]
pub struct ItemError {
    /// The row's id.
    pub id: String,
    /// The reason.
    pub fault: ItemFault,
}

/// Makes the training item of a row. Tokens and frames are cut to whole tokens that have all their frames, as CosyVoice does.
///
/// # Errors
/// Returns a problem with the row, with its id.
pub fn item(
    row: &Row,
    sample: u64,
    config: &FlowConfig,
    embedding: SpeakerEmbedding,
    mels: &Mels,
) -> Result<FlowItem, ItemError> {
    checked_item(row, sample, config, embedding, mels).map_err(|fault| ItemError { id: row.id.clone(), fault })
}

fn checked_item(
    row: &Row,
    sample: u64,
    config: &FlowConfig,
    embedding: SpeakerEmbedding,
    mels: &Mels,
) -> Result<FlowItem, ItemFault> {
    let mel = mel(row, mels)?;
    let speaker_embedding = row.values(embedding.column())?;
    let (ratio, bins) = (config.token_mel_ratio, config.output_size);
    let speech_token = row.values(speech::SPEECH_TOKEN)?;
    let (mut tokens, ids) = (config.token_ids(speech_token)?, config.ids_per_token());
    let count = whole_tokens(tokens.len() / ids, mel.frames, ratio)?;
    tokens.truncate(count * ids);
    if mel.bins != bins {
        return Err(ItemFault::Bins { found: mel.bins, bins });
    }
    Ok(FlowItem {
        tokens,
        mel: mel.data[..count * ratio * bins].to_vec(),
        speaker_embedding: finite(speaker_embedding, config.spk_embed_dim)?,
        sample,
    })
}

/// Returns the number of tokens with all their frames.
fn whole_tokens(tokens: usize, frames: usize, ratio: usize) -> Result<usize, ItemFault> {
    if !go_together((tokens * ratio) as f64, frames, ratio as f64) {
        return Err(ItemFault::Lengths { tokens, frames, ratio });
    }
    match tokens.min(frames / ratio) {
        0 => Err(ItemFault::TooShort { tokens, frames }),
        count => Ok(count),
    }
}

fn finite(embedding: &[f32], length: usize) -> Result<Vec<f32>, ItemFault> {
    if embedding.len() != length {
        return Err(ItemFault::EmbeddingLength { found: embedding.len(), length });
    }
    if embedding.iter().any(|value| !value.is_finite()) {
        return Err(ItemFault::EmbeddingNotFinite);
    }
    Ok(embedding.to_vec())
}

/// A mel, frame after frame.
struct Mel<'a> {
    data: Cow<'a, [f32]>,
    frames: usize,
    bins: usize,
}

fn mel<'a>(row: &'a Row, mels: &Mels) -> Result<Mel<'a>, ItemFault> {
    match mels {
        Mels::Stored => {
            let (data, [frames, bins]) = row.matrix::<f32>(speech::MEL)?;
            Ok(Mel { data: Cow::Borrowed(data), frames, bins })
        }
        Mels::Computed(mel) => {
            let compute = || Ok::<_, UseError>(mel.compute(&recording(row, mel.config())?)?);
            let Features { data, frames, bins } = compute().map_err(|error| ItemFault::Mel(Box::new(error)))?;
            Ok(Mel { data: Cow::Owned(data), frames, bins })
        }
    }
}

/// Decodes the recording of a row, at the sample rate of the mel.
///
/// # Errors
/// Returns an error if it cannot be decoded.
pub fn recording(row: &Row, config: &MelConfig) -> Result<Vec<f32>, UseError> {
    let audio = decode_bytes(row.bytes(speech::AUDIO_DATA)?, row.text(speech::WAV)?)?;
    let rate = audio.sample_rate;
    Ok(resample(&audio.into_mono(), rate, config.sample_rate)?)
}

/// Returns the mel of a row: the shard's own, or computed by `spectrogram` from the recording if the shard has none
/// (`pack.mel.store: none`).
///
/// # Errors
/// Returns an error if the recording cannot be decoded or is too short.
pub fn mel_of(row: &Row, spectrogram: &MelSpectrogram) -> Result<Features, UseError> {
    if row.columns.contains_key(speech::MEL) {
        let (data, [frames, bins]) = row.matrix::<f32>(speech::MEL)?;
        return Ok(Features::new(data.to_vec(), frames, bins)?);
    }
    Ok(spectrogram.compute(&recording(row, spectrogram.config())?)?)
}

#[cfg(test)]
mod tests {
    use flowmill_corpus::Array;

    use super::*;

    fn row(tokens: usize, frames: usize) -> Row {
        let mel: Vec<f32> = (0..frames * 3).map(|value| value as f32).collect();
        let columns = [
            (speech::SPEECH_TOKEN, Array::vector((0..tokens as i64).collect::<Vec<_>>())),
            (speech::SPK_EMBEDDING, Array::vector(vec![0.5f32; 4])),
            (speech::UTT_EMBEDDING, Array::vector(vec![0.25f32; 4])),
            (speech::MEL, Array::new(vec![frames, 3], mel).unwrap()),
        ];
        let columns = columns.into_iter().map(|(name, array)| (name.to_owned(), array)).collect();
        Row { id: "a".to_owned(), columns, ..Row::default() }
    }

    fn made(row: &Row) -> Result<FlowItem, ItemError> {
        let config = FlowConfig { vocab_size: 50, output_size: 3, spk_embed_dim: 4, ..FlowConfig::default() };
        item(row, 7, &config, SpeakerEmbedding::Speaker, &Mels::Stored)
    }

    #[test]
    fn tokens_and_frames_are_cut_to_the_shorter_of_both() {
        for (tokens, frames, expected) in [(20, 40, 20), (20, 43, 20), (20, 37, 18), (21, 40, 20)] {
            let item = made(&row(tokens, frames)).unwrap();
            assert_eq!((item.tokens.len(), item.mel.len()), (expected, expected * 2 * 3));
            assert_eq!(item.mel[3], 3.0, "frames keep their bins together");
            assert_eq!((item.sample, item.speaker_embedding[0]), (7, 0.5));
        }
    }

    /// The reason why a row cannot be trained on.
    fn fault(row: &Row) -> ItemFault {
        let error = made(row).unwrap_err();
        assert_eq!(error.id, "a");
        error.fault
    }

    #[test]
    fn what_cannot_be_trained_on_is_named() {
        type Change = fn(&mut Row);
        fn set(row: &mut Row, name: &str, array: Array) {
            row.columns.insert(name.to_owned(), array);
        }
        fn tokens(row: &mut Row, at: usize, token: i64) {
            let mut tokens = row.values::<i64>(speech::SPEECH_TOKEN).unwrap().to_vec();
            tokens[at] = token;
            set(row, speech::SPEECH_TOKEN, Array::vector(tokens));
        }
        let with = |change: Change| {
            let mut row = row(20, 40);
            change(&mut row);
            fault(&row)
        };
        for token in [50, -1] {
            let mut row = row(20, 40);
            tokens(&mut row, 3, token);
            let fault = fault(&row);
            let ItemFault::Tokens(error) = &fault else { panic!("{fault}") };
            assert_eq!(*error, TokenError::Vocabulary { token, vocabulary: 50 });
        }
        let nan = with(|row| set(row, speech::SPK_EMBEDDING, Array::vector(vec![0.5, f32::NAN, 0.5, 0.5])));
        assert!(matches!(nan, ItemFault::EmbeddingNotFinite), "{nan}");
        let short = with(|row| set(row, speech::SPK_EMBEDDING, Array::vector(vec![0.5f32; 3])));
        assert!(matches!(short, ItemFault::EmbeddingLength { found: 3, length: 4 }), "{short}");
        let missing = with(|row| drop(row.columns.remove(speech::MEL)));
        assert!(matches!(missing, ItemFault::Column(_)) && missing.to_string().contains("`mel`"), "{missing}");
        let longer = fault(&row(20, 80));
        assert!(matches!(longer, ItemFault::Lengths { tokens: 20, frames: 80, ratio: 2 }), "{longer}");
        let none = fault(&row(0, 1));
        assert!(matches!(none, ItemFault::TooShort { tokens: 0, frames: 1 }), "{none}");
    }
}
