//! The differences between a model and a golden file.

use candle_core::Tensor;
use flowmill_nn::{Gradients, Parameters, host};

use super::{GoldenFile, ParityError, Result};

/// The largest allowed error of an output or loss: max |a - b| / (max |b| + 1e-6).
pub const OUTPUT_TOLERANCE: f64 = 2e-5;
/// The largest allowed error of a gradient, by the same measure.
pub const GRADIENT_TOLERANCE: f64 = 2e-4;

/// The comparison of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The kind of tensor: "output", "gradient", "vanishing gradient", "exact" or "log feature".
    pub group: &'static str,
    /// The tensor's full name in the golden file.
    pub name: String,
    /// The error: relative to the largest element, as a difference for log features, or as a count of differing
    /// elements for exact ones. Infinite if the model computed a number that is not finite.
    pub error: f64,
    /// The largest allowed error.
    pub tolerance: f64,
}

/// The biases that are added to every key of an attention, and the projections of that attention.
const KEY_BIASES: [(&str, [&str; 3]); 2] = [
    (".linear_k.bias", [".linear_q.weight", ".linear_k.weight", ".linear_v.weight"]),
    (".attn.k_norm.bias", [".attn.to_q.weight", ".attn.to_k.weight", ".attn.to_v.weight"]),
];

/// The remainder of a gradient that cancels, relative to the gradients next to it: sums of some hundred terms, each
/// rounded at 6e-8.
const ROUNDING: f64 = 1e-6;

/// Returns the largest gradient among the projections of an attention, for the bias of its keys; `None` for other
/// parameters.
fn scale_beside(file: &GoldenFile, parameter: &str) -> Result<Option<f64>> {
    let mut scale = None;
    for (bias, weights) in KEY_BIASES {
        let Some(attention) = parameter.strip_suffix(bias) else { continue };
        for weight in weights {
            let Some(gradient) = file.find(&format!("grad.{attention}{weight}")) else { continue };
            scale = Some(largest(gradient, gradient)?.1.max(scale.unwrap_or(0.0)));
        }
    }
    Ok(scale)
}

impl Comparison {
    /// Returns whether the error is within the tolerance.
    pub fn passes(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// All comparisons of a golden file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report(pub Vec<Comparison>);

impl Report {
    /// Compares an output or loss; `name` is the tensor's full name, such as `out.loss`.
    ///
    /// # Errors
    /// Returns an error if the shapes differ.
    pub fn output(&mut self, name: &str, found: &Tensor, expected: &Tensor) -> Result<()> {
        self.relative("output", OUTPUT_TOLERANCE, name, found, expected)
    }

    /// Compares a gradient; `name` is the tensor's full name, such as `grad.encoder_proj.bias`.
    ///
    /// # Errors
    /// Returns an error if the shapes differ.
    pub fn gradient(&mut self, name: &str, found: &Tensor, expected: &Tensor) -> Result<()> {
        self.relative("gradient", GRADIENT_TOLERANCE, name, found, expected)
    }

    /// Compares integers, which must all be equal.
    pub fn exact(&mut self, name: &str, found: &[i64], expected: &[i64]) {
        let differing = found.iter().zip(expected).filter(|(a, b)| a != b).count();
        let error = (differing + found.len().abs_diff(expected.len())) as f64;
        self.0.push(Comparison { group: "exact", name: name.to_owned(), error, tolerance: 0.0 });
    }

    /// Compares logarithms, which have an absolute tolerance.
    ///
    /// # Errors
    /// Returns an error if the shapes differ.
    pub fn log_feature(&mut self, name: &str, found: &Tensor, expected: &Tensor, tolerance: f64) -> Result<()> {
        same_shape(name, found, expected)?;
        let (error, _) = largest(found, expected)?;
        self.0.push(Comparison { group: "log feature", name: name.to_owned(), error, tolerance });
        Ok(())
    }

    /// Compares the gradients of all parameters in the file. The gradient of a parameter on which the loss does not
    /// depend counts as zero.
    ///
    /// A bias that is added to every key of an attention moves all scores of a query equally, which the softmax
    /// removes. Its gradient is zero, and any implementation computes only rounding errors for it; even an exact zero
    /// can be too far from the rounding in a file. In that case, and if the file's gradient is no larger than
    /// rounding, both are measured relative to the gradients of the attention's projections, in a separate group.
    /// (The gradient of the keys' weight alone is not a suitable scale: it cancels too if the keys are alike, as
    /// those of a few repeated frames are.)
    ///
    /// # Errors
    /// Returns an error if the file has a gradient of an unknown parameter, or of another shape.
    pub fn gradients(&mut self, file: &GoldenFile, parameters: &Parameters, gradients: &Gradients) -> Result<()> {
        for parameter in file.gradient_names() {
            let name = format!("grad.{parameter}");
            let found = gradient_of(file, &name, parameter, parameters, gradients)?;
            let expected = file.tensor(&name)?;
            self.gradient(&name, &found, expected)?;
            if self.0.last().is_some_and(Comparison::passes) {
                continue;
            }
            let Some(scale) = scale_beside(file, parameter)? else { continue };
            if let Some(comparison) = rounding(&name, &found, expected, scale)? {
                self.0.pop();
                self.0.push(comparison);
            }
        }
        Ok(())
    }

    fn relative(
        &mut self,
        group: &'static str,
        tolerance: f64,
        name: &str,
        found: &Tensor,
        expected: &Tensor,
    ) -> Result<()> {
        same_shape(name, found, expected)?;
        let (difference, size) = largest(found, expected)?;
        self.0.push(Comparison { group, name: name.to_owned(), error: difference / (size + 1e-6), tolerance });
        Ok(())
    }

    /// Returns the worst comparison of each group, in the order of the groups.
    pub fn worst(&self) -> Vec<&Comparison> {
        let mut worst: Vec<&Comparison> = Vec::new();
        for comparison in &self.0 {
            match worst.iter_mut().find(|other| other.group == comparison.group) {
                Some(other) if other.error >= comparison.error => {}
                Some(other) => *other = comparison,
                None => worst.push(comparison),
            }
        }
        worst
    }

    /// Returns whether every error is within its tolerance.
    pub fn passes(&self) -> bool {
        self.0.iter().all(Comparison::passes)
    }
}

/// Returns the gradient of a parameter, whose name in the file is `name`. It is zero if the loss does not depend on the parameter.
///
/// # Errors
/// [`ParityError::Unchecked`] if there is no such parameter.
pub(super) fn gradient_of(
    file: &GoldenFile,
    name: &str,
    parameter: &str,
    parameters: &Parameters,
    gradients: &Gradients,
) -> Result<Tensor> {
    let unknown = || ParityError::Unchecked { name: name.to_owned(), model: file.model().to_owned() };
    let id = parameters.find(parameter).ok_or_else(unknown)?;
    match gradients.get(id) {
        Some(gradient) => Ok(gradient.clone()),
        None => Ok(parameters.tensor(id).zeros_like()?),
    }
}

/// Compares a gradient that is zero except for rounding, relative to those next to it; `None` if the file's gradient
/// is larger than rounding.
fn rounding(name: &str, found: &Tensor, expected: &Tensor, scale: f64) -> Result<Option<Comparison>> {
    let (difference, size) = largest(found, expected)?;
    let error = difference / scale;
    let comparison = Comparison { group: "vanishing gradient", name: name.to_owned(), error, tolerance: ROUNDING };
    Ok((size <= ROUNDING * scale).then_some(comparison))
}

/// Returns an error if an expected tensor has another shape.
pub(super) fn same_shape(name: &str, found: &Tensor, expected: &Tensor) -> Result<()> {
    if found.dims() == expected.dims() {
        return Ok(());
    }
    let (found, expected) = (format!("{:?}", found.dims()), format!("{:?}", expected.dims()));
    Err(ParityError::Tensor { name: name.to_owned(), found: expected, expected: found })
}

/// Returns the largest difference of two tensors with the same shape (infinite if an element is not finite), and the
/// largest expected element.
pub(super) fn largest(found: &Tensor, expected: &Tensor) -> Result<(f64, f64)> {
    let (found, expected) = (elements(found)?, elements(expected)?);
    let size = expected.iter().fold(0.0, |largest: f64, b| largest.max(b.abs()));
    let difference = found.iter().zip(&expected).fold(0.0, |largest: f64, (a, b)| match (a - b).abs() {
        difference if difference.is_nan() => f64::INFINITY,
        difference => largest.max(difference),
    });
    Ok((difference, size))
}

fn elements(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(host::fetch(tensor)?.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensor(elements: &[f32]) -> Tensor {
        Tensor::new(elements, &Device::Cpu).unwrap()
    }

    #[test]
    fn only_what_is_rounding_is_measured_against_the_gradient_beside_it() {
        let measured = |found, expected| {
            rounding("grad.a", &tensor(&[found]), &tensor(&[expected]), 1e-3).unwrap().map(|c| c.passes())
        };
        assert_eq!(measured(0.0, 5e-10), Some(true));
        assert_eq!(measured(1e-8, 5e-10), Some(false));
        assert_eq!(measured(1e-5, 1e-5), None);
    }

    #[test]
    fn errors_are_relative_to_the_largest_element() {
        let mut report = Report::default();
        report.output("out.a", &tensor(&[100.0, 0.001]), &tensor(&[100.0, 0.0])).unwrap();
        report.output("out.b", &tensor(&[1.0, 2.0]), &tensor(&[1.0, 2.1])).unwrap();
        report.exact("out.c", &[1, 2, 3], &[1, 5]);
        assert!(report.0[0].passes() && (report.0[0].error - 1e-5).abs() < 1e-9);
        assert!(!report.0[1].passes() && !report.passes());
        assert_eq!(report.0[2].error, 2.0);
        let worst: Vec<_> = report.worst().into_iter().map(|comparison| comparison.name.as_str()).collect();
        assert_eq!(worst, ["out.b", "out.c"]);
    }

    #[test]
    fn a_number_that_is_not_finite_never_passes() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut report = Report::default();
            report.output("out.a", &tensor(&[1.0, wrong, 1.0]), &tensor(&[1.0, 1.0, 1.0])).unwrap();
            assert_eq!(report.0[0].error, f64::INFINITY);
            assert!(!report.passes());
        }
    }

    #[test]
    fn another_shape_is_an_error_that_names_both() {
        let error = Report::default().output("out.a", &tensor(&[1.0; 3]), &tensor(&[1.0; 2])).unwrap_err();
        let ParityError::Tensor { name, found, expected } = &error else { panic!("{error}") };
        assert_eq!([name.as_str(), found, expected], ["out.a", "[2]", "[3]"]);
    }
}
