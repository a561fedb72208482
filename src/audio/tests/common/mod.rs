//! Location of the test files, and a reader for the tables next to them.

#![allow(dead_code, reason = "every test program uses a part of this")]

use std::path::{Path, PathBuf};

/// A path below the repository's `tests` folder.
pub fn test_file(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(relative)
}

/// The rows of a tab-separated table, without its heading.
pub fn table(relative: &str) -> Vec<Vec<String>> {
    let path = test_file(relative);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Tensors of a golden file.
pub struct Golden(Vec<u8>);

impl Golden {
    /// Reads `tests/golden/NAME.safetensors`.
    pub fn read(name: &str) -> Self {
        let path = test_file(&format!("golden/{name}.safetensors"));
        Self(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// A float tensor with its shape.
    pub fn floats(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let tensors = safetensors::SafeTensors::deserialize(&self.0).expect("golden files are safetensors");
        let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
        let values = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        (values.collect(), tensor.shape().to_vec())
    }

    /// An integer tensor.
    pub fn integers(&self, name: &str) -> Vec<i64> {
        let tensors = safetensors::SafeTensors::deserialize(&self.0).expect("golden files are safetensors");
        let tensor = tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        tensor.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
    }
}
