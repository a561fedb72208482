//! Names that a pickle refers to: the supported ones, and the names of all others.

use crate::ElementType;

/// The longest module or class name in a message.
const SHOWN: usize = 80;

/// Meaning of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    /// `OrderedDict`: a dictionary, empty or of pairs.
    Dict,
    /// `defaultdict`: a dictionary, created empty.
    DefaultDict,
    /// `set`, `frozenset`.
    Set,
    /// `bytearray`, `bytes`.
    Bytes,
    /// `_codecs.encode`: the form of bytes in old protocols.
    Encode,
    /// `torch.Size`: its tuple.
    Size,
    /// `torch.device`: its name.
    Device,
    /// A tensor of a storage, an offset, sizes and strides.
    Tensor,
    /// A tensor with an element type that has no storage class.
    UntypedTensor,
    /// A tensor of a kind that is not read: sparse, quantized, without elements.
    OtherTensor,
    /// A parameter or a tensor of another device: its first argument, a tensor or an array.
    Parameter,
    /// A tensor with its own attributes: a function that creates it, a class and the arguments.
    FromType,
    /// The class of a storage.
    Storage(ElementType),
    /// The storage of such a tensor: bytes.
    UntypedStorage,
    /// A `dtype`.
    Dtype(ElementType),
    /// The name of a `dtype` that is not read.
    OtherDtype(&'static str),
    /// NumPy's `dtype`.
    NumpyDtype,
    /// An empty NumPy array that `BUILD` fills.
    NumpyArray,
    /// A NumPy array of a buffer, a type, a shape and an order.
    NumpyBuffer,
    /// A NumPy scalar of a type and bytes.
    NumpyScalar,
    /// `getattr`: an attribute of a class, such as a member of an enumeration.
    Attribute,
    /// A function that creates an object of the class in its first argument.
    Maker,
    /// An unsupported class or function: it is never executed.
    Other,
}

/// The element types of PyTorch that are not read and have no storage class.
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

/// Returns the meaning of `module.name`.
pub(super) fn resolve(module: &str, name: &str) -> Global {
    match (module, name) {
        ("collections", "OrderedDict") => Global::Dict,
        ("collections", "defaultdict") => Global::DefaultDict,
        ("builtins" | "__builtin__", "set" | "frozenset") => Global::Set,
        ("builtins" | "__builtin__", "bytearray" | "bytes") => Global::Bytes,
        ("builtins" | "__builtin__", "getattr") => Global::Attribute,
        ("_codecs", "encode") => Global::Encode,
        ("copyreg" | "copy_reg", "_reconstructor" | "__newobj__" | "__newobj_ex__") => Global::Maker,
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Device,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::UntypedTensor,
        ("torch.storage", "UntypedStorage") => Global::UntypedStorage,
        (
            "torch._utils",
            "_rebuild_parameter"
            | "_rebuild_parameter_with_state"
            | "_rebuild_device_tensor_from_numpy"
            | "_rebuild_xla_tensor",
        ) => Global::Parameter,
        ("torch._tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => Global::FromType,
        ("torch._utils", name) if name.starts_with("_rebuild_") => Global::OtherTensor,
        ("numpy", "dtype") => Global::NumpyDtype,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::NumpyArray,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::NumpyScalar,
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::NumpyBuffer,
        _ => torch_type(module, name),
    }
}

/// Resolves the classes of storages and the element types.
fn torch_type(module: &str, name: &str) -> Global {
    if !matches!(module, "torch" | "torch.cuda" | "torch.storage") {
        return Global::Other;
    }
    let other = OTHER_DTYPES.into_iter().find(|dtype| module == "torch" && *dtype == name);
    let storage = ElementType::from_torch_storage(name).map(Global::Storage);
    let dtype = storage.or_else(|| ElementType::from_torch_dtype(name).map(Global::Dtype));
    dtype.or(other.map(Global::OtherDtype)).unwrap_or(Global::Other)
}

/// Formats a name for a message: short, and without control characters.
pub(super) fn shown(module: &str, name: &str) -> String {
    let short = |text: &str| text.chars().take(SHOWN).collect::<String>().replace(char::is_control, "?");
    format!("{}.{}", short(module), short(name))
}
