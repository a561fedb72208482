//! Curves of the metrics: losses and their parts, learning rate, gradient norm.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::Subject;
use super::curves::{Curve, Level, Mark, figure, figure_with_levels};
use super::page::{Page, remark};

/// The content of a metrics file, by name.
#[derive(Default)]
struct Series {
    /// `train/loss`, `validation/loss`, `train/cfm` …
    values: BTreeMap<String, Vec<(u64, f64)>>,
    /// Values to compare with, by the names of metrics.
    levels: BTreeMap<String, Vec<Level>>,
    commands: Vec<Mark>,
    skipped: u64,
    unreadable: usize,
}

/// The curves.
pub fn add(subject: &Subject, page: &mut Page) {
    let path = subject.training.metrics();
    let Some(text) = subject.is_sound(&path).then(|| std::fs::read(&path).ok()).flatten() else { return };
    let series = read(&String::from_utf8_lossy(&text));
    let curve = |key: &str, name: &str| {
        let points = series.values.get(key).cloned().unwrap_or_default();
        Curve { name: name.to_owned(), points }
    };
    let marks = &series.commands;
    let parts = |prefix: &str| -> Vec<Curve> {
        let keys = series.values.keys().filter_map(|key| key.strip_prefix(prefix)?.strip_prefix("parts/"));
        keys.map(|part| curve(&format!("{prefix}parts/{part}"), part)).collect()
    };
    let levels = |metric: &str| series.levels.get(metric).map_or(&[][..], Vec::as_slice);
    // A part with a value to compare with has a figure of its own.
    let compared = |prefix: &str, name: &str| -> Vec<Markup> {
        let found = series.levels.iter().filter(|(metric, _)| !["loss", "grad_norm"].contains(&metric.as_str()));
        let one = |(metric, levels): (&String, &Vec<Level>)| {
            let curve = curve(&format!("{prefix}parts/{metric}"), metric);
            figure_with_levels(&format!("{metric}, {name}"), &[curve], levels, marks)
        };
        found.map(one).collect()
    };
    // A single part is the loss itself.
    let of_parts = |prefix: &str, title: &str| match parts(prefix) {
        parts if parts.len() > 1 => figure(title, &parts, marks),
        _ => Markup::default(),
    };
    let body = html! {
        div class="pair" {
            (figure_with_levels(
                "Loss",
                &[curve("train/loss", "training"), curve("validation/loss", "validation")],
                levels("loss"),
                marks,
            ))
            @for figure in compared("train/", "training") { (figure) }
            @for figure in compared("validation/", "validation") { (figure) }
            (of_parts("train/", "Parts of the training loss"))
            (of_parts("validation/", "Parts of the validation loss"))
            (figure("Learning rate", &[curve("train/lr", "lr")], marks))
            (figure_with_levels(
                "Gradient norm",
                &[curve("train/grad_norm", "gradient norm")],
                levels("grad_norm"),
                marks,
            ))
        }
        @if series.skipped > 0 {
            (remark(&format!("{} steps were skipped: their loss or gradient was not finite.", series.skipped)))
        }
        @if series.unreadable > 0 {
            (remark(&format!("{} lines of the metrics cannot be read, as a crash leaves them.", series.unreadable)))
        }
    };
    page.section("Curves", body);
}

fn read(text: &str) -> Series {
    let mut series = Series::default();
    for line in text.lines() {
        let Some((step, line)) =
            serde_json::from_str::<Value>(line).ok().and_then(|line| Some((line["step"].as_u64()?, line)))
        else {
            series.unreadable += 1;
            continue;
        };
        if let Some(command) = line["command"].as_str() {
            series.commands.push(Mark { step, text: command.to_owned() });
        }
        if let Some(references) = line["references"].as_array() {
            references.iter().for_each(|reference| series.compare(reference));
            continue;
        }
        series.skipped = series.skipped.max(line["skipped"].as_u64().unwrap_or(0));
        match line.get("validation") {
            Some(validation) => series.take("validation/", step, validation),
            None => series.take("train/", step, &line),
        }
    }
    series
}

impl Series {
    fn compare(&mut self, reference: &Value) {
        let (Some(metric), Some(value)) = (reference["metric"].as_str(), reference["value"].as_f64()) else { return };
        let text = format!("{} ({value})", reference["text"].as_str().unwrap_or_default());
        self.levels.entry(metric.to_owned()).or_default().push(Level { value, text });
    }

    fn take(&mut self, prefix: &str, step: u64, values: &Value) {
        let own = values.as_object().into_iter().flatten().filter(|(name, _)| *name != "step" && *name != "epoch");
        let parts = values["parts"].as_object().into_iter().flatten();
        let named = own.map(|(name, value)| (format!("{prefix}{name}"), value));
        let named = named.chain(parts.map(|(name, value)| (format!("{prefix}parts/{name}"), value)));
        for (name, value) in named.filter_map(|(name, value)| Some((name, value.as_f64()?))) {
            self.values.entry(name).or_default().push((step, value));
        }
    }
}
