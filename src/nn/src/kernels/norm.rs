//! Layer and group normalization.

use super::activation::Activation;
use super::elementwise::rows_per_chunk;
use super::item_tasks::ItemTasks;
use super::reduce::{sum_of, sum_of_pairs, sum_vectors};
use super::shared::Shared;
use super::vectorized::vectorized;
use crate::host::uninitialized;
use rayon::prelude::*;

/// Gain and bias of a normalization, each as wide as a row; if absent, they are 1 and 0.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// Gain.
    pub weight: Option<&'a [f32]>,
    /// Bias.
    pub bias: Option<&'a [f32]>,
}

/// Values that the backward pass of a normalization needs: mean and reciprocal deviation of each row.
pub struct Moments {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

/// Normalizes each row of `width` elements, then applies gain, bias and activation.
pub fn forward(x: &[f32], width: usize, affine: Affine, epsilon: f32, activation: Activation) -> (Vec<f32>, Moments) {
    let rows = x.len() / width;
    assert_eq!(rows * width, x.len(), "whole rows of a normalization");
    // SAFETY: the rows are whole, and every element of a row is written.
    let mut out = unsafe { uninitialized(x.len()) };
    let mut moments = Moments { mean: vec![0.0; rows], scale: vec![0.0; rows] };
    let chunk = rows_per_chunk(width);
    let tasks = out.par_chunks_mut(chunk * width).zip(x.par_chunks(chunk * width));
    let tasks = tasks.zip(moments.mean.par_chunks_mut(chunk)).zip(moments.scale.par_chunks_mut(chunk));
    tasks.for_each(|(((out, x), mean), scale)| {
        chunk_forward(out, x, width, affine, epsilon, mean, scale);
        activation.apply(out);
    });
    (out, moments)
}

vectorized! {
    fn chunk_forward(
        out: &mut [f32],
        x: &[f32],
        width: usize,
        affine: Affine,
        epsilon: f32,
        mean: &mut [f32],
        scale: &mut [f32],
    ) {
        let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((out, x), (mean, scale)) in rows.zip(mean.iter_mut().zip(scale)) {
            (*mean, *scale) = row_moments(x, epsilon);
            write_row(out, x, *mean, *scale, affine);
        }
    }
}

#[inline(always)]
fn row_moments(x: &[f32], epsilon: f32) -> (f32, f32) {
    let mean = sum_of(x, |x| x) / x.len() as f32;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) / x.len() as f32;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[inline(always)]
fn write_row(out: &mut [f32], x: &[f32], mean: f32, scale: f32, affine: Affine) {
    match (affine.weight, affine.bias) {
        (Some(weight), Some(bias)) => {
            for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * scale * weight + bias;
            }
        }
        (Some(weight), None) => {
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = (x - mean) * scale * weight;
            }
        }
        (None, Some(bias)) => {
            for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
                *out = (x - mean) * scale + bias;
            }
        }
        (None, None) => out.iter_mut().zip(x).for_each(|(out, x)| *out = (x - mean) * scale),
    }
}

/// Gradients of [`forward`]: replaces `gradient` (of the output) by that of the input; returns those of gain and bias.
pub fn backward(
    gradient: &mut [f32],
    x: &[f32],
    width: usize,
    affine: Affine,
    moments: &Moments,
    activation: Activation,
) -> (Vec<f32>, Vec<f32>) {
    let chunk = rows_per_chunk(width);
    let tasks = gradient.par_chunks_mut(chunk * width).zip(x.par_chunks(chunk * width));
    let tasks = tasks.zip(moments.mean.par_chunks(chunk)).zip(moments.scale.par_chunks(chunk));
    let partial: Vec<_> = tasks
        .map(|(((gradient, x), mean), scale)| chunk_backward(gradient, x, width, affine, (mean, scale), activation))
        .collect();
    let (weights, biases): (Vec<_>, Vec<_>) = partial.into_iter().unzip();
    (sum_vectors(&weights, width), sum_vectors(&biases, width))
}

/// Like [`forward`], with one gain and bias per item (`[item, width]` each) and no activation. Rows of no item become zero.
pub fn forward_items(
    x: &[f32],
    width: usize,
    tasks: &ItemTasks,
    weights: &[f32],
    biases: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Moments) {
    let rows = x.len() / width;
    let mut out = vec![0.0; x.len()];
    let mut moments = Moments { mean: vec![0.0; rows], scale: vec![0.0; rows] };
    let (target, mean, scale) =
        (Shared::new(&mut out), Shared::new(&mut moments.mean), Shared::new(&mut moments.scale));
    tasks.for_each(|item, rows| {
        let (start, count) = (rows.start, rows.len());
        // SAFETY: the rows of tasks do not overlap.
        let (out, mean, scale) = unsafe {
            (target.slice(start * width, count * width), mean.slice(start, count), scale.slice(start, count))
        };
        let affine = affine_of(item, width, weights, biases);
        chunk_forward(out, &x[start * width..(start + count) * width], width, affine, epsilon, mean, scale);
    });
    (out, moments)
}

/// Gradients of [`forward_items`]: replaces `gradient` by that of the input (zero on rows of no item); returns those of gains
/// and biases, `[item, width]` each.
pub fn backward_items(
    gradient: &mut [f32],
    x: &[f32],
    width: usize,
    tasks: &ItemTasks,
    weights: &[f32],
    biases: &[f32],
    moments: &Moments,
) -> (Vec<f32>, Vec<f32>) {
    if !tasks.cover_all() {
        tasks.zero_gaps(gradient, width);
    }
    let shared = Shared::new(gradient);
    let partial = tasks.map(|item, rows| {
        let elements = rows.start * width..rows.end * width;
        // SAFETY: the rows of tasks do not overlap.
        let gradient = unsafe { shared.slice(elements.start, elements.len()) };
        let (mean, scale) = (&moments.mean[rows.clone()], &moments.scale[rows]);
        let affine = affine_of(item, width, weights, biases);
        chunk_backward(gradient, &x[elements], width, affine, (mean, scale), Activation::Identity)
    });
    let (weights, biases): (Vec<_>, Vec<_>) = partial.into_iter().unzip();
    (tasks.sum_per_item(weights, width), tasks.sum_per_item(biases, width))
}

fn affine_of<'a>(item: usize, width: usize, weights: &'a [f32], biases: &'a [f32]) -> Affine<'a> {
    let vector = item * width..(item + 1) * width;
    Affine { weight: Some(&weights[vector.clone()]), bias: Some(&biases[vector]) }
}

fn chunk_backward(
    gradient: &mut [f32],
    x: &[f32],
    width: usize,
    affine: Affine,
    (mean, scale): (&[f32], &[f32]),
    activation: Activation,
) -> (Vec<f32>, Vec<f32>) {
    let (mut weight_sum, mut bias_sum) = (vec![0.0f32; width], vec![0.0f32; width]);
    let mut normal = vec![0.0f32; width];
    let mut output = vec![0.0f32; width];
    let rows = gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(mean.iter().zip(scale));
    for ((gradient, x), (mean, scale)) in rows {
        normalize_row(&mut normal[..], x, *mean, *scale);
        if activation != Activation::Identity {
            affine_row(&mut output[..], &normal[..], affine);
            activation.multiply_slope(gradient, &output);
        }
        row_backward(gradient, &normal[..], &mut weight_sum[..], &mut bias_sum[..], affine, *scale);
    }
    (weight_sum, bias_sum)
}

vectorized! {
    fn normalize_row(out: &mut [f32], x: &[f32], mean: f32, scale: f32) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = (x - mean) * scale);
    }
}

vectorized! {
    fn affine_row(out: &mut [f32], normal: &[f32], affine: Affine) {
        write_row(out, normal, 0.0, 1.0, affine);
    }
}

vectorized! {
    fn row_backward(
        gradient: &mut [f32],
        normal: &[f32],
        weight_sum: &mut [f32],
        bias_sum: &mut [f32],
        affine: Affine,
        scale: f32,
    ) {
        let width = gradient.len() as f32;
        let sums = weight_sum.iter_mut().zip(bias_sum.iter_mut());
        for (((weight_sum, bias_sum), gradient), normal) in sums.zip(gradient.iter()).zip(normal) {
            *weight_sum += gradient * normal;
            *bias_sum += gradient;
        }
        if let Some(weight) = affine.weight {
            gradient.iter_mut().zip(weight).for_each(|(gradient, weight)| *gradient *= weight);
        }
        let average = sum_of(gradient, |g| g) / width;
        let along = sum_of_pairs(gradient, normal, |g, n| g * n) / width;
        for (gradient, normal) in gradient.iter_mut().zip(normal) {
            *gradient = scale * (*gradient - average - normal * along);
        }
    }
}
