//! Clipping: the gradients of the first step, their norm, and what is left of them.

use super::{
    Compared, Result, Tensors, bad_tensor, compare, given_gradients, gradients, parameter_names, parameters, tensor,
};
use crate::optimizer::{Update, gradient_norms};

pub(super) fn check(tensors: &Tensors) -> Result<Vec<Compared>> {
    let expected = tensors.keys().filter(|name| name.starts_with("out.clip_"));
    expected.map(|name| check_one(tensors, name)).collect()
}

/// `out.clip_norm_0.5.NAME`: the limit may have a point of its own, the parameter's name is what gradients are given for.
fn check_one(tensors: &Tensors, name: &str) -> Result<Compared> {
    let unknown = || bad_tensor(name, "is neither `out.clip_norm_LIMIT.NAME` nor `out.clip_value_LIMIT.NAME`");
    let rest = name.strip_prefix("out.clip_").ok_or_else(unknown)?;
    let (kind, rest) = rest.split_once('_').ok_or_else(unknown)?;
    let known = parameter_names(tensors).chain(["norm"]).find_map(|parameter| {
        let limit: f64 = rest.strip_suffix(parameter)?.strip_suffix('.')?.parse().ok()?;
        Some((limit, parameter))
    });
    let (limit, parameter) = known.ok_or_else(unknown)?;
    let names: Vec<&str> = parameter_names(tensors).collect();
    let parameters = parameters(tensors, names.iter().copied())?;
    let norms = gradient_norms(&parameters, &gradients(tensors, &parameters, 0)?, 1.0)?;
    if parameter == "norm" {
        return compare("clipping", name, &[norms.total], tensor(tensors, name)?);
    }
    let update = match kind {
        "norm" => Update::new(0.0, norms.clip_factor(Some(limit))),
        "value" if limit >= 0.0 => Update { limit, ..Update::new(0.0, 1.0) },
        _ => return Err(unknown()),
    };
    let given: Vec<f32> = given_gradients(tensors, parameter)?.get(0)?.flatten_all()?.to_vec1()?;
    let found: Vec<f64> = given.into_iter().map(|value| f64::from(update.gradient(value))).collect();
    compare("clipping", name, &found, tensor(tensors, name)?)
}
