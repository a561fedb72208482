//! `flowmill train RECIPE --replay DUMP`: repeats a skipped step.

use std::io::Write;
use std::path::Path;

use flowmill_train::{Figure, Replay};

use super::{Notes, Place};
use crate::failure::Failure;
use crate::style;
use crate::table::{Align, Cell, Table, print_pairs};

/// Repeats the step and prints the results next to those in the dump.
pub fn run(place: &Place, dump: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    place.expect_data()?;
    let replayed = flowmill_stage_train::replay(
        &crate::stages::families(),
        &place.recipe,
        &|number| place.stage_dir(number),
        dump,
        &mut Notes,
    );
    let replayed = replayed.map_err(|error| Failure::Failed(error.into()))?;
    print(&replayed, out)?;
    if !replayed.same_run {
        style::warning("the recipe or the model differs from that of the dumped run, so figures may differ");
    }
    if replayed.is_equal() {
        writeln!(out, "all figures equal those in the dump")?;
        return Ok(());
    }
    style::error("some figures differ from those in the dump; they are marked");
    Err(Failure::Told)
}

fn print(replayed: &Replay, out: &mut dyn Write) -> Result<(), Failure> {
    let dump = &replayed.dump;
    let pairs = [
        ("step", format!("{}, epoch {}", dump.step, dump.epoch)),
        ("seed", dump.seed.to_string()),
        ("learning rate", format!("{:.3e}", dump.lr)),
    ];
    print_pairs(&pairs.map(|(name, value)| (name.to_owned(), value)), 0, out)?;
    writeln!(out)?;
    let mut losses = Table::new(&[
        ("batch", Align::Right),
        ("loss", Align::Right),
        ("in the dump", Align::Right),
        ("", Align::Left),
        ("utterances", Align::Left),
    ]);
    for (now, then) in replayed.batches.iter().zip(&dump.batches) {
        let [loss, was, mark] = compared(Some(now.loss), Some(then.loss));
        losses.row([now.index.into(), loss, was, mark, now.ids.join(", ").into()]);
    }
    losses.print(out)?;
    writeln!(out)?;
    let mut norms = Table::new(&[
        ("gradient of", Align::Left),
        ("norm", Align::Right),
        ("in the dump", Align::Right),
        ("", Align::Left),
    ]);
    let total = compared(Some(replayed.gradient_norm), Some(dump.gradient_norm));
    norms.row([Cell::from("everything")].into_iter().chain(total));
    for (name, now) in &replayed.gradient_norms {
        let then = dump.gradient_norms.get(name).copied().flatten();
        norms.row([Cell::from(name)].into_iter().chain(compared(*now, then)));
    }
    Ok(norms.print(out)?)
}

/// Returns a figure, its earlier value, and a mark if they differ.
fn compared(now: Option<Figure>, then: Option<Figure>) -> [Cell; 3] {
    let text = |figure: Option<Figure>| figure.map_or("none".to_owned(), |figure| format!("{}", figure.0 as f32));
    let mark = if now == then { Cell::from("") } else { Cell::styled("differs", style::BAD) };
    [text(now).into(), text(then).into(), mark]
}
