//! Adam and AdamW, fused: one multi-threaded pass per parameter updates moments and weights in place.

use flowmill_nn::NnError;
use rayon::prelude::*;

use super::composition::{Tensors, Updated, mix};
use super::rule::{StateArray, Step, UpdateRule};
use super::slot::Arrays;

/// Number of values that one thread updates at a time. Each value's update is independent, so the size does not change results.
const CHUNK: usize = 1 << 14;

/// The target of weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// The gradient: an L2 penalty, which enters the moments (Kingma and Ba, arXiv 1412.6980).
    Gradient,
    /// The weights, decoupled from the gradient (Loshchilov and Hutter, arXiv 1711.05101).
    Weights,
}

/// Adam by PyTorch's formulas (`torch.optim.Adam`, `torch.optim.AdamW`): with g the scaled gradient and t the number of the update,
///
/// ```text
/// AdamW: w ← w (1 - rate decay);  Adam: g ← g + decay w
/// m ← m + (1 - β1)(g - m);  v ← β2 v + (1 - β2) g²
/// w ← w - rate / (1 - β1^t) · m / (√v / √(1 - β2^t) + ε)
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Decay of the running mean of gradients and of their squares.
    pub betas: [f64; 2],
    /// Added to the root of the mean square.
    pub eps: f64,
    /// The target of the parameters' weight decay.
    pub decay: Decay,
}

/// The scalars of one update, as the kernel uses them.
#[derive(Clone, Copy)]
struct Kernel {
    scale: f32,
    limit: f32,
    penalty: f32,
    keep: f32,
    mean_weight: f32,
    square_keep: f32,
    square_weight: f32,
    root_correction: f32,
    eps: f32,
    step_size: f32,
}

impl Adam {
    fn kernel(&self, step: &Step) -> Kernel {
        let rate = step.rate();
        let [beta1, beta2] = self.betas;
        // Powers of numbers below 1 are zero long before the counter exceeds this range.
        let number = step.number.min(i32::MAX as u64) as i32;
        let (penalty, keep) = match self.decay {
            Decay::Gradient => (step.settings.weight_decay, 1.0),
            Decay::Weights => (0.0, 1.0 - rate * step.settings.weight_decay),
        };
        Kernel {
            scale: step.update.scale as f32,
            limit: step.update.limit as f32,
            penalty: penalty as f32,
            keep: keep as f32,
            mean_weight: (1.0 - beta1) as f32,
            square_keep: beta2 as f32,
            square_weight: (1.0 - beta2) as f32,
            root_correction: (1.0 - beta2.powi(number)).sqrt() as f32,
            eps: self.eps as f32,
            step_size: (rate / (1.0 - beta1.powi(number))) as f32,
        }
    }
}

impl UpdateRule for Adam {
    fn state(&self, step: &Step<'_>) -> Vec<StateArray> {
        vec![StateArray::new("exp_avg", step.dims), StateArray::new("exp_avg_sq", step.dims)]
    }

    fn update(&self, step: &Step<'_>, arrays: Arrays<'_>) {
        let Arrays { weights, gradient, mut state } = arrays;
        let kernel = self.kernel(step);
        let [mean, square] = state.as_mut_slice() else { return };
        weights
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
            .for_each(|((weights, gradient), (mean, square))| kernel.apply(weights, gradient, mean, square));
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self, step: &Step<'_>) -> Option<(&'static str, Vec<f32>)> {
        let kernel = Adam::kernel(self, step);
        let Kernel { scale, limit, penalty, keep, mean_weight, .. } = kernel;
        let Kernel { square_keep, square_weight, root_correction, eps, step_size, .. } = kernel;
        let numbers =
            vec![scale, limit, penalty, keep, mean_weight, square_keep, square_weight, root_correction, eps, step_size];
        Some(("adam", numbers))
    }

    fn compose(&self, step: &Step<'_>, tensors: &Tensors) -> Result<Updated, NnError> {
        let Kernel { penalty, keep, mean_weight, square_keep, square_weight, root_correction, eps, step_size, .. } =
            self.kernel(step);
        let [mean, square] = tensors.state.as_slice() else { return Ok(Updated::unchanged(tensors)) };
        let weights = &tensors.weights;
        let mut gradient = step.update.tensor(&tensors.gradient)?;
        if penalty != 0.0 {
            gradient = mix(1.0, &gradient, penalty.into(), weights)?;
        }
        let mean = mix((1.0 - mean_weight).into(), mean, mean_weight.into(), &gradient)?;
        let square = mix(square_keep.into(), square, square_weight.into(), &gradient.sqr()?)?;
        let root = square.sqrt()?.affine(f64::from(root_correction).recip(), eps.into())?;
        let change = mean.div(&root)?;
        Ok(Updated::new(mix(keep.into(), weights, (-step_size).into(), &change)?, vec![mean, square]))
    }
}

impl Kernel {
    fn apply(self, weights: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        for (((weight, gradient), mean), square) in weights.iter_mut().zip(gradient).zip(mean).zip(square) {
            let gradient = (gradient * self.scale).clamp(-self.limit, self.limit) + self.penalty * *weight;
            *mean += self.mean_weight * (gradient - *mean);
            *square = *square * self.square_keep + self.square_weight * gradient * gradient;
            let root = square.sqrt() / self.root_correction + self.eps;
            *weight = *weight * self.keep - self.step_size * *mean / root;
        }
    }
}
