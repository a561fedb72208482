//! Low-rank adapters on frozen weights (LoRA; Hu et al., arXiv 2106.09685).
//!
//! A linear layer with weight `W` `[output, input]` and an adapter computes `x Wᵀ + scale · dropout(x) Aᵀ Bᵀ`. `A` is named
//! `MODULE.lora_A.weight` and `B` `MODULE.lora_B.weight`, like in the package PEFT; a [`Context`](crate::Context) finds them by
//! these names.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::init::Init;
use crate::random::RngKey;
use crate::{NnError, ParameterId, Parameters, Result, Value, host};

/// Suffix of the module's name in the name of its weight.
const WEIGHT: &str = ".weight";
/// Suffix of the module's name in the name of A.
const DOWN: &str = ".lora_A.weight";
/// Suffix of the module's name in the name of B.
const UP: &str = ".lora_B.weight";

/// Settings of an adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRankSettings {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// Factor on the product: LoRA's alpha divided by the rank.
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
    /// Settings.
    pub settings: LowRankSettings,
}

/// Returns whether a parameter of this name is the A of an adapter.
pub fn is_down(name: &str) -> bool {
    name.ends_with(DOWN)
}

/// Returns the name of the module whose A or B a tensor is.
pub fn adapted_module(name: &str) -> Option<&str> {
    name.strip_suffix(DOWN).or_else(|| name.strip_suffix(UP))
}

impl Parameters {
    /// Adds an adapter to the weight `id` of a linear layer. A starts uniform like PyTorch's linear layers and B at zero, so the
    /// layer's output is unchanged.
    ///
    /// # Errors
    /// [`NnError::Invalid`] when the weight does not belong to a linear layer, or the rank is 0 or larger than a side of the weight.
    pub fn add_low_rank(&mut self, id: ParameterId, settings: LowRankSettings, rng_key: RngKey) -> Result<LowRank> {
        let name = self.name(id).to_owned();
        let refuse = |reason: &str| NnError::invalid("adapter", format!("`{name}` {reason}"));
        let module = name.strip_suffix(WEIGHT).filter(|_| self.is_linear(id));
        let module = module.ok_or_else(|| refuse("is not the weight of a linear layer"))?;
        let &[outputs, inputs] = self.tensor(id).dims() else {
            return Err(refuse("is not a matrix"));
        };
        let rank = settings.rank;
        if rank == 0 || rank > outputs.min(inputs) {
            return Err(refuse(&format!(
                "is {outputs} x {inputs}: the rank {rank} of an adapter must be from 1 to the smaller side"
            )));
        }
        let name = format!("{module}{DOWN}");
        let start = Init::default_for(inputs).draw(rng_key.purpose(&name), rank * inputs);
        let down = self.add(name, host::tensor(start, &[rank, inputs])?)?;
        let up = self.add(format!("{module}{UP}"), host::tensor(vec![0.0; outputs * rank], &[outputs, rank])?)?;
        let adapter = LowRank { down, up, settings };
        self.set_low_rank(id, adapter);
        Ok(adapter)
    }

    /// Returns the weight of a linear layer with its adapter added, `W + scale · B A`: the weight itself if it has none.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn merged_weight(&self, id: ParameterId) -> Result<Tensor> {
        match self.low_rank(id) {
            Some(LowRank { down, up, settings }) => {
                merged(&self.read(id)?, self.tensor(down), self.tensor(up), settings.scale)
            }
            None => self.read(id),
        }
    }
}

/// Adds every adapter among `tensors` to its weight, `W + scale · B A`, and removes it. Returns the adapters' tensors.
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
            // The pair is merged when its A is visited, unless A is missing.
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
