//! The first-step check, which finds parameters that training cannot reach before hours are spent; and [`health`], which monitors later
//! steps.

pub mod health;

use flowmill_nn::{ParameterId, Parameters, low_rank};

use crate::optimizer::GradientNorms;
use crate::{Observer, TrainError};

/// Number of names shown of a longer list.
const SHOWN: usize = 8;

/// Fails with the names of trainable parameters that have no gradient or one that is not finite; those that are `optional` may have none.
/// Returns the names of those whose gradient is zero in every element, which is right for some (below a zero-initialized layer) and a
/// defect for others. The first halves of adapters, whose second halves always start at zero, are not among them.
pub fn check(
    parameters: &Parameters,
    norms: &GradientNorms,
    optional: &dyn Fn(&str) -> bool,
) -> Result<Vec<String>, TrainError> {
    let name = |id: &ParameterId| parameters.name(*id).to_owned();
    let select = |wanted: fn(Option<f64>) -> bool| -> Vec<String> {
        norms.each.iter().filter(|(_, norm)| wanted(*norm)).map(|(id, _)| name(id)).collect()
    };
    let mut missing = select(|norm| norm.is_none());
    missing.retain(|name| !optional(name));
    let non_finite = norms.not_finite(parameters);
    if !missing.is_empty() || !non_finite.is_empty() {
        return Err(TrainError::Coverage { missing, non_finite });
    }
    Ok(select(|norm| norm == Some(0.0)).into_iter().filter(|name| !low_rank::is_down(name)).collect())
}

/// Runs [`check`] on the first step and reports zero gradients.
pub(crate) fn check_first_step(
    parameters: &Parameters,
    norms: &GradientNorms,
    optional: &dyn Fn(&str) -> bool,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    let zero = check(parameters, norms, optional)?;
    if !zero.is_empty() {
        let (count, names) = (zero.len(), shorten(&zero));
        observer.message(&format!(
            "on the first step the gradient of {count} parameters is zero in every element: {names}"
        ));
    }
    Ok(())
}

/// A list of names for a message, its tail as a number: "a, b and 3 more".
pub(crate) fn shorten(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
