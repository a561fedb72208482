//! Every fused operation against straightforward loops in double precision.

mod support;

use flowmill_nn::ops::{Attention, Convolution, Modulation, Normalization, RelativePositions};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Activation, AttentionMask, Ragged, Value};
use support::{elements, value, worst};

fn doubles(value: &Value) -> Vec<f64> {
    elements(value).into_iter().map(f64::from).collect()
}

fn assert_close(name: &str, found: &Value, expected: &[f64]) {
    let error = worst(&elements(found), expected);
    assert!(error < 2e-6, "{name} is off by {error}");
}

#[test]
fn linear_and_feed_forward() {
    let (rows, inputs, outputs) = (37, 19, 23);
    let (x, w, b) = (value("x", &[rows, inputs]), value("w", &[outputs, inputs]), value("b", &[outputs]));
    let (xs, ws, bs) = (doubles(&x), doubles(&w), doubles(&b));
    let inner = |row: usize, output: usize| -> f64 {
        (0..inputs).map(|i| xs[row * inputs + i] * ws[output * inputs + i]).sum::<f64>() + bs[output]
    };
    let product: Vec<f64> = (0..rows * outputs).map(|i| inner(i / outputs, i % outputs)).collect();
    assert_close("linear", &x.linear(&w, Some(&b)).unwrap(), &product);
    let relu: Vec<f64> = product.iter().map(|x| x.max(0.0)).collect();
    assert_close("relu", &x.linear_activated(&w, Some(&b), Activation::Relu).unwrap(), &relu);

    let (w2, b2) = (value("w2", &[inputs, outputs]), value("b2", &[inputs]));
    let whole = x.feed_forward([&w, &b], [&w2, &b2], Activation::Mish, Some(&x)).unwrap();
    let inner = x.linear(&w, Some(&b)).unwrap().activate(Activation::Mish).unwrap();
    let parts = inner.linear(&w2, Some(&b2)).unwrap().add(&x).unwrap();
    assert_close("feed forward", &whole, &doubles(&parts));
}

#[test]
fn layer_norm_and_group_norm() {
    let (rows, width) = (11, 45);
    let (x, w, b) = (value("x", &[rows, width]), value("w", &[width]), value("b", &[width]));
    let (xs, ws, bs) = (doubles(&x), doubles(&w), doubles(&b));
    let normal = |xs: &[f64]| -> Vec<f64> {
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        let variance = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / xs.len() as f64;
        xs.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt()).collect()
    };
    let expected: Vec<f64> = xs
        .chunks(width)
        .flat_map(|row| {
            normal(row).into_iter().enumerate().map(|(i, x)| (x * ws[i] + bs[i]).tanh()).collect::<Vec<_>>()
        })
        .collect();
    let settings = Normalization { activation: Activation::Tanh, ..Normalization::default() };
    assert_close("layer norm", &x.layer_norm(Some(&w), Some(&b), settings).unwrap(), &expected);

    let (items, time, channels, groups) = (2, 5, 6, 3);
    let (x, w, b) = (value("gx", &[items, time, channels]), value("gw", &[channels]), value("gb", &[channels]));
    let (xs, ws, bs) = (doubles(&x), doubles(&w), doubles(&b));
    let mut expected = vec![0.0; xs.len()];
    for (item, group) in (0..items).flat_map(|item| (0..groups).map(move |group| (item, group))) {
        let of_group: Vec<usize> =
            (0..time).flat_map(|t| (0..2).map(move |c| (item * time + t) * channels + group * 2 + c)).collect();
        let normal = normal(&of_group.iter().map(|i| xs[*i]).collect::<Vec<_>>());
        for (index, x) in of_group.into_iter().zip(normal) {
            expected[index] = x * ws[index % channels] + bs[index % channels];
        }
    }
    assert_close("group norm", &x.group_norm(groups, &w, &b, Normalization::default()).unwrap(), &expected);
}

#[test]
fn modulated_norm_and_gated_sum() {
    // Items of several tasks each; the second layout has rows of no item.
    let (width, lengths) = (130, [300, 7, 190]);
    for rows in [Ragged::packed(&lengths), Ragged::padded(&lengths, 301).unwrap()] {
        let x = value("x", &[rows.total(), width]);
        let update = value("update", &[rows.total(), width]);
        let vectors = value("vectors", &[3, 4 * width]);
        let vector = |index: usize| vectors.channels(index * width..(index + 1) * width).unwrap();
        let modulation = Modulation { vectors: &vectors, rows: &rows };
        let plain = Normalization { epsilon: 1e-6, activation: Activation::Identity };
        let normal = x.layer_norm(None, None, plain).unwrap();
        let parts = normal.modulate(&vector(3), &vector(1), &rows).unwrap().mask_rows(&rows).unwrap();
        assert_close("modulated norm", &x.modulated_norm(&modulation, [1, 3], 1e-6).unwrap(), &doubles(&parts));
        let parts = x.add(&update.scale_items(&vector(2), &rows).unwrap()).unwrap();
        assert_close("gated sum", &x.add_gated(&update, &modulation, 2).unwrap(), &doubles(&parts));
    }
}

#[test]
fn a_modulation_that_does_not_fit_is_refused() {
    let rows = Ragged::packed(&[2, 1]);
    let x = value("x", &[3, 4]);
    for shape in [[3, 12], [2, 7], [2, 4]] {
        let vectors = value("vectors", &shape);
        let modulation = Modulation { vectors: &vectors, rows: &rows };
        assert!(x.modulated_norm(&modulation, [0, 1], 1e-6).is_err(), "{shape:?}");
    }
    let (vectors, short) = (value("vectors", &[2, 12]), value("short", &[2, 4]));
    let modulation = Modulation { vectors: &vectors, rows: &rows };
    assert!(x.add_gated(&short, &modulation, 0).is_err());
    assert!(short.modulated_norm(&modulation, [0, 1], 1e-6).is_err());
}

#[test]
fn convolution() {
    let (items, time, inputs, outputs, kernel) = (2, 211, 5, 7, 3);
    let (x, w, b) =
        (value("x", &[items, time, inputs]), value("w", &[outputs, inputs, kernel]), value("b", &[outputs]));
    let (xs, ws, bs) = (doubles(&x), doubles(&w), doubles(&b));
    let lengths = [130, 211];
    for (stride, dilation, padding) in [(1, 1, [2, 0]), (2, 1, [1, 1]), (1, 2, [0, 4]), (3, 2, [5, 6])] {
        let settings = Convolution { stride, dilation, padding };
        let found = x.conv1d(&w, Some(&b), settings, Some(&lengths)).unwrap();
        let out_time = (time + padding[0] + padding[1] - dilation * (kernel - 1) - 1) / stride + 1;
        assert_eq!(found.dims(), [items, out_time, outputs]);
        let at = |item: usize, frame: isize, channel: usize| {
            let inside = frame >= 0 && (frame as usize) < lengths[item];
            if inside { xs[(item * time + frame as usize) * inputs + channel] } else { 0.0 }
        };
        let mut expected = Vec::new();
        for (item, t, output) in
            (0..items).flat_map(|i| (0..out_time).flat_map(move |t| (0..outputs).map(move |o| (i, t, o))))
        {
            let frame = |tap: usize| (t * stride + tap * dilation) as isize - padding[0] as isize;
            let window = (0..kernel).flat_map(|tap| (0..inputs).map(move |channel| (tap, channel)));
            let product =
                |(tap, channel)| at(item, frame(tap), channel) * ws[(output * inputs + channel) * kernel + tap];
            expected.push(window.map(product).sum::<f64>() + bs[output]);
        }
        assert_close(&format!("conv {settings:?}"), &found, &expected);
    }
    let packed = x.pack_rows(&Ragged::padded(&lengths, time).unwrap()).unwrap();
    let found = packed.conv1d_packed(&w, Some(&b), Convolution::causal(3), &Ragged::packed(&lengths)).unwrap();
    let padded = x.conv1d(&w, Some(&b), Convolution::causal(3), Some(&lengths)).unwrap();
    let expected = padded.pack_rows(&Ragged::padded(&lengths, time).unwrap()).unwrap();
    assert_close("packed conv", &found, &doubles(&expected));
}

/// Every input frame adds its taps to the output, as the definition says.
#[test]
fn transposed_convolution() {
    let (lengths, inputs, outputs) = ([9, 1, 4], 5, 3);
    for (stride, kernel) in [(2usize, 4usize), (2, 2), (3, 5), (1, 3), (2, 8)] {
        let (x, w, b) = (value("x", &[14, inputs]), value("w", &[inputs, outputs, kernel]), value("b", &[outputs]));
        let items = Ragged::packed(&lengths);
        let found = x.conv_transpose1d_packed(&w, &b, stride, &items).unwrap();
        assert_eq!(found.dims(), [14 * stride, outputs]);
        let (xs, ws, bs) = (doubles(&x), doubles(&w), doubles(&b));
        let mut expected: Vec<f64> = (0..14 * stride * outputs).map(|index| bs[index % outputs]).collect();
        for (rows, (frame, tap)) in items.ranges().iter().flat_map(|rows| {
            rows.clone().flat_map(|frame| (0..kernel).map(move |tap| (frame, tap))).map(move |at| (rows, at))
        }) {
            let Some(out) = (frame * stride + tap).checked_sub((kernel - stride) / 2) else { continue };
            if !(rows.start * stride..rows.end * stride).contains(&out) {
                continue;
            }
            for (input, output) in (0..inputs).flat_map(|input| (0..outputs).map(move |output| (input, output))) {
                let product = xs[frame * inputs + input] * ws[(input * outputs + output) * kernel + tap];
                expected[out * outputs + output] += product;
            }
        }
        assert_close(&format!("transposed conv {stride} {kernel}"), &found, &expected);
    }
    assert!(
        value("x", &[2, 2])
            .conv_transpose1d_packed(&value("w", &[2, 2, 3]), &value("b", &[2]), 2, &Ragged::packed(&[2]))
            .is_err()
    );
}

struct Case {
    time: usize,
    lengths: [usize; 2],
    heads: usize,
    head_width: usize,
}

/// Softmax attention by its definition, with relative positions by their definition (not by shifting rows).
fn attention_by_loops(
    case: &Case,
    [q, k, v]: [&[f64]; 3],
    relative: Option<[&[f64]; 3]>,
    attention_mask: AttentionMask,
) -> Vec<f64> {
    let Case { time, lengths, heads, head_width } = *case;
    let width = heads * head_width;
    let mut out = vec![0.0; 2 * time * width];
    for (item, head, query) in (0..2).flat_map(|i| (0..heads).flat_map(move |h| (0..time).map(move |t| (i, h, t)))) {
        let channel = |row: usize, c: usize| row * width + head * head_width + c;
        let score = |key: usize| -> f64 {
            let term = |c: usize| {
                let (q, k) = (q[channel(item * time + query, c)], k[channel(item * time + key, c)]);
                let Some([p, u, w]) = relative else { return q * k };
                let bias = head * head_width + c;
                (q + u[bias]) * k + (q + w[bias]) * p[channel(time - 1 + key - query, c)]
            };
            (0..head_width).map(term).sum::<f64>() / (head_width as f64).sqrt()
        };
        let keys: Vec<usize> = (0..lengths[item])
            .filter(|key| match attention_mask {
                AttentionMask::Full => true,
                AttentionMask::Chunk(size) => key / size <= query / size,
                AttentionMask::Chunks { size, left } => key / size <= query / size && key / size + left >= query / size,
                AttentionMask::Band(distance) => key.abs_diff(query) <= distance,
                AttentionMask::After(prefix) => *key <= query + prefix,
            })
            .collect();
        let weights: Vec<f64> = keys.iter().map(|key| score(*key).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for (key, weight) in keys.iter().zip(weights) {
            for c in 0..head_width {
                out[channel(item * time + query, c)] += weight / sum * v[channel(item * time + key, c)];
            }
        }
    }
    out
}

#[test]
fn attention() {
    let case = Case { time: 131, lengths: [131, 90], heads: 3, head_width: 5 };
    let shape = [2, case.time, 15];
    let [q, k, v] = ["q", "k", "v"].map(|name| value(name, &shape));
    let (p, u, w) = (value("p", &[2 * case.time - 1, 15]), value("u", &[3, 5]), value("w", &[3, 5]));
    let queries = Ragged::padded(&[131, 131], 131).unwrap();
    let keys = Ragged::padded(&case.lengths, 131).unwrap();
    let inputs = [&q, &k, &v].map(doubles);
    let inputs = [&inputs[0][..], &inputs[1][..], &inputs[2][..]];
    let relative = [&p, &u, &w].map(doubles);
    let relative = [&relative[0][..], &relative[1][..], &relative[2][..]];
    for attention_mask in [
        AttentionMask::Full,
        AttentionMask::Chunk(1),
        AttentionMask::Chunk(25),
        AttentionMask::Chunks { size: 10, left: 2 },
        AttentionMask::Band(7),
    ] {
        let settings = Attention { heads: 3, attention_mask, queries: &queries, keys: &keys, dropout: None };
        let found = q.attend(&k, &v, &settings, None).unwrap();
        assert_close(&format!("{attention_mask:?}"), &found, &attention_by_loops(&case, inputs, None, attention_mask));
        let positions = RelativePositions { encodings: &p, content_bias: &u, position_bias: &w };
        let found = q.attend(&k, &v, &settings, Some(positions)).unwrap();
        let expected = attention_by_loops(&case, inputs, Some(relative), attention_mask);
        assert_close(&format!("relative {attention_mask:?}"), &found, &expected);
    }
}

#[test]
fn dropout_keeps_the_mean_and_the_rate() {
    let ones = Value::from_vec(vec![1.0; 100_000], &[100_000]).unwrap();
    let dropped = elements(&ones.dropout(0.25, RngKey::new(5)).unwrap());
    let zeros = dropped.iter().filter(|x| **x == 0.0).count() as f64 / 1e5;
    assert!((zeros - 0.25).abs() < 5e-3, "{zeros}");
    assert!(dropped.iter().all(|x| *x == 0.0 || (*x - 1.0 / 0.75).abs() < 1e-6));
}

#[test]
fn masked_mean_square_error() {
    let (a, b) = (value("a", &[2, 4, 3]), value("b", &[2, 4, 3]));
    let rows = Ragged::padded(&[4, 2], 4).unwrap();
    let (xs, ys) = (doubles(&a), doubles(&b));
    let valid = (0..24).filter(|i| *i < 12 || (*i - 12) / 3 < 2);
    let expected = valid.map(|i| (xs[i] - ys[i]).powi(2)).sum::<f64>() / 18.0;
    assert_close("loss", &a.mean_square_error(&b, &rows).unwrap(), &[expected]);
}

#[test]
fn masked_mean_absolute_error() {
    let (a, b) = (value("a", &[2, 4, 3]), value("b", &[2, 4, 3]));
    let rows = Ragged::padded(&[4, 2], 4).unwrap();
    let (xs, ys) = (doubles(&a), doubles(&b));
    let valid = (0..24).filter(|i| *i < 12 || (*i - 12) / 3 < 2);
    let expected = valid.map(|i| (xs[i] - ys[i]).abs()).sum::<f64>() / 18.0;
    assert_close("loss", &a.mean_absolute_error(&b, &rows).unwrap(), &[expected]);
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    use flowmill_nn::{Context, Parameters, Tape};
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut parameters = Parameters::new();
            let names = ["x", "w", "c", "g", "b"];
            let shapes: [&[usize]; 5] = [&[3, 300, 64], &[64, 64], &[64, 64, 3], &[64], &[64]];
            let ids: Vec<_> = names
                .iter()
                .zip(shapes)
                .map(|(name, shape)| parameters.add(*name, value(name, shape).tensor().clone()).unwrap())
                .collect();
            let tape = Tape::new();
            let context = Context::training(&parameters, &tape, RngKey::new(1));
            let [x, w, c, g, b] = [0, 1, 2, 3, 4].map(|i| context.parameter(ids[i]));
            let rows = Ragged::padded(&[300, 280, 10], 300).unwrap();
            let h = x.conv1d(&c, None, Convolution::causal(3), Some(&rows.lengths())).unwrap();
            let h = h.layer_norm(Some(&g), Some(&b), Normalization::default()).unwrap();
            let q = h.linear(&w, None).unwrap();
            let settings =
                Attention { heads: 4, attention_mask: AttentionMask::Full, queries: &rows, keys: &rows, dropout: None };
            let loss = q.attend(&h, &h, &settings, None).unwrap().multiply(&x).unwrap().sum().unwrap();
            let gradients = tape.backward(&loss).unwrap();
            let flat = |id| gradients.get(id).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            ids.iter().map(|id| flat(*id)).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(1), run(5));
}

#[test]
fn means_of_items() {
    let (width, time) = (5, 7);
    let rows = Ragged::padded(&[4, 0, 7], time).unwrap();
    let x = value("x", &[3, time, width]);
    let xs = doubles(&x);
    let mut expected = vec![0.0; 3 * width];
    for (item, length) in [4, 0, 7].into_iter().enumerate() {
        for channel in 0..width {
            let of_item = (0..length).map(|row| xs[(item * time + row) * width + channel]);
            expected[item * width + channel] = of_item.sum::<f64>() / length.max(1) as f64;
        }
    }
    let found = x.mean_items(&rows).unwrap();
    assert_eq!(found.dims(), [3, width]);
    assert_close("mean of items", &found, &expected);
}
