//! Token embeddings that start from a k-means codebook.

use std::path::Path;

use flowmill_extract::extractors::dual_kmeans::{self, DualKmeans};
use flowmill_extract::extractors::kmeans::Kmeans;
use flowmill_extract::{Matrix, State};
use flowmill_family::BoxError;
use flowmill_networks::flow::FlowConfig;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Parameters, host};

/// The embedding's names in the public `state_dict`s: with one codebook, and with two.
const EMBEDDINGS: [&str; 2] = ["input_embedding.weight", "input_embedding.embedding.weight"];

/// Sets the token embedding to the codebook's centers: every dimension is standardized over the units, then projected
/// by a Gaussian matrix to the model's width, so that each value has unit variance and distances are kept (Johnson
/// and Lindenstrauss). Rows without a unit stay random.
///
/// # Errors
/// Returns an error if the codebook cannot be read or has more units than the model.
pub fn start_from(
    parameters: &mut Parameters,
    codebook: &Path,
    config: &FlowConfig,
    seed: u64,
) -> Result<(), BoxError> {
    let state = State::load(codebook)?;
    let blocks = blocks(&state)?;
    let units = blocks.iter().map(|(first, centres)| first + centres.rows()).max().unwrap_or(0);
    if units > config.vocab_size {
        let message =
            format!("the codebook has {units} units, but the model has {} (train.model.vocab_size)", config.vocab_size);
        return Err(message.into());
    }
    let Some(id) = EMBEDDINGS.iter().find_map(|name| parameters.find(name)) else {
        return Err("the model has no embedding of tokens to start from a codebook".into());
    };
    let shape = parameters.tensor(id).dims().to_vec();
    let width = shape.last().copied().unwrap_or(0);
    let mut weights = host::read(parameters.tensor(id))?;
    for (first, centres) in blocks {
        let rows = project(&standardized(&centres), width, seed);
        weights[first * width..][..rows.len()].copy_from_slice(&rows);
    }
    let tensor = host::tensor(weights, &shape)?;
    Ok(parameters.set(id, tensor)?)
}

/// Returns the centers of each codebook, and the row of the embedding for its first unit.
fn blocks(state: &State) -> Result<Vec<(usize, Matrix)>, BoxError> {
    if state.kind() != dual_kmeans::KIND {
        let kmeans = Kmeans::from_state(state)?;
        return Ok(vec![(0, kmeans.centres().clone())]);
    }
    let dual = DualKmeans::from_state(state)?;
    let [linguistic, semantic] = dual.centres();
    // The padding is between them.
    Ok(vec![(0, linguistic.clone()), (dual.codebook().padding() + 1, semantic.clone())])
}

/// Scales every column to mean 0 and deviation 1 over the rows.
fn standardized(matrix: &Matrix) -> Matrix {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut values = matrix.as_slice().to_vec();
    for column in 0..columns {
        let of_column = || values[column..].iter().step_by(columns).map(|value| f64::from(*value));
        let mean = of_column().sum::<f64>() / rows as f64;
        let variance = of_column().map(|value| (value - mean).powi(2)).sum::<f64>() / rows as f64;
        let deviation = variance.sqrt().max(1e-6);
        for value in values[column..].iter_mut().step_by(columns) {
            *value = ((f64::from(*value) - mean) / deviation) as f32;
        }
    }
    Matrix::new(values, columns)
}

/// Multiplies rows by a Gaussian matrix `[column, width]` of variance 1 / columns.
fn project(matrix: &Matrix, width: usize, seed: u64) -> Vec<f32> {
    let columns = matrix.columns();
    let directions = RngKey::new(seed).purpose("codebook projection").normals(columns * width);
    let scale = 1.0 / (columns as f64).sqrt();
    let dot = |row: &[f32], to: usize| {
        let sum: f64 =
            row.iter().enumerate().map(|(from, x)| f64::from(*x) * f64::from(directions[from * width + to])).sum();
        (sum * scale) as f32
    };
    matrix.iter().flat_map(|row| (0..width).map(move |to| dot(row, to)).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projection_keeps_near_units_near() {
        // 64 dimensions: units 0 and 1 differ in only one of them, unit 2 in all.
        let mut values = vec![0.0; 3 * 64];
        values[64] = 1.0;
        values[128..].fill(5.0);
        let rows = project(&Matrix::new(values, 64), 128, 7);
        let distance = |a: usize, b: usize| -> f32 {
            rows[a * 128..][..128].iter().zip(&rows[b * 128..][..128]).map(|(x, y)| (x - y).powi(2)).sum()
        };
        assert!(distance(0, 1) * 100.0 < distance(0, 2));
    }

    #[test]
    fn standardized_columns_have_mean_zero_and_deviation_one() {
        let matrix = standardized(&Matrix::new(vec![1.0, 5.0, 3.0, 5.0], 2));
        assert_eq!(matrix.as_slice(), [-1.0, 0.0, 1.0, 0.0]);
    }
}
