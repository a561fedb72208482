//! Scaled dot-product attention with masks, optional relative positions (Transformer-XL, arXiv 1901.02860, in the form of
//! ESPnet) and dropout: forward and backward.
//!
//! Scores exist for one block of queries at a time only, and the backward pass recomputes them, so memory grows linearly with
//! the length of the sequences, not quadratically. Heads are read in place from `[row, head x channel]` matrices.

use super::dropout::{GROUP, factors};
use super::elementwise::{add_assign_serial, zip_assign_serial};
use super::functions::exp;
use super::gemm::{Matrix, Target, multiply_into, multiply_on_one_thread};
use super::reduce::{add_rows, maximum, sum_of, sum_of_pairs};
use super::shared::Shared;
use super::vectorized::vectorized;
use crate::random::RngKey;
use rayon::prelude::*;
use std::ops::Range;

/// Queries per block.
const BLOCK: usize = 64;

/// The keys that a query may attend to: always one contiguous run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionMask {
    /// Every key.
    #[default]
    Full,
    /// Keys up to the end of the query's own chunk of this many positions: chunk-causal attention, used to train streaming models
    /// (chunks of 1 are causal).
    Chunk(usize),
    /// Keys of the query's own chunk and of the given number of chunks before it.
    Chunks {
        /// Positions per chunk.
        size: usize,
        /// Chunks before the query's own that it sees.
        left: usize,
    },
    /// Keys at most this many positions from the query's own, in both directions.
    Band(usize),
    /// Keys up to the query's own position, which comes after this many keys that every query sees: causal attention of rows that
    /// continue a prefix.
    After(usize),
}

impl AttentionMask {
    /// Keys up to the query's own position.
    pub const CAUSAL: Self = Self::Chunk(1);

    /// The keys that the query at `position` sees, out of `keys`.
    #[inline]
    pub fn keys(self, position: usize, keys: usize) -> Range<usize> {
        let end = |size: usize| keys.min((position / size + 1).saturating_mul(size));
        match self {
            AttentionMask::Full => 0..keys,
            AttentionMask::Chunk(size) => 0..end(size),
            AttentionMask::Chunks { size, left } => {
                let start = (position / size).saturating_sub(left).saturating_mul(size);
                start.min(end(size))..end(size)
            }
            AttentionMask::Band(distance) => {
                let end = keys.min(position.saturating_add(distance).saturating_add(1));
                position.saturating_sub(distance).min(end)..end
            }
            AttentionMask::After(prefix) => 0..keys.min(position.saturating_add(1).saturating_add(prefix)),
        }
    }
}

/// The rows of one item.
#[derive(Debug, Clone)]
pub struct Item {
    /// Rows of its queries.
    pub queries: Range<usize>,
    /// Rows of its keys and values, without padding.
    pub keys: Range<usize>,
}

/// Sizes and settings of an attention operation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of heads.
    pub heads: usize,
    /// Channels per head.
    pub head_width: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Keys that a query sees.
    pub attention_mask: AttentionMask,
    /// Rate and stream of the dropout on the weights.
    pub dropout: Option<(f32, RngKey)>,
}

impl Settings {
    fn width(&self) -> usize {
        self.heads * self.head_width
    }
}

/// Relative positions: `encodings` is `[2 time - 1, head x channel]` (projected), from the farthest past to the farthest future;
/// the biases are `[head, channel]`.
#[derive(Clone, Copy)]
pub struct Relative<'a> {
    /// Projected encodings of the distances.
    pub encodings: &'a [f32],
    /// Bias added to the queries where they meet keys.
    pub content_bias: &'a [f32],
    /// Bias added to the queries where they meet encodings.
    pub position_bias: &'a [f32],
}

/// The matrices that attention reads.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// `[query row, head x channel]`.
    pub queries: &'a [f32],
    /// `[key row, head x channel]`.
    pub keys: &'a [f32],
    /// `[key row, head x channel]`.
    pub values: &'a [f32],
    /// Relative positions, if any.
    pub relative: Option<Relative<'a>>,
}

/// Gradients of all inputs of attention; those of the relative positions are empty without them.
pub struct InputGradients {
    /// Gradient of the queries.
    pub queries: Vec<f32>,
    /// Gradient of the keys.
    pub keys: Vec<f32>,
    /// Gradient of the values.
    pub values: Vec<f32>,
    /// Gradient of the encodings.
    pub encodings: Vec<f32>,
    /// Gradient of the content bias.
    pub content_bias: Vec<f32>,
    /// Gradient of the position bias.
    pub position_bias: Vec<f32>,
}

/// One block of queries of one item and head.
struct Block<'a> {
    inputs: Inputs<'a>,
    settings: &'a Settings,
    item: &'a Item,
    index: usize,
    head: usize,
    /// Positions of the queries within the item.
    queries: Range<usize>,
    /// Positions of the keys that any of these queries sees.
    keys: Range<usize>,
}

/// Buffers that a task reuses from block to block.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    distances: Vec<f32>,
    content: Vec<f32>,
    position: Vec<f32>,
    kept: Vec<f32>,
    gradient: Vec<f32>,
}

fn sized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

impl<'a> Block<'a> {
    fn new(inputs: Inputs<'a>, settings: &'a Settings, items: &'a [Item], task: (usize, usize, usize)) -> Self {
        let (index, head, start) = task;
        let item = &items[index];
        let queries = start..item.queries.len().min(start + BLOCK);
        let seen = |query: usize| settings.attention_mask.keys(query, item.keys.len());
        let keys = seen(queries.start).start..seen(queries.end - 1).end;
        Self { inputs, settings, item, index, head, queries, keys }
    }

    fn columns(&self) -> usize {
        self.head * self.settings.head_width
    }

    /// The head's channels of some rows of a `[row, head x channel]` matrix.
    fn view(&self, data: &'a [f32], rows: Range<usize>) -> Matrix<'a> {
        let (width, head_width) = (self.settings.width(), self.settings.head_width);
        let data = if rows.is_empty() { data } else { &data[rows.start * width + self.columns()..] };
        Matrix::strided(data, [rows.len(), head_width], [width, 1])
    }

    fn query_rows(&self) -> Range<usize> {
        self.item.queries.start + self.queries.start..self.item.queries.start + self.queries.end
    }

    fn key_rows(&self) -> Range<usize> {
        self.item.keys.start + self.keys.start..self.item.keys.start + self.keys.end
    }

    /// The queries with a bias of the head added, contiguous.
    fn biased(&self, bias: &[f32], out: &mut [f32]) {
        let (width, head_width) = (self.settings.width(), self.settings.head_width);
        let bias = &bias[self.columns()..self.columns() + head_width];
        for (row, out) in self.query_rows().zip(out.chunks_exact_mut(head_width)) {
            let query = &self.inputs.queries[row * width + self.columns()..][..head_width];
            out.iter_mut().zip(query).zip(bias).for_each(|((out, query), bias)| *out = query + bias);
        }
    }

    /// Rows of the encodings that any query-key pair of the block needs. The pair (i, j) needs row `half - i + j`.
    fn distance_rows(&self, relative: &Relative) -> Range<usize> {
        let half = relative.encodings.len() / self.settings.width() / 2;
        half + self.keys.start - (self.queries.end - 1)..half + self.keys.end - self.queries.start
    }

    /// The scores of the block, scaled: `[query, key]`.
    fn scores(&self, scratch: &mut Scratch) {
        let (rows, columns) = (self.queries.len(), self.keys.len());
        let head_width = self.settings.head_width;
        let keys = self.view(self.inputs.keys, self.key_rows()).transposed();
        sized(&mut scratch.scores, rows * columns);
        let Some(relative) = self.inputs.relative else {
            let queries = self.view(self.inputs.queries, self.query_rows());
            return product(&mut scratch.scores, columns, queries, keys, false);
        };
        self.biased(relative.content_bias, sized(&mut scratch.content, rows * head_width));
        self.biased(relative.position_bias, sized(&mut scratch.position, rows * head_width));
        let content = Matrix::row_major(&scratch.content, rows, head_width);
        product(&mut scratch.scores, columns, content, keys, false);
        let distances = self.distance_rows(&relative);
        let span = distances.len();
        sized(&mut scratch.distances, rows * span);
        let encodings = self.view(relative.encodings, distances).transposed();
        let position = Matrix::row_major(&scratch.position, rows, head_width);
        product(&mut scratch.distances, span, position, encodings, false);
        add_shifted(&mut scratch.scores[..], &scratch.distances[..], rows, columns);
    }

    /// The keys that a query sees, relative to the block's first key.
    fn seen(&self, query: usize) -> Range<usize> {
        let seen = self.settings.attention_mask.keys(query, self.item.keys.len());
        seen.start - self.keys.start..seen.end - self.keys.start
    }

    /// Turns the scores into weights, row by row; passes the logarithm of each row's sum to `keep`.
    fn softmax(&self, scores: &mut [f32], mut keep: impl FnMut(usize, f32)) {
        let (columns, scale) = (self.keys.len(), self.settings.scale);
        for (row, query) in self.queries.clone().enumerate() {
            let scores = &mut scores[row * columns..(row + 1) * columns];
            let seen = self.seen(query);
            clear_outside(scores, &seen);
            let log_sum = softmax_row(&mut scores[seen], scale);
            keep(query, log_sum);
        }
    }

    /// Turns the scores into the same weights as [`softmax`](Self::softmax), from the saved logarithms.
    fn softmax_again(&self, scores: &mut [f32], log_sums: &[f32]) {
        let (columns, scale) = (self.keys.len(), self.settings.scale);
        for (row, query) in self.queries.clone().enumerate() {
            let scores = &mut scores[row * columns..(row + 1) * columns];
            let seen = self.seen(query);
            clear_outside(scores, &seen);
            softmax_row_again(&mut scores[seen], scale, log_sums[query]);
        }
    }

    /// The dropout factor of each weight of the block: 0 or 1 / (1 - rate), a function of item, head, query and key.
    fn dropout_factors(&self, rate: f32, rng_key: RngKey, out: &mut [f32]) {
        for (query, out) in self.queries.clone().zip(out.chunks_exact_mut(self.keys.len().max(1))) {
            dropout_factors(rng_key, [self.index, self.head, query], rate, self.keys.start, out);
        }
    }
}

/// The dropout factors of the weights of one item, head and query, starting at key `first`: 0 or 1 / (1 - rate).
pub(crate) fn dropout_factors(rng_key: RngKey, place: [usize; 3], rate: f32, first: usize, out: &mut [f32]) {
    let stream = place.into_iter().fold(rng_key, |stream, place| stream.sample(place as u64));
    let skipped = first % GROUP;
    let mut row = vec![0.0; skipped + out.len()];
    factors(stream, (first / GROUP) as u64, rate, &mut row);
    out.copy_from_slice(&row[skipped..]);
}

fn clear_outside(row: &mut [f32], seen: &Range<usize>) {
    row[..seen.start].fill(0.0);
    row[seen.end..].fill(0.0);
}

fn product(target: &mut [f32], row_stride: usize, a: Matrix, b: Matrix, accumulate: bool) {
    multiply_on_one_thread(target, row_stride, a, b, accumulate);
}

fn multiply_elements(a: &mut [f32], b: &[f32]) {
    zip_assign_serial(a, b, &|a, b| a * b);
}

/// Computes attention. Returns the output `[query row, head x channel]`, zero on rows of no item, and for the backward pass the
/// logarithm of each softmax sum, `[head, query row]`.
///
/// # Panics
/// When the rows of items overlap or reach beyond the matrices: a bug in a layer, not an error in its input.
pub fn forward(inputs: Inputs, items: &[Item], settings: &Settings, query_rows: usize) -> (Vec<f32>, Vec<f32>) {
    check_rows(items.iter().map(|item| &item.queries), query_rows);
    let mut out = vec![0.0; query_rows * settings.width()];
    let mut log_sums = vec![0.0; query_rows * settings.heads];
    let (buffer, sums) = (Shared::new(&mut out), Shared::new(&mut log_sums));
    let blocks = |index: usize| (0..items[index].queries.len()).step_by(BLOCK);
    let tasks: Vec<_> = (0..items.len())
        .flat_map(|index| (0..settings.heads).map(move |head| (index, head)))
        .flat_map(|(index, head)| blocks(index).map(move |start| (index, head, start)))
        .collect();
    tasks.into_par_iter().for_each_init(Scratch::default, |scratch, task| {
        let block = Block::new(inputs, settings, items, task);
        if block.keys.is_empty() {
            return;
        }
        block.scores(scratch);
        let (rows, columns) = (block.queries.len(), block.keys.len());
        let scores = &mut scratch.scores[..rows * columns];
        let first = block.item.queries.start;
        block.softmax(scores, |query, log_sum| {
            // SAFETY: each task writes the sums of its own queries.
            unsafe { sums.slice(block.head * query_rows + first + query, 1)[0] = log_sum };
        });
        if let Some((rate, rng_key)) = settings.dropout {
            let factors = sized(&mut scratch.kept, rows * columns);
            block.dropout_factors(rate, rng_key, factors);
            multiply_elements(scores, factors);
        }
        let offset = block.query_rows().start * settings.width() + block.columns();
        let target = Target { buffer, offset, row_stride: settings.width() };
        let values = block.view(inputs.values, block.key_rows());
        // SAFETY: each task writes the rows of its own queries in the columns of its head.
        unsafe { multiply_into(target, Matrix::row_major(scores, rows, columns), values, false) };
    });
    (out, log_sums)
}

/// Checks that the rows of items do not overlap, because tasks write the rows of their own item only.
fn check_rows<'i>(ranges: impl Iterator<Item = &'i Range<usize>>, rows: usize) {
    let mut ranges: Vec<&Range<usize>> = ranges.filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "rows of two items of attention");
    assert!(ranges.last().is_none_or(|last| last.end <= rows), "rows of an item of attention beyond {rows}");
}

/// The gradients of everything that [`forward`] reads.
///
/// # Panics
/// Like [`forward`].
pub fn backward(
    gradient: &[f32],
    log_sums: &[f32],
    inputs: Inputs,
    items: &[Item],
    settings: &Settings,
) -> InputGradients {
    let width = settings.width();
    check_rows(items.iter().map(|item| &item.queries), inputs.queries.len() / width.max(1));
    check_rows(items.iter().map(|item| &item.keys), inputs.keys.len().min(inputs.values.len()) / width.max(1));
    let mut queries = vec![0.0; inputs.queries.len()];
    let mut keys = vec![0.0; inputs.keys.len()];
    let mut values = vec![0.0; inputs.values.len()];
    let shared = (Shared::new(&mut queries), Shared::new(&mut keys), Shared::new(&mut values));
    let tasks: Vec<_> = (0..items.len()).flat_map(|index| (0..settings.heads).map(move |head| (index, head))).collect();
    let relative: Vec<_> = tasks
        .par_iter()
        .map_init(Scratch::default, |scratch, (index, head)| {
            let mut sums = RelativeSums::new(&inputs, settings);
            for start in (0..items[*index].queries.len()).step_by(BLOCK) {
                let block = Block::new(inputs, settings, items, (*index, *head, start));
                if !block.keys.is_empty() {
                    // SAFETY: each task has its own item and head; items do not overlap.
                    unsafe { block.backward(gradient, log_sums, scratch, shared, &mut sums) };
                }
            }
            sums
        })
        .collect();
    let [encodings, content_bias, position_bias] = collect_relative(&relative, &inputs, settings, &tasks);
    InputGradients { queries, keys, values, encodings, content_bias, position_bias }
}

/// Sums of one item and head that are combined over the items.
struct RelativeSums {
    encodings: Vec<f32>,
    content_bias: Vec<f32>,
    position_bias: Vec<f32>,
}

impl RelativeSums {
    fn new(inputs: &Inputs, settings: &Settings) -> Self {
        let rows = inputs.relative.map_or(0, |relative| relative.encodings.len() / settings.heads);
        let bias = if inputs.relative.is_some() { settings.head_width } else { 0 };
        Self { encodings: vec![0.0; rows], content_bias: vec![0.0; bias], position_bias: vec![0.0; bias] }
    }
}

/// Adds up the sums of all items, in order, head by head.
fn collect_relative(
    sums: &[RelativeSums],
    inputs: &Inputs,
    settings: &Settings,
    tasks: &[(usize, usize)],
) -> [Vec<f32>; 3] {
    let Some(relative) = inputs.relative else {
        return [Vec::new(), Vec::new(), Vec::new()];
    };
    let (width, head_width) = (settings.width(), settings.head_width);
    let mut encodings = vec![0.0; relative.encodings.len()];
    let mut content_bias = vec![0.0; width];
    let mut position_bias = vec![0.0; width];
    for (sums, (_, head)) in sums.iter().zip(tasks) {
        let channels = head * head_width..(head + 1) * head_width;
        let rows = encodings.chunks_exact_mut(width).zip(sums.encodings.chunks_exact(head_width));
        rows.for_each(|(total, sum)| add_assign_serial(&mut total[channels.clone()], sum));
        add_assign_serial(&mut content_bias[channels.clone()], &sums.content_bias);
        add_assign_serial(&mut position_bias[channels], &sums.position_bias);
    }
    [encodings, content_bias, position_bias]
}

impl Block<'_> {
    /// Adds the block's part to the gradients.
    ///
    /// # Safety
    /// No other task may touch the rows of the block's item in the columns of its head while this runs.
    unsafe fn backward(
        &self,
        gradient: &[f32],
        log_sums: &[f32],
        scratch: &mut Scratch,
        (queries, keys, values): (Shared, Shared, Shared),
        sums: &mut RelativeSums,
    ) {
        let (rows, columns) = (self.queries.len(), self.keys.len());
        let width = self.settings.width();
        let query_offset = self.query_rows().start * width + self.columns();
        let key_offset = self.key_rows().start * width + self.columns();
        let product_into = |buffer, offset, a: Matrix, b: Matrix, accumulate| {
            let target = Target { buffer, offset, row_stride: width };
            // SAFETY: by the caller's promise, these are rows of this item in the columns of this head.
            unsafe { multiply_into(target, a, b, accumulate) }
        };
        self.scores(scratch);
        let total_rows = log_sums.len() / self.settings.heads;
        let log_sums = &log_sums[self.head * total_rows + self.item.queries.start..];
        let Scratch { scores, distances, content, position, kept, gradient: score_gradient } = scratch;
        let weights = &mut scores[..rows * columns];
        self.softmax_again(weights, log_sums);

        let shape = [rows, self.settings.head_width];
        let dy = Matrix::strided(&gradient[query_offset..], shape, [width, 1]);
        let score_gradient = sized(score_gradient, rows * columns);
        product(score_gradient, columns, dy, self.view(self.inputs.values, self.key_rows()).transposed(), false);
        if let Some((rate, rng_key)) = self.settings.dropout {
            let factors = sized(kept, rows * columns);
            self.dropout_factors(rate, rng_key, factors);
            multiply_elements(score_gradient, factors);
            multiply_elements(factors, weights);
            let dropped = Matrix::row_major(factors, rows, columns);
            product_into(values, key_offset, dropped.transposed(), dy, true);
        } else {
            let weights = Matrix::row_major(weights, rows, columns);
            product_into(values, key_offset, weights.transposed(), dy, true);
        }
        softmax_slope(weights, score_gradient, columns, self.settings.scale);

        let slopes = Matrix::row_major(score_gradient, rows, columns);
        let key_view = self.view(self.inputs.keys, self.key_rows());
        let Some(relative) = self.inputs.relative else {
            product_into(queries, query_offset, slopes, key_view, false);
            let query_view = self.view(self.inputs.queries, self.query_rows());
            return product_into(keys, key_offset, slopes.transposed(), query_view, true);
        };
        let head_width = self.settings.head_width;
        let content_view = Matrix::row_major(content, rows, head_width);
        product_into(keys, key_offset, slopes.transposed(), content_view, true);
        let content = sized(content, rows * head_width);
        product(content, head_width, slopes, key_view, false);
        add_rows(&mut sums.content_bias, content);

        let rows_needed = self.distance_rows(&relative);
        let span = rows_needed.len();
        let distances = sized(distances, rows * span);
        for (row, (distances, slopes)) in
            distances.chunks_exact_mut(span).zip(score_gradient.chunks_exact(columns)).enumerate()
        {
            let shift = rows - 1 - row;
            distances[..shift].fill(0.0);
            distances[shift..shift + columns].copy_from_slice(slopes);
            distances[shift + columns..].fill(0.0);
        }
        let distances = Matrix::row_major(distances, rows, span);
        let position_view = Matrix::row_major(position, rows, head_width);
        let encodings = &mut sums.encodings[rows_needed.start * head_width..];
        product(encodings, head_width, distances.transposed(), position_view, true);
        let position = sized(position, rows * head_width);
        product(position, head_width, distances, self.view(relative.encodings, rows_needed), false);
        add_rows(&mut sums.position_bias, position);

        add_assign_serial(content, position);
        for (row, source) in content.chunks_exact(head_width).enumerate() {
            // SAFETY: the caller's promise, as above.
            unsafe { queries.slice(query_offset + row * width, head_width) }.copy_from_slice(source);
        }
    }
}

/// Turns the gradient of the weights into that of the scores: w (g - sum of w g) scale.
///
/// The weights were recomputed from a rounded logarithm, so their sum is only approximately 1. Dividing by it keeps the slopes of a row
/// at a sum of 0, and with them the gradient of a bias on all keys, which would otherwise be nothing but rounding.
fn softmax_slope(weights: &[f32], gradient: &mut [f32], columns: usize, scale: f32) {
    for (weights, gradient) in weights.chunks_exact(columns).zip(gradient.chunks_exact_mut(columns)) {
        softmax_slope_row(weights, gradient, scale);
    }
}

vectorized! {
    fn softmax_slope_row(weights: &[f32], gradient: &mut [f32], scale: f32) {
        let total = sum_of(weights, |weight| weight).max(f32::MIN_POSITIVE);
        let along = sum_of_pairs(weights, gradient, |weight, gradient| weight * gradient) / total;
        for (gradient, weight) in gradient.iter_mut().zip(weights) {
            *gradient = weight * (*gradient - along) * scale;
        }
    }
}

vectorized! {
    /// Turns scores into weights; returns the logarithm of the sum of their exponentials.
    pub(crate) fn softmax_row(scores: &mut [f32], scale: f32) -> f32 {
        let largest = maximum(scores) * scale;
        for score in scores.iter_mut() {
            *score = exp(score.mul_add(scale, -largest));
        }
        let sum = sum_of(scores, |score| score);
        let inverse = 1.0 / sum;
        scores.iter_mut().for_each(|score| *score *= inverse);
        largest + sum.ln()
    }
}

vectorized! {
    fn softmax_row_again(scores: &mut [f32], scale: f32, log_sum: f32) {
        for score in scores {
            *score = exp(score.mul_add(scale, -log_sum));
        }
    }
}

vectorized! {
    /// Adds to each row of scores the run of its distances: the pair (row, column) has distance column
    /// `rows - 1 - row + column`.
    fn add_shifted(scores: &mut [f32], distances: &[f32], rows: usize, columns: usize) {
        let span = rows + columns - 1;
        for row in 0..rows {
            let shifted = &distances[row * span + rows - 1 - row..][..columns];
            let scores = &mut scores[row * columns..(row + 1) * columns];
            scores.iter_mut().zip(shifted).for_each(|(score, shifted)| *score += shifted);
        }
    }
}
