//! From a row of a shard to what the flow is trained on.

use std::borrow::Cow;

use flowmill_audio::features::MelSpectrogram;
use flowmill_audio::{AudioError, decode_bytes, resample};
use flowmill_corpus::shard::{Mel, ShardRow};
use flowmill_models::flow::{FlowConfig, FlowItem};
use flowmill_stage_pack::go_together;

use crate::SpeakerEmbedding;

/// Where mels come from.
pub enum Mels {
    /// The shards.
    Stored,
    /// The shards hold none; they are computed from the audio.
    Computed(MelSpectrogram),
}

/// Makes the training item of a row. Tokens and frames are cut to whole tokens that have all their frames, as CosyVoice does.
///
/// # Errors
/// What is wrong with the row, by its id.
pub fn item(
    row: &ShardRow,
    sample: u64,
    config: &FlowConfig,
    embedding: SpeakerEmbedding,
    mels: &Mels,
) -> Result<FlowItem, String> {
    let fail = |problem: String| format!("utterance {}: {problem}", row.utt);
    let mel = mel(row, mels).map_err(fail)?;
    let speaker_embedding = match embedding {
        SpeakerEmbedding::Utterance => &row.utt_embedding,
        SpeakerEmbedding::Speaker => &row.spk_embedding,
    };
    let (ratio, bins) = (config.token_mel_ratio, config.output_size);
    let (mut tokens, ids) = (config.token_ids(&row.speech_token).map_err(fail)?, config.ids_per_token());
    let count = whole_tokens(tokens.len() / ids, mel.frames, ratio).map_err(fail)?;
    tokens.truncate(count * ids);
    if mel.bins != bins {
        return Err(fail(format!("its mel has {} bins, the model makes {bins}", mel.bins)));
    }
    Ok(FlowItem {
        tokens,
        mel: mel.data[..count * ratio * bins].to_vec(),
        speaker_embedding: finite(speaker_embedding, config.spk_embed_dim).map_err(fail)?,
        sample,
    })
}

/// How many tokens have all their frames.
fn whole_tokens(tokens: usize, frames: usize, ratio: usize) -> Result<usize, String> {
    if !go_together((tokens * ratio) as f64, frames, ratio as f64) {
        return Err(format!(
            "{tokens} tokens and {frames} mel frames do not go together at {ratio} frames per token (train.model.token_mel_ratio)"
        ));
    }
    match tokens.min(frames / ratio) {
        0 => Err(format!("{tokens} tokens and {frames} mel frames are too short to train on")),
        count => Ok(count),
    }
}

fn finite(embedding: &[f32], length: usize) -> Result<Vec<f32>, String> {
    if embedding.len() != length {
        let found = embedding.len();
        return Err(format!(
            "its speaker embedding has {found} values instead of {length} (train.model.spk_embed_dim)"
        ));
    }
    if embedding.iter().any(|value| !value.is_finite()) {
        return Err("its speaker embedding has a value that is not finite".to_owned());
    }
    Ok(embedding.to_vec())
}

fn mel<'a>(row: &'a ShardRow, mels: &Mels) -> Result<Cow<'a, Mel>, String> {
    match (mels, &row.mel) {
        (_, Some(mel)) => Ok(Cow::Borrowed(mel)),
        (Mels::Stored, None) => Err("its shard holds no mel".to_owned()),
        (Mels::Computed(mel), None) => {
            computed(row, mel).map(Cow::Owned).map_err(|error| format!("its mel cannot be computed: {error}"))
        }
    }
}

fn computed(row: &ShardRow, mel: &MelSpectrogram) -> Result<Mel, AudioError> {
    let audio = decode_bytes(&row.audio_data, &row.wav)?;
    let rate = audio.sample_rate;
    let features = mel.compute(&resample(&audio.into_mono(), rate, mel.config().sample_rate)?)?;
    Ok(Mel { data: features.data, frames: features.frames, bins: features.bins })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tokens: usize, frames: usize) -> ShardRow {
        ShardRow {
            utt: "a".to_owned(),
            speech_token: (0..tokens as i64).collect(),
            spk_embedding: vec![0.5; 4],
            utt_embedding: vec![0.25; 4],
            mel: Some(Mel { data: (0..frames * 3).map(|value| value as f32).collect(), frames, bins: 3 }),
            ..ShardRow::default()
        }
    }

    fn made(row: &ShardRow) -> Result<FlowItem, String> {
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

    #[test]
    fn what_cannot_be_trained_on_is_named() {
        type Change = fn(&mut ShardRow);
        let with = |change: Change| {
            let mut row = row(20, 40);
            change(&mut row);
            made(&row).unwrap_err()
        };
        let cases: [(Change, &str); 5] = [
            (|row| row.speech_token[3] = 50, "token 50 is not in the vocabulary of 50"),
            (|row| row.speech_token[3] = -1, "token -1"),
            (|row| row.spk_embedding[1] = f32::NAN, "not finite"),
            (|row| row.spk_embedding.truncate(3), "3 values instead of 4"),
            (|row| row.mel = None, "no mel"),
        ];
        for (change, expected) in cases {
            let error = with(change);
            assert!(error.contains(expected) && error.contains("utterance a"), "{error}");
        }
        assert!(made(&row(20, 80)).unwrap_err().contains("do not go together"));
        assert!(made(&row(0, 1)).unwrap_err().contains("too short"));
    }
}
