//! Weight files of every kind: real ones of PyTorch and ONNX, malicious ones, and written ones.

mod allocations;
mod hostile;
mod mapped;
mod mutation;
mod npy;
mod onnx;
mod safetensors;
mod support;
mod torch;
mod writing;
