//! The names that a pickle may ask for.

use crate::weights::{ElementType, Parsed};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `OrderedDict`: a dictionary, empty or of pairs.
    Dict,
    /// `set`, `frozenset`.
    Set,
    /// `bytearray`, `bytes`.
    Bytes,
    /// `_codecs.encode`: how old protocols write bytes.
    Encode,
    /// `torch.Size`: its tuple.
    Size,
    /// `torch.device`: its name.
    Device,
    /// A tensor of a storage, an offset, sizes and strides.
    Tensor,
    /// A tensor of an element type that storages have no class for.
    UntypedTensor,
    /// A parameter: its tensor.
    Parameter,
    /// The class of a storage.
    Storage(ElementType),
    /// The storage of such a tensor: bytes.
    UntypedStorage,
    /// A `dtype`.
    Dtype(ElementType),
    /// The name of a `dtype` that is not read.
    OtherDtype(&'static str),
}

/// The element types of PyTorch that are not read and have no class of storages.
const OTHER_DTYPES: [&str; 11] = [
    "uint16",
    "uint32",
    "uint64",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
    "float4_e2m1fn_x2",
    "complex32",
    "complex64",
];

/// What `module.name` stands for.
///
/// # Errors
/// Names that are neither tensors nor containers nor scalars.
pub(super) fn resolve(module: &str, name: &str) -> Parsed<Global> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::Dict,
        ("builtins" | "__builtin__", "set" | "frozenset") => Global::Set,
        ("builtins" | "__builtin__", "bytearray" | "bytes") => Global::Bytes,
        ("_codecs", "encode") => Global::Encode,
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Device,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::UntypedTensor,
        ("torch.storage", "UntypedStorage") => Global::UntypedStorage,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
        _ => return torch_type(module, name),
    })
}

/// The classes of storages and the element types.
fn torch_type(module: &str, name: &str) -> Parsed<Global> {
    let other = OTHER_DTYPES.into_iter().find(|dtype| module == "torch" && *dtype == name);
    if let Some(dtype) = other {
        return Ok(Global::OtherDtype(dtype));
    }
    let in_torch = matches!(module, "torch" | "torch.cuda" | "torch.storage");
    let storage = ElementType::from_torch_storage(name).map(Global::Storage);
    match storage.or_else(|| ElementType::from_torch_dtype(name).map(Global::Dtype)) {
        Some(global) if in_torch => Ok(global),
        _ if in_torch && name.ends_with("Storage") => {
            Err(format!("its tensors of `{}` have an element type that is not supported", shown(module, name)))
        }
        _ => Err(format!(
            "it asks for `{}`, which is neither a tensor nor a plain container nor a scalar; files are read, never executed. {}",
            shown(module, name),
            advice(module, name)
        )),
    }
}

/// What to save instead.
fn advice(module: &str, name: &str) -> &'static str {
    match (module.split('.').next(), name) {
        (Some("numpy"), _) => "Save tensors, or lists made by `.tolist()`, instead of NumPy values",
        (Some("collections"), _) => "Save a plain dictionary, `dict(values)`",
        _ => {
            "Of a model save the `state_dict()` alone, with torch.save; of other values, dictionaries of lists, tensors, numbers and text"
        }
    }
}

/// A name for a message: short, and without control characters.
fn shown(module: &str, name: &str) -> String {
    let short = |text: &str| text.chars().take(80).collect::<String>().replace(char::is_control, "?");
    format!("{}.{}", short(module), short(name))
}
