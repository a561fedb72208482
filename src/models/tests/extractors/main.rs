//! The extractors on real speech.

mod kmeans;
mod speech;
mod statistics;
