//! The names of the weights.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::host;

use crate::UnusableWeights;
use crate::waveform::fold_weight_norms;

/// The tensor that tells where an encoder begins.
const FIRST: &str = "feature_extractor.conv_layers.0.conv.weight";

/// Parts of an encoder that are computed. A file has others: heads, quantizers, and the vector that masks in training.
const PARTS: [&str; 5] = [
    "feature_extractor.conv_layers.",
    "feature_projection.",
    "encoder.pos_conv_embed.",
    "encoder.layer_norm.",
    "encoder.layers.",
];

/// The convolution of the positions, whose weight norm has a length per tap.
const POSITIONS: &str = "encoder.pos_conv_embed.conv";

/// Returns the tensors of an encoder without its prefix, weight norms folded, and with `classifier` those of its classifier.
pub(super) fn encoder(
    tensors: BTreeMap<String, Tensor>,
    classifier: bool,
) -> Result<BTreeMap<String, Tensor>, UnusableWeights> {
    let prefixes: Vec<&str> = tensors.keys().filter_map(|name| name.strip_suffix(FIRST)).collect();
    // The classifier is beside the encoder, which is called `wav2vec2` in it.
    let outer = |prefix: &str| prefix.strip_suffix("wav2vec2.").unwrap_or(prefix).to_owned();
    let has_classifier = |prefix: &str| tensors.contains_key(&format!("{}classifier.dense.weight", outer(prefix)));
    let found = match classifier {
        true => prefixes.iter().find(|prefix| has_classifier(prefix)),
        false => prefixes.iter().find(|prefix| !has_classifier(prefix)).or(prefixes.first()),
    };
    let Some(prefix) = found.map(|prefix| (*prefix).to_owned()) else {
        let missing = if classifier && !prefixes.is_empty() { "classifier.dense.weight" } else { FIRST };
        return Err(UnusableWeights(format!("they are not those of wav2vec 2.0: there is no `{missing}`")));
    };
    let classifier_prefix = format!("{}classifier.", outer(&prefix));
    let mut taken = BTreeMap::new();
    for (name, tensor) in tensors {
        if let Some(part) = name.strip_prefix(&prefix).filter(|part| PARTS.iter().any(|known| part.starts_with(known)))
        {
            taken.insert(part.to_owned(), tensor);
        } else if let (true, Some(part)) = (classifier, name.strip_prefix(&classifier_prefix)) {
            taken.insert(format!("classifier.{part}"), tensor);
        }
    }
    fold_positions(&mut taken)?;
    fold_weight_norms(&mut taken)?;
    Ok(taken)
}

/// Folds the weight norm of the positions: for every tap the direction `[output, input]`, divided by its norm, times the tap's length.
fn fold_positions(tensors: &mut BTreeMap<String, Tensor>) -> Result<(), UnusableWeights> {
    for [length, direction] in
        [["weight_g", "weight_v"], ["parametrizations.weight.original0", "parametrizations.weight.original1"]]
    {
        let name = |part: &str| format!("{POSITIONS}.{part}");
        let (Some(lengths), Some(directions)) = (tensors.get(&name(length)), tensors.get(&name(direction))) else {
            continue;
        };
        let (shape, taps) = (directions.dims().to_vec(), directions.dims().last().copied().unwrap_or(0));
        if taps == 0 || lengths.elem_count() != taps {
            let (lengths, directions) = (lengths.dims(), directions.dims());
            return Err(UnusableWeights(format!(
                "`{POSITIONS}` has lengths {lengths:?} for directions {directions:?}"
            )));
        }
        let (lengths, mut values) = (host::read(lengths)?, host::read(directions)?);
        let mut squares = vec![0f64; taps];
        values.chunks_exact(taps).for_each(|row| {
            squares.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value).powi(2));
        });
        let scales: Vec<f64> =
            lengths.iter().zip(&squares).map(|(length, sum)| f64::from(*length) / sum.sqrt()).collect();
        if scales.iter().any(|scale| !scale.is_finite()) {
            return Err(UnusableWeights(format!("a direction of `{POSITIONS}` is zero")));
        }
        for row in values.chunks_exact_mut(taps) {
            row.iter_mut().zip(&scales).for_each(|(value, scale)| *value = (f64::from(*value) * scale) as f32);
        }
        tensors.remove(&name(length));
        tensors.remove(&name(direction));
        tensors.insert(name("weight"), host::tensor(values, &shape)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
        host::tensor(values.to_vec(), shape).unwrap()
    }

    fn file(prefixes: &[&str], classified: &[&str]) -> BTreeMap<String, Tensor> {
        let number = |index: usize| tensor(&[index as f32], &[1, 1, 1]);
        let encoders = prefixes.iter().enumerate().map(|(index, prefix)| (format!("{prefix}{FIRST}"), number(index)));
        let classifiers = classified.iter().map(|prefix| (format!("{prefix}classifier.dense.weight"), number(9)));
        encoders.chain(classifiers).collect()
    }

    #[test]
    fn encoders_are_found_behind_any_prefix() {
        let both = file(&["audio.wav2vec2.", "emotion.model.wav2vec2."], &["emotion.model."]);
        let taken = |classifier| encoder(both.clone(), classifier).unwrap();
        assert_eq!(host::read(&taken(false)[FIRST]).unwrap(), [0.0]);
        assert_eq!(host::read(&taken(true)[FIRST]).unwrap(), [1.0]);
        assert!(taken(true).contains_key("classifier.dense.weight") && taken(false).len() == 1);
        assert!(encoder(file(&[""], &[]), false).is_ok());
        assert!(encoder(file(&[""], &[]), true).is_err());
        assert!(encoder(BTreeMap::new(), false).is_err());
    }

    #[test]
    fn the_weight_norm_of_positions_has_a_length_per_tap() {
        for [length, direction] in
            [["weight_g", "weight_v"], ["parametrizations.weight.original0", "parametrizations.weight.original1"]]
        {
            let mut tensors = file(&[""], &[]);
            tensors.insert(format!("{POSITIONS}.{length}"), tensor(&[10.0, 2.0], &[1, 1, 2]));
            tensors.insert(format!("{POSITIONS}.{direction}"), tensor(&[3.0, 0.0, 4.0, -5.0], &[2, 1, 2]));
            let taken = encoder(tensors, false).unwrap();
            assert_eq!(host::read(&taken[&format!("{POSITIONS}.weight")]).unwrap(), [6.0, 0.0, 8.0, -2.0]);
        }
    }
}
