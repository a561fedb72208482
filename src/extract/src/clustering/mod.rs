//! K-means, as extractors of units fit it: a uniform sample of frames that parts of a corpus gather apart, k-means++ seeding, Lloyd's
//! iterations. All draws are counter-based and all sums run in a fixed order, so the result depends neither on threads nor on parts.

mod lloyd;
mod reservoir;
mod seeding;

pub(crate) use lloyd::Clustering;
pub(crate) use reservoir::Reservoir;

/// Rounds a figure about a fit, which is for people, to four decimal places.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
