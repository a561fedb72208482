//! Curves over steps, as SVG.

use maud::{Markup, PreEscaped, html};
use serde_json::json;

use super::page::printable;
use crate::human;

/// The drawn area and the margins around it, in the units of the picture. Two pictures stand side by side on a wide page, where a unit is
/// a pixel.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 30.0;
/// Points drawn of one curve; of more, means of neighbors.
const MOST_POINTS: usize = 1000;
/// Colors, in turn.
const COLORS: [&str; 6] = ["--a", "--b", "--c", "--d", "--e", "--f"];

/// A curve.
pub struct Curve {
    /// The name.
    pub name: String,
    /// Steps, rising, and values.
    pub points: Vec<(u64, f64)>,
}

/// An event at a step.
pub struct Mark {
    /// The step.
    pub step: u64,
    /// The event in words.
    pub text: String,
}

/// A value that the curves are compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// The value.
    pub value: f64,
    /// The meaning of values beyond it.
    pub text: String,
}

/// A figure of curves on one scale, with marks; empty when there is nothing to draw.
pub fn figure(title: &str, curves: &[Curve], marks: &[Mark]) -> Markup {
    figure_with_levels(title, curves, &[], marks)
}

/// A [`figure`] with horizontal lines.
pub fn figure_with_levels(title: &str, curves: &[Curve], levels: &[Level], marks: &[Mark]) -> Markup {
    let curves: Vec<Curve> = curves
        .iter()
        .map(|curve| Curve { name: printable(&curve.name), points: thinned(&curve.points) })
        .filter(|curve| !curve.points.is_empty())
        .collect();
    let Some(scale) = Scale::of(&curves, levels) else { return Markup::default() };
    let series: Vec<_> = curves.iter().map(|curve| json!({ "name": curve.name, "points": curve.points })).collect();
    let (width, left) = (WIDTH - LEFT - RIGHT, LEFT);
    let data = json!({ "x0": scale.x0, "x1": scale.x1, "left": left, "width": width, "series": series });
    // Only `<` could end a script.
    let data = data.to_string().replace('<', "\\u003c");
    let colored = || curves.iter().zip(COLORS.iter().cycle());
    html! {
        figure class="curve" {
            h3 { (title) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
                (scale.grid())
                @for level in levels { (scale.level(level)) }
                @for mark in marks { (scale.mark(mark)) }
                @for (curve, color) in colored() { (scale.line(curve, color)) }
            }
            figcaption class="legend" {
                @for (curve, color) in colored() { span { i style={ "background:var(" (color) ")" } {} (curve.name) } }
                output {}
            }
            script type="application/json" { (PreEscaped(data)) }
        }
    }
}

/// From values to places in the picture.
struct Scale {
    x0: f64,
    x1: f64,
    y0: f64,
    y1: f64,
}

impl Scale {
    /// A scale with room for all finite values and levels; `None` without a value.
    fn of(curves: &[Curve], levels: &[Level]) -> Option<Self> {
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let (x0, x1) = (points().map(|p| p.0).min()? as f64, points().map(|p| p.0).max()? as f64);
        let values = || points().map(|p| p.1).chain(levels.iter().map(|level| level.value));
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        let margin = if high > low { 0.05 * (high - low) } else { 0.05 * high.abs().max(1e-9) };
        Some(Self { x0, x1: x1.max(x0 + 1.0), y0: low - margin, y1: high + margin })
    }

    fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)
    }

    fn grid(&self) -> Markup {
        let steps = ticks(self.x0, self.x1);
        html! {
            @for value in ticks(self.y0, self.y1) {
                @let y = self.y(value);
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(unit(y)) y2=(unit(y)) {}
                text x=(LEFT - 6.0) y=(unit(y + 4.0)) text-anchor="end" { (human::number(value)) }
            }
            @for step in steps.into_iter().filter(|step| step.fract() == 0.0) {
                text x=(unit(self.x(step))) y=(HEIGHT - 8.0) text-anchor=(self.anchor(step)) { (step) }
            }
        }
    }

    /// The side of its place on which a text has room.
    fn anchor(&self, step: f64) -> &'static str {
        if self.x(step) > WIDTH - RIGHT - 20.0 { "end" } else { "middle" }
    }

    fn mark(&self, mark: &Mark) -> Markup {
        let (x, text) = (self.x(mark.step as f64), printable(&mark.text));
        // The text stands on the side that has more room.
        let (at, anchor) = if x > WIDTH / 2.0 { (x - 4.0, "end") } else { (x + 4.0, "start") };
        html! {
            line class="mark" x1=(unit(x)) x2=(unit(x)) y1=(TOP) y2=(HEIGHT - BOTTOM) {
                title { "step " (mark.step) ": " (text) }
            }
            text x=(unit(at)) y=(TOP + 12.0) text-anchor=(anchor) { (text) }
        }
    }

    /// A dashed line across the picture.
    fn level(&self, level: &Level) -> Markup {
        let (y, text) = (self.y(level.value), printable(&level.text));
        html! {
            line class="level" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(unit(y)) y2=(unit(y)) { title { (text) } }
            text class="level" x=(WIDTH - RIGHT - 4.0) y=(unit(y - 4.0)) text-anchor="end" { (text) }
        }
    }

    /// A line, or a dot for a single point.
    fn line(&self, curve: &Curve, color: &str) -> Markup {
        let place = |(step, value): &(u64, f64)| format!("{:.1},{:.1}", self.x(*step as f64), self.y(*value));
        let [first, rest @ ..] = curve.points.as_slice() else { return Markup::default() };
        if rest.is_empty() {
            let (x, y) = (self.x(first.0 as f64), self.y(first.1));
            return html! { circle cx=(unit(x)) cy=(unit(y)) r="3" style={ "fill:var(" (color) ")" } {} };
        }
        let places: Vec<String> = curve.points.iter().map(place).collect();
        html! { polyline class="line" style={ "stroke:var(" (color) ")" } points=(places.join(" ")) {} }
    }
}

/// A length with a tenth of a unit.
fn unit(length: f64) -> String {
    format!("{length:.1}")
}

/// About five round numbers between two ends.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= raw).unwrap_or(raw);
    let first = (low / step).ceil();
    // Rounded to the grid, so that 0.30000000000000004 is 0.3.
    (0..12)
        .map(|index| first + f64::from(index))
        .map(|n| n * step)
        .take_while(|value| *value <= high)
        .map(tidy)
        .collect()
}

/// The value with ten significant digits.
fn tidy(value: f64) -> f64 {
    format!("{value:.10e}").parse().unwrap_or(value)
}

/// The finite points; of many, means of neighbors.
fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let finite: Vec<(u64, f64)> = points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let group = finite.len().div_ceil(MOST_POINTS).max(1);
    let mean = |group: &[(u64, f64)]| {
        let value = group.iter().map(|(_, value)| value).sum::<f64>() / group.len() as f64;
        (group[group.len() / 2].0, value)
    };
    finite.chunks(group).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks(0.02, 1.13), [0.5, 1.0]);
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(ticks(-3.0, 11.0), [0.0, 5.0, 10.0]);
        assert_eq!(ticks(9.5e-5, 1.05e-4), [9.6e-5, 9.8e-5, 1e-4, 1.02e-4, 1.04e-4]);
    }

    #[test]
    fn many_points_become_means_and_what_is_not_finite_is_left_out() {
        let points: Vec<(u64, f64)> = (0..4000).map(|step| (step, step as f64)).collect();
        let thin = thinned(&points);
        assert_eq!((thin.len(), thin[0]), (1000, (2, 1.5)));
        assert_eq!(thinned(&[(1, f64::NAN), (2, 1.0)]), [(2, 1.0)]);
        assert_eq!(figure("none", &[Curve { name: "a".into(), points: vec![(1, f64::NAN)] }], &[]).0, "");
    }

    #[test]
    fn a_level_has_a_place_in_the_picture() {
        let curve = Curve { name: "a".into(), points: vec![(1, 5.0), (2, 4.0)] };
        let level = Level { value: 3.0, text: "good <3".into() };
        let shown = figure_with_levels("a", &[curve], &[level], &[]).0;
        assert!(shown.contains("class=\"level\"") && shown.contains("good &lt;3"), "{shown}");
        let y = shown.split("class=\"level\"").nth(1).and_then(|rest| rest.split("y1=\"").nth(1)).unwrap();
        let y: f64 = y.split('"').next().unwrap().parse().unwrap();
        assert!((TOP..HEIGHT - BOTTOM).contains(&y), "{y}");
    }

    #[test]
    fn one_point_and_equal_values_have_a_place() {
        for points in [vec![(5, 2.0)], vec![(5, 0.0), (6, 0.0)]] {
            let shown = figure("a<b", &[Curve { name: "</script>".into(), points }], &[]).0;
            assert!(shown.contains("a&lt;b") && !shown.contains("NaN") && !shown.contains("</script>\""), "{shown}");
        }
    }
}
