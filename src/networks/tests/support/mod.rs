//! A flow small enough for tests, which each test changes where necessary.

#![allow(dead_code, reason = "each test file uses its part")]

use flowmill_networks::flow::{EncoderConfig, FlowConfig, UNetConfig};

/// Mel bins.
pub const BINS: usize = 8;

/// One block at each rate.
pub fn encoder() -> EncoderConfig {
    EncoderConfig {
        attention_heads: 2,
        linear_units: 32,
        num_blocks: 1,
        num_up_blocks: 1,
        static_chunk_size: 5,
        ..EncoderConfig::default()
    }
}

/// One block of each kind, without dropout.
pub fn unet() -> UNetConfig {
    UNetConfig {
        channels: vec![16],
        attention_head_dim: 8,
        n_blocks: 1,
        num_mid_blocks: 1,
        num_heads: 2,
        static_chunk_size: 10,
        dropout: 0.0,
    }
}

/// 20 tokens, 4 speaker values.
pub fn flow() -> FlowConfig {
    FlowConfig {
        vocab_size: 20,
        input_size: 16,
        output_size: BINS,
        spk_embed_dim: 4,
        encoder: encoder(),
        estimator: unet().into(),
        ..FlowConfig::default()
    }
}
