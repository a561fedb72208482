//! The names of the weights.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::host;

use crate::UnusableWeights;

/// The tensor that tells where the networks begin.
const FIRST: &str = "enc.net_app.convs.0.0.weight";

/// The weights of the binomial filter, before they are scaled to their sum.
const BINOMIAL: [f32; 4] = [1.0, 3.0, 3.0, 1.0];

/// Returns the tensors that are computed, without their prefix: `enc.*`, `direction.weight`, and `dec.*` if there are any.
pub(super) fn taken(tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>, UnusableWeights> {
    let missing = || UnusableWeights(format!("they are not those of LIA: there is no `{FIRST}`"));
    let prefix = tensors.keys().find_map(|name| name.strip_suffix(FIRST)).ok_or_else(missing)?.to_owned();
    let mut taken = BTreeMap::new();
    for (name, tensor) in tensors {
        let Some(name) = name.strip_prefix(&prefix) else { continue };
        match name {
            "direction.weight" | "dec.direction.weight" => drop(taken.insert("direction.weight".to_owned(), tensor)),
            // Filters are fixed; the noise and the first colors have no part in the computation.
            _ if name.ends_with(".kernel") => check_binomial(name, &tensor)?,
            _ if name.ends_with(".noise.weight") || name.starts_with("dec.to_rgb1.") => {}
            _ if name.starts_with("enc.") || name.starts_with("dec.") => {
                taken.insert(name.to_owned(), tensor);
            }
            _ => {}
        }
    }
    Ok(taken)
}

/// Refuses another filter than the one that is computed, `[4, 4]`.
fn check_binomial(name: &str, kernel: &Tensor) -> Result<(), UnusableWeights> {
    let values = host::read(kernel)?;
    let sum: f32 = values.iter().sum();
    let expected = BINOMIAL.iter().flat_map(|a| BINOMIAL.iter().map(move |b| a * b / 64.0));
    let fits = kernel.dims() == [4, 4]
        && sum > 0.0
        && values.iter().zip(expected).all(|(value, expected)| (value / sum - expected).abs() < 1e-5);
    match fits {
        true => Ok(()),
        false => Err(UnusableWeights(format!("`{name}` is another filter than 1, 3, 3, 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_are_found_behind_a_prefix() {
        let tensor = |values: &[f32], shape: &[usize]| host::tensor(values.to_vec(), shape).unwrap();
        let one = tensor(&[1.0], &[1]);
        let names = [
            "fmt.pos_embed",
            "motion_autoencoder.enc.net_app.convs.0.0.weight",
            "motion_autoencoder.dec.direction.weight",
            "motion_autoencoder.dec.conv1.noise.weight",
            "motion_autoencoder.dec.conv1.conv.weight",
        ];
        let mut file: BTreeMap<String, Tensor> = names.iter().map(|name| ((*name).to_owned(), one.clone())).collect();
        let names = |file: &BTreeMap<String, Tensor>| {
            taken(file.clone()).map(|tensors| tensors.into_keys().collect::<Vec<_>>())
        };
        assert_eq!(names(&file).unwrap(), ["dec.conv1.conv.weight", "direction.weight", FIRST]);
        let kernel = "motion_autoencoder.enc.blur.kernel".to_owned();
        let weights: Vec<f32> = BINOMIAL.iter().flat_map(|a| BINOMIAL.map(|b| a * b / 16.0)).collect();
        file.insert(kernel.clone(), tensor(&weights, &[4, 4]));
        assert_eq!(names(&file).unwrap().len(), 3);
        file.insert(kernel, tensor(&[1.0; 16], &[4, 4]));
        assert!(names(&file).is_err());
        assert!(taken(BTreeMap::new()).is_err());
    }
}
