//! `flowmill train RECIPE --eval`: the validation loss of the newest checkpoint.

use std::io::Write;

use super::{Notes, Place};
use crate::failure::Failure;
use crate::table::print_pairs;

/// Validates and prints the results.
pub fn run(place: &Place, out: &mut dyn Write) -> Result<(), Failure> {
    place.expect_data()?;
    let evaluated = flowmill_stage_train::evaluate(
        &crate::stages::families(),
        &place.recipe,
        &|number| place.stage_dir(number),
        &mut Notes,
    );
    let evaluated = evaluated.map_err(|error| Failure::Failed(error.into()))?;
    let weights = if evaluated.averaged { "the moving average" } else { "as trained" };
    let mut pairs = vec![
        ("step".to_owned(), evaluated.step.to_string()),
        ("epoch".to_owned(), evaluated.epoch.to_string()),
        ("weights".to_owned(), weights.to_owned()),
        ("validation loss".to_owned(), format!("{}", evaluated.means.loss as f32)),
    ];
    let parts = evaluated.means.present_parts();
    pairs.extend(parts.map(|(name, part)| (format!("  {name}"), format!("{}", part as f32))));
    Ok(print_pairs(&pairs, 0, out)?)
}
