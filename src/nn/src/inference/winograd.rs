//! Convolution with 3 x 3 kernels using half of the multiplications.

use super::convolution2d::{Plane, TILE_ROW};
use super::{Epilogue, Filters, Rows, TILE};
use crate::kernels::vectorized::vectorized;

/// Result rows computed at a time.
const RESULT: usize = 4;

/// Input rows that they depend on, and products per input row and tap.
const POINTS: usize = 6;

/// Winograd's minimal filtering F(4, 3) along frequency (Lavin and Gray 2016, points 0, ±1, ±2 and infinity): four result rows
/// from six products instead of twelve. Along time the taps are plain shifts, so all transformations are sums of whole rows.
#[derive(Debug, Clone)]
pub(super) struct Winograd {
    /// Filters per point: sums over input channels and time taps.
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

    /// Convolves a plane into rows of the same frequencies.
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

    /// Combines products into rows of the result.
    fn finish(&self, products: &[f32], place: [usize; 3], residual: Option<&Rows>, relu: bool, out: &mut Rows) {
        let [frequencies, frequency, column] = place;
        let columns = TILE.min(out.length() - column);
        let count = RESULT.min(frequencies - frequency);
        let mut results = [[0.0; TILE]; RESULT];
        for (output, bias) in self.bias.iter().enumerate() {
            combine_rows(&products[output * TILE..], self.bias.len() * TILE, *bias, &mut results);
            for (row, result) in results.iter().enumerate().take(count) {
                let row = output * frequencies + frequency + row;
                let residual = residual.map(|rows| &rows.row(row)[column..column + columns]);
                finish_row(result, residual, relu, &mut out.row_mut(row)[column..column + columns]);
            }
        }
    }
}

/// The columns of a tile in a row of a channel. `place` counts from one row above the plane; `None` outside of the plane.
fn source<'a>(input: Plane<'a>, channel: usize, place: usize, column: usize) -> Option<&'a [f32; TILE_ROW]> {
    let row = place.checked_sub(1).filter(|row| *row < input.frequencies)?;
    let start = input.rows.start(channel * input.frequencies + row) + column - 1;
    input.rows.data()[start..].first_chunk()
}

/// Transforms a kernel's column to the six points.
fn filter([a, b, c]: [f32; 3]) -> [f32; POINTS] {
    let (outer, middle) = (a + c, b);
    let (far, double) = (a + 4.0 * c, 2.0 * b);
    [a / 4.0, -(outer + middle) / 6.0, (middle - outer) / 6.0, (far + double) / 24.0, (far - double) / 24.0, c]
}

/// Transforms six rows to six points, `stride` apart.
fn transform_rows(rows: &[Option<&[f32; TILE_ROW]>; POINTS], out: &mut [f32], stride: usize) {
    let [a, b, c, d, e, f] = rows.map(|row| row.unwrap_or(&[0.0; TILE_ROW]));
    let mut points = out.chunks_mut(stride).filter_map(|point| point.first_chunk_mut::<TILE_ROW>());
    if let [Some(p), Some(q), Some(r), Some(s), Some(t), Some(u)] = std::array::from_fn(|_| points.next()) {
        transform(a, b, c, d, e, f, p, q, r, s, t, u);
    }
}

/// A row of a tile.
type TileRow = [f32; TILE_ROW];

vectorized! {
    /// Separate arguments let the compiler know that the twelve rows do not overlap.
    fn transform(
        a: &TileRow, b: &TileRow, c: &TileRow, d: &TileRow, e: &TileRow, f: &TileRow,
        p: &mut TileRow, q: &mut TileRow, r: &mut TileRow, s: &mut TileRow, t: &mut TileRow, u: &mut TileRow,
    ) {
        for column in 0..TILE_ROW {
            let (a, b, c) = (a[column], b[column], c[column]);
            let (d, e, f) = (d[column], e[column], f[column]);
            let (even, odd) = (e - 4.0 * c, d - 4.0 * b);
            let (far_even, far_odd) = (e - c, 2.0 * (d - b));
            p[column] = 4.0 * a - 5.0 * c + e;
            q[column] = even + odd;
            r[column] = even - odd;
            s[column] = far_even + far_odd;
            t[column] = far_even - far_odd;
            u[column] = 4.0 * b - 5.0 * d + f;
        }
    }
}

vectorized! {
    /// Combines six products, `stride` apart, into four rows.
    fn combine_rows(products: &[f32], stride: usize, bias: f32, results: &mut [[f32; TILE]; RESULT]) {
        let mut points = products.chunks(stride).filter_map(|point| point.first_chunk::<TILE>());
        let points: [Option<&[f32; TILE]>; POINTS] = std::array::from_fn(|_| points.next());
        let [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] = points else { return };
        for t in 0..TILE {
            let (sum, difference) = (b[t] + c[t], b[t] - c[t]);
            let (far_sum, far_difference) = (d[t] + e[t], d[t] - e[t]);
            results[0][t] = bias + a[t] + sum + far_sum;
            results[1][t] = bias + difference + 2.0 * far_difference;
            results[2][t] = bias + sum + 4.0 * far_sum;
            results[3][t] = bias + difference + 8.0 * far_difference + f[t];
        }
    }
}

vectorized! {
    fn finish_row(result: &[f32; TILE], residual: Option<&[f32]>, relu: bool, out: &mut [f32]) {
        let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
        match (out.first_chunk_mut::<TILE>(), residual.map(|residual| residual.first_chunk::<TILE>())) {
            (Some(out), None) => {
                for t in 0..TILE {
                    out[t] = result[t].max(floor);
                }
            }
            (Some(out), Some(Some(residual))) => {
                for t in 0..TILE {
                    out[t] = (result[t] + residual[t]).max(floor);
                }
            }
            // The last columns of a row.
            _ => {
                for (t, out) in out.iter_mut().enumerate() {
                    *out = (result[t] + residual.map_or(0.0, |residual| residual[t])).max(floor);
                }
            }
        }
    }
}
