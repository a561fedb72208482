//! Residual vector quantization with Euclidean distance.

use crate::Matrix;
use crate::codec::Codes;
use crate::nearest::Nearest;

/// The centers of every level, ready to be searched.
pub(crate) struct ResidualQuantizer {
    levels: Vec<Nearest>,
    dimensions: usize,
}

impl ResidualQuantizer {
    /// Creates a quantizer from centers `[level][code][dimension]`.
    ///
    /// # Panics
    /// When the centers do not fill the shape: a bug of the caller, which checks what it loads.
    pub(crate) fn new(centers: &[f32], [levels, codes, dimensions]: [usize; 3]) -> Self {
        assert_eq!(centers.len(), levels * codes * dimensions, "centers of {levels} levels");
        let level = |centers: &[f32]| Nearest::new(Matrix::new(centers.to_vec(), dimensions));
        Self { levels: centers.chunks_exact((codes * dimensions).max(1)).map(level).collect(), dimensions }
    }

    /// Returns the codes of frames, level by level: the nearest center of a level to what the levels before it left.
    pub(crate) fn quantize(&self, frames: &Matrix) -> Vec<Vec<u32>> {
        let mut rest = frames.as_slice().to_vec();
        let mut codes = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            let residual = Matrix::new(rest, self.dimensions);
            let nearest: Vec<u32> = level.assign(&residual).into_iter().map(|(code, _)| code).collect();
            rest = residual.as_slice().to_vec();
            for (row, code) in rest.chunks_exact_mut(self.dimensions).zip(&nearest) {
                let center = level.centres().row(*code as usize);
                row.iter_mut().zip(center).for_each(|(value, center)| *value -= center);
            }
            codes.push(nearest);
        }
        codes
    }

    /// Returns the sum of the centers of every frame's codes, `[frame][dimension]`. There are at most as many levels as the quantizer has,
    /// and every code has a center; [`Codes::check`] ensures both.
    pub(crate) fn sum(&self, codes: Codes<'_>) -> Vec<f32> {
        let mut frames = vec![0.0; codes.frames * self.dimensions];
        for (level, codes) in self.levels.iter().zip(codes.levels()) {
            for (frame, code) in frames.chunks_exact_mut(self.dimensions).zip(codes) {
                frame.iter_mut().zip(level.centres().row(code)).for_each(|(sum, center)| *sum += center);
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_quantizes_what_the_levels_before_it_left() {
        let centers = [0.0, 0.0, 10.0, 10.0, /* level 1 */ 1.0, 0.0, 0.0, 1.0];
        let quantizer = ResidualQuantizer::new(&centers, [2, 2, 2]);
        let frames = Matrix::new(vec![11.0, 10.2, 0.1, 0.9, 0.8, 0.0], 2);
        assert_eq!(quantizer.quantize(&frames), [[1, 0, 0], [0, 1, 0]]);
    }
}
