//! The extractors on real speech.

mod dual_kmeans;
mod kmeans;
mod phonemes;
mod speech;
mod statistics;
mod tokenizers;
