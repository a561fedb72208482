//! Operations large enough for many tasks give the same bytes on one thread as on several. `scripts/check_races` runs this under
//! ThreadSanitizer, which detects two tasks that touch one element, and under Valgrind, which detects unwritten elements.

mod support;

use candle_core::{Device, Tensor};
use flowmill_nn::ops::{Attention, Convolution, Modulation, Normalization, RelativePositions};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, AttentionMask, Context, Parameters, Ragged, Tape, Value};
use support::normals;

/// The output of an operation on inputs of these shapes, and the gradients of all inputs, as bits.
fn bits(name: &str, shapes: &[&[usize]], f: &(impl Fn(&[Value]) -> Value + Sync)) -> Vec<Vec<u32>> {
    let mut parameters = Parameters::new();
    let add = |(index, shape): (usize, &&[usize])| {
        let elements = normals(&format!("{name} {index}"), shape);
        let tensor = Tensor::from_vec(elements, *shape, &Device::Cpu).unwrap();
        parameters.add(format!("input {index}"), tensor).unwrap()
    };
    let ids: Vec<_> = shapes.iter().enumerate().map(add).collect();
    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(3));
    let inputs: Vec<Value> = ids.iter().map(|id| context.parameter(*id)).collect();
    let output = f(&inputs);
    let seed = Tensor::from_vec(normals(&format!("{name} seed"), output.dims()), output.dims(), &Device::Cpu).unwrap();
    let result = output.tensor().clone();
    let gradients = tape.backward_from(&output, seed).unwrap();
    let gradients = ids.iter().map(|id| gradients.get(*id).expect("every input has a gradient").clone());
    let tensors: Vec<Tensor> = std::iter::once(result).chain(gradients).collect();
    let bits = |tensor: &Tensor| {
        let elements: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        // Debug builds fill memory that a kernel is to write with NaN.
        assert!(elements.iter().all(|element| element.is_finite()), "{name}");
        elements.into_iter().map(f32::to_bits).collect()
    };
    tensors.iter().map(bits).collect()
}

fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Value]) -> Value + Sync) {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bits(name, shapes, &f))
    };
    let one = on(1);
    for threads in [2, 5, 8] {
        assert!(on(threads) == one, "{name}: {threads} threads give other bytes than one");
    }
}

/// Rows of three sequences, with padding.
fn rows() -> Ragged {
    Ragged::padded(&[150, 97, 130], 150).unwrap()
}

const STATE: &[usize] = &[3, 150, 48];

#[test]
fn products() {
    check("linear", &[STATE, &[96, 48], &[96]], |x| x[0].linear(&x[1], Some(&x[2])).unwrap());
    check("linear onto", &[STATE, &[48, 48], &[48], STATE], |x| {
        x[0].linear_onto(&x[1], Some(&x[2]), Some(&x[3])).unwrap()
    });
    check("feed forward", &[STATE, &[192, 48], &[192], &[48, 192], &[48], STATE], |x| {
        x[0].feed_forward([&x[1], &x[2]], [&x[3], &x[4]], Activation::Gelu, Some(&x[5])).unwrap()
    });
}

#[test]
fn convolutions() {
    for (kernel, settings) in
        [(3, Convolution::causal(3)), (3, Convolution { padding: [1, 1], stride: 2, ..Convolution::default() })]
    {
        check(&format!("{settings:?}"), &[STATE, &[40, 48, kernel], &[40]], |x| {
            x[0].conv1d(&x[1], Some(&x[2]), settings, Some(&[150, 97, 130])).unwrap()
        });
    }
}

#[test]
fn attentions() {
    let items = [rows(), rows()];
    for (name, attention_mask) in [("full", AttentionMask::Full), ("chunks", AttentionMask::Chunk(25))] {
        let settings = Attention {
            heads: 4,
            attention_mask,
            queries: &items[0],
            keys: &items[1],
            dropout: Some((0.1, RngKey::new(1))),
        };
        check(name, &[STATE, STATE, STATE], |x| x[0].attend(&x[1], &x[2], &settings, None).unwrap());
        check(&format!("relative {name}"), &[STATE, STATE, STATE, &[299, 48], &[4, 12], &[4, 12]], |x| {
            let relative = RelativePositions { encodings: &x[3], content_bias: &x[4], position_bias: &x[5] };
            x[0].attend(&x[1], &x[2], &settings, Some(relative)).unwrap()
        });
    }
}

#[test]
fn normalizations_and_modulations() {
    let rows = rows();
    let settings = Normalization { activation: Activation::Mish, ..Normalization::default() };
    check("layer norm", &[STATE, &[48], &[48]], |x| x[0].layer_norm(Some(&x[1]), Some(&x[2]), settings).unwrap());
    check("modulated norm", &[&[450, 48], &[450, 48], &[3, 144]], |x| {
        let modulation = Modulation { vectors: &x[2], rows: &rows };
        let normal = x[0].modulated_norm(&modulation, [0, 1], 1e-6).unwrap();
        x[1].add_gated(&normal, &modulation, 2).unwrap()
    });
}
