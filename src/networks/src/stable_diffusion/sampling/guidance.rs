//! Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

/// Returns `without + scale (with - without)`, the prediction under conditions strengthened by a scale: 1 changes nothing.
pub fn guided(with: &[f32], without: &[f32], scale: f32) -> Vec<f32> {
    with.iter().zip(without).map(|(with, without)| scale.mul_add(with - without, *without)).collect()
}
