//! Group normalization of items with channels innermost: two passes over the input for statistics, one for the output.

use super::activation::Activation;
use super::elementwise::rows_per_chunk;
use super::reduce::add_rows;
use super::shared::Shared;
use super::vectorized::vectorized;
use crate::host::uninitialized;
use rayon::prelude::*;
use std::ops::Range;

/// The shape of a group normalization of `[item, place, channel]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Number of items.
    pub items: usize,
    /// Rows of each item.
    pub places: usize,
    /// Channels of each row.
    pub channels: usize,
    /// Groups of neighboring channels, all of the same size.
    pub groups: usize,
}

/// Mean and reciprocal deviation of the group of each channel, `[item, channel]`.
pub struct GroupMoments {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

/// Gain and bias of each channel.
#[derive(Clone, Copy)]
pub struct ChannelAffine<'a> {
    /// Gain.
    pub weight: &'a [f32],
    /// Bias.
    pub bias: &'a [f32],
}

impl Groups {
    /// Runs of rows of all items, each for one task: the item, and the rows of the whole batch.
    fn tasks(&self) -> Vec<(usize, Range<usize>)> {
        let step = rows_per_chunk(self.channels);
        let of_item = |item: usize| {
            let (start, end) = (item * self.places, (item + 1) * self.places);
            (start..end).step_by(step).map(move |row| (item, row..end.min(row + step)))
        };
        (0..self.items).flat_map(of_item).collect()
    }

    fn elements(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.channels..rows.end * self.channels
    }

    fn of_item<'a>(&self, vectors: &'a [f32], item: usize) -> &'a [f32] {
        &vectors[item * self.channels..(item + 1) * self.channels]
    }

    /// Adds up vectors of the tasks, `[channel]` each, for every item; in the order of the tasks.
    fn sums(&self, tasks: &[(usize, Range<usize>)], vectors: &[Vec<f32>]) -> Vec<f64> {
        let mut sums = vec![0.0; self.items * self.channels];
        for ((item, _), vector) in tasks.iter().zip(vectors) {
            let sums = &mut sums[item * self.channels..(item + 1) * self.channels];
            sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        sums
    }

    /// Replaces the value of each channel by the mean over the elements of its group, from the sums of the channels.
    fn group_means(&self, sums: &[f64]) -> Vec<f64> {
        let width = (self.channels / self.groups).max(1);
        let count = (width * self.places).max(1) as f64;
        let mean = |group: &[f64]| std::iter::repeat_n(group.iter().sum::<f64>() / count, group.len());
        sums.chunks(width).flat_map(mean).collect()
    }
}

vectorized! {
    fn add_squares(total: &mut [f32], rows: &[f32], mean: &[f32]) {
        for row in rows.chunks_exact(mean.len().max(1)) {
            for ((total, x), mean) in total.iter_mut().zip(row).zip(mean) {
                *total += (x - mean) * (x - mean);
            }
        }
    }
}

vectorized! {
    fn write_rows(out: &mut [f32], x: &[f32], mean: &[f32], scale: &[f32], affine: ChannelAffine) {
        let width = mean.len().max(1);
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let moments = mean.iter().zip(scale);
            let channels = moments.zip(affine.weight.iter().zip(affine.bias));
            for ((out, x), ((mean, scale), (weight, bias))) in out.iter_mut().zip(x).zip(channels) {
                *out = (x - mean) * scale * weight + bias;
            }
        }
    }
}

vectorized! {
    /// Adds up the gradients, and the gradients times the normalized elements.
    fn add_products(sums: &mut [f32], products: &mut [f32], gradient: &[f32], x: &[f32], mean: &[f32], scale: &[f32]) {
        let width = mean.len().max(1);
        for (gradient, x) in gradient.chunks_exact(width).zip(x.chunks_exact(width)) {
            let totals = sums.iter_mut().zip(products.iter_mut());
            for (((gradient, x), (mean, scale)), (sum, product)) in gradient.iter().zip(x).zip(mean.iter().zip(scale)).zip(totals) {
                *sum += gradient;
                *product += gradient * ((x - mean) * scale);
            }
        }
    }
}

vectorized! {
    /// `gradient = factor gradient - offset - slope (x - mean)`, channel by channel.
    fn write_gradient(gradient: &mut [f32], x: &[f32], mean: &[f32], factor: &[f32], offset: &[f32], slope: &[f32]) {
        let width = mean.len().max(1);
        for (gradient, x) in gradient.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let terms = mean.iter().zip(factor).zip(offset.iter().zip(slope));
            for ((gradient, x), ((mean, factor), (offset, slope))) in gradient.iter_mut().zip(x).zip(terms) {
                *gradient = factor * *gradient - offset - slope * (x - mean);
            }
        }
    }
}

/// Normalizes each group of each item, then applies gain, bias and activation.
pub fn forward(
    x: &[f32],
    shape: &Groups,
    affine: ChannelAffine,
    epsilon: f32,
    activation: Activation,
) -> (Vec<f32>, GroupMoments) {
    assert_eq!(x.len(), shape.items * shape.places * shape.channels, "the elements of a group normalization");
    let tasks = shape.tasks();
    let moments = moments(x, shape, &tasks, epsilon);
    // SAFETY: the rows of the tasks are all rows, and every element of a row is written.
    let mut out = unsafe { uninitialized(x.len()) };
    let buffer = Shared::new(&mut out);
    tasks.par_iter().for_each(|(item, rows)| {
        let elements = shape.elements(rows);
        // SAFETY: the rows of tasks do not overlap.
        let out = unsafe { buffer.slice(elements.start, elements.len()) };
        let (mean, scale) = (shape.of_item(&moments.mean, *item), shape.of_item(&moments.scale, *item));
        write_rows(out, &x[elements], mean, scale, affine);
        activation.apply(out);
    });
    (out, moments)
}

fn moments(x: &[f32], shape: &Groups, tasks: &[(usize, Range<usize>)], epsilon: f32) -> GroupMoments {
    let sum = |(_, rows): &(usize, Range<usize>)| {
        let mut total = vec![0.0; shape.channels];
        add_rows(&mut total, &x[shape.elements(rows)]);
        total
    };
    let sums: Vec<Vec<f32>> = tasks.par_iter().map(sum).collect();
    let mean: Vec<f32> = shape.group_means(&shape.sums(tasks, &sums)).into_iter().map(|mean| mean as f32).collect();
    let squares = |(item, rows): &(usize, Range<usize>)| {
        let mut total = vec![0.0; shape.channels];
        add_squares(&mut total, &x[shape.elements(rows)], shape.of_item(&mean, *item));
        total
    };
    let sums: Vec<Vec<f32>> = tasks.par_iter().map(squares).collect();
    let variance = shape.group_means(&shape.sums(tasks, &sums));
    let scale = variance.into_iter().map(|variance| (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32);
    GroupMoments { scale: scale.collect(), mean }
}

/// Gradients of [`forward`]: replaces `gradient` by that of the input; returns those of gain and bias.
pub fn backward(
    gradient: &mut [f32],
    x: &[f32],
    shape: &Groups,
    affine: ChannelAffine,
    moments: &GroupMoments,
    activation: Activation,
) -> (Vec<f32>, Vec<f32>) {
    let (tasks, buffer) = (shape.tasks(), Shared::new(gradient));
    let sum = |(item, rows): &(usize, Range<usize>)| {
        let elements = shape.elements(rows);
        // SAFETY: the rows of tasks do not overlap.
        let gradient = unsafe { buffer.slice(elements.start, elements.len()) };
        let (x, mean, scale) =
            (&x[elements], shape.of_item(&moments.mean, *item), shape.of_item(&moments.scale, *item));
        if activation != Activation::Identity {
            let mut before = vec![0.0; x.len()];
            write_rows(&mut before[..], x, mean, scale, affine);
            activation.multiply_slope(gradient, &before);
        }
        let (mut sums, mut products) = (vec![0.0; shape.channels], vec![0.0; shape.channels]);
        add_products(&mut sums[..], &mut products[..], gradient, x, mean, scale);
        (sums, products)
    };
    let (sums, products): (Vec<Vec<f32>>, Vec<Vec<f32>>) =
        tasks.par_iter().map(sum).collect::<Vec<_>>().into_iter().unzip();
    let (sums, products) = (shape.sums(&tasks, &sums), shape.sums(&tasks, &products));
    let weighted = |sums: &[f64]| -> Vec<f64> {
        let weights = affine.weight.iter().cycle();
        shape.group_means(&sums.iter().zip(weights).map(|(sum, weight)| sum * f64::from(*weight)).collect::<Vec<_>>())
    };
    let (average, along) = (weighted(&sums), weighted(&products));
    let per_channel = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f32> {
        moments.scale.iter().enumerate().map(|(index, scale)| f(index, f64::from(*scale)) as f32).collect()
    };
    let factor = per_channel(&|index, scale| scale * f64::from(affine.weight[index % shape.channels]));
    let offset = per_channel(&|index, scale| scale * average[index]);
    let slope = per_channel(&|index, scale| scale * scale * along[index]);
    tasks.par_iter().for_each(|(item, rows)| {
        let elements = shape.elements(rows);
        // SAFETY: the rows of tasks do not overlap.
        let gradient = unsafe { buffer.slice(elements.start, elements.len()) };
        let [mean, factor, offset, slope] =
            [&moments.mean, &factor, &offset, &slope].map(|vectors| shape.of_item(vectors, *item));
        write_gradient(gradient, &x[elements], mean, factor, offset, slope);
    });
    let of_channels = |sums: &[f64]| -> Vec<f32> {
        let sum = |channel: usize| sums.iter().skip(channel).step_by(shape.channels).sum::<f64>() as f32;
        (0..shape.channels).map(sum).collect()
    };
    (of_channels(&products), of_channels(&sums))
}
