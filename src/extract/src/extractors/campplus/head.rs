//! The head of the encoder: convolutions over frequency and time that keep time and reduce frequency to an eighth.

use flowmill_nn::inference::{Convolution2d, Plane, Rows};

use super::weights::{Convolution, RESIDUAL_BLOCKS, ResidualBlock, Weights};

/// The context of a frame of the result: one frame per 3 x 3 convolution on its way.
pub(super) const REACH: usize = 2 + 2 * 2 * RESIDUAL_BLOCKS;

/// Frames at a time: long recordings are worked off in pieces, so that memory stays bounded and near.
const PIECE: usize = 1024;

pub(super) struct Head {
    first: Convolution2d,
    residual: Vec<Residual>,
    last: Convolution2d,
}

struct Residual {
    first: Convolution2d,
    second: Convolution2d,
    shortcut: Option<Convolution2d>,
}

/// The buffers that the head writes to.
#[derive(Default)]
pub(super) struct HeadRows {
    /// The result, `channel * frequencies + frequency`, over all frames.
    pub(super) out: Rows,
    input: Rows,
    planes: [Rows; 4],
    scratch: Vec<f32>,
}

impl Head {
    pub(super) fn new(weights: &Weights) -> Self {
        let m = weights.dimensions.m_channels;
        let layer = |weights: &Convolution, inputs, kernel, stride| {
            Convolution2d::new(&weights.weight, &weights.bias, inputs, kernel, stride)
        };
        let block = |block: &ResidualBlock| {
            let stride = if block.shortcut.is_some() { 2 } else { 1 };
            Residual {
                first: layer(&block.first, m, 3, stride),
                second: layer(&block.second, m, 3, 1),
                shortcut: block.shortcut.as_ref().map(|shortcut| layer(shortcut, m, 1, stride)),
            }
        };
        Self {
            first: layer(&weights.first, 1, 3, 1),
            residual: weights.residual.iter().map(block).collect(),
            last: layer(&weights.last, m, 3, 2),
        }
    }

    /// The head's result for `features`, `[frame][band]`, in `rows.out`.
    pub(super) fn run(&self, features: &[f32], bands: usize, rows: &mut HeadRows) {
        self.run_in_pieces(features, bands, PIECE, rows);
    }

    fn run_in_pieces(&self, features: &[f32], bands: usize, piece: usize, rows: &mut HeadRows) {
        let frames = features.len() / bands;
        let pieces = frames.div_ceil(piece).max(1);
        let length = frames.div_ceil(pieces);
        let (channels, frequencies) = self.result(bands);
        for start in (0..frames).step_by(length.max(1)) {
            let end = frames.min(start + length);
            let (before, behind) = (REACH.min(start), REACH.min(frames - end));
            load(&features[(start - before) * bands..(end + behind) * bands], bands, &mut rows.input);
            self.piece(bands, rows);
            if pieces == 1 {
                std::mem::swap(&mut rows.out, &mut rows.planes[3]);
                return;
            }
            if start == 0 {
                rows.out.reset(channels * frequencies, frames);
            }
            for row in 0..channels * frequencies {
                let from = &rows.planes[3].row(row)[before..before + end - start];
                rows.out.row_mut(row)[start..end].copy_from_slice(from);
            }
        }
    }

    /// Channels and frequencies of the result.
    fn result(&self, bands: usize) -> (usize, usize) {
        let behind = self.residual.iter().fold(bands, |bands, block| block.first.frequencies(bands));
        (self.last.outputs(), self.last.frequencies(behind))
    }

    /// Computes `planes[3]` from `input`.
    fn piece(&self, bands: usize, rows: &mut HeadRows) {
        let HeadRows { input, planes: [x, inner, short, out], scratch, .. } = rows;
        let mut frequencies = self.first.frequencies(bands);
        self.first.apply(Plane { rows: input, frequencies: bands }, None, true, x, scratch);
        for block in &self.residual {
            let plane = Plane { rows: x, frequencies };
            block.first.apply(plane, None, true, inner, scratch);
            let residual = match &block.shortcut {
                Some(shortcut) => {
                    shortcut.apply(plane, None, false, short, scratch);
                    &*short
                }
                None => &*x,
            };
            frequencies = block.first.frequencies(frequencies);
            block.second.apply(Plane { rows: inner, frequencies }, Some(residual), true, out, scratch);
            std::mem::swap(x, out);
        }
        self.last.apply(Plane { rows: x, frequencies }, None, true, out, scratch);
    }
}

/// Turns `[frame][band]` into rows of bands.
fn load(features: &[f32], bands: usize, rows: &mut Rows) {
    rows.reset(bands, features.len() / bands);
    for band in 0..bands {
        let values = features.iter().skip(band).step_by(bands);
        rows.row_mut(band).iter_mut().zip(values).for_each(|(to, value)| *to = *value);
    }
}

#[cfg(test)]
mod tests {
    use flowmill_nn::random::RngKey;

    use super::*;
    use crate::extractors::campplus::{Dimensions, Random};

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let dimensions = Dimensions { feat_dim: 24, ..Dimensions::small() };
        let head = Head::new(&Weights::read(&mut Random::new(dimensions, 3)).unwrap());
        let features = RngKey::new(4).normals(24 * 333);
        let (mut whole, mut pieces) = (HeadRows::default(), HeadRows::default());
        head.run(&features, 24, &mut whole);
        for piece in [11, 50, 300] {
            head.run_in_pieces(&features, 24, piece, &mut pieces);
            for row in 0..whole.out.rows() {
                assert_eq!(whole.out.row(row), pieces.out.row(row), "pieces of {piece}, row {row}");
            }
        }
    }
}
