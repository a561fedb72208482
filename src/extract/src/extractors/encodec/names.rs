//! The names of the weights.

use std::collections::BTreeMap;

use candle_core::Tensor;

/// Parts of Meta's names and those that Hugging Face has instead.
const PARTS: [(&str, &str); 6] = [
    ("encoder.model.", "encoder.layers."),
    ("decoder.model.", "decoder.layers."),
    (".conv.conv.", ".conv."),
    (".convtr.convtr.", ".conv."),
    ("quantizer.vq.layers.", "quantizer.layers."),
    ("._codebook.", ".codebook."),
];

/// Returns the tensors under the names of Hugging Face.
pub(super) fn unified(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let rename = |name: String| PARTS.iter().fold(name, |name, (meta, public)| name.replace(meta, public));
    tensors.into_iter().map(|(name, tensor)| (rename(name), tensor)).collect()
}

/// Removes tensors without a part in the computation: the levels beyond the first ones, and the statistics of training.
pub(super) fn drop_unused(tensors: &mut BTreeMap<String, Tensor>, levels: usize) {
    tensors.retain(|name, _| {
        let Some((level, part)) = name.strip_prefix("quantizer.layers.").and_then(|rest| rest.split_once('.')) else {
            return true;
        };
        let is_used = level.parse::<usize>().is_ok_and(|level| level < levels);
        is_used && !matches!(part, "codebook.inited" | "codebook.cluster_size" | "codebook.embed_avg")
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::host;

    #[test]
    fn names_of_meta_become_those_of_hugging_face() {
        for (meta, public) in [
            ("encoder.model.0.conv.conv.weight_g", "encoder.layers.0.conv.weight_g"),
            ("encoder.model.1.block.3.conv.conv.bias", "encoder.layers.1.block.3.conv.bias"),
            ("encoder.model.1.shortcut.conv.conv.weight_v", "encoder.layers.1.shortcut.conv.weight_v"),
            ("encoder.model.13.lstm.bias_hh_l1", "encoder.layers.13.lstm.bias_hh_l1"),
            ("decoder.model.3.convtr.convtr.weight_v", "decoder.layers.3.conv.weight_v"),
            ("quantizer.vq.layers.7._codebook.embed", "quantizer.layers.7.codebook.embed"),
        ] {
            let tensor = host::tensor(vec![0.0], &[1]).unwrap();
            for name in [meta, public] {
                let renamed = unified(BTreeMap::from([(name.to_owned(), tensor.clone())]));
                assert_eq!(renamed.keys().next().unwrap(), public);
            }
        }
    }
}
