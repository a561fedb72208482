//! Differentiable operations, as methods of [`Value`](crate::Value); each file holds an operation and its backward pass.

mod arithmetic;
mod linear;
mod shape;
