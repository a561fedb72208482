//! Adapters in the form in which the public trainer's configuration has them.

use flowmill_family::{KeyError, LoraConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The linear layers that the public trainer adapts: attention without the keys, and the feed-forward layers.
pub const LAYERS: [&str; 4] = ["*.self_attn.q_proj", "*.self_attn.v_proj", "*.self_attn.o_proj", "*.mlp.*"];
/// The public trainer's dropout on the inputs of adapters.
const DROPOUT: f64 = 0.1;

/// An adapter, as in the list `loras` of the public trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NamedLora {
    /// A name of your choice.
    pub name: String,
    /// Rank of the adapters.
    pub rank: usize,
    /// Factor on the adapters' product, divided by the rank.
    pub alpha: f64,
    /// Trains this adapter; one at most.
    pub training: bool,
    /// An adapter to continue from, as in `train.lora.init_from`.
    pub path: Option<String>,
}

impl Default for NamedLora {
    fn default() -> Self {
        Self { name: "lora".to_owned(), rank: 128, alpha: 128.0, training: true, path: None }
    }
}

/// Returns the adapter of the list that is trained, as `train.lora` would describe it.
///
/// # Errors
/// Returns the key of a second one, or of one that cannot be used.
pub fn trained(loras: &[NamedLora]) -> Result<Option<LoraConfig>, KeyError> {
    let wrong = |at: usize, key: &str, reason: String| Err(KeyError::new(format!("train.loras[{at}].{key}"), reason));
    let mut trained = loras.iter().enumerate().filter(|(_, lora)| lora.training);
    let Some((at, lora)) = trained.next() else { return Ok(None) };
    if let Some((second, _)) = trained.next() {
        return wrong(second, "training", format!("only one adapter can be trained, and loras[{at}] is"));
    }
    if lora.rank == 0 {
        return wrong(at, "rank", "must be at least 1".to_owned());
    }
    if !(lora.alpha > 0.0 && lora.alpha.is_finite()) {
        return wrong(at, "alpha", format!("{} is not a positive number", lora.alpha));
    }
    let (rank, alpha, init_from) = (lora.rank, lora.alpha, lora.path.clone());
    Ok(Some(LoraConfig { rank, alpha, dropout: DROPOUT, targets: LAYERS.map(str::to_owned).to_vec(), init_from }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_adapter_that_is_trained_counts() {
        let lora = |rank, training| NamedLora { rank, training, ..NamedLora::default() };
        assert_eq!(trained(&[]).unwrap(), None);
        assert_eq!(trained(&[lora(4, false)]).unwrap(), None);
        let chosen = trained(&[lora(4, false), lora(8, true)]).unwrap().unwrap();
        assert_eq!((chosen.rank, chosen.alpha, chosen.targets.len()), (8, 128.0, 4));
        let key = |loras: &[NamedLora]| trained(loras).unwrap_err().key;
        assert_eq!(key(&[lora(4, true), lora(8, true)]), "train.loras[1].training");
        assert_eq!(key(&[lora(0, true)]), "train.loras[0].rank");
        assert_eq!(key(&[NamedLora { alpha: -1.0, ..NamedLora::default() }]), "train.loras[0].alpha");
    }
}
