//! Low-rank adapters beside frozen weights (LoRA; Hu et al., arXiv 2106.09685).
//!
//! A linear layer with weight `W` `[output, input]` and an adapter computes `x Wᵀ + scale · dropout(x) Aᵀ Bᵀ`. `A` is called
//! `MODULE.lora_A.weight` and `B` `MODULE.lora_B.weight`, as the package PEFT calls them; a [`Context`](crate::Context) needs nothing
//! more to find them.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::init::Init;
use crate::random::Draw;
use crate::{NnError, ParameterId, Parameters, Result, Value, host};

/// What follows the module's name in the name of its weight.
const WEIGHT: &str = ".weight";
/// What follows the module's name in the name of A.
const DOWN: &str = ".lora_A.weight";
/// What follows the module's name in the name of B.
const UP: &str = ".lora_B.weight";

/// What an adapter is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRankSettings {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// What the product is multiplied by: LoRA's alpha divided by the rank.
    pub scale: f32,
    /// Rate of the dropout on the adapter's input.
    pub dropout: f32,
}

/// An adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRank {
    /// A, `[rank, input]`.
    pub down: ParameterId,
    /// B, `[output, rank]`.
    pub up: ParameterId,
    /// What it is like.
    pub settings: LowRankSettings,
}

/// Whether a parameter of this name is the A of an adapter.
pub fn is_down(name: &str) -> bool {
    name.ends_with(DOWN)
}

/// The name of the module whose A or B a tensor is.
pub fn adapted_module(name: &str) -> Option<&str> {
    name.strip_suffix(DOWN).or_else(|| name.strip_suffix(UP))
}

impl Parameters {
    /// Adds an adapter beside the weight `id` of a linear layer: A uniform as PyTorch starts a linear layer, B zero, so that the
    /// layer computes what it did before.
    ///
    /// # Errors
    /// [`NnError::Invalid`] when the weight is no linear layer's, or the rank is 0 or no smaller than the weight's sides.
    pub fn add_low_rank(&mut self, id: ParameterId, settings: LowRankSettings, draw: Draw) -> Result<LowRank> {
        let name = self.name(id).to_owned();
        let refuse = |reason: &str| NnError::invalid("adapter", format!("`{name}` {reason}"));
        let module = name.strip_suffix(WEIGHT).filter(|_| self.is_linear(id));
        let module = module.ok_or_else(|| refuse("is not the weight of a linear layer"))?;
        let &[outputs, inputs] = self.tensor(id).dims() else {
            return Err(refuse("is no matrix"));
        };
        let rank = settings.rank;
        if rank == 0 || rank > outputs.min(inputs) {
            return Err(refuse(&format!("is {outputs} x {inputs}: no adapter of rank {rank} fits")));
        }
        let name = format!("{module}{DOWN}");
        let start = Init::default_for(inputs).draw(draw.purpose(&name), rank * inputs);
        let down = self.add(name, host::tensor(start, &[rank, inputs])?)?;
        let up = self.add(format!("{module}{UP}"), host::tensor(vec![0.0; outputs * rank], &[outputs, rank])?)?;
        let adapter = LowRank { down, up, settings };
        self.set_low_rank(id, adapter);
        Ok(adapter)
    }
}

/// Adds every adapter among `tensors` to the weight it stands beside, `W + scale · B A`, and takes it out. Gives the adapters' tensors.
///
/// # Errors
/// When one half of an adapter or its weight is missing, or their shapes do not fit.
pub fn merge(tensors: &mut BTreeMap<String, Tensor>, scale: f32) -> Result<BTreeMap<String, Tensor>> {
    let names: Vec<String> = tensors.keys().filter(|name| adapted_module(name).is_some()).cloned().collect();
    let adapters: BTreeMap<String, Tensor> =
        names.into_iter().filter_map(|name| tensors.remove(&name).map(|tensor| (name, tensor))).collect();
    for (name, tensor) in &adapters {
        let missing = |name: String| NnError::invalid("adapter", format!("`{name}` is missing"));
        let Some(module) = adapted_module(name) else { continue };
        let (down, up, weight) = (format!("{module}{DOWN}"), format!("{module}{UP}"), format!("{module}{WEIGHT}"));
        if *name == up {
            // Merged with its A, unless that is missing.
            adapters.get(&down).ok_or_else(|| missing(down))?;
            continue;
        }
        let up = adapters.get(&up).ok_or_else(|| missing(up))?;
        let base = tensors.get(&weight).ok_or_else(|| missing(weight.clone()))?;
        let merged = merged(base, tensor, up, scale)?;
        tensors.insert(weight, merged);
    }
    Ok(adapters)
}

fn merged(weight: &Tensor, down: &Tensor, up: &Tensor, scale: f32) -> Result<Tensor> {
    let product = Value::plain(up.clone())?.linear(&Value::plain(down.t()?)?, None)?;
    Ok(product.affine(scale, 0.0)?.add(&Value::plain(weight.clone())?)?.tensor().clone())
}
