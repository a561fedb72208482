//! The test harness of every differentiable operation. It compares:
//!
//! * the composition with finite differences, in double precision;
//! * the fused CPU kernel with the composition, in single precision;
//! * the composition in bf16 and fp16 with double precision;
//! * if the environment variable [`DEVICE`] names a device, that device with double precision, by its own kernels where it has
//!   some, and by the composition.
//!
//! Functions here panic on a disagreement: they are for tests.

use crate::parameters::ParameterId;
use crate::random::RngKey;
use crate::{NnError, Precision, Result, Tape, Value, device};
use candle_core::{DType, Device, Tensor};

/// The environment variable that names a device to test in addition to the CPU, such as `cuda:0`.
pub const DEVICE: &str = "FLOWMILL_TEST_DEVICE";

/// Allowed differences between results, as a share of the largest magnitude.
#[derive(Debug, Clone, Copy)]
struct Tolerances {
    /// Gradients in double precision against differences.
    differences: f64,
    /// Kernels and other devices against the composition in single precision.
    single: f64,
    /// The composition in bf16 against double precision.
    bf16: f64,
    /// The composition in fp16 against double precision.
    fp16: f64,
}

const TOLERANCES: Tolerances = Tolerances { differences: 1e-6, single: 5e-6, bf16: 4e-2, fp16: 5e-3 };

/// Random elements for a named input.
pub fn normals(name: &str, shape: &[usize]) -> Vec<f32> {
    RngKey::new(17).purpose(name).normals(shape.iter().product())
}

/// The largest difference relative to the largest expected magnitude.
///
/// # Panics
/// When the numbers of elements differ.
pub fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let apart = |(a, b): (&f64, &f64)| if a.is_nan() || b.is_nan() { f64::INFINITY } else { (a - b).abs() };
    found.iter().zip(expected).map(apart).fold(0.0, f64::max) / (largest + 1e-6)
}

/// Elements of any type on any device.
fn elements(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// An operation on several inputs, with the values it is checked at.
struct Case<'a> {
    shapes: &'a [&'a [usize]],
    inputs: Vec<Vec<f64>>,
    f: &'a dyn Fn(&[Value]) -> Value,
}

/// Result of an operation: its output, and the gradients of all inputs.
struct Results {
    output: Vec<f64>,
    gradients: Vec<Vec<f64>>,
}

impl<'a> Case<'a> {
    /// Creates a case with standard normal elements times a deviation.
    fn new(name: &str, shapes: &'a [&'a [usize]], deviation: f64, f: &'a dyn Fn(&[Value]) -> Value) -> Self {
        let inputs = shapes.iter().enumerate().map(|(input, shape)| {
            normals(&format!("{name} {input}"), shape).iter().map(|x| f64::from(*x) * deviation).collect()
        });
        Self { shapes, inputs: inputs.collect(), f }
    }

    fn tensors(&self, device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
        let tensor = |(elements, shape): (&Vec<f64>, &&[usize])| {
            Ok(Tensor::from_slice(elements, *shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
        };
        self.inputs.iter().zip(self.shapes).map(tensor).collect()
    }

    /// Runs the operation on recorded inputs of an element type on a device; the gradients are those of the sum of the output times
    /// `weights`.
    fn results(&self, device: &Device, dtype: DType, weights: &dyn Fn(usize) -> Vec<f64>) -> Result<Results> {
        let precision = match dtype {
            DType::BF16 => Precision::Bf16,
            DType::F16 => Precision::Fp16,
            _ => Precision::Fp32,
        };
        let tape = Tape::with_precision(precision);
        let ids = (0..self.inputs.len()).map(ParameterId::at);
        let tensors = self.tensors(device, dtype)?;
        let values = tensors.into_iter().zip(ids).map(|(tensor, id)| Value::new(tensor, Some(tape.parameter(id))));
        let output = (self.f)(&values.collect::<Vec<_>>());
        let tensor = output.tensor();
        let seed = Tensor::from_vec(weights(tensor.elem_count()), tensor.dims(), &Device::Cpu)?;
        let seed = seed.to_dtype(tensor.dtype())?.to_device(tensor.device())?;
        let (found, before) = (elements(tensor)?, elements(&seed)?);
        let gradients = tape.backward_from(&output, seed.clone())?;
        assert!(tape.is_empty());
        assert_eq!(elements(&seed)?, before, "the seed that the caller holds is overwritten");
        let gradient = |input: usize| {
            let missing = || NnError::invalid("gradient", format!("input {input} has none"));
            elements(gradients.get(ParameterId::at(input)).ok_or_else(missing)?)
        };
        Ok(Results { output: found, gradients: (0..self.inputs.len()).map(gradient).collect::<Result<_>>()? })
    }

    /// The output for plain inputs in double precision, with one element changed.
    fn moved(&self, input: usize, element: usize, by: f64) -> Result<Vec<f64>> {
        let mut inputs = self.inputs.clone();
        inputs[input][element] += by;
        let tensors = Case { inputs, ..*self }.tensors(&Device::Cpu, DType::F64)?;
        let values: Vec<Value> = tensors.into_iter().map(|tensor| Value::new(tensor, None)).collect();
        elements((self.f)(&values).tensor())
    }
}

/// Checks an operation on inputs of these shapes with standard normal elements; see the module.
///
/// # Panics
/// When anything disagrees.
pub fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Value]) -> Value) {
    check_at(name, shapes, 1.0, f);
}

/// Like [`check`], with inputs of the given deviation.
///
/// # Panics
/// When anything disagrees.
pub fn check_at(name: &str, shapes: &[&[usize]], deviation: f64, f: impl Fn(&[Value]) -> Value) {
    if let Err(error) = check_case(name, &Case::new(name, shapes, deviation, &f)) {
        panic!("{name}: {error}");
    }
}

fn check_case(name: &str, case: &Case) -> Result<()> {
    let weights = |count: usize| output_weights(name, count);
    let double = case.results(&Device::Cpu, DType::F64, &weights)?;
    check_differences(name, case, &double, &weights(double.output.len()))?;
    let composed = device::by_composition(|| case.results(&Device::Cpu, DType::F32, &weights))?;
    agree(&format!("{name}, composed in f32"), &composed, &double, TOLERANCES.single);
    let fused = case.results(&Device::Cpu, DType::F32, &weights)?;
    let plain = case.tensors(&Device::Cpu, DType::F32)?.into_iter().map(|tensor| Value::new(tensor, None));
    let plain = (case.f)(&plain.collect::<Vec<_>>());
    assert_eq!(elements(plain.tensor())?, fused.output, "{name}: recording changes the result");
    agree(&format!("{name}, fused"), &fused, &double, TOLERANCES.single);
    let bf16 = case.results(&Device::Cpu, DType::BF16, &weights)?;
    agree(&format!("{name}, bf16"), &bf16, &double, TOLERANCES.bf16);
    let fp16 = case.results(&Device::Cpu, DType::F16, &weights)?;
    agree(&format!("{name}, fp16"), &fp16, &double, TOLERANCES.fp16);
    check_device(name, case, &double)
}

/// The weights of the output in the sum that is differentiated.
fn output_weights(name: &str, count: usize) -> Vec<f64> {
    normals(&format!("{name} weights"), &[count]).into_iter().map(f64::from).collect()
}

/// Compares the tested device, by its own kernels and by compositions, with double precision on the CPU.
fn check_device(name: &str, case: &Case, double: &Results) -> Result<()> {
    let Some(device) = test_device()? else { return Ok(()) };
    let weights = |count: usize| output_weights(name, count);
    let Tolerances { single, bf16, fp16, .. } = TOLERANCES;
    for (dtype, tolerance) in [(DType::F32, single), (DType::BF16, bf16), (DType::F16, fp16)] {
        let place = format!("{name} on {:?} in {dtype:?}", device.location());
        agree(&place, &case.results(&device, dtype, &weights)?, double, tolerance);
        let composed = device::by_composition(|| case.results(&device, dtype, &weights))?;
        agree(&format!("{place}, composed"), &composed, double, tolerance);
    }
    Ok(())
}

/// Like [`check`], for the tested device only and without differences: for sizes where these take too long.
///
/// # Panics
/// When anything disagrees.
pub fn check_large(name: &str, shapes: &[&[usize]], f: impl Fn(&[Value]) -> Value) {
    let case = Case::new(name, shapes, 1.0, &f);
    let double = case.results(&Device::Cpu, DType::F64, &|count| output_weights(name, count));
    if let Err(error) = double.and_then(|double| check_device(name, &case, &double)) {
        panic!("{name}: {error}");
    }
}

/// Opens the device that [`DEVICE`] names; `None` if the variable is not set.
///
/// # Errors
/// When this build or machine does not have it.
pub fn test_device() -> Result<Option<Device>> {
    let Ok(name) = std::env::var(DEVICE) else { return Ok(None) };
    device::open(name.parse()?).map(Some)
}

fn check_differences(name: &str, case: &Case, found: &Results, weights: &[f64]) -> Result<()> {
    const STEP: f64 = 1.0 / 256.0;
    for (input, gradient) in found.gradients.iter().enumerate() {
        let mut expected = Vec::with_capacity(gradient.len());
        for element in 0..gradient.len() {
            let at = |steps: f64| -> Result<f64> {
                let output = case.moved(input, element, steps * STEP)?;
                Ok(output.iter().zip(weights).map(|(y, w)| y * w).sum())
            };
            expected.push((8.0 * (at(1.0)? - at(-1.0)?) - (at(2.0)? - at(-2.0)?)) / (12.0 * STEP));
        }
        let error = worst(gradient, &expected);
        assert!(error < TOLERANCES.differences, "{name}: gradient of input {input} is off by {error} from differences");
    }
    Ok(())
}

fn agree(name: &str, found: &Results, expected: &Results, tolerance: f64) {
    let error = worst(&found.output, &expected.output);
    assert!(error < tolerance, "{name}: the output is off by {error}");
    for (input, (found, expected)) in found.gradients.iter().zip(&expected.gradients).enumerate() {
        let error = worst(found, expected);
        assert!(error < tolerance, "{name}: gradient of input {input} is off by {error}");
    }
}
