//! Rounding in bf16 and fp16: what is rounded, to what, and what is not.

mod support;

use candle_core::{Device, Tensor};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Gradients, Parameters, Precision, Ragged, Tape, Value};
use half::{bf16, f16};
use support::{elements, normals};

/// The number nearest to `x` in a format, by the `half` crate, one at a time.
fn nearest(precision: Precision, x: f32) -> f32 {
    match precision {
        Precision::Fp32 => x,
        Precision::Bf16 => bf16::from_f32(x).to_f32(),
        Precision::Fp16 => f16::from_f32(x).to_f32(),
    }
}

fn is_rounded(precision: Precision, elements: &[f32]) -> bool {
    elements.iter().all(|x| x.to_bits() == nearest(precision, *x).to_bits())
}

#[test]
fn rounding_is_that_of_half_on_every_kind_of_number() {
    let mut numbers: Vec<f32> = (0..=u16::MAX).map(|upper| f32::from_bits(u32::from(upper) << 16 | 0x8000)).collect();
    numbers.extend((0..200_000u64).map(|i| f32::from_bits(RngKey::new(3).block(i)[0])));
    numbers.extend([
        0.0,
        -0.0,
        65504.0,
        65519.9,
        65520.0,
        -65520.0,
        1e-8,
        2.9e-8,
        3.0e-8,
        6.1e-5,
        f32::MAX,
        f32::MIN_POSITIVE,
    ]);
    numbers.extend([f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(1), 2049.0, 2051.0, 257.0, 259.0]);
    for precision in [Precision::Fp32, Precision::Bf16, Precision::Fp16] {
        let mut rounded = numbers.clone();
        precision.round(&mut rounded);
        for (rounded, x) in rounded.iter().zip(&numbers) {
            let expected = nearest(precision, *x);
            let same = rounded.to_bits() == expected.to_bits() || rounded.is_nan() && expected.is_nan();
            assert!(same, "{precision:?}: {x:e} became {rounded:e}, not {expected:e}");
        }
    }
    let mut edge = [65504.0, 65520.0, 1e-5, 2f32.powi(-24), 2f32.powi(-26)];
    Precision::Fp16.round(&mut edge);
    assert_eq!(edge[..2], [65504.0, f32::INFINITY]);
    assert!(edge[2] != 0.0 && edge[2] != 1e-5, "a subnormal");
    assert_eq!(edge[3..], [2f32.powi(-24), 0.0]);
}

struct Small {
    parameters: Parameters,
    ids: Vec<flowmill_nn::ParameterId>,
}

fn small() -> Small {
    let mut parameters = Parameters::new();
    let ids = [("first", [24, 8]), ("second", [5, 24])].map(|(name, shape)| {
        let tensor = Tensor::from_vec(normals(name, &shape), &shape[..], &Device::Cpu).unwrap();
        parameters.add(name, tensor).unwrap()
    });
    Small { ids: ids.to_vec(), parameters }
}

/// Every value of a two-layer network up to its loss, and the gradients of `factor` times the loss.
fn passes(small: &Small, precision: Precision, factor: f32) -> (Vec<Value>, Gradients) {
    let tape = Tape::with_precision(precision);
    let context = Context::training(&small.parameters, &tape, RngKey::new(1));
    let input = Value::from_vec(normals("data", &[30, 8]), &[30, 8]).unwrap();
    let hidden = input.linear(&context.parameter(small.ids[0]), None).unwrap();
    let active = hidden.activate(flowmill_nn::Activation::Gelu).unwrap();
    let output = active.linear(&context.parameter(small.ids[1]), None).unwrap();
    let target = Value::from_vec(normals("target", &[30, 5]), &[30, 5]).unwrap();
    let loss = output.mean_square_error(&target, &Ragged::packed(&[30])).unwrap();
    let gradients = tape.backward_from(&loss, Tensor::new(factor, &Device::Cpu).unwrap()).unwrap();
    (vec![context.parameter(small.ids[0]), hidden, active, output, loss], gradients)
}

#[test]
fn weights_outputs_and_gradients_are_rounded_and_losses_are_not() {
    let small = small();
    let masters: Vec<f32> = small.parameters.tensor(small.ids[0]).flatten_all().unwrap().to_vec1().unwrap();
    let (exact, exact_gradients) = passes(&small, Precision::Fp32, 1.0);
    for (precision, tolerance) in [(Precision::Bf16, 2e-2), (Precision::Fp16, 2e-3)] {
        let (values, gradients) = passes(&small, precision, 1.0);
        for value in &values[..4] {
            assert!(is_rounded(precision, &elements(value)), "{precision:?}");
        }
        let loss = values[4].scalar().unwrap();
        assert!(!is_rounded(precision, &[loss]), "the loss {loss} stays in single precision");
        let expected = exact[4].scalar().unwrap();
        assert!((loss - expected).abs() < tolerance * expected && loss != expected, "{loss} {expected}");
        assert_eq!(gradients.len(), 2);
        for (id, gradient) in gradients.iter() {
            let found: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
            assert!(is_rounded(precision, &found), "{precision:?}");
            let expected: Vec<f32> = exact_gradients.get(id).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            let error = support::worst(&found, &expected);
            assert!(error < f64::from(tolerance) && error > 0.0, "{precision:?}: {error}");
        }
    }
    let after: Vec<f32> = small.parameters.tensor(small.ids[0]).flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(masters, after, "the weights themselves stay as they are");
    assert!(!is_rounded(Precision::Fp16, &after));
}

#[test]
fn half_precision_gradients_vanish_without_a_scale_and_overflow_with_too_large_a_one() {
    let small = small();
    let all = |gradients: &Gradients| -> Vec<f32> {
        gradients.iter().flat_map(|(_, gradient)| gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect()
    };
    let (_, tiny) = passes(&small, Precision::Fp16, 1e-9);
    assert!(all(&tiny).iter().all(|x| *x == 0.0), "1e-9 of the gradient is less than fp16 can hold");
    let (_, tiny) = passes(&small, Precision::Bf16, 1e-9);
    assert!(all(&tiny).iter().any(|x| *x != 0.0), "bf16 can");
    let (_, scaled) = passes(&small, Precision::Fp16, 1e-9 * 1e9);
    assert!(all(&scaled).iter().any(|x| *x != 0.0));
    let (_, huge) = passes(&small, Precision::Fp16, 1e9);
    assert!(all(&huge).iter().any(|x| !x.is_finite()));
    let (_, huge) = passes(&small, Precision::Bf16, 1e9);
    assert!(all(&huge).iter().all(|x| x.is_finite()));
}

#[test]
fn inference_and_values_that_are_not_recorded_stay_in_single_precision() {
    let small = small();
    let input = Value::from_vec(normals("data", &[30, 8]), &[30, 8]).unwrap();
    let weight = Context::inference(&small.parameters).parameter(small.ids[0]);
    assert!(!is_rounded(Precision::Bf16, &elements(&weight)));
    assert!(!is_rounded(Precision::Bf16, &elements(&input.linear(&weight, None).unwrap())));
}
