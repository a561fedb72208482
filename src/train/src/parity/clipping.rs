//! Comparison of clipping: the gradients of the first step, their norm, and the clipped gradients.

use candle_core::{Device, Tensor};
use flowmill_nn::{device, host};

use super::{Compared, Result, Tensors, bad_tensor, compare, elements, gradients, parameter_names, parameters, tensor};
use crate::optimizer::{Update, gradient_norms};

pub(super) fn check(tensors: &Tensors, device: &Device) -> Result<Vec<Compared>> {
    let expected = tensors.keys().filter(|name| name.starts_with("out.clip_"));
    expected.map(|name| check_one(tensors, name, device)).collect()
}

/// Parses `out.clip_norm_0.5.NAME`: the limit may contain a point, the parameter's name is one that has gradients.
fn check_one(tensors: &Tensors, name: &str, device: &Device) -> Result<Compared> {
    let unknown = || bad_tensor(name, "is neither `out.clip_norm_LIMIT.NAME` nor `out.clip_value_LIMIT.NAME`");
    let rest = name.strip_prefix("out.clip_").ok_or_else(unknown)?;
    let (kind, rest) = rest.split_once('_').ok_or_else(unknown)?;
    let known = parameter_names(tensors).chain(["norm"]).find_map(|parameter| {
        let limit: f64 = rest.strip_suffix(parameter)?.strip_suffix('.')?.parse().ok()?;
        Some((limit, parameter))
    });
    let (limit, parameter) = known.ok_or_else(unknown)?;
    let names: Vec<&str> = parameter_names(tensors).collect();
    let parameters = parameters(tensors, names.iter().copied(), device)?;
    let gradients = gradients(tensors, &parameters, 0)?;
    let norms = gradient_norms(&parameters, &gradients, 1.0)?;
    if parameter == "norm" {
        return compare("clipping", name, &[norms.total], tensor(tensors, name)?);
    }
    let update = match kind {
        "norm" => Update::new(0.0, norms.clip_factor(Some(limit))),
        "value" if limit >= 0.0 => Update { limit, ..Update::new(0.0, 1.0) },
        _ => return Err(unknown()),
    };
    let gradient = parameters.find(parameter).and_then(|id| gradients.get(id)).ok_or_else(unknown)?;
    compare("clipping", name, &clipped(gradient, update)?, tensor(tensors, name)?)
}

/// Clips a gradient for an optimizer: by kernels on the CPU, elsewhere by compositions.
fn clipped(gradient: &Tensor, update: Update) -> Result<Vec<f64>> {
    if device::is_fused(gradient) {
        return Ok(host::read(gradient)?.into_iter().map(|value| f64::from(update.gradient(value))).collect());
    }
    elements(&update.tensor(gradient)?)
}
