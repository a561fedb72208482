//! Writing weight files. The same input gives the same bytes.

mod npy;
mod pickle;
mod safetensors;
mod torch;

pub use npy::write_npy;

use super::{Archive, ElementType, RawTensor, Result, Scalar, file_error, refuse_non_finite};
use crate::host;
use candle_core::Tensor;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Contents of a file to be written, without the tensors' elements.
#[derive(Debug, Default)]
pub(crate) struct Outline<'a> {
    pub tensors: Vec<Entry<'a>>,
    pub scalars: Cow<'a, [(String, Scalar)]>,
    pub metadata: BTreeMap<String, String>,
}

/// Name, element type and shape of a tensor to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub name: &'a str,
    pub element: ElementType,
    pub shape: &'a [usize],
    /// The first tensor with the same elements, often itself. Formats that can share elements store them once.
    pub first: usize,
}

impl Entry<'_> {
    fn byte_count(&self) -> u64 {
        self.shape.iter().fold(self.element.size() as u64, |product, size| product.saturating_mul(*size as u64))
    }
}

/// Loads the elements of tensor `index`.
type Load<'l> = dyn FnMut(usize) -> Result<RawTensor> + 'l;

/// Formats that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `.safetensors`
    Safetensors,
    /// A state dict in the format of `torch.save`.
    Torch,
}

impl Target {
    /// Returns the format for the extension of `path`.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "safetensors" | "sft" => Some(Self::Safetensors),
            "pt" | "pth" | "bin" => Some(Self::Torch),
            _ => None,
        }
    }
}

/// Writes `f32` tensors from any device under their names, in order, with metadata, as `.safetensors`.
///
/// # Errors
/// When a tensor is not finite, before anything is written, or the file cannot be written.
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    let tensors = on_the_host(tensors)?;
    let check = |(name, tensor): &(String, Tensor)| refuse_non_finite(tensor, name);
    tensors.iter().try_for_each(check).map_err(|fault| file_error(path, fault))?;
    let outline = Outline { tensors: entries(&tensors), metadata: metadata.clone(), ..Outline::default() };
    let file = File::create(path).map_err(|error| file_error(path, error))?;
    safetensors::write(BufWriter::new(file), &outline, &mut finite(&tensors, path), path)
}

/// Like [`write`](fn@write), into memory; `path` is used in messages.
///
/// # Errors
/// Those of [`write`](fn@write).
pub fn to_bytes(tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>, path: &Path) -> Result<Vec<u8>> {
    let tensors = on_the_host(tensors)?;
    let outline = Outline { tensors: entries(&tensors), metadata: metadata.clone(), ..Outline::default() };
    let mut bytes = Vec::new();
    safetensors::write(&mut bytes, &outline, &mut finite(&tensors, path), path)?;
    Ok(bytes)
}

/// Writes `f32` tensors under their names, in order, as a state dict in the format of `torch.save`: `torch.load(weights_only=True)` reads
/// it. Scalars, such as an epoch, become further entries of the dict.
///
/// # Errors
/// When a tensor is not finite, a name occurs twice, or the file cannot be written.
pub fn write_torch(path: &Path, tensors: &[(String, Tensor)], scalars: &[(String, Scalar)]) -> Result<()> {
    let tensors = on_the_host(tensors)?;
    let outline = Outline { tensors: entries(&tensors), scalars: scalars.into(), ..Outline::default() };
    let file = File::create(path).map_err(|error| file_error(path, error))?;
    torch::write(BufWriter::new(file), &outline, &mut finite(&tensors, path), path)
}

/// Writes all contents of `archive` to `path`, each tensor with its original bytes.
///
/// # Errors
/// When the archive cannot be read or the file cannot be written.
pub fn write_archive(path: &Path, archive: &mut Archive<'_>, target: Target) -> Result<()> {
    if target == Target::Safetensors {
        archive.check_copies().map_err(|fault| archive.error(fault))?;
    }
    let (views, first) = (archive.tensors.clone(), archive.first_of_view());
    let tensors = views.iter().zip(first);
    let tensors = tensors
        .map(|((name, view), first)| Entry { name, element: view.element(), shape: view.shape(), first })
        .collect();
    let outline = Outline { tensors, scalars: archive.scalars.clone().into(), metadata: archive.metadata.clone() };
    let file = BufWriter::new(File::create(path).map_err(|error| file_error(path, error))?);
    let mut load = |index| archive.load(index);
    match target {
        Target::Safetensors => safetensors::write(file, &outline, &mut load, path),
        Target::Torch => torch::write(file, &outline, &mut load, path),
    }
}

/// Copies the tensors to the host; those on the CPU are shared.
fn on_the_host(tensors: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), host::fetch(tensor)?))).collect()
}

fn entries(tensors: &[(String, Tensor)]) -> Vec<Entry<'_>> {
    let mut entries = Vec::with_capacity(tensors.len());
    for (first, (name, tensor)) in tensors.iter().enumerate() {
        entries.push(Entry { name, element: ElementType::F32, shape: tensor.dims(), first });
    }
    entries
}

/// Returns the elements of `f32` tensors, which must be finite.
fn finite<'l>(tensors: &'l [(String, Tensor)], path: &'l Path) -> impl FnMut(usize) -> Result<RawTensor> + 'l {
    move |index| {
        let (name, tensor) = &tensors[index];
        refuse_non_finite(tensor, name).map_err(|fault| file_error(path, fault))?;
        RawTensor::of_floats(tensor)
    }
}
