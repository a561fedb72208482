//! The mean of several checkpoints' weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use flowmill_nn::{NnError, host};

use crate::TrainError;

/// Sums in double precision, with their shapes.
type Sums = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

/// Writes the mean of the weights in `files` (safetensors of the same names and shapes), summed in double precision in the order
/// given and rounded once.
///
/// # Errors
/// When there is no file, one cannot be read, or one has other names or shapes than the first.
pub fn average_weights(files: &[PathBuf], target: &Path) -> Result<(), TrainError> {
    let mut sums = Sums::new();
    for (index, path) in files.iter().enumerate() {
        let what = || format!("averaging {}", path.display());
        tracing::info!(path = %path.display(), number = index + 1, count = files.len(), "averaging a checkpoint");
        let file = flowmill_weights::read(path).map_err(TrainError::weights(what()))?;
        if index == 0 {
            let zeros = |tensor: &Tensor| (tensor.dims().to_vec(), vec![0.0; tensor.elem_count()]);
            sums = file.tensors.iter().map(|(name, tensor)| (name.clone(), zeros(tensor))).collect();
        }
        add(&mut sums, &file.tensors).map_err(TrainError::tensor(what()))?;
    }
    if sums.is_empty() {
        return Err(TrainError::tensor("averaging")(NnError::invalid("files", "there are no files to average")));
    }
    let mean = |values: &[f64]| values.iter().map(|value| (value / files.len() as f64) as f32).collect();
    let means = sums.into_iter().map(|(name, (shape, values))| Ok((name, host::tensor(mean(&values), &shape)?)));
    let what = "writing the averaged weights";
    let means = means.collect::<Result<Vec<_>, _>>().map_err(TrainError::tensor(what))?;
    flowmill_weights::write(target, &means, &BTreeMap::new()).map_err(TrainError::weights(what))
}

fn add(sums: &mut Sums, tensors: &BTreeMap<String, Tensor>) -> Result<(), NnError> {
    if !sums.keys().eq(tensors.keys()) {
        return Err(NnError::invalid("tensors", "their names differ from those of the first file"));
    }
    for ((shape, sum), tensor) in sums.values_mut().zip(tensors.values()) {
        if tensor.dims() != shape.as_slice() {
            return Err(NnError::shape("average", format!("{shape:?}"), tensor.dims()));
        }
        let values = host::slice("average", tensor)?;
        sum.iter_mut().zip(values.iter()).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Array<'a> = (&'a str, &'a [usize], &'a [f32]);

    fn file(folder: &Path, name: &str, arrays: &[Array<'_>]) -> PathBuf {
        let path = folder.join(name);
        let tensor =
            |&(name, shape, values): &Array<'_>| (name.to_owned(), host::tensor(values.to_vec(), shape).unwrap());
        flowmill_weights::write(&path, &arrays.iter().map(tensor).collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
        path
    }

    #[test]
    fn the_sum_is_taken_in_double_precision() {
        let folder = tempfile::tempdir().unwrap();
        let values = [1e8f32, 1.0, -1e8, 3.0];
        let files = values.map(|value| {
            file(folder.path(), &format!("{value}"), &[("a", &[1], &[value]), ("b", &[2, 1], &[value, 2.0])])
        });
        let target = folder.path().join("mean");
        average_weights(&files, &target).unwrap();
        let mean = flowmill_weights::read(&target).unwrap().tensors;
        let floats = |name| mean[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(floats("a"), [1.0], "single precision would give 0.75");
        assert_eq!(floats("b"), [1.0, 2.0]);
        assert_eq!(mean["b"].dims(), [2, 1]);
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let good = file(folder.path(), "good", &[("a", &[2], &[1.0, 2.0])]);
        let target = folder.path().join("mean");
        for bad in [
            &[("a", &[1][..], &[1.0][..])][..],
            &[("b", &[2], &[1.0, 2.0])],
            &[("a", &[2], &[1.0, 2.0]), ("b", &[1], &[0.0])],
        ] {
            let bad = file(folder.path(), "bad", bad);
            assert!(average_weights(&[good.clone(), bad], &target).is_err());
        }
        assert!(average_weights(&[folder.path().join("absent")], &target).is_err());
        assert!(average_weights(&[], &target).is_err());
    }
}
