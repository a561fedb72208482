//! The mean of several checkpoints' weights.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use crate::TrainError;

use super::arrays::write_f32;

/// Writes the mean of the weights in `files` (F32 safetensors of the same names and shapes), summed in double precision in the
/// order given and rounded once.
///
/// # Errors
/// When there is no file, one cannot be read, or one has other names, shapes or types than the first.
pub fn average_weights(files: &[PathBuf], target: &Path) -> Result<(), TrainError> {
    let mut sums: Vec<Sum> = Vec::new();
    for (index, path) in files.iter().enumerate() {
        let bytes = std::fs::read(path).map_err(TrainError::io("read", path))?;
        let added = if index == 0 { first(&bytes).map(|first| sums = first) } else { add(&mut sums, &bytes) };
        added.map_err(|reason| TrainError::io("average", path)(std::io::Error::other(reason)))?;
    }
    let count = files.len() as f64;
    let mean = |sum: &Sum| sum.values.iter().map(|value| (value / count) as f32).collect::<Vec<f32>>();
    let means: Vec<Vec<f32>> = sums.iter().map(mean).collect();
    let arrays = sums.iter().zip(&means).map(|(sum, mean)| (sum.name.as_str(), sum.shape.as_slice(), mean.as_slice()));
    write_f32(target, arrays)
}

struct Sum {
    name: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

fn first(bytes: &[u8]) -> Result<Vec<Sum>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let zero = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| Sum {
        name: name.to_owned(),
        shape: view.shape().to_vec(),
        values: vec![0.0; view.shape().iter().product()],
    };
    let mut sums: Vec<Sum> = file.iter().map(|(name, view)| zero((name, view))).collect();
    sums.sort_by(|a, b| a.name.cmp(&b.name));
    add(&mut sums, bytes)?;
    Ok(sums)
}

fn add(sums: &mut [Sum], bytes: &[u8]) -> Result<(), String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    if file.len() != sums.len() {
        return Err(format!("has {} arrays where the first file has {}", file.len(), sums.len()));
    }
    for Sum { name, shape, values } in sums {
        let view = file.tensor(name).map_err(|error| error.to_string())?;
        if view.dtype() != Dtype::F32 || view.shape() != shape.as_slice() {
            return Err(format!("{name} is {:?} {:?} instead of F32 {shape:?}", view.dtype(), view.shape()));
        }
        let (words, _) = view.data().as_chunks::<4>();
        values.iter_mut().zip(words).for_each(|(sum, word)| *sum += f64::from(f32::from_le_bytes(*word)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str, arrays: &[(&str, &[usize], &[f32])]) -> PathBuf {
        let path = folder.join(name);
        write_f32(&path, arrays.iter().copied()).unwrap();
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
        let bytes = std::fs::read(&target).unwrap();
        let mean = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name| {
            let (words, _) = mean.tensor(name).unwrap().data().as_chunks::<4>();
            words.iter().map(|word| f32::from_le_bytes(*word)).collect::<Vec<f32>>()
        };
        assert_eq!(floats("a"), [1.0], "single precision would give 0.75");
        assert_eq!(floats("b"), [1.0, 2.0]);
        assert_eq!(mean.tensor("b").unwrap().shape(), [2, 1]);
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
    }
}
