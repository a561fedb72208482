//! Convolution with 3 x 3 kernels in half of the multiplications.

use super::convolution2d::{Plane, TILE_ROW};
use super::{Epilogue, Filters, Rows, TILE};
use crate::kernels::vectorised::vectorised;

/// Rows of the result computed at a time.
const RESULT: usize = 4;

/// Rows of the input that they depend on, and products per input row and tap.
const POINTS: usize = 6;

/// Winograd's minimal filtering F(4, 3) along frequency (Lavin and Gray 2016, points 0, ±1, ±2 and infinity): four result rows
/// from six products instead of twelve. Along time the taps are plain shifts, so all transformations are sums of whole rows.
#[derive(Debug, Clone)]
pub(super) struct Winograd {
    /// Per point: sums over input channels and time taps.
    filters: Vec<Filters>,
    taps: Vec<u32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Winograd {
    /// Transforms weights `[output][input][3][3]`.
    pub(super) fn new(weights: &[f32], bias: &[f32], inputs: usize) -> Self {
        let (kernels, _) = weights.as_chunks::<9>();
        let nothing = vec![0.0; bias.len()];
        let transformed = |point: usize| -> Vec<f32> {
            let of_kernel = |kernel: &[f32; 9]| -> [f32; 3] {
                std::array::from_fn(|tap| filter([kernel[tap], kernel[3 + tap], kernel[6 + tap]])[point])
            };
            kernels.iter().flat_map(of_kernel).collect()
        };
        let filters = (0..POINTS).map(|point| Filters::new(&transformed(point), &nothing, inputs * 3)).collect();
        let taps = (0..inputs * 3).map(|term| (term / 3 * TILE_ROW + term % 3) as u32).collect();
        Self { filters, taps, bias: bias.to_vec(), inputs }
    }

    /// The convolution of a plane into rows of the same frequencies.
    pub(super) fn apply(
        &self,
        input: Plane,
        residual: Option<&Rows>,
        relu: bool,
        out: &mut Rows,
        scratch: &mut Vec<f32>,
    ) {
        let (points, products) = (self.inputs * TILE_ROW, self.bias.len() * TILE);
        scratch.resize(scratch.len().max(POINTS * (points + products)), 0.0);
        let (transformed, rest) = scratch.split_at_mut(POINTS * points);
        for column in (0..input.rows.length()).step_by(TILE) {
            for frequency in (0..input.frequencies).step_by(RESULT) {
                for channel in 0..self.inputs {
                    let rows = std::array::from_fn(|row| source(input, channel, frequency + row, column));
                    transform_rows(&rows, &mut transformed[channel * TILE_ROW..], points);
                }
                for (point, filters) in self.filters.iter().enumerate() {
                    let to = (&mut rest[point * products..][..products], 0, TILE);
                    let columns = TILE.min(input.rows.length() - column);
                    filters.apply(
                        &transformed[point * points..][..points],
                        &self.taps,
                        columns,
                        to,
                        Epilogue::default(),
                    );
                }
                self.finish(&rest[..POINTS * products], [input.frequencies, frequency, column], residual, relu, out);
            }
        }
    }

    /// From products to rows of the result.
    fn finish(&self, products: &[f32], place: [usize; 3], residual: Option<&Rows>, relu: bool, out: &mut Rows) {
        let [frequencies, frequency, column] = place;
        let columns = TILE.min(out.length() - column);
        let count = RESULT.min(frequencies - frequency);
        let mut results = [[0.0; TILE]; RESULT];
        for (output, bias) in self.bias.iter().enumerate() {
            combine_rows(&products[output * TILE..], self.bias.len() * TILE, *bias, &mut results);
            for (row, result) in results.iter_mut().enumerate().take(count) {
                let row = output * frequencies + frequency + row;
                let residual = residual.map(|rows| &rows.row(row)[column..column + columns]);
                finish_row(&mut result[..columns], residual, relu, &mut out.row_mut(row)[column..column + columns]);
            }
        }
    }
}

/// The columns of a tile in a row of a channel; `place` counts from one row above the plane; nothing outside of it.
fn source<'a>(input: Plane<'a>, channel: usize, place: usize, column: usize) -> Option<&'a [f32; TILE_ROW]> {
    let row = place.checked_sub(1).filter(|row| *row < input.frequencies)?;
    let start = input.rows.start(channel * input.frequencies + row) + column - 1;
    input.rows.data()[start..].first_chunk()
}

/// The six points of a kernel's column.
fn filter([a, b, c]: [f32; 3]) -> [f32; POINTS] {
    let (outer, middle) = (a + c, b);
    let (far, double) = (a + 4.0 * c, 2.0 * b);
    [a / 4.0, -(outer + middle) / 6.0, (middle - outer) / 6.0, (far + double) / 24.0, (far - double) / 24.0, c]
}

/// Six rows to six points, `stride` apart.
fn transform_rows(rows: &[Option<&[f32; TILE_ROW]>; POINTS], out: &mut [f32], stride: usize) {
    let rows = rows.map(|row| row.unwrap_or(&[0.0; TILE_ROW]));
    transform(rows, out, stride);
}

vectorised! {
    fn transform(rows: [&[f32; TILE_ROW]; POINTS], out: &mut [f32], stride: usize) {
        let [a, b, c, d, e, f] = rows;
        let mut points = [[0.0f32; TILE_ROW]; POINTS];
        for t in 0..TILE_ROW {
            let (a, b, c, d, e, f) = (a[t], b[t], c[t], d[t], e[t], f[t]);
            let (even, odd) = (e - 4.0 * c, d - 4.0 * b);
            let (far_even, far_odd) = (e - c, 2.0 * (d - b));
            points[0][t] = 4.0 * a - 5.0 * c + e;
            points[1][t] = even + odd;
            points[2][t] = even - odd;
            points[3][t] = far_even + far_odd;
            points[4][t] = far_even - far_odd;
            points[5][t] = 4.0 * b - 5.0 * d + f;
        }
        for (point, values) in points.iter().enumerate() {
            out[point * stride..][..TILE_ROW].copy_from_slice(values);
        }
    }
}

vectorised! {
    fn combine_rows(products: &[f32], stride: usize, bias: f32, results: &mut [[f32; TILE]; RESULT]) {
        let mut points = [[0.0f32; TILE]; POINTS];
        for (point, values) in points.iter_mut().enumerate() {
            values.copy_from_slice(&products[point * stride..][..TILE]);
        }
        for t in 0..TILE {
            let (sum, difference) = (points[1][t] + points[2][t], points[1][t] - points[2][t]);
            let (far_sum, far_difference) = (points[3][t] + points[4][t], points[3][t] - points[4][t]);
            results[0][t] = bias + points[0][t] + sum + far_sum;
            results[1][t] = bias + difference + 2.0 * far_difference;
            results[2][t] = bias + sum + 4.0 * far_sum;
            results[3][t] = bias + difference + 8.0 * far_difference + points[5][t];
        }
    }
}

vectorised! {
    fn finish_row(result: &mut [f32], residual: Option<&[f32]>, relu: bool, out: &mut [f32]) {
        if let Some(residual) = residual {
            result.iter_mut().zip(residual).for_each(|(result, residual)| *result += residual);
        }
        if relu {
            out.iter_mut().zip(result).for_each(|(out, result)| *out = result.max(0.0));
        } else {
            out.copy_from_slice(result);
        }
    }
}
