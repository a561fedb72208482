//! Speed and memory of the training, by its log.

use std::path::Path;

use flowmill_stage_train::{SPEED_FILE, Speed};
use maud::html;

use super::Subject;
use super::curves::{Curve, figure};
use super::page::{Page, remark};
use crate::human;

/// Curves of speed, data wait and memory, and when the training ran.
pub fn add(subject: &Subject, page: &mut Page) {
    let lines = &subject.speed;
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { return };
    let curve = |name: &str, value: &dyn Fn(&Speed) -> Option<f64>| {
        let points = lines.iter().filter_map(|line| Some((line.step, value(line)?)));
        [Curve { name: name.to_owned(), points: points.collect() }]
    };
    let costs = format!("{} a second", last.unit);
    let when = format!(
        "From {} to {}, {} of it in training.",
        human::date(first.time - first.seconds),
        human::date(last.time),
        human::duration(total(lines))
    );
    page.section(
        "Speed and memory",
        html! {
            (remark(&when))
            div class="pair" {
                (figure("Steps a second", &curve("steps a second", &|line| Some(line.steps_per_second)), &[]))
                (figure(&costs, &curve(&costs, &|line| Some(line.costs_per_second)), &[]))
                (figure("Memory in MB", &curve("MB", &|line| Some(line.memory? as f64 / 1e6)), &[]))
                (figure("Waiting for data in percent", &curve("%", &|line| Some(100.0 * line.data_wait)), &[]))
            }
        },
    );
}

/// Seconds in training; `None` without a log.
pub fn seconds(subject: &Subject) -> Option<f64> {
    (!subject.speed.is_empty()).then(|| total(&subject.speed))
}

fn total(lines: &[Speed]) -> f64 {
    lines.iter().map(|line| line.seconds).sum()
}

/// The lines that led to the present weights, with rising steps: a line replaces those of the same and later steps before it, which a
/// resumed or repeated training did again. What cannot be read is left out.
pub fn read(experiment: &Path) -> Vec<Speed> {
    let text = std::fs::read(experiment.join(SPEED_FILE)).unwrap_or_default();
    let mut lines: Vec<Speed> = Vec::new();
    for line in String::from_utf8_lossy(&text).lines().filter_map(|line| serde_json::from_str::<Speed>(line).ok()) {
        let before = lines.partition_point(|earlier| earlier.step < line.step);
        lines.truncate(before);
        lines.push(line);
    }
    lines
}
