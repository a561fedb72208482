//! Convolution over frequency and time.

use super::{Epilogue, Filters, Rows, TILE, winograd::Winograd};

/// Columns per row of a tile: the columns of the result, and the width of a kernel on either side.
pub(super) const TILE_ROW: usize = 64;

/// The largest kernel, whose reach must fit into a tile's row.
const LARGEST_KERNEL: usize = TILE_ROW - TILE + 1;

/// A square convolution, `[output][input][frequency][time]`, padded with zeros so that the plane keeps its size, with a
/// stride along frequency. Kernels of 3 with stride 1 need only half of the multiplications; see [`Winograd`].
#[derive(Debug, Clone)]
pub struct Convolution2d {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    method: Method,
}

#[derive(Debug, Clone)]
enum Method {
    /// The filters, and their taps for each position in the ring of rows where a window may begin.
    Direct {
        filters: Filters,
        taps: Vec<Vec<u32>>,
    },
    Winograd(Winograd),
}

/// A signal over frequency and time: each channel has one row per frequency.
#[derive(Clone, Copy)]
pub struct Plane<'a> {
    /// Row `channel * frequencies + frequency`.
    pub rows: &'a Rows,
    /// Frequencies per channel.
    pub frequencies: usize,
}

impl Convolution2d {
    /// Arranges weights `[output][input][kernel][kernel]`.
    ///
    /// # Panics
    /// When the sizes do not fit, or the kernel is even or larger than 17: a bug in a layer, which checks what it loads.
    pub fn new(weights: &[f32], bias: &[f32], inputs: usize, kernel: usize, stride: usize) -> Self {
        assert!(kernel % 2 == 1 && kernel <= LARGEST_KERNEL && stride > 0, "a kernel of {kernel}, stride {stride}");
        let method = if kernel == 3 && stride == 1 {
            Method::Winograd(Winograd::new(weights, bias, inputs))
        } else {
            let taps = (0..kernel).map(|first| ring_taps(inputs, kernel, first)).collect();
            Method::Direct { filters: Filters::new(weights, bias, inputs * kernel * kernel), taps }
        };
        Self { inputs, outputs: bias.len(), kernel, stride, method }
    }

    /// Like [`Convolution2d::new`], but always sums over windows: the reference for the faster way.
    #[cfg(test)]
    pub(super) fn direct(weights: &[f32], bias: &[f32], inputs: usize, kernel: usize, stride: usize) -> Self {
        let taps = (0..kernel).map(|first| ring_taps(inputs, kernel, first)).collect();
        let method = Method::Direct { filters: Filters::new(weights, bias, inputs * kernel * kernel), taps };
        Self { inputs, outputs: bias.len(), kernel, stride, method }
    }

    /// Number of output channels.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of output frequencies.
    pub fn frequencies(&self, input: usize) -> usize {
        input.saturating_sub(1) / self.stride + 1
    }

    /// Convolves a plane, adds a residual, and clips at zero if `relu` is set. `out` is resized; `scratch` is
    /// working memory.
    ///
    /// # Panics
    /// When the plane has a different number of channels: a bug in a network, not an error in its input.
    pub fn apply(&self, input: Plane, residual: Option<&Rows>, relu: bool, out: &mut Rows, scratch: &mut Vec<f32>) {
        assert_eq!(input.rows.rows(), self.inputs * input.frequencies, "channels of a convolution");
        let frequencies = self.frequencies(input.frequencies);
        out.reset(self.outputs * frequencies, input.rows.length());
        match &self.method {
            Method::Winograd(winograd) => winograd.apply(input, residual, relu, out, scratch),
            Method::Direct { filters, taps } => {
                scratch.resize(scratch.len().max(self.inputs * self.kernel * TILE_ROW), 0.0);
                for column in (0..input.rows.length()).step_by(TILE) {
                    for frequency in 0..frequencies {
                        self.fill(input, frequency, column, scratch);
                        let taps = &taps[(frequency * self.stride) % self.kernel];
                        let columns = TILE.min(input.rows.length() - column);
                        let (start, stride) = (out.start(frequency) + column, frequencies * out.stride());
                        let residual = residual.map(|rows| (rows.data(), start, stride));
                        let to = (out.data_mut(), start, stride);
                        filters.apply(scratch, taps, columns, to, Epilogue { residual, relu });
                    }
                }
            }
        }
    }

    /// Copies the rows under the window of a frequency into the ring, except those that the previous window already covered.
    fn fill(&self, input: Plane, frequency: usize, column: usize, ring: &mut [f32]) {
        let reach = self.kernel / 2;
        let first = frequency * self.stride;
        let fresh = if frequency == 0 { self.kernel } else { self.stride.min(self.kernel) };
        for place in first + self.kernel - fresh..first + self.kernel {
            // Row `place` of the plane with `reach` rows of zeros above it.
            let row = place.checked_sub(reach).filter(|row| *row < input.frequencies);
            for channel in 0..self.inputs {
                let to = &mut ring[(channel * self.kernel + place % self.kernel) * TILE_ROW..][..TILE_ROW];
                match row {
                    Some(row) => {
                        let start = input.rows.start(channel * input.frequencies + row) + column - reach;
                        to.copy_from_slice(&input.rows.data()[start..start + TILE_ROW]);
                    }
                    None => to.fill(0.0),
                }
            }
        }
    }
}

/// Offsets of a window's terms in a ring of rows, `[input][kernel][TILE_ROW]`, when its first row is at place `first`.
fn ring_taps(inputs: usize, kernel: usize, first: usize) -> Vec<u32> {
    let place = |input: usize, row: usize, tap: usize| (input * kernel + (first + row) % kernel) * TILE_ROW + tap;
    let taps = (0..inputs).flat_map(|input| (0..kernel).map(move |row| (input, row)));
    taps.flat_map(|(input, row)| (0..kernel).map(move |tap| place(input, row, tap) as u32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RngKey;

    fn random_rows(rng_key: RngKey, rows: usize, length: usize) -> Rows {
        let mut made = Rows::new(rows, length);
        for row in 0..rows {
            made.row_mut(row).copy_from_slice(&rng_key.sample(row as u64).normals(length));
        }
        made
    }

    struct Case {
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        frequencies: usize,
        length: usize,
    }

    /// One element, in double precision.
    fn element(case: &Case, weights: &[f32], x: &Rows, output: usize, frequency: usize, time: usize) -> f64 {
        let Case { inputs, kernel, stride, frequencies, length, .. } = *case;
        let mut sum = 0.0;
        for input in 0..inputs {
            for (row, tap) in (0..kernel).flat_map(|row| (0..kernel).map(move |tap| (row, tap))) {
                let (f, t) =
                    ((frequency * stride + row).wrapping_sub(kernel / 2), (time + tap).wrapping_sub(kernel / 2));
                if f < frequencies && t < length {
                    let weight = weights[((output * inputs + input) * kernel + row) * kernel + tap];
                    sum += f64::from(weight) * f64::from(x.row(input * frequencies + f)[t]);
                }
            }
        }
        sum
    }

    fn check(case: &Case, direct: bool) {
        let Case { inputs, outputs, kernel, stride, frequencies, length } = *case;
        let rng_key = RngKey::new(9).sample((frequencies * length + stride) as u64);
        let weights = rng_key.purpose("w").normals(outputs * inputs * kernel * kernel);
        let bias = rng_key.purpose("b").normals(outputs);
        let x = random_rows(rng_key.purpose("x"), inputs * frequencies, length);
        let make = if direct { Convolution2d::direct } else { Convolution2d::new };
        let layer = make(&weights, &bias, inputs, kernel, stride);
        let result = layer.frequencies(frequencies);
        let residual = random_rows(rng_key.purpose("r"), outputs * result, length);
        let (mut out, mut scratch) = (Rows::default(), Vec::new());
        layer.apply(Plane { rows: &x, frequencies }, Some(&residual), true, &mut out, &mut scratch);
        for row in 0..outputs * result {
            let (output, frequency) = (row / result, row % result);
            for time in 0..length {
                let sum = element(case, &weights, &x, output, frequency, time) + f64::from(bias[output]);
                let expected = (sum + f64::from(residual.row(row)[time])).max(0.0);
                let found = f64::from(out.row(row)[time]);
                assert!((found - expected).abs() < 1e-3, "{output} {frequency} {time}: {found} {expected}");
            }
            assert!(out.data()[out.start(row) + length..][..48].iter().all(|value| *value == 0.0));
        }
    }

    #[test]
    fn convolutions_agree_with_loops() {
        for (kernel, stride) in [(3, 2), (1, 2), (1, 1), (3, 1), (5, 1), (5, 3), (3, 4)] {
            for (frequencies, length) in [(1, 1), (7, 50), (8, 97), (20, 3)] {
                let case = Case { inputs: 3, outputs: 9, kernel, stride, frequencies, length };
                check(&case, false);
                check(&case, true);
            }
        }
    }
}
