//! Structural similarity (Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004), in the forms of
//! torchmetrics and of scikit-image, for values from 0 to 1.

use super::Planes;
use crate::{ImageError, Result};

/// Factors of the constants that stabilize the quotients.
const STABILIZERS: [f64; 2] = [0.01 * 0.01, 0.03 * 0.03];
/// Deviation of the Gaussian windows, in pixels.
const DEVIATION: f64 = 1.5;
/// Deviations from the centre to the edge of Gaussian windows.
const TRUNCATION: f64 = 3.5;

/// Continuation of images beyond their borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Border {
    /// Reflected at the last pixel, which is not repeated.
    AtPixels,
    /// Reflected at the edge of the last pixel, which is repeated.
    AtEdges,
}

/// A form of structural similarity.
#[derive(Debug, Clone, PartialEq)]
pub struct SsimSettings {
    /// Weights of the window along an axis, an odd number of them.
    weights: Vec<f64>,
    border: Border,
    /// The factor of variances: that of samples, or 1 for those of populations.
    correction: f64,
    /// True if variances below 0, which are rounding errors, count as 0.
    clamped: bool,
    /// Pixels at each border that do not count in the mean.
    cropped: usize,
}

fn gaussian() -> Vec<f64> {
    let radius = (TRUNCATION * DEVIATION + 0.5) as i32;
    let weight = |place: i32| (-0.5 * (f64::from(place) / DEVIATION).powi(2)).exp();
    let weights: Vec<f64> = (-radius..=radius).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

fn uniform(size: usize) -> Vec<f64> {
    let size = size.max(1) | 1;
    vec![1.0 / size as f64; size]
}

impl SsimSettings {
    /// The default of torchmetrics: Gaussian windows, the mean over all pixels.
    pub fn torchmetrics() -> Self {
        Self { weights: gaussian(), border: Border::AtPixels, correction: 1.0, clamped: true, cropped: 0 }
    }

    /// The form of torchmetrics with uniform windows of an odd size.
    pub fn torchmetrics_uniform(size: usize) -> Self {
        Self { weights: uniform(size), ..Self::torchmetrics() }
    }

    /// The default of scikit-image: uniform windows of 7 pixels, variances of samples, borders left out.
    pub fn scikit() -> Self {
        let weights = uniform(7);
        let count = (weights.len() * weights.len()) as f64;
        let cropped = weights.len() / 2;
        Self { weights, border: Border::AtEdges, correction: count / (count - 1.0), clamped: false, cropped }
    }

    /// The form of scikit-image with Gaussian windows, as in the paper.
    pub fn scikit_gaussian() -> Self {
        let weights = gaussian();
        let cropped = weights.len() / 2;
        Self { weights, border: Border::AtEdges, correction: 1.0, clamped: false, cropped }
    }
}

/// Returns the mean structural similarity of two images.
///
/// # Errors
/// [`ImageError::Size`] if the sizes differ, or the images are smaller than a window.
pub fn ssim(a: &Planes, b: &Planes, settings: &SsimSettings) -> Result<f64> {
    let map = ssim_map(a, b, settings)?;
    let ([height, width, channels], cropped) = (map.size(), settings.cropped);
    let rows = map.elements().chunks_exact(width * channels).skip(cropped).take(height - 2 * cropped);
    let inner = rows.flat_map(|row| &row[cropped * channels..(width - cropped) * channels]);
    let count = (height - 2 * cropped) * (width - 2 * cropped) * channels;
    Ok(inner.sum::<f64>() / count as f64)
}

/// Returns the structural similarity around each pixel of two images.
///
/// # Errors
/// [`ImageError::Size`] if the sizes differ, or the images are smaller than a window.
pub fn ssim_map(a: &Planes, b: &Planes, settings: &SsimSettings) -> Result<Planes> {
    a.check_same(b)?;
    let [height, width, _] = a.size();
    let window = settings.weights.len();
    if height < window || width < window {
        let message = format!("images of {height} x {width} pixels are smaller than the window of {window}");
        return Err(ImageError::size("structural similarity", message));
    }
    let products = |a: &Planes, b: &Planes| a.elements().iter().zip(b.elements()).map(|(a, b)| a * b).collect();
    let mean = |elements: Vec<f64>| filtered(&elements, a.size(), settings);
    let (mean_a, mean_b) = (mean(a.elements().to_vec()), mean(b.elements().to_vec()));
    let (squares_a, squares_b, mixed) = (mean(products(a, a)), mean(products(b, b)), mean(products(a, b)));
    let [first, second] = STABILIZERS;
    let at = |index: usize| {
        let (x, y) = (mean_a[index], mean_b[index]);
        let bounded = |variance: f64| if settings.clamped { variance.max(0.0) } else { variance };
        let variance_a = bounded(settings.correction * (squares_a[index] - x * x));
        let variance_b = bounded(settings.correction * (squares_b[index] - y * y));
        let covariance = settings.correction * (mixed[index] - x * y);
        let above = (2.0 * x * y + first) * (2.0 * covariance + second);
        above / ((x * x + y * y + first) * (variance_a + variance_b + second))
    };
    Planes::new((0..mean_a.len()).map(at).collect(), a.size())
}

/// Averages an image with the weights of the windows along both axes.
fn filtered(elements: &[f64], size: [usize; 3], settings: &SsimSettings) -> Vec<f64> {
    let [height, width, channels] = size;
    let across = along(elements, [height, width, channels], settings);
    along(&across, [1, height, width * channels], settings)
}

/// Averages over the middle axis of `[outer, axis, inner]`.
fn along(elements: &[f64], [outer, length, inner]: [usize; 3], settings: &SsimSettings) -> Vec<f64> {
    let radius = settings.weights.len() / 2;
    let mut out = vec![0.0; elements.len()];
    for block in 0..outer {
        let block = block * length * inner..(block + 1) * length * inner;
        let source = &elements[block.clone()];
        for (place, out) in out[block].chunks_exact_mut(inner).enumerate() {
            for (tap, weight) in settings.weights.iter().enumerate() {
                let from = reflected(place + tap, radius, length, settings.border);
                let source = &source[from * inner..(from + 1) * inner];
                out.iter_mut().zip(source).for_each(|(out, x)| *out += weight * x);
            }
        }
    }
    out
}

/// Returns the pixel that stands at `place - radius` of an axis.
fn reflected(place: usize, radius: usize, length: usize, border: Border) -> usize {
    let repeated = usize::from(border == Border::AtEdges);
    if place < radius {
        return radius - place - repeated;
    }
    match place - radius {
        inside if inside < length => inside,
        beyond => 2 * (length - 1) + repeated - beyond,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_reflected() {
        let places = |border| (0..7).map(|place| reflected(place, 2, 3, border)).collect::<Vec<_>>();
        assert_eq!(places(Border::AtPixels), [2, 1, 0, 1, 2, 1, 0]);
        assert_eq!(places(Border::AtEdges), [1, 0, 0, 1, 2, 2, 1]);
    }

    #[test]
    fn equal_images_are_equal_and_small_ones_are_refused() {
        let image =
            |size: usize| Planes::new((0..size * size).map(|i| (i % 7) as f64 / 7.0).collect(), [size, size, 1]);
        let large = image(16).unwrap();
        for settings in [SsimSettings::torchmetrics(), SsimSettings::scikit(), SsimSettings::scikit_gaussian()] {
            assert!((ssim(&large, &large, &settings).unwrap() - 1.0).abs() < 1e-12);
            let small = image(settings.weights.len() - 1).unwrap();
            assert!(matches!(ssim(&small, &small, &settings), Err(ImageError::Size { .. })));
        }
        assert!(ssim(&large, &image(17).unwrap(), &SsimSettings::scikit()).is_err());
    }
}
