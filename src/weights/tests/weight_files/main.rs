//! Weight files of every kind: real ones of PyTorch and ONNX, hostile ones, and what is written.

mod allocations;
mod hostile;
mod mutation;
mod npy;
mod onnx;
mod safetensors;
mod support;
mod torch;
mod writing;
