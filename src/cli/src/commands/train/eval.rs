//! `flowmill train RECIPE --eval`: the validation loss of the newest checkpoint, and what it speaks.

use std::io::Write;

use flowmill_stage_train::{Evaluated, Listening};

use super::{Notes, Place, print_heard};
use crate::failure::Failure;
use crate::table::print_pairs;

/// Validates and prints the results; `random_texts` replaces the spoken texts by random ones of the split.
pub fn run(place: &Place, random_texts: bool, out: &mut dyn Write) -> Result<(), Failure> {
    place.expect_data()?;
    let name = if random_texts { "eval-random-texts" } else { "eval" };
    let listening = Listening { folder: place.aside(name), random_texts };
    let evaluated = flowmill_stage_train::evaluate(
        &crate::stages::families(),
        &place.recipe,
        &|number| place.stage_dir(number),
        &listening,
        &mut Notes,
    );
    let Evaluated { validation: evaluated, heard } = evaluated.map_err(|error| Failure::Failed(error.into()))?;
    let weights = if evaluated.averaged { "the moving average" } else { "as trained" };
    let mut pairs = vec![
        ("step".to_owned(), evaluated.step.to_string()),
        ("epoch".to_owned(), evaluated.epoch.to_string()),
        ("weights".to_owned(), weights.to_owned()),
        ("validation loss".to_owned(), format!("{}", evaluated.means.loss as f32)),
    ];
    let parts = evaluated.means.present_parts();
    pairs.extend(parts.map(|(name, part)| (format!("  {name}"), format!("{}", part as f32))));
    print_pairs(&pairs, 0, out)?;
    heard.map_or(Ok(()), |heard| print_heard(&heard, out))
}
