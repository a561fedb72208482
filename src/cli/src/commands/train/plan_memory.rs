//! `flowmill train RECIPE --plan-memory`: measures the memory that training will need, before it starts.

use std::io::Write;

use flowmill_train::{MemoryPlan, Source, process_memory};

use super::Place;
use super::overfit::{Printer, make_data};
use crate::doctor::machine;
use crate::failure::Failure;
use crate::human;
use crate::stages;
use crate::style;
use crate::table::print_pairs;

/// The free share of the peak below which the command warns: runs differ by a few hundredths, samples need additional
/// memory, and other programs run too.
const ROOM: f64 = 0.15;

/// Measures and prints the memory of one of `ranks` processes, which share this machine. Fails if it is not sufficient.
pub fn run(place: &Place, ranks: u16, out: &mut dyn Write) -> Result<(), Failure> {
    make_data(place)?;
    let mut printer = Printer::new(out, place.interrupt.clone());
    let folder = |number| place.stage_dir(number);
    let of = (usable().map(|bytes| bytes / u64::from(ranks)), usize::from(ranks));
    let plan = flowmill_stage_train::plan_memory(&stages::families(), &place.recipe, &folder, of, &mut printer);
    if let Some(error) = printer.failed {
        return Err(error.into());
    }
    print(&plan.map_err(|error| Failure::Failed(error.into()))?, out)
}

/// Returns the memory that this process may use: its own and the free memory, within the limit of its control group.
fn usable() -> Option<u64> {
    let memory = machine::memory()?;
    let free = memory.available + process_memory::resident().unwrap_or_default();
    Some(memory.limit.map_or(free, |limit| limit.min(free)))
}

/// Prints the plan. Fails if the memory is not sufficient.
fn print(plan: &MemoryPlan, out: &mut dyn Write) -> Result<(), Failure> {
    let peak = human::bytes(plan.peak);
    let peak = match plan.source {
        Source::Measured => format!("{peak} (measured)"),
        Source::Estimated => format!("{peak} (estimated from a part of the batch, because the whole would not fit)"),
        Source::Full => {
            format!("more than {peak} (the device ran out of memory on a part of the batch: it does not fit)")
        }
    };
    let mut pairs = vec![("peak", peak)];
    pairs.extend(plan.kinds.iter().map(|(kind, bytes)| (*kind, human::bytes(*bytes))));
    pairs.extend(plan.usable.map(|usable| ("usable", human::bytes(usable))));
    let pairs: Vec<(String, String)> = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    print_pairs(&pairs, 0, out)?;
    let full = plan.source == Source::Full;
    let Some(usable) = plan.usable.or(full.then_some(plan.peak)) else { return Ok(()) };
    if full || plan.peak > usable {
        let than = if full { "more than " } else { "" };
        style::error(&format!("training needs {than}{}, but {}", human::bytes(plan.peak), advice(usable)));
        return Err(Failure::Told);
    }
    if (plan.peak as f64) * (1.0 + ROOM) > usable as f64 {
        style::warning(&format!("training needs nearly all memory; {}", advice(usable)));
    }
    Ok(())
}

/// Returns advice on what to change, the cheapest first.
fn advice(usable: u64) -> String {
    format!(
        "{} are available: set train.gradient_checkpointing: true (the same results), lower train.batch.max_frames_in_batch and raise \
         train.accum_grad by as much, leave out the longest utterances (prep.max_duration or pack.max_tokens), or lower train.prefetch",
        human::bytes(usable)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_train::{BatchCost, LargestBatch};

    fn plan(peak: u64, usable: Option<u64>) -> MemoryPlan {
        let cost = BatchCost { valid: 900, padded: 1000, unit: "frames" };
        let batch = LargestBatch { epoch: 0, index: 3, items: 4, cost, epochs: 2 };
        MemoryPlan {
            batch,
            source: Source::Estimated,
            peak,
            kinds: vec![("weights", 100), ("activations", peak - 100)],
            usable,
        }
    }

    #[test]
    fn too_little_memory_is_a_failure_and_enough_is_none() {
        let mut out = Vec::new();
        assert!(matches!(print(&plan(5_000_000_000, Some(4_000_000_000)), &mut out), Err(Failure::Told)));
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("5.0 GB (estimated") && text.contains("4.0 GB"), "{text}");
        assert!(print(&plan(5_000_000_000, Some(5_400_000_000)), &mut Vec::new()).is_ok());
        assert!(print(&plan(5_000_000_000, None), &mut Vec::new()).is_ok());
        for usable in [None, Some(5_000_000_000)] {
            let full = MemoryPlan { source: Source::Full, ..plan(5_000_000_000, usable) };
            let mut out = Vec::new();
            assert!(matches!(print(&full, &mut out), Err(Failure::Told)));
            assert!(String::from_utf8(out).unwrap().contains("more than 5.0 GB"));
        }
        assert!(advice(1).contains("train.gradient_checkpointing: true"));
    }
}
