//! Stochastic gradient descent with momentum.

use flowmill_nn::NnError;

use super::composition::{Tensors, Updated, mix};
use super::rule::{StateArray, Step, UpdateRule};
use super::slot::Arrays;

/// SGD by PyTorch's formula (`torch.optim.SGD`): with g the scaled gradient,
///
/// ```text
/// g ← g + decay w;  b ← momentum b + (1 - dampening) g, at the first update b ← g
/// w ← w - rate b;  Nesterov: w ← w - rate (g + momentum b);  without momentum: w ← w - rate g
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Share of the running sum of gradients that each update keeps; 0 disables momentum.
    pub momentum: f64,
    /// Share of each new gradient that is left out.
    pub dampening: f64,
    /// Looks ahead by one update of the running sum.
    pub nesterov: bool,
}

impl UpdateRule for Sgd {
    fn state(&self, step: &Step<'_>) -> Vec<StateArray> {
        if self.momentum == 0.0 { Vec::new() } else { vec![StateArray::new("momentum_buffer", step.dims)] }
    }

    fn update(&self, step: &Step<'_>, arrays: Arrays<'_>) {
        let Arrays { weights, gradient, mut state } = arrays;
        let (rate, penalty) = (step.rate() as f32, step.settings.weight_decay as f32);
        let penalized = |gradient: f32, weight: f32| step.update.gradient(gradient) + penalty * weight;
        let Some(buffer) = state.first_mut() else {
            weights.iter_mut().zip(gradient).for_each(|(w, g)| *w -= rate * penalized(*g, *w));
            return;
        };
        let momentum = self.momentum as f32;
        let share = if step.number == 1 { 1.0 } else { (1.0 - self.dampening) as f32 };
        for ((weight, gradient), buffer) in weights.iter_mut().zip(gradient).zip(buffer.iter_mut()) {
            let gradient = penalized(*gradient, *weight);
            *buffer = *buffer * momentum + share * gradient;
            *weight -= rate * if self.nesterov { gradient + momentum * *buffer } else { *buffer };
        }
    }

    #[cfg(feature = "cuda")]
    fn kernel(&self, step: &Step<'_>) -> Option<(&'static str, Vec<f32>)> {
        let share = if step.number == 1 { 1.0 } else { 1.0 - self.dampening };
        let gradient = [step.update.scale, step.update.limit, step.settings.weight_decay];
        let numbers =
            gradient.into_iter().chain([step.rate(), self.momentum, share, f64::from(u8::from(self.nesterov))]);
        let kernel = if self.momentum == 0.0 { "sgd" } else { "sgd_momentum" };
        Some((kernel, numbers.map(|number| number as f32).collect()))
    }

    fn compose(&self, step: &Step<'_>, tensors: &Tensors) -> Result<Updated, NnError> {
        let (weights, rate) = (&tensors.weights, step.rate());
        let mut gradient = step.update.tensor(&tensors.gradient)?;
        if step.settings.weight_decay != 0.0 {
            gradient = mix(1.0, &gradient, step.settings.weight_decay, weights)?;
        }
        let Some(buffer) = tensors.state.first() else {
            return Ok(Updated::new(mix(1.0, weights, -rate, &gradient)?, Vec::new()));
        };
        let share = if step.number == 1 { 1.0 } else { 1.0 - self.dampening };
        let buffer = mix(self.momentum, buffer, share, &gradient)?;
        let ahead = if self.nesterov { mix(1.0, &gradient, self.momentum, &buffer)? } else { buffer.clone() };
        Ok(Updated::new(mix(1.0, weights, -rate, &ahead)?, vec![buffer]))
    }
}
