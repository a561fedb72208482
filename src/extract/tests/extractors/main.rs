//! The extractors on real speech.

mod codecs;
mod dual_kmeans;
mod kmeans;
mod phonemes;
mod rvq_kmeans;
mod speech;
mod statistics;
mod talking_heads;
mod tokenizers;
