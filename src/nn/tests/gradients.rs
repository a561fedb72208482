//! Every recorded operation against finite differences.

mod support;

use flowmill_nn::objectives::{ShallowFlowMatching, ShallowPrediction};
use flowmill_nn::ops::{
    Attention, Convolution, Convolution2d, EntrySums, Modulation, Normalization, RelativePositions, TableEntry,
    concatenate, sum_embeddings,
};
use flowmill_nn::random::RngKey;
use flowmill_nn::testing::{check, check_at, check_large};
use flowmill_nn::{Activation, AttentionMask, Ragged, Value};
use support::value;

const ACTIVATIONS: [Activation; 9] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Mish,
    Activation::Tanh,
    Activation::Sigmoid,
];

/// Activations without a kink, which finite differences cannot cross.
fn smooth() -> impl Iterator<Item = Activation> {
    ACTIVATIONS.into_iter().filter(|activation| !matches!(activation, Activation::Relu | Activation::LeakyRelu))
}

#[test]
fn arithmetic() {
    let shapes: [&[usize]; 2] = [&[3, 5], &[3, 5]];
    check("add", &shapes, |x| x[0].add(&x[1]).unwrap());
    check("subtract", &shapes, |x| x[0].subtract(&x[1]).unwrap());
    check("multiply", &shapes, |x| x[0].multiply(&x[1]).unwrap());
    check("affine", &shapes[..1], |x| x[0].affine(-1.5, 0.25).unwrap());
    check("sum", &shapes[..1], |x| x[0].sum().unwrap());
    check("mean", &shapes[..1], |x| x[0].mean().unwrap());
}

#[test]
fn values_used_twice_get_both_gradients() {
    check("fan out", &[&[4, 3]], |x| {
        let a = x[0].multiply(&x[0]).unwrap();
        let b = a.add(&a).unwrap().add(&x[0]).unwrap();
        b.subtract(&x[0].affine(3.0, 0.0).unwrap()).unwrap().add(&a).unwrap()
    });
    // The backward pass of the norm meets the gradient of the residual.
    check("norm and residual", &[&[4, 3], &[3], &[3]], |x| {
        let normal = x[0].layer_norm(Some(&x[1]), Some(&x[2]), Normalization::default()).unwrap();
        normal.multiply(&normal).unwrap().add(&x[0]).unwrap()
    });
    let rows = Ragged::padded(&[2, 1], 2).unwrap();
    check("modulated norm and residual", &[&[4, 3], &[2, 6]], |x| {
        let modulation = Modulation { vectors: &x[1], rows: &rows };
        let normal = x[0].modulated_norm(&modulation, [0, 1], 1e-6).unwrap();
        normal.multiply(&normal).unwrap().add(&x[0]).unwrap()
    });
    check("shared weight", &[&[4, 3], &[3, 3]], |x| {
        x[0].linear(&x[1], None).unwrap().linear(&x[1], None).unwrap().add(&x[0]).unwrap()
    });
}

#[test]
fn activations() {
    for activation in smooth() {
        check(&format!("{activation:?}"), &[&[2, 40]], |x| x[0].activate(activation).unwrap());
    }
    for activation in [Activation::Relu, Activation::LeakyRelu] {
        // Away from the kink: magnitudes of at least 0.2.
        check(&format!("{activation:?}"), &[&[40]], |x| {
            let sign = |x: f32| if x < 0.0 { -0.2 } else { 0.2 };
            let offsets = support::normals(&format!("{activation:?} 0"), &[40]).into_iter().map(sign).collect();
            x[0].add(&Value::from_vec(offsets, &[40]).unwrap()).unwrap().activate(activation).unwrap()
        });
    }
}

#[test]
fn linear() {
    let shapes: [&[usize]; 4] = [&[2, 3, 5], &[4, 5], &[4], &[2, 3, 4]];
    check("linear", &shapes[..2], |x| x[0].linear(&x[1], None).unwrap());
    check("linear bias", &shapes[..3], |x| x[0].linear(&x[1], Some(&x[2])).unwrap());
    check("linear onto", &shapes, |x| x[0].linear_onto(&x[1], Some(&x[2]), Some(&x[3])).unwrap());
    check("linear onto, no bias", &[shapes[0], shapes[1], shapes[3]], |x| {
        x[0].linear_onto(&x[1], None, Some(&x[2])).unwrap()
    });
    for activation in smooth() {
        check(&format!("linear {activation:?}"), &shapes[..3], |x| {
            x[0].linear_activated(&x[1], Some(&x[2]), activation).unwrap()
        });
    }
}

#[test]
fn feed_forward() {
    let shapes: [&[usize]; 6] = [&[3, 4], &[6, 4], &[6], &[4, 6], &[4], &[3, 4]];
    check_at("feed forward", &shapes, 0.7, |x| {
        x[0].feed_forward([&x[1], &x[2]], [&x[3], &x[4]], Activation::Gelu, Some(&x[5])).unwrap()
    });
}

#[test]
fn feed_forward_without_residual() {
    let shapes: [&[usize]; 5] = [&[3, 4], &[6, 4], &[6], &[4, 6], &[4]];
    check_at("feed forward alone", &shapes, 0.7, |x| {
        x[0].feed_forward([&x[1], &x[2]], [&x[3], &x[4]], Activation::GeluTanh, None).unwrap()
    });
}

#[test]
fn modulated_norm_and_gated_sum() {
    // Rows of no item between and after the items; more vectors than either operation reads.
    for rows in [Ragged::packed(&[2, 3]), Ragged::padded(&[2, 3], 4).unwrap()] {
        let state = [rows.total(), 5];
        let vectors: &[usize] = &[2, 15];
        check("modulated norm", &[&state, vectors], |x| {
            let modulation = Modulation { vectors: &x[1], rows: &rows };
            x[0].modulated_norm(&modulation, [2, 0], 1e-6).unwrap()
        });
        check("gated sum", &[&state, &state, vectors], |x| {
            let modulation = Modulation { vectors: &x[2], rows: &rows };
            x[0].add_gated(&x[1], &modulation, 1).unwrap()
        });
        check("all vectors", &[&state, vectors], |x| {
            let modulation = Modulation { vectors: &x[1], rows: &rows };
            let normal = x[0].modulated_norm(&modulation, [0, 1], 1e-6).unwrap();
            x[0].add_gated(&normal, &modulation, 2).unwrap()
        });
    }
}

#[test]
fn a_large_linear_agrees_with_its_parts() {
    // Large enough to be cut into tiles in both directions.
    let (x, w, b) = (value("x", &[1000, 70]), value("w", &[600, 70]), value("b", &[600]));
    let whole = x.linear_activated(&w, Some(&b), Activation::Silu).unwrap();
    let parts = x.linear(&w, None).unwrap().add_channels(&b).unwrap().activate(Activation::Silu).unwrap();
    let expected: Vec<f64> = support::elements(&parts).into_iter().map(f64::from).collect();
    assert!(support::worst(&support::elements(&whole), &expected) < 1e-5);
}

#[test]
fn rotary_positions() {
    let angles = |name| value(name, &[5, 3]);
    for width in [6, 12] {
        check("rotary positions", &[&[5, width]], |x| x[0].rotate(&angles("cosines"), &angles("sines")).unwrap());
    }
    let refused = value("x", &[5, 8]).rotate(&angles("cosines"), &angles("sines"));
    assert!(refused.is_err(), "8 channels are no heads of 6");
    for width in [6, 7, 12] {
        let turn = |x: &[Value]| x[0].rotate_leading(&angles("cosines"), &angles("sines")).unwrap();
        check("rotary positions of the first channels", &[&[5, width]], turn);
    }
    let refused = value("x", &[5, 5]).rotate_leading(&angles("cosines"), &angles("sines"));
    assert!(refused.is_err(), "5 channels are no three pairs");
}

/// By the definition: neighbors turn as complex numbers do, and other channels stay as they are.
#[test]
fn rotary_positions_of_neighboring_channels() {
    let x = Value::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0], &[1, 5]).unwrap();
    let (cosines, sines) = ([0.6f32, 0.0], [0.8f32, 1.0]);
    let angles = |values: [f32; 2]| Value::from_vec(values.to_vec(), &[1, 2]).unwrap();
    let turned = support::elements(&x.rotate_leading(&angles(cosines), &angles(sines)).unwrap());
    let expected = [0.6 - 1.6, 1.2 + 0.8, -4.0, 3.0, 5.0];
    assert!(support::worst(&turned, &expected) < 1e-6, "{turned:?}");
}

#[test]
fn memory_of_feed_forward_sequential_networks() {
    let padded = Ragged::padded(&[2, 0, 3], 3).unwrap();
    for items in [padded, Ragged::packed(&[1, 8]), Ragged::packed(&[9])] {
        for taps in [1, 4, 5] {
            let shapes: [&[usize]; 3] = [&[9, 4], &[9, 4], &[4, 1, taps]];
            check("memory", &shapes, |x| x[0].add_memory(&x[1], &x[2], &items).unwrap());
        }
    }
}

/// Sums by plain loops over more rows than one task of the kernel has.
#[test]
fn memory_is_a_convolution_of_each_channel_of_each_item() {
    let (rows, width, count) = (150, 5, 7);
    let items = Ragged::packed(&[1, 140, 0, 9]);
    let (residual, values) = (value("residual", &[rows, width]), value("values", &[rows, width]));
    let taps = value("taps", &[width, 1, count]);
    let found = residual.add_memory(&values, &taps, &items).unwrap().tensor().to_vec2::<f32>().unwrap();
    let elements = |value: &Value| value.tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let [residual, values, taps] = [&residual, &values, &taps].map(elements);
    for item in items.ranges() {
        for row in item.clone() {
            for channel in 0..width {
                let term = |tap: usize| {
                    let source = (row + tap).checked_sub(count / 2).filter(|source| item.contains(source));
                    source.map_or(0.0, |source| taps[channel * count + tap] * values[source * width + channel])
                };
                let at = row * width + channel;
                let expected = residual[at] + values[at] + (0..count).map(term).sum::<f32>();
                assert!((found[row][channel] - expected).abs() < 1e-5, "row {row}, channel {channel}");
            }
        }
    }
}

#[test]
fn embedding() {
    check("embedding", &[&[5, 3]], |x| x[0].embed(&[4, 0, 4, 2, 1, 4], &[2, 3]).unwrap());
}

/// Two tables and a single vector; an entry is read twice, another never, and a row is empty.
fn entry_sums() -> EntrySums {
    let term = |(table, entry)| TableEntry { table, entry };
    let mut sums = EntrySums::default();
    for row in [&[(0, 2), (1, 1)][..], &[(2, 0)], &[], &[(0, 2), (0, 0), (1, 1), (1, 0)]] {
        sums.push(row.iter().copied().map(term));
    }
    sums
}

#[test]
fn sums_of_embeddings() {
    check("sum of embeddings", &[&[4, 3], &[2, 3], &[3]], |x| {
        sum_embeddings(&[&x[0], &x[1], &x[2]], entry_sums()).unwrap()
    });
    let tables = [value("a", &[4, 3]), value("b", &[2, 3]), value("c", &[3])];
    let tables = tables.each_ref();
    assert!(sum_embeddings(&tables[..2], entry_sums()).is_err(), "the third table is missing");
    assert!(sum_embeddings(&[tables[1], tables[1], tables[2]], entry_sums()).is_err(), "entry 2 of two");
    assert!(sum_embeddings(&[], EntrySums::default()).is_err());
}

#[test]
fn rms_norm() {
    check("RMS norm", &[&[3, 7], &[7]], |x| x[0].rms_norm(&x[1], 1e-6).unwrap());
    check("RMS norm and residual", &[&[2, 2, 5], &[5]], |x| {
        let normal = x[0].rms_norm(&x[1], 1e-6).unwrap();
        normal.multiply(&normal).unwrap().add(&x[0]).unwrap()
    });
    assert!(value("x", &[3, 7]).rms_norm(&value("gain", &[6]), 1e-6).is_err());
}

#[test]
fn gated_activations() {
    for activation in smooth() {
        check(&format!("gated {activation:?}"), &[&[3, 20], &[3, 20]], |x| x[0].gated(&x[1], activation).unwrap());
    }
    // A product with a weight reads the gated value again in its backward pass.
    check("gated linear", &[&[3, 4], &[6, 4], &[6, 4], &[4, 6]], |x| {
        let (gate, up) = (x[0].linear(&x[1], None).unwrap(), x[0].linear(&x[2], None).unwrap());
        gate.gated(&up, Activation::Gelu).unwrap().linear(&x[3], None).unwrap()
    });
}

#[test]
fn cross_entropy() {
    let (targets, weights) = ([2, 0, 4], [0.5, 1.5, 0.0]);
    check("cross entropy", &[&[3, 5]], |x| x[0].cross_entropy(&targets, &weights).unwrap());
    check("scored cross entropy", &[&[3, 5]], |x| x[0].scored_cross_entropy(&targets, &weights).unwrap().0);
    let logits = value("logits", &[3, 5]);
    assert_eq!(logits.scored_cross_entropy(&targets, &weights).unwrap().1, logits.target_scores(&targets).unwrap());
    assert!(logits.cross_entropy(&targets[..2], &weights[..2]).is_err());
    assert!(logits.cross_entropy(&[5, 0, 0], &weights).is_err());
    let total: f32 = logits.target_scores(&targets).unwrap().iter().zip(weights).map(|(row, w)| row.loss * w).sum();
    assert!((total - logits.cross_entropy(&targets, &weights).unwrap().scalar().unwrap()).abs() < 1e-5);
}

#[test]
fn ranks_of_targets() {
    let logits = Value::from_vec(vec![1.0, 3.0, 3.0, 2.0, f32::NAN, 0.0, 0.0, 0.0], &[2, 4]).unwrap();
    let ranks =
        |targets: &[u32]| -> Vec<usize> { logits.target_scores(targets).unwrap().iter().map(|row| row.rank).collect() };
    assert_eq!(ranks(&[1, 1]), [0, 1], "among equal classes the first leads; NaN counts against the target");
    assert_eq!(ranks(&[2, 0]), [1, 3]);
    assert_eq!(ranks(&[0, 3]), [3, 3]);
}

#[test]
fn selected_rows() {
    check("select rows", &[&[5, 3]], |x| x[0].select_rows(&[4, 0, 2]).unwrap());
    check("select rows twice", &[&[4, 3]], |x| {
        x[0].select_rows(&[1, 3]).unwrap().add(&x[0].select_rows(&[3, 0]).unwrap()).unwrap()
    });
    let rows = value("rows", &[3, 2]);
    assert!(rows.select_rows(&[3]).is_err() && rows.select_rows(&[1, 1]).is_err());
    assert_eq!(rows.select_rows(&[]).unwrap().dims(), [0, 2]);
}

#[test]
fn layer_norm() {
    let shapes: [&[usize]; 3] = [&[3, 7], &[7], &[7]];
    let settings = Normalization::default();
    check("norm", &shapes[..1], |x| x[0].layer_norm(None, None, settings).unwrap());
    check("norm gain", &shapes[..2], |x| x[0].layer_norm(Some(&x[1]), None, settings).unwrap());
    check("norm bias", &[shapes[0], shapes[2]], |x| x[0].layer_norm(None, Some(&x[1]), settings).unwrap());
    for activation in smooth() {
        let settings = Normalization { activation, ..settings };
        check(&format!("norm {activation:?}"), &shapes, |x| {
            x[0].layer_norm(Some(&x[1]), Some(&x[2]), settings).unwrap()
        });
    }
}

#[test]
fn group_norm() {
    let settings = Normalization { activation: Activation::Mish, ..Normalization::default() };
    check("group norm", &[&[2, 3, 6], &[6], &[6]], |x| x[0].group_norm(2, &x[1], &x[2], settings).unwrap());
    let settings = Normalization { activation: Activation::Silu, ..Normalization::default() };
    check("group norm, one place", &[&[1, 1, 5], &[5], &[5]], |x| x[0].group_norm(1, &x[1], &x[2], settings).unwrap());
    check("group norm, one group", &[&[3, 4, 3], &[3], &[3]], |x| {
        x[0].group_norm(1, &x[1], &x[2], Normalization::default()).unwrap()
    });
    let wrong = value("rows", &[1, 2, 4]);
    assert!(wrong.group_norm(3, &value("w", &[4]), &value("b", &[4]), settings).is_err());
    assert!(wrong.group_norm(2, &value("w", &[3]), &value("b", &[4]), settings).is_err());
}

#[test]
fn a_large_group_norm_agrees_with_its_composition() {
    // Several tasks per item, and a mean far from zero.
    let x = value("large group norm", &[2, 1000, 24]).affine(0.5, 30.0).unwrap();
    let (weight, bias) = (value("gain", &[24]), value("offset", &[24]));
    let settings = Normalization { activation: Activation::Silu, ..Normalization::default() };
    let norm = || x.group_norm(3, &weight, &bias, settings).unwrap();
    let (fused, composed) = (norm(), flowmill_nn::device::by_composition(norm));
    let expected: Vec<f64> = support::elements(&composed).into_iter().map(f64::from).collect();
    assert!(support::worst(&support::elements(&fused), &expected) < 2e-5);
}

#[test]
fn convolution() {
    let cases = [
        (3, Convolution::causal(3)),
        (4, Convolution { padding: [0, 3], ..Convolution::default() }),
        (3, Convolution { padding: [1, 1], stride: 2, ..Convolution::default() }),
        (3, Convolution { padding: [2, 1], dilation: 2, ..Convolution::default() }),
        (2, Convolution { padding: [3, 2], ..Convolution::default() }),
        (1, Convolution::default()),
    ];
    for (kernel, settings) in cases {
        let weight = [3, 2, kernel];
        let shapes: [&[usize]; 3] = [&[2, 6, 2], &weight, &[3]];
        check(&format!("conv {settings:?}"), &shapes, |x| x[0].conv1d(&x[1], Some(&x[2]), settings, None).unwrap());
        check(&format!("masked conv {settings:?}"), &shapes, |x| {
            x[0].conv1d(&x[1], Some(&x[2]), settings, Some(&[4, 6])).unwrap()
        });
        let items = Ragged::packed(&[4, 8]);
        check(&format!("packed conv {settings:?}"), &[&[12, 2], &weight], |x| {
            x[0].conv1d_packed(&x[1], None, settings, &items).unwrap()
        });
    }
}

#[test]
fn convolution_of_images() {
    let cases = [
        ([3, 3], Convolution2d::padded(1, 1)),
        ([3, 3], Convolution2d::padded(1, 2)),
        ([3, 3], Convolution2d { stride: 2, padding: [[0, 1], [0, 1]] }),
        ([2, 3], Convolution2d { stride: 1, padding: [[0, 2], [1, 0]] }),
        ([2, 2], Convolution2d::padded(0, 2)),
        ([1, 1], Convolution2d::default()),
        ([1, 1], Convolution2d::padded(0, 2)),
    ];
    for (kernel, settings) in cases {
        let weight = [3, 2, kernel[0], kernel[1]];
        let shapes: [&[usize]; 3] = [&[2, 4, 5, 2], &weight, &[3]];
        let name = format!("conv2d {kernel:?} {settings:?}");
        check(&name, &shapes, |x| x[0].conv2d(&x[1], Some(&x[2]), settings).unwrap());
        check(&format!("{name}, no bias"), &shapes[..2], |x| x[0].conv2d(&x[1], None, settings).unwrap());
    }
    check("repeat pixels", &[&[2, 3, 2, 3]], |x| x[0].repeat_pixels(2).unwrap());
    let image = value("image", &[1, 2, 2, 2]);
    assert!(image.conv2d(&value("w", &[1, 2, 3, 3]), None, Convolution2d::default()).is_err());
    assert!(image.conv2d(&value("w", &[1, 3, 1, 1]), None, Convolution2d::default()).is_err());
}

#[test]
fn exponentials_and_bounds() {
    check("exponential", &[&[3, 5]], |x| x[0].exponential().unwrap());
    // No element lies at an end of the range.
    check("clamp", &[&[40]], |x| x[0].affine(1.0, 0.003).unwrap().clamp(-0.7, 0.9).unwrap());
    assert!(value("x", &[2]).clamp(1.0, 0.0).is_err());
}

#[test]
fn transposed_convolution() {
    let items = Ragged::packed(&[1, 4]);
    for (stride, kernel) in [(2, 4), (2, 2), (3, 5), (1, 3), (2, 8)] {
        let shapes: [&[usize]; 3] = [&[5, 2], &[2, 3, kernel], &[3]];
        check(&format!("transposed conv {stride} {kernel}"), &shapes, |x| {
            x[0].conv_transpose1d_packed(&x[1], &x[2], stride, &items).unwrap()
        });
    }
}

fn attention_over<'a>(items: &'a [Ragged; 2], attention_mask: AttentionMask) -> Attention<'a> {
    Attention { heads: 2, attention_mask, queries: &items[0], keys: &items[1], dropout: None }
}

const REACHES: [AttentionMask; 5] = [
    AttentionMask::Full,
    AttentionMask::Chunk(1),
    AttentionMask::Chunk(2),
    AttentionMask::Chunks { size: 2, left: 1 },
    AttentionMask::Band(1),
];

#[test]
fn attention() {
    let items = [Ragged::padded(&[5, 5], 5).unwrap(), Ragged::padded(&[5, 3], 5).unwrap()];
    let shape: &[usize] = &[2, 5, 4];
    for attention_mask in REACHES {
        let mut settings = attention_over(&items, attention_mask);
        check(&format!("attention {attention_mask:?}"), &[shape, shape, shape], |x| {
            x[0].attend(&x[1], &x[2], &settings, None).unwrap()
        });
        settings.dropout = Some((0.3, RngKey::new(1)));
        check(&format!("attention dropout {attention_mask:?}"), &[shape, shape, shape], |x| {
            x[0].attend(&x[1], &x[2], &settings, None).unwrap()
        });
    }
}

#[test]
fn attention_after_a_prefix() {
    // Three keys that every query sees, then one key per query.
    let items = [Ragged::packed(&[4, 2]), Ragged::packed(&[7, 5])];
    let settings = attention_over(&items, AttentionMask::After(3));
    check("attention after a prefix", &[&[6, 4], &[12, 4], &[12, 4]], |x| {
        x[0].attend(&x[1], &x[2], &settings, None).unwrap()
    });
}

#[test]
fn attention_with_relative_positions() {
    let items = [Ragged::padded(&[5, 5], 5).unwrap(), Ragged::padded(&[5, 3], 5).unwrap()];
    let shape: &[usize] = &[2, 5, 4];
    for attention_mask in REACHES {
        let settings = attention_over(&items, attention_mask);
        check(&format!("relative {attention_mask:?}"), &[shape, shape, shape, &[9, 4], &[2, 2], &[2, 2]], |x| {
            let relative = RelativePositions { encodings: &x[3], content_bias: &x[4], position_bias: &x[5] };
            x[0].attend(&x[1], &x[2], &settings, Some(relative)).unwrap()
        });
    }
}

#[test]
fn attention_across_blocks_of_queries() {
    // More queries than one block holds; few channels keep the differences quick.
    let items = [Ragged::packed(&[70, 3]), Ragged::packed(&[66, 4])];
    let settings = Attention { heads: 1, ..attention_over(&items, AttentionMask::Chunk(20)) };
    check("blocks", &[&[73, 1], &[70, 1], &[70, 1]], |x| x[0].attend(&x[1], &x[2], &settings, None).unwrap());
    let items = [Ragged::packed(&[70]), Ragged::packed(&[66])];
    let settings = Attention { heads: 1, ..attention_over(&items, AttentionMask::Full) };
    check("relative blocks", &[&[70, 1], &[66, 1], &[66, 1], &[139, 1], &[1, 1], &[1, 1]], |x| {
        let relative = RelativePositions { encodings: &x[3], content_bias: &x[4], position_bias: &x[5] };
        x[0].attend(&x[1], &x[2], &settings, Some(relative)).unwrap()
    });
}

#[test]
fn rows_and_channels() {
    let rows = Ragged::padded(&[2, 3], 3).unwrap();
    let shapes: [&[usize]; 3] = [&[2, 3, 4], &[2, 4], &[2, 4]];
    check("scale channels", &[shapes[0], &[4]], |x| x[0].scale_channels(&x[1]).unwrap());
    check("add channels", &[shapes[0], &[4]], |x| x[0].add_channels(&x[1]).unwrap());
    check("add items", &shapes[..2], |x| x[0].add_items(&x[1], &rows).unwrap());
    check("scale items", &shapes[..2], |x| x[0].scale_items(&x[1], &rows).unwrap());
    check("modulate", &shapes, |x| x[0].modulate(&x[1], &x[2], &rows).unwrap());
    check("expand items", &shapes[1..2], |x| x[0].expand_items(&rows).unwrap());
    check("mask rows", &shapes[..1], |x| x[0].mask_rows(&rows).unwrap());
    check("pack rows", &shapes[..1], |x| x[0].pack_rows(&rows).unwrap());
    check("unpack rows", &[&[5, 4]], |x| x[0].unpack_rows(&rows).unwrap());
    check("repeat frames", &shapes[..1], |x| x[0].repeat_frames(2).unwrap());
    check("channels", &shapes[..1], |x| x[0].channels(1..3).unwrap());
    check("reshape", &shapes[..1], |x| x[0].reshape(&[6, 4]).unwrap());
    check("transpose", &shapes[..1], |x| x[0].transpose().unwrap());
    check("swap middle", &shapes[..1], |x| x[0].swap_middle().unwrap());
    check("concatenate", &[shapes[0], &[2, 3, 1]], |x| concatenate(&[&x[0], &x[1], &x[0]]).unwrap());
}

#[test]
fn dropout() {
    check("dropout", &[&[7, 5]], |x| x[0].dropout(0.4, RngKey::new(9)).unwrap());
}

#[test]
fn mean_square_error() {
    let rows = Ragged::padded(&[2, 3], 3).unwrap();
    let target = value("target", &[2, 3, 4]);
    check("mean square error", &[&[2, 3, 4]], |x| x[0].mean_square_error(&target, &rows).unwrap());
}

#[test]
fn mean_absolute_error() {
    let rows = Ragged::padded(&[2, 3], 3).unwrap();
    let target = value("target", &[2, 3, 4]);
    check("mean absolute error", &[&[2, 3, 4]], |x| {
        // Away from the kink: differences of at least 0.2.
        let targets = flowmill_nn::host::read(target.tensor()).unwrap();
        let inputs = support::normals("mean absolute error 0", &[2, 3, 4]);
        let offset = |(x, target): (f32, f32)| if x < target { -0.2 } else { 0.2 };
        let offsets = inputs.into_iter().zip(targets).map(offset).collect();
        let apart = x[0].add(&Value::from_vec(offsets, &[2, 3, 4]).unwrap()).unwrap();
        apart.mean_absolute_error(&target, &rows).unwrap()
    });
}

#[test]
fn means_of_items() {
    let rows = Ragged::padded(&[3, 1, 4], 4).unwrap();
    check("mean of items", &[&[3, 4, 5]], |x| x[0].mean_items(&rows).unwrap());
}

#[test]
fn shallow_flow_matching() {
    let rows = Ragged::padded(&[3, 4], 4).unwrap();
    let (data, noise) = (value("sfm data", &[2, 4, 5]), value("sfm noise", &[2, 4, 5]));
    let objective = ShallowFlowMatching { sigma_min: 0.01 };
    // Starts are constants of the objective: no derivative flows through the projection.
    let placements = vec![objective.place(0.4, 0.2, 1.0), objective.place(0.8, 0.5, 1.0)];
    assert!(placements[0].delta == 1.0 && placements[1].delta > 1.0);
    let shapes: [&[usize]; 4] = [&[2, 4, 5], &[2, 1], &[2, 1], &[2, 4, 5]];
    let losses = |x: &[Value], weights: [f32; 4]| {
        let predicted = ShallowPrediction { mean: x[0].clone(), time: x[1].clone(), log_variance: x[2].clone() };
        let (data, noise) = (data.tensor(), noise.tensor());
        let path = objective.path_from(placements.clone(), &predicted, data, noise, &[0.3, 0.9], &rows).unwrap();
        let estimated = path.position.multiply(&x[3]).unwrap();
        let parts =
            [path.matching_loss(&estimated, &rows).unwrap(), path.mean_loss, path.time_loss, path.variance_loss];
        let weighted = parts.iter().zip(weights).map(|(part, weight)| part.affine(weight, 0.0).unwrap());
        weighted.reduce(|sum, part| sum.add(&part).unwrap()).unwrap()
    };
    check("shallow flow matching", &shapes, |x| losses(x, [1.0, 0.5, 2.0, 0.3]));
}

/// Sizes of 0 and 1, which kernels and devices treat specially.
#[test]
fn smallest_shapes() {
    for rows in [0, 1] {
        let (wide, one) = ([rows, 3], [rows, 1]);
        check("add", &[&wide, &wide], |x| x[0].add(&x[1]).unwrap());
        check("multiply", &[&one, &one], |x| x[0].multiply(&x[1]).unwrap());
        check("sum", &[&wide], |x| x[0].sum().unwrap());
        check("gelu", &[&wide], |x| x[0].activate(Activation::Gelu).unwrap());
        check("linear", &[&wide, &[2, 3], &[2], &[rows, 2]], |x| {
            x[0].linear_onto(&x[1], Some(&x[2]), Some(&x[3])).unwrap()
        });
        check("to one channel", &[&wide, &[1, 3]], |x| x[0].linear(&x[1], None).unwrap());
        check("transpose", &[&wide], |x| x[0].transpose().unwrap());
        check("join", &[&wide, &one], |x| concatenate(&[&x[0], &x[1]]).unwrap());
        check("channels", &[&wide], |x| x[0].channels(1..2).unwrap());
        check("scale channels", &[&wide, &[3]], |x| x[0].scale_channels(&x[1]).unwrap());
        check("add channels", &[&wide, &[3]], |x| x[0].add_channels(&x[1]).unwrap());
        check("embedding", &[&[4, 3]], |x| x[0].embed(&[2][..rows], &[rows]).unwrap());
        check("gated", &[&wide, &wide], |x| x[0].gated(&x[1], Activation::Gelu).unwrap());
        check("cross entropy", &[&wide], |x| x[0].cross_entropy(&[1][..rows], &[0.5][..rows]).unwrap());
        check("select rows", &[&[2, 3]], |x| x[0].select_rows(&[1][..rows]).unwrap());
        // One item with that number of rows, alone and after a longer item.
        for items in [Ragged::packed(&[rows]), Ragged::packed(&[2, rows])] {
            let (state, vectors) = ([items.total(), 3], [items.len(), 3]);
            check("expand", &[&vectors], |x| x[0].expand_items(&items).unwrap());
            check("mean", &[&state], |x| x[0].mean_items(&items).unwrap());
            check("add items", &[&state, &vectors], |x| x[0].add_items(&x[1], &items).unwrap());
            check("scale items", &[&state, &vectors], |x| x[0].scale_items(&x[1], &items).unwrap());
            check("mean square error", &[&state], |x| {
                x[0].mean_square_error(&value("target", &state), &items).unwrap()
            });
            let attention = Attention {
                heads: 1,
                attention_mask: AttentionMask::Full,
                queries: &items,
                keys: &items,
                dropout: None,
            };
            check("attention", &[&state, &state, &state], |x| x[0].attend(&x[1], &x[2], &attention, None).unwrap());
        }
    }
    check("norm of one channel", &[&[2, 1]], |x| x[0].layer_norm(None, None, Normalization::default()).unwrap());
    check("RMS norm of one channel", &[&[2, 1], &[1]], |x| x[0].rms_norm(&x[1], 1e-2).unwrap());
    check("norm of one row", &[&[1, 5]], |x| x[0].layer_norm(None, None, Normalization::default()).unwrap());
    check("one frame, one tap", &[&[1, 1, 2], &[3, 2, 1], &[3]], |x| {
        x[0].conv1d(&x[1], Some(&x[2]), Convolution::default(), None).unwrap()
    });
    check("one frame, causal", &[&[1, 1, 2], &[3, 2, 3], &[3]], |x| {
        x[0].conv1d(&x[1], Some(&x[2]), Convolution::causal(3), None).unwrap()
    });
    check("no valid frame of one item", &[&[2, 3, 2], &[1, 2, 3]], |x| {
        x[0].conv1d(&x[1], None, Convolution::causal(3), Some(&[3, 0])).unwrap()
    });
}

/// More rows than a block of a kernel sums, more columns than a warp has lanes, more elements than a block has threads.
#[test]
fn sizes_beyond_a_block_of_a_device() {
    check_large("large norm", &[&[300, 70], &[70], &[70]], |x| {
        x[0].layer_norm(Some(&x[1]), Some(&x[2]), Normalization::default()).unwrap()
    });
    for activation in ACTIVATIONS {
        check_large(&format!("large {activation:?}"), &[&[3, 700]], |x| x[0].activate(activation).unwrap());
    }
    let items = [Ragged::packed(&[70, 41]), Ragged::packed(&[70, 41])];
    let settings = attention_over(&items, AttentionMask::Chunk(20));
    check_large("large linear", &[&[300, 40], &[70, 40], &[70]], |x| {
        x[0].linear_activated(&x[1], Some(&x[2]), Activation::Silu).unwrap()
    });
    check_large("large convolution", &[&[2, 150, 24], &[40, 24, 3], &[40]], |x| {
        x[0].conv1d(&x[1], Some(&x[2]), Convolution::causal(3), Some(&[150, 70])).unwrap()
    });
    let indices: Vec<u32> = (0..300).map(|place| place * place % 47).collect();
    check_large("large embedding", &[&[50, 40]], |x| x[0].embed(&indices, &[300]).unwrap());
    check_large("large RMS norm", &[&[300, 70], &[70]], |x| x[0].rms_norm(&x[1], 1e-6).unwrap());
    check_large("large gate", &[&[3, 700], &[3, 700]], |x| x[0].gated(&x[1], Activation::Gelu).unwrap());
    let weights: Vec<f32> = (0..300).map(|row| row as f32 / 300.0).collect();
    check_large("large cross entropy", &[&[300, 50]], |x| x[0].cross_entropy(&indices, &weights).unwrap());
    let mut sums = EntrySums::default();
    for index in &indices {
        sums.push([TableEntry { table: 0, entry: *index }, TableEntry { table: 1, entry: index % 7 }]);
    }
    check_large("large sum of embeddings", &[&[50, 40], &[7, 40]], |x| {
        sum_embeddings(&[&x[0], &x[1]], sums.clone()).unwrap()
    });
    let rows = Ragged::padded(&[150, 90], 160).unwrap();
    check_large("large modulation", &[&[320, 40], &[320, 40], &[2, 120]], |x| {
        let modulation = Modulation { vectors: &x[2], rows: &rows };
        x[0].modulated_norm(&modulation, [2, 0], 1e-6).unwrap().add_gated(&x[1], &modulation, 1).unwrap()
    });
    check_large("large attention", &[&[111, 8], &[111, 8], &[111, 8], &[139, 8], &[2, 4], &[2, 4]], |x| {
        let relative = RelativePositions { encodings: &x[3], content_bias: &x[4], position_bias: &x[5] };
        x[0].attend(&x[1], &x[2], &settings, Some(relative)).unwrap()
    });
}
