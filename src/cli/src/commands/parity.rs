//! `flowmill parity FILE…`: compares models, optimizers and schedules with their public implementations.

use std::io::Write;
use std::path::Path;

use anstyle::Style;
use candle_core::Device;
use flowmill_networks::parity::{self, Comparison, GoldenFile, Report};
use flowmill_nn::device;
use flowmill_train::parity::{self as trainer, Compared};

use crate::args::{ParityArgs, ParityDevice};
use crate::failure::Failure;
use crate::style;
use crate::table::{Align, Cell, Table};

/// Checks one file after the other. An error of one is printed, and the others are still checked.
pub fn run(arguments: &ParityArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (mut passed, mut readable) = (true, true);
    let device = match arguments.device {
        ParityDevice::Named(name) => device::open(name).map_err(|error| Failure::Usage(error.into()))?,
        ParityDevice::Composition => Device::Cpu,
    };
    for path in &arguments.files {
        let checked = match arguments.device {
            ParityDevice::Named(_) => check(path, &device),
            ParityDevice::Composition => device::by_composition(|| check(path, &device)),
        };
        match checked {
            Ok((model, report)) => {
                passed &= report.passes();
                print(path, &model, &report, arguments.all, out)?;
            }
            Err(error) => {
                readable = false;
                Failure::Usage(error).report();
            }
        }
    }
    match (readable, passed) {
        (false, _) => Err(Failure::ToldUsage),
        (true, false) => Err(Failure::Told),
        (true, true) => Ok(()),
    }
}

/// Returns the model of a file and its errors.
fn check(path: &Path, device: &Device) -> anyhow::Result<(String, Report)> {
    let checked = || {
        let file = GoldenFile::read(path)?.on(device.clone());
        let report = if trainer::recognizes(file.config()) { check_trainer(&file)? } else { parity::check(&file)? };
        anyhow::Ok((file.model().to_owned(), report))
    };
    checked().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// Checks optimizers and schedules, which belong to the trainer.
fn check_trainer(file: &GoldenFile) -> anyhow::Result<Report> {
    let compared = trainer::check(file.config(), file.tensors(), file.device())?;
    let comparison = |Compared { group, name, error }| Comparison { group, name, error, tolerance: trainer::TOLERANCE };
    let report = Report(compared.into_iter().map(comparison).collect());
    parity::refuse_unchecked(file, &report)?;
    Ok(report)
}

/// Prints a line for the file, then the worst tensor of each group, or all tensors.
fn print(path: &Path, model: &str, report: &Report, all: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let (style, word) = verdict(report.passes());
    writeln!(out, "{}: {model} {}", path.display(), style::paint(style, word))?;
    let columns = [
        ("group", Align::Left),
        ("tensors", Align::Right),
        (if all { "error" } else { "worst error" }, Align::Right),
        ("tolerance", Align::Right),
        ("", Align::Left),
        ("tensor", Align::Left),
    ];
    let mut table = Table::new(&columns).indented(2);
    let shown = if all { report.0.iter().collect() } else { report.worst() };
    for comparison in shown {
        table.row(row(comparison, report));
    }
    Ok(table.print(out)?)
}

fn row(comparison: &Comparison, report: &Report) -> [Cell; 6] {
    let tensors = report.0.iter().filter(|other| other.group == comparison.group).count();
    let (style, word) = verdict(comparison.passes());
    [
        Cell::from(comparison.group),
        Cell::from(tensors),
        Cell::from(figure(comparison.error)),
        Cell::from(figure(comparison.tolerance)),
        Cell::styled(word, style),
        Cell::from(&comparison.name),
    ]
}

fn verdict(passes: bool) -> (Style, &'static str) {
    if passes { (style::GOOD, "PASS") } else { (style::BAD, "FAIL") }
}

/// Formats an error or tolerance. Counts are formatted as integers.
fn figure(value: f64) -> String {
    if value == value.trunc() && value < 1e6 { format!("{value:.0}") } else { format!("{value:.1e}") }
}
