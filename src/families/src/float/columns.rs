//! The check of the model against the columns that earlier stages of the same recipe make. It runs before any stage.

use flowmill_corpus::ColumnSpec;
use flowmill_family::{Columns, KeyError, Provided};
use flowmill_networks::float::FloatConfig;

use super::rows::{MOTION, SPEECH_FEATURES};

/// Compares the model with what stages 1 and 2 provide. A recipe without these stages trains on packed data, which stage 4 checks.
pub fn check(config: &FloatConfig, columns: &Columns) -> Result<(), KeyError> {
    let channels = |name: &str| match columns.get(name) {
        Some(Provided::Other { spec: ColumnSpec { axes, .. } }) => axes.last().and_then(|axis| axis.size),
        _ => None,
    };
    let others = |name: &str| !columns.contains_key(name);
    let is_given = |kinds: fn(&Provided) -> bool| columns.values().any(kinds);
    match channels(MOTION) {
        Some(found) if found != config.dim_w => {
            let reason = format!("{} does not match: stage 1 gives motion of {found} channels", config.dim_w);
            return Err(KeyError::new("train.model.dim_w", reason));
        }
        None if others(MOTION) && is_given(|provided| matches!(provided, Provided::Embedding { .. })) => {
            let reason = "this family needs motion: use `kind: pca-motion`, which needs no weights";
            return Err(KeyError::new("embed.extractor.kind", reason));
        }
        _ => {}
    }
    match channels(SPEECH_FEATURES) {
        Some(found) if found != config.audio_width() => {
            let own = config.audio_width();
            let reason = format!("{own} does not match: stage 2 gives {found} speech features per frame");
            Err(KeyError::new("train.model.audio_features", reason))
        }
        None if others(SPEECH_FEATURES)
            && is_given(|provided| matches!(provided, Provided::Tokens { .. } | Provided::Codes { .. })) =>
        {
            let reason =
                "this family needs speech features for each frame: use `kind: mel-windows`, which needs no weights";
            Err(KeyError::new("tokens.extractor.kind", reason))
        }
        _ => Ok(()),
    }
}
