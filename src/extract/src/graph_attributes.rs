//! Attributes of the operations of an exported graph.
//!
//! The networks of the front-ends are fixed: an attribute of an operation is either read (an epsilon), or must be what the network does
//! (strides, pads, axes …). An attribute that says something else, or that is not known, is an error.

use flowmill_weights::{OnnxAttribute, OnnxNode};

use crate::UnusableWeights;

type Result<T> = std::result::Result<T, UnusableWeights>;

/// The epsilon of normalizations that do not say one.
const EPSILON: f32 = 1e-5;

/// The attributes of a node, every one of which is known.
pub(super) struct Attributes<'a> {
    node: &'a OnnxNode,
}

impl<'a> Attributes<'a> {
    /// Fails if the node has an attribute that is not among the `known` ones, or one of them twice.
    pub(super) fn of(node: &'a OnnxNode, known: &[&str]) -> Result<Self> {
        let attributes = Self { node };
        for (index, (name, _)) in node.attributes.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(attributes.wrong(name, "is not understood"));
            }
            if node.attributes[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(attributes.wrong(name, "is given twice"));
            }
        }
        Ok(attributes)
    }

    /// An error about one attribute.
    pub(super) fn wrong(&self, attribute: &str, problem: &str) -> UnusableWeights {
        let OnnxNode { name, op_type, outputs, .. } = self.node;
        let name = if name.is_empty() { outputs.concat() } else { name.clone() };
        UnusableWeights(format!("`{name}` ({op_type}): its `{attribute}` {problem}"))
    }

    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64> {
        match self.node.attribute(name) {
            None => Ok(default),
            Some(OnnxAttribute::Int(value)) => Ok(*value),
            Some(_) => Err(self.wrong(name, "is no integer")),
        }
    }

    pub(super) fn ints(&self, name: &str) -> Result<Option<&'a [i64]>> {
        match self.node.attribute(name) {
            None => Ok(None),
            Some(OnnxAttribute::Ints(values)) => Ok(Some(values)),
            Some(_) => Err(self.wrong(name, "is no list of integers")),
        }
    }

    pub(super) fn float(&self, name: &str, default: f32) -> Result<f32> {
        match self.node.attribute(name) {
            None => Ok(default),
            Some(OnnxAttribute::Float(value)) => Ok(*value),
            Some(_) => Err(self.wrong(name, "is no number")),
        }
    }

    pub(super) fn text(&self, name: &str, default: &'static str) -> Result<std::borrow::Cow<'a, str>> {
        match self.node.attribute(name) {
            None => Ok(default.into()),
            Some(OnnxAttribute::Bytes(bytes)) => Ok(String::from_utf8_lossy(bytes)),
            Some(_) => Err(self.wrong(name, "is no text")),
        }
    }

    /// Fails unless an integer attribute is one of `allowed`.
    pub(super) fn expect_int(&self, name: &str, default: i64, allowed: &[i64]) -> Result<()> {
        let found = self.int(name, default)?;
        if allowed.contains(&found) { Ok(()) } else { Err(self.contradicts(name, &found, &allowed[0])) }
    }

    /// Fails unless a list of integers is the expected one; a missing list is `default`.
    pub(super) fn expect_ints(&self, name: &str, default: &[i64], expected: &[i64]) -> Result<()> {
        let found = self.ints(name)?.unwrap_or(default);
        if found == expected {
            Ok(())
        } else {
            Err(self.contradicts(name, &format!("{found:?}"), &format!("{expected:?}")))
        }
    }

    pub(super) fn contradicts(
        &self,
        name: &str,
        found: &dyn std::fmt::Display,
        expected: &dyn std::fmt::Display,
    ) -> UnusableWeights {
        self.wrong(name, &format!("is {found}, this network has {expected} there"))
    }

    /// An epsilon, which must be a small positive number.
    fn epsilon(&self) -> Result<f32> {
        let epsilon = self.float("epsilon", EPSILON)?;
        let usable = epsilon.is_finite() && epsilon >= 0.0;
        if usable { Ok(epsilon) } else { Err(self.wrong("epsilon", &format!("is {epsilon}"))) }
    }
}

/// The geometry of a convolution: strides, padding at either end, and dilations by axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry<'a> {
    pub(super) kernel: &'a [i64],
    pub(super) strides: &'a [i64],
    /// Padding by axis, the same at both ends.
    pub(super) padding: &'a [i64],
    pub(super) dilations: &'a [i64],
    pub(super) group: i64,
}

/// Fails unless a `Conv` has this geometry. An operation in front of it may do the padding: then `pads` are 0, and false is returned.
pub(super) fn expect_convolution(node: &OnnxNode, expected: &Geometry) -> Result<bool> {
    let known = ["kernel_shape", "strides", "pads", "dilations", "group", "auto_pad"];
    let attributes = Attributes::of(node, &known)?;
    let axes = expected.kernel.len();
    attributes.expect_ints("kernel_shape", expected.kernel, expected.kernel)?;
    attributes.expect_ints("strides", &vec![1; axes], expected.strides)?;
    attributes.expect_ints("dilations", &vec![1; axes], expected.dilations)?;
    attributes.expect_int("group", 1, &[expected.group])?;
    let both_ends = [expected.padding, expected.padding].concat();
    let none = vec![0; 2 * axes];
    let pads = attributes.ints("pads")?.unwrap_or(&none);
    match &*attributes.text("auto_pad", "NOTSET")? {
        "NOTSET" | "" => {}
        // The output is as long as the input: what these say of an odd kernel that moves by one.
        "SAME_UPPER" | "SAME_LOWER" if expected.strides.iter().all(|stride| *stride == 1) => return Ok(true),
        "VALID" if pads.iter().all(|pad| *pad == 0) => {}
        other => return Err(attributes.contradicts("auto_pad", &other, &format!("pads {both_ends:?}"))),
    }
    if pads == both_ends {
        return Ok(true);
    }
    if pads.iter().all(|pad| *pad == 0) {
        return Ok(false);
    }
    Err(attributes.contradicts("pads", &format!("{pads:?}"), &format!("{both_ends:?}")))
}

/// The epsilon of a `LayerNormalization` over the last of three axes.
pub(super) fn layer_norm_epsilon(node: &OnnxNode) -> Result<f32> {
    let attributes = Attributes::of(node, &["axis", "epsilon", "stash_type"])?;
    attributes.expect_int("axis", -1, &[-1, 2])?;
    attributes.expect_int("stash_type", 1, &[1])?;
    attributes.epsilon()
}

/// The epsilon of a `BatchNormalization` in evaluation mode.
pub(super) fn batch_norm_epsilon(node: &OnnxNode) -> Result<f32> {
    // The momentum is for training.
    let known = ["epsilon", "momentum", "training_mode", "spatial", "is_test"];
    let attributes = Attributes::of(node, &known)?;
    attributes.expect_int("training_mode", 0, &[0])?;
    attributes.expect_int("is_test", 1, &[1])?;
    attributes.expect_int("spatial", 1, &[1])?;
    attributes.epsilon()
}

/// The attributes of a `Gemm`, which computes `alpha * a * b + beta * c`.
pub(super) struct Gemm {
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) transposed_b: bool,
}

/// The attributes of a `Gemm` whose first factor are rows.
pub(super) fn gemm(node: &OnnxNode) -> Result<Gemm> {
    let attributes = Attributes::of(node, &["alpha", "beta", "transA", "transB"])?;
    attributes.expect_int("transA", 0, &[0])?;
    attributes.expect_int("transB", 0, &[0, 1])?;
    Ok(Gemm {
        alpha: attributes.float("alpha", 1.0)?,
        beta: attributes.float("beta", 1.0)?,
        transposed_b: attributes.int("transB", 0)? != 0,
    })
}

/// Fails unless a reduction goes over the last of three axes, given as an attribute or (since operator set 18) as an input, and keeps it
/// if `keeps` says so.
pub(super) fn expect_over_last(node: &OnnxNode, axes_input: Option<&[f64]>, keeps: &[i64]) -> Result<()> {
    let attributes = Attributes::of(node, &["axes", "keepdims", "noop_with_empty_axes"])?;
    attributes.expect_int("keepdims", 1, keeps)?;
    let axes: Vec<i64> = match (attributes.ints("axes")?, axes_input) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => axes.iter().map(|axis| *axis as i64).collect(),
        (None, None) => return Err(attributes.wrong("axes", "is missing or computed; this network has -1 there")),
    };
    if axes == [-1] || axes == [2] { Ok(()) } else { Err(attributes.contradicts("axes", &format!("{axes:?}"), &-1)) }
}

/// Fails unless a `Pad` puts `zeros` zeros at both ends of the last of three axes; `pads` and `value` are its inputs where stored.
pub(super) fn expect_zeros(node: &OnnxNode, zeros: i64, pads: Option<&[f64]>, value: Option<&[f64]>) -> Result<()> {
    let attributes = Attributes::of(node, &["mode", "pads", "value"])?;
    let mode = attributes.text("mode", "constant")?;
    if mode != "constant" {
        return Err(attributes.contradicts("mode", &mode, &"constant"));
    }
    let value = value.map_or_else(|| attributes.float("value", 0.0).map(f64::from), |value| Ok(value.iter().sum()))?;
    if value != 0.0 {
        return Err(attributes.contradicts("value", &value, &0));
    }
    let expected = [0, 0, zeros, 0, 0, zeros];
    let stored = pads.map(|pads| pads.iter().map(|pad| *pad as i64).collect::<Vec<_>>());
    match stored.as_deref().or(attributes.ints("pads")?) {
        Some(found) if found != expected => {
            Err(attributes.contradicts("pads", &format!("{found:?}"), &format!("{expected:?}")))
        }
        // Exporters may compute them from the rank of the input.
        _ => Ok(()),
    }
}

/// Fails unless the length of vectors is taken, not of all numbers or of a column: their axis is the last of two or three.
pub(super) fn expect_norm_of_vectors(node: &OnnxNode, axes_input: Option<&[f64]>) -> Result<()> {
    let attributes = Attributes::of(node, &["axes", "keepdims", "noop_with_empty_axes"])?;
    let stored = axes_input.map(|axes| axes.iter().map(|axis| *axis as i64).collect::<Vec<_>>());
    match attributes.ints("axes")?.or(stored.as_deref()) {
        Some([-1 | 1 | 2]) => Ok(()),
        Some(axes) => Err(attributes.contradicts("axes", &format!("{axes:?}"), &-1)),
        // Exporters may compute them.
        None if node.inputs.len() > 1 => Ok(()),
        None => Err(attributes.contradicts("axes", &"missing", &-1)),
    }
}

/// Operations that have no attributes in any version of the standard after 6.
const WITHOUT_ATTRIBUTES: [&str; 33] = [
    "Abs",
    "Add",
    "And",
    "Cos",
    "Div",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Floor",
    "Greater",
    "Identity",
    "Less",
    "Log",
    "MatMul",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Range",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sqrt",
    "Sub",
    "Tanh",
    "Where",
];

/// The attributes of operations that have some, of all versions of the standard; what is checked elsewhere is not here.
const WITH_ATTRIBUTES: [(&str, &[&str]); 11] = [
    ("Cast", &["to", "saturate", "round_mode"]),
    ("Clip", &["min", "max"]),
    ("Concat", &["axis"]),
    ("ConstantOfShape", &["value"]),
    ("Gather", &["axis"]),
    ("Reshape", &["allowzero"]),
    ("Shape", &["start", "end"]),
    ("Slice", &["axes", "starts", "ends"]),
    ("Squeeze", &["axes"]),
    ("Transpose", &["perm"]),
    ("Unsqueeze", &["axes"]),
];

/// Fails if an operation has an attribute that the standard does not know of it, or one of them twice. What the network makes of the
/// others is not asked here.
pub(super) fn expect_standard(node: &OnnxNode) -> Result<()> {
    let op_type = node.op_type.as_str();
    let known = match WITH_ATTRIBUTES.iter().find(|(name, _)| *name == op_type) {
        Some((_, known)) => *known,
        None if WITHOUT_ATTRIBUTES.contains(&op_type) => &[],
        None => return Ok(()),
    };
    Attributes::of(node, known).map(drop)
}

/// Checks an operation without weights that this kind of network uses in one way only.
pub(super) fn expect_usual(node: &OnnxNode) -> Result<()> {
    match node.op_type.as_str() {
        // Over keys: the last of four axes.
        "Softmax" => Attributes::of(node, &["axis"])?.expect_int("axis", -1, &[-1, 3]),
        "Gelu" => {
            let attributes = Attributes::of(node, &["approximate"])?;
            match &*attributes.text("approximate", "none")? {
                "none" => Ok(()),
                other => Err(attributes.contradicts("approximate", &other, &"none")),
            }
        }
        "ArgMax" => {
            let attributes = Attributes::of(node, &["axis", "keepdims", "select_last_index"])?;
            attributes.expect_int("select_last_index", 0, &[0])?;
            attributes.expect_int("axis", 0, &[-1, 2, 1])
        }
        "LpNormalization" => {
            let attributes = Attributes::of(node, &["axis", "p"])?;
            attributes.expect_int("p", 2, &[2])?;
            attributes.expect_int("axis", -1, &[-1, 2])
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op_type: &str, attributes: &[(&str, OnnxAttribute)]) -> OnnxNode {
        OnnxNode {
            op_type: op_type.to_owned(),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            ..OnnxNode::default()
        }
    }

    use OnnxAttribute::{Bytes, Float, Int, Ints};

    #[test]
    fn epsilons_are_read_and_default_to_those_of_the_standard() {
        assert_eq!(layer_norm_epsilon(&node("LayerNormalization", &[])).unwrap(), 1e-5);
        let given = node("LayerNormalization", &[("epsilon", Float(1e-2)), ("axis", Int(2))]);
        assert_eq!(layer_norm_epsilon(&given).unwrap(), 1e-2);
        let trained = node("BatchNormalization", &[("epsilon", Float(1e-3)), ("momentum", Float(0.5))]);
        assert_eq!(batch_norm_epsilon(&trained).unwrap(), 1e-3);
        for attribute in [
            ("axis", Int(1)),
            ("epsilon", Int(1)),
            ("epsilon", Float(f32::NAN)),
            ("stash_type", Int(10)),
            ("eps", Float(1e-5)),
        ] {
            assert!(layer_norm_epsilon(&node("LayerNormalization", &[attribute])).is_err());
        }
        assert!(batch_norm_epsilon(&node("BatchNormalization", &[("training_mode", Int(1))])).is_err());
        let twice = node("LayerNormalization", &[("epsilon", Float(1e-5)), ("epsilon", Float(1e-6))]);
        assert!(layer_norm_epsilon(&twice).is_err());
    }

    #[test]
    fn a_convolution_is_the_networks_or_refused() {
        let geometry = Geometry { kernel: &[3], strides: &[2], padding: &[1], dilations: &[1], group: 1 };
        let usual = [("strides", Ints(vec![2])), ("pads", Ints(vec![1, 1]))];
        assert!(expect_convolution(&node("Conv", &usual), &geometry).unwrap());
        let bare = node("Conv", &[("strides", Ints(vec![2]))]);
        assert!(!expect_convolution(&bare, &geometry).unwrap(), "its padding comes from elsewhere");
        for other in [
            ("strides", Ints(vec![1])),
            ("pads", Ints(vec![2, 0])),
            ("dilations", Ints(vec![2])),
            ("group", Int(2)),
            ("kernel_shape", Ints(vec![5])),
            ("auto_pad", Bytes(b"SAME_UPPER".to_vec())),
            ("activation", Bytes(b"Relu".to_vec())),
        ] {
            let mut attributes = usual.to_vec();
            attributes.retain(|(name, _)| *name != other.0);
            attributes.push(other.clone());
            assert!(expect_convolution(&node("Conv", &attributes), &geometry).is_err(), "{other:?}");
        }
    }

    #[test]
    fn attributes_that_the_standard_does_not_know_are_refused() {
        for (op_type, attribute, known) in [
            ("Div", ("epsilon", Float(1e-5)), false),
            ("MatMul", ("transB", Int(1)), false),
            ("Transpose", ("perm", Ints(vec![0, 2, 1])), true),
            ("Transpose", ("axes", Ints(vec![0, 2, 1])), false),
            ("Reshape", ("allowzero", Int(0)), true),
            ("Unknown", ("anything", Int(0)), true),
        ] {
            let node = node(op_type, std::slice::from_ref(&attribute));
            assert_eq!(expect_standard(&node).is_ok(), known, "{op_type} {attribute:?}");
        }
    }

    #[test]
    fn the_norm_of_vectors_goes_over_their_elements() {
        let norm = |axes: &[i64]| node("ReduceL2", &[("axes", Ints(axes.to_vec()))]);
        assert!([-1, 1, 2].iter().all(|axis| expect_norm_of_vectors(&norm(&[*axis]), None).is_ok()));
        assert!([&[0][..], &[-2], &[0, 1], &[]].iter().all(|axes| expect_norm_of_vectors(&norm(axes), None).is_err()));
        assert!(expect_norm_of_vectors(&node("ReduceL2", &[]), Some(&[-1.0])).is_ok());
        assert!(expect_norm_of_vectors(&node("ReduceL2", &[]), Some(&[0.0])).is_err());
        assert!(expect_norm_of_vectors(&node("ReduceL2", &[]), None).is_err(), "over all numbers");
    }

    #[test]
    fn reductions_and_products_say_what_they_do() {
        let gemm_of = |attributes: &[(&str, OnnxAttribute)]| gemm(&node("Gemm", attributes));
        let scaled = gemm_of(&[("alpha", Float(0.5)), ("transB", Int(1))]).unwrap();
        assert_eq!((scaled.alpha, scaled.beta, scaled.transposed_b), (0.5, 1.0, true));
        assert!(gemm_of(&[("transA", Int(1))]).is_err());
        let mean = |attributes: &[(&str, OnnxAttribute)]| node("ReduceMean", attributes);
        assert!(expect_over_last(&mean(&[("axes", Ints(vec![-1]))]), None, &[1]).is_ok());
        assert!(expect_over_last(&mean(&[]), Some(&[2.0]), &[1]).is_ok());
        assert!(expect_over_last(&mean(&[("axes", Ints(vec![1]))]), None, &[1]).is_err());
        assert!(expect_over_last(&mean(&[("axes", Ints(vec![-1])), ("keepdims", Int(0))]), None, &[1]).is_err());
        assert!(expect_usual(&node("Softmax", &[("axis", Int(1))])).is_err());
        assert!(expect_usual(&node("Gelu", &[("approximate", Bytes(b"tanh".to_vec()))])).is_err());
        assert!(expect_zeros(&node("Pad", &[]), 15, Some(&[0.0, 0.0, 15.0, 0.0, 0.0, 15.0]), None).is_ok());
        assert!(expect_zeros(&node("Pad", &[]), 15, Some(&[0.0, 0.0, 30.0, 0.0, 0.0, 0.0]), None).is_err());
        let reflected = node("Pad", &[("mode", Bytes(b"reflect".to_vec()))]);
        assert!(expect_zeros(&reflected, 15, None, None).is_err());
    }
}
