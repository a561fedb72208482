//! Conditional flow matching along straight paths.

use crate::{NnError, Ragged, Result, Value, host};
use candle_core::Tensor;

/// The conditional flow matching objective along straight paths (Lipman et al., arXiv 2210.02747): from noise z to data x,
/// `y = (1 - (1 - sigma) t) z + t x` with velocity `u = x - (1 - sigma) z`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowMatching {
    /// Deviation that remains at t = 1.
    pub sigma_min: f32,
}

impl Default for FlowMatching {
    fn default() -> Self {
        Self { sigma_min: 1e-6 }
    }
}

/// A point on the path and the velocity there.
#[derive(Debug, Clone)]
pub struct PathPoint {
    /// `y`, shaped like the data.
    pub position: Value,
    /// `u`, shaped like the data.
    pub velocity: Value,
}

impl FlowMatching {
    /// The point of each item's path at its time: data and noise `[row, channel]` or `[item, time, channel]`, one time per item.
    /// Rows of no item are zero.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn point(&self, data: &Tensor, noise: &Tensor, times: &[f32], rows: &Ragged) -> Result<PathPoint> {
        if data.dims() != noise.dims() || times.len() != rows.len() {
            return Err(NnError::shape("flow matching", format!("noise of {:?}", data.dims()), noise.dims()));
        }
        let (x, z) = (host::slice("flow matching", data)?, host::slice("flow matching", noise)?);
        let width = data.dims().last().copied().unwrap_or(1);
        if rows.total() * width != x.len() {
            return Err(NnError::shape("flow matching", format!("{} rows", rows.total()), data.dims()));
        }
        let (mut position, mut velocity) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let rest = 1.0 - self.sigma_min;
        for (rows, t) in rows.ranges().iter().zip(times) {
            for i in rows.start * width..rows.end * width {
                position[i] = (1.0 - rest * t) * z[i] + t * x[i];
                velocity[i] = x[i] - rest * z[i];
            }
        }
        let value = |elements| Value::from_vec(elements, data.dims());
        Ok(PathPoint { position: value(position)?, velocity: value(velocity)? })
    }
}
