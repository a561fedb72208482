//! K-means, as extractors of units fit it: a uniform sample of frames that parts of a corpus gather apart, k-means++ seeding, Lloyd's
//! iterations. All draws are counter-based and all sums run in a fixed order, so the result depends neither on threads nor on parts.

mod lloyd;
mod reservoir;
mod seeding;

pub(crate) use lloyd::Clustering;
pub(crate) use reservoir::Reservoir;
