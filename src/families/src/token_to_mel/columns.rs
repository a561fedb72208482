//! The check of the model against the columns that earlier stages of the same recipe make. It runs before any stage.

use flowmill_audio::features::MelConfig;
use flowmill_corpus::shard::speech::{MEL, SPEECH_TOKEN, UTT_EMBEDDING};
use flowmill_extract::dual_codebook::{MIXED_RATE, is_mixed_rate};
use flowmill_family::{Columns, KeyError, Provided, TrainSettings};
use flowmill_networks::flow::FlowConfig;
use flowmill_networks::token_lengths::rate_read;

use super::kind::flow_error;
use super::{Kind, TokenEmbedding, TokenToMelFamily};

/// The largest relative difference between the ratio of the token and mel rates and the model's ratio: for example,
/// 16.7 tokens per second are accepted for 50 frames at 3 frames per token.
const SHARE_OF_RATES: f64 = 0.01;

/// Compares the model with what stages 1 to 3 provide, as far as the recipe has them.
pub(super) fn check<K: Kind>(settings: &TrainSettings<TokenToMelFamily<K>>, columns: &Columns) -> Result<(), KeyError> {
    let (flow, options) = (K::flow(&settings.config), &settings.options);
    let refuse = |field, reason| Err(flow_error::<K>(field, reason));
    let mel = columns.get(MEL);
    if let Some(&Provided::Tokens { extractor, vocabulary, at_least, rate, has_centers }) = columns.get(SPEECH_TOKEN) {
        if options.token_embedding == TokenEmbedding::Codebook && !has_centers {
            let reason = format!(
                "`codebook` starts from the centres of kmeans or dual-kmeans; {extractor} has none: use `random`"
            );
            return Err(KeyError::new("train.token_embedding", reason));
        }
        check_tokens::<K>(&flow, extractor, vocabulary, at_least, rate)?;
        if let Some(Provided::Mel { config, .. }) = mel {
            check_ratio(flow.token_mel_ratio, rate, config).or_else(|reason| refuse("token_mel_ratio", reason))?;
        }
    }
    if let Some(&Provided::Embedding { dimensions }) = columns.get(UTT_EMBEDDING)
        && flow.spk_embed_dim != dimensions
    {
        let reason = format!("{} does not match: stage 1 gives embeddings of {dimensions} values", flow.spk_embed_dim);
        return refuse("spk_embed_dim", reason);
    }
    if let Some(Provided::Mel { config, stored }) = mel {
        if !stored && options.normalise_mel && flow.mel_normalisation.is_none() {
            let reason = "needs the statistics that stage 3 computes from stored mels, but pack.mel.store is none: store them, or set \
                          train.normalise_mel: false";
            return Err(KeyError::new("train.normalise_mel", reason));
        }
        let bins = config.n_mels;
        if flow.output_size != bins {
            let reason = format!("{} does not match: stage 3 makes mels of {bins} bins", flow.output_size);
            return refuse("output_size", reason);
        }
    }
    Ok(())
}

/// Compares the model's frames per token with the rates of stage 2's tokens and stage 3's mel.
fn check_ratio(ratio: usize, token_rate: f64, mel: &MelConfig) -> Result<(), String> {
    let tokens = rate_read(token_rate);
    let frames = f64::from(mel.sample_rate) / mel.hop_length as f64;
    if (ratio as f64 * tokens / frames - 1.0).abs() <= SHARE_OF_RATES {
        return Ok(());
    }
    Err(format!(
        "{ratio} does not match: stage 2 gives {tokens:.2} tokens per second (tokens.extractor), stage 3 {frames:.2} mel frames \
         (pack.mel), {:.2} per token",
        frames / tokens
    ))
}

/// Compares the tokens of stage 2, by their number and rate, with those that the model accepts. With `at_least` there may be more of them.
fn check_tokens<K: Kind>(
    flow: &FlowConfig,
    extractor: &str,
    vocabulary: usize,
    at_least: bool,
    rate: f64,
) -> Result<(), KeyError> {
    let mixed = is_mixed_rate(rate);
    let Some(codebook) = &flow.dual_codebook else {
        if mixed {
            let reason = "this family needs tokens of one codebook, but stage 2 gives those of two in one sequence: use \
                          family: step-audio-flow, or another extractor";
            return Err(KeyError::new("train.model.family", reason));
        }
        if flow.vocab_size < vocabulary {
            let reason = format!("{} is too small: stage 2 gives {vocabulary} different units", flow.vocab_size);
            return Err(flow_error::<K>("vocab_size", reason));
        }
        return Ok(());
    };
    if !mixed {
        let reason = format!(
            "this family needs two codebooks in one sequence, {MIXED_RATE:.1} tokens per second, but `{extractor}` gives \
             {rate:.1}: use one of two codebooks, such as dual-kmeans"
        );
        return Err(KeyError::new("tokens.extractor.kind", reason));
    }
    let sum = codebook.mixed_vocabulary();
    let differs = if at_least { vocabulary > sum } else { vocabulary != sum };
    if differs {
        let (first, second) = (codebook.linguistic, codebook.semantic);
        let reason =
            format!("{first} and vq06_size {second} make {sum} different tokens, but stage 2 gives {vocabulary}");
        return Err(flow_error::<K>("vq02_size", reason));
    }
    Ok(())
}
