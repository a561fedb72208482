//! Neural building blocks.
