//! Weight normalization (Salimans and Kingma 2016), folded into plain weights.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::host;

use crate::UnusableWeights;

/// The names of a length and a direction: those of `weight_norm`, and those of the parametrization that replaced it.
const NAMES: [[&str; 2]; 2] =
    [[".weight_g", ".weight_v"], [".parametrizations.weight.original0", ".parametrizations.weight.original1"]];

/// Replaces each pair of length and direction by the weight that they stand for, `NAME.weight`: for every index of the outermost axis
/// the direction, divided by its norm over the other axes, times the length. Other tensors stay as they are.
///
/// # Errors
/// When one of a pair is missing, a shape does not fit, or a direction is zero.
pub fn fold_weight_norms(tensors: &mut BTreeMap<String, Tensor>) -> Result<(), UnusableWeights> {
    for [length, direction] in NAMES {
        let layers: Vec<String> =
            tensors.keys().filter_map(|name| name.strip_suffix(direction).map(str::to_owned)).collect();
        for layer in layers {
            let missing = |part: &str| UnusableWeights(format!("there is no tensor `{layer}{part}`"));
            let lengths = tensors.remove(&format!("{layer}{length}")).ok_or_else(|| missing(length))?;
            let directions = tensors.remove(&format!("{layer}{direction}")).ok_or_else(|| missing(direction))?;
            let weight = folded(&layer, &lengths, &directions)?;
            if tensors.insert(format!("{layer}.weight"), weight).is_some() {
                return Err(UnusableWeights(format!("`{layer}.weight` is there plain and as length and direction")));
            }
        }
    }
    Ok(())
}

fn folded(layer: &str, lengths: &Tensor, directions: &Tensor) -> Result<Tensor, UnusableWeights> {
    let rows = directions.dims().first().copied().unwrap_or(0);
    if rows == 0 || directions.elem_count() == 0 || lengths.elem_count() != rows {
        let (lengths, directions) = (lengths.dims(), directions.dims());
        return Err(UnusableWeights(format!("`{layer}` has lengths {lengths:?} for directions {directions:?}")));
    }
    let (lengths, mut values) = (host::read(lengths)?, host::read(directions)?);
    let width = values.len() / rows;
    for (row, length) in values.chunks_exact_mut(width).zip(&lengths) {
        let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        let scale = f64::from(*length) / norm;
        if !scale.is_finite() {
            return Err(UnusableWeights(format!("a direction of `{layer}` is zero")));
        }
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
    }
    Ok(host::tensor(values, directions.dims())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_folded() {
        let tensor = |values: &[f32], shape: &[usize]| host::tensor(values.to_vec(), shape).unwrap();
        for [length, direction] in NAMES {
            let pair = || {
                let lengths = (format!("a.conv{length}"), tensor(&[10.0, 2.0], &[2, 1, 1]));
                let directions = (format!("a.conv{direction}"), tensor(&[3.0, 4.0, 0.0, -5.0], &[2, 1, 2]));
                BTreeMap::from([lengths, directions, ("a.conv.bias".to_owned(), tensor(&[1.0], &[1]))])
            };
            let mut tensors = pair();
            fold_weight_norms(&mut tensors).unwrap();
            assert_eq!(tensors.keys().collect::<Vec<_>>(), ["a.conv.bias", "a.conv.weight"]);
            assert_eq!(host::read(&tensors["a.conv.weight"]).unwrap(), [6.0, 8.0, 0.0, -2.0]);
            let mut tensors = pair();
            tensors.insert(format!("a.conv{direction}"), tensor(&[0.0; 4], &[2, 1, 2]));
            assert!(fold_weight_norms(&mut tensors).is_err());
            let mut tensors = pair();
            tensors.remove(&format!("a.conv{length}"));
            assert!(fold_weight_norms(&mut tensors).is_err());
        }
    }
}
