//! Spectra in polar form.

/// The largest magnitude, as in the public implementations.
const LARGEST: f32 = 100.0;

/// Returns real and imaginary parts of magnitudes, which are cut at 100, and angles in radians.
pub(super) fn from_polar(magnitude: f32, angle: f32) -> [f32; 2] {
    let (sine, cosine) = angle.sin_cos();
    // Unlike `min`, this keeps a value that is not a number.
    let magnitude = if magnitude > LARGEST { LARGEST } else { magnitude };
    [magnitude * cosine, magnitude * sine]
}

/// Returns the spectra of a network's rows: in each, logarithms of the magnitudes of all bins, then values that `angle` turns into angles.
pub(super) fn of_rows(rows: &[f32], bins: usize, angle: impl Fn(f32) -> f32) -> Vec<[f32; 2]> {
    let mut spectra = Vec::with_capacity(rows.len() / 2);
    for row in rows.chunks_exact((2 * bins).max(1)) {
        let (magnitudes, angles) = row.split_at(bins);
        let pairs = magnitudes.iter().zip(angles);
        spectra.extend(pairs.map(|(magnitude, value)| from_polar(magnitude.exp(), angle(*value))));
    }
    spectra
}
