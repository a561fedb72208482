//! Files written by `torch.save`.

use crate::support::{archive, dict_of, golden, pickle, refusal, tensor, text, values};
use flowmill_weights::FaultKind::{NotFinite, NotWeights};
use flowmill_weights::{Archive, ElementType, NamingError, PickleFile, PickleValue, RawTensor, Scalar, WeightError};
use half::{bf16, f16};
use std::path::Path;

fn raw(archive: &mut Archive<'_>, name: &str) -> RawTensor {
    let index = archive.tensors.iter().position(|(own, _)| own == name).unwrap();
    archive.load(index).unwrap()
}

#[test]
fn a_checkpoint_has_the_weights_of_its_golden_file_bit_for_bit() {
    let checkpoint = flowmill_weights::read(&golden("pt/cosyvoice2_flow_full.pt")).unwrap();
    assert_eq!(checkpoint.scalars["epoch"], Scalar::Int(3));
    assert_eq!(checkpoint.scalars["step"], Scalar::Int(1200));
    let golden = flowmill_weights::read(&golden("cosyvoice2_flow_full.safetensors")).unwrap();
    let parameters: Vec<_> =
        golden.tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("param.")?, tensor))).collect();
    assert_eq!(checkpoint.tensors.len(), parameters.len());
    for (name, expected) in parameters {
        let found = &checkpoint.tensors[name];
        assert_eq!(found.dims(), expected.dims(), "{name}");
        let bits = |tensor: &candle_core::Tensor| {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(bits(found), bits(expected), "{name}");
    }
}

#[test]
fn every_element_type_and_view_is_read_as_it_is() {
    let mut archive = Archive::open(&golden("pt/dtypes_views.pt")).unwrap();
    let halves = raw(&mut archive, "half");
    assert_eq!((halves.element(), halves.shape()), (ElementType::F16, &[5][..]));
    let expected: Vec<u8> = (0..5).flat_map(|i| f16::from_f32(i as f32).to_le_bytes()).collect();
    assert_eq!(halves.data(), expected);
    let integers = raw(&mut archive, "i64");
    assert_eq!(integers.element(), ElementType::I64);
    assert_eq!(integers.to_integers().unwrap().unwrap().to_vec1::<i64>().unwrap(), [0, 1, 2, 3, 4]);
    let view = raw(&mut archive, "view");
    let transposed = [[0f32, 4.0, 8.0], [1.0, 5.0, 9.0], [2.0, 6.0, 10.0], [3.0, 7.0, 11.0]];
    assert_eq!(view.to_floats().unwrap().unwrap().to_vec2::<f32>().unwrap(), transposed);
    let first = raw(&mut archive, "decoder.estimator.down_blocks.0.0.block1.block.0.bias");
    assert_eq!(first.element(), ElementType::BF16);
    assert_eq!(raw(&mut archive, "tied"), first);
}

#[test]
fn bf16_weights_are_those_of_the_full_checkpoint_rounded() {
    let rounded = flowmill_weights::read(&golden("pt/dtypes_views.pt")).unwrap().tensors;
    let full = flowmill_weights::read(&golden("pt/cosyvoice2_flow_full.pt")).unwrap().tensors;
    let mut compared = 0;
    for (name, rounded) in rounded.iter().filter(|(name, _)| full.contains_key(*name)) {
        let values = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected: Vec<f32> = values(&full[name]).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect();
        assert_eq!(values(rounded), expected, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 6);
}

#[test]
fn plain_containers_are_read_as_values() {
    let open = |name: &str| PickleFile::open(&golden(&format!("pt/{name}"))).unwrap().value;
    for name in ["utt2embedding.pt", "spk2embedding.pt"] {
        let embeddings = open(name);
        assert!(!embeddings.as_dict().unwrap().is_empty());
        for (id, embedding) in embeddings.as_dict().unwrap() {
            assert!(id.as_text().is_some());
            assert_eq!(embedding.to_floats().unwrap().len(), 192, "{name}");
        }
    }
    let tokens = open("utt2speech_token.pt");
    let (id, first) = &tokens.as_dict().unwrap()[0];
    assert!(id.as_text().is_some() && !first.to_ints().unwrap().is_empty());
    let dual = open("utt2speech_token_dual.pt");
    let first = dual.get("1688-142285-0000").unwrap();
    assert_eq!(first.get("vq0206").unwrap().to_ints().unwrap(), [1, 2, 1030, 1031, 1032]);
    assert_eq!(first.get("vq02").unwrap().to_ints().unwrap(), [1, 2]);
    assert_eq!(first.get("vq06").unwrap().to_ints().unwrap(), [6, 7, 8]);
}

#[test]
fn a_file_of_values_is_no_weight_file_and_says_what_it_is() {
    let error = flowmill_weights::read(&golden("pt/utt2embedding.pt")).unwrap_err();
    let named = |message: &str| message.contains("list of 192 floats");
    assert!(matches!(&error, WeightError::File { kind: NotWeights, message, .. } if named(message)), "{error}");
}

#[test]
fn the_state_dict_is_found_where_scripts_keep_it() {
    let weight = tensor("FloatStorage", "0", 2, 0, &[2], &[1]);
    let inner = dict_of(&weight);
    let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for key in ["state_dict", "model_state_dict", "model", "module", "generator"] {
        let outer = [b"}(", &text("epoch")[..], b"K\x03", &text("optimizer"), b"]", &text(key), &inner, b"u"].concat();
        let file = archive(&[("a/data.pkl", &pickle(&outer)), ("a/data/0", &data)]);
        let mut found = Archive::from_bytes(&file, Path::new("x.pt")).unwrap();
        assert_eq!(found.tensors[0].0, "w");
        assert_eq!(found.scalars, [("epoch".to_owned(), Scalar::Int(3))]);
        assert_eq!(found.left_out, [("optimizer".to_owned(), "list of 0".to_owned())]);
        assert_eq!(found.load(0).unwrap().data(), data);
    }
    // A tensor next to the model, even two levels up, is not the model; a dict without tensors is not one either.
    for keys in [&["module"][..], &["net"], &["model", "state_dict"]] {
        let wrap = |inner: Vec<u8>, key: &&str| {
            let named = [text("loss"), weight.clone(), text("generator"), b"}".to_vec(), text(key), inner];
            [b"}(", &named.concat()[..], b"u"].concat()
        };
        let outer = keys.iter().rev().fold(inner.clone(), wrap);
        let file = archive(&[("a/data.pkl", &pickle(&outer)), ("a/data/0", &data)]);
        let found = Archive::from_bytes(&file, Path::new("x.pt")).unwrap();
        assert_eq!(found.tensors.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["w"], "{keys:?}");
        assert_eq!(found.entry, Some(keys.join(".")));
        assert_eq!(found.left_out[0].0, "loss", "{:?}", found.left_out);
    }
    // A state dict stays whole if it has more tensors than a part of it under a usual key.
    let outer = [b"}(", &text("a")[..], &weight, &text("b"), &weight, &text("net"), &inner, b"u"].concat();
    let file = archive(&[("a/data.pkl", &pickle(&outer)), ("a/data/0", &data)]);
    let found = Archive::from_bytes(&file, Path::new("x.pt")).unwrap();
    assert_eq!((found.tensors.len(), found.entry), (2, None));
    let nested = [b"}", &text("decoder")[..], &inner, b"s"].concat();
    let file = archive(&[("a/data.pkl", &pickle(&nested)), ("a/data/0", &data)]);
    assert_eq!(Archive::from_bytes(&file, Path::new("x.pt")).unwrap().tensors[0].0, "decoder.w");
}

/// A file with tensors of these names and one element each, all distinct.
fn named(names: &[&str]) -> Vec<u8> {
    let count = names.len() as i32;
    let item =
        |(at, name): (usize, &&str)| [text(name), tensor("FloatStorage", "0", count, at as i32, &[1], &[1])].concat();
    let items: Vec<u8> = names.iter().enumerate().flat_map(item).collect();
    let data: Vec<u8> = (0..count).flat_map(|at| (at as f32).to_le_bytes()).collect();
    archive(&[("a/data.pkl", &pickle(&[b"}(", &items[..], b"u"].concat())), ("a/data/0", &data)])
}

fn names<'a>(archive: &'a Archive<'_>) -> Vec<&'a str> {
    archive.tensors.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_prefix_selects_the_names_that_have_it() {
    let file = named(&["module.a", "module.b.c", "step"]);
    let mut archive = Archive::from_bytes(&file, Path::new("x.pt")).unwrap();
    archive.strip_prefix("module.").unwrap();
    assert_eq!(names(&archive), ["a", "b.c"]);
    assert_eq!(archive.left_out, [("step".to_owned(), "tensor F32 [1]".to_owned())]);
    let error = archive.strip_prefix("model.").unwrap_err().to_string();
    assert!(["`a`", "`model.`", "`b.`"].iter().all(|name| error.contains(name)), "{error}");
}

#[test]
fn names_are_fitted_where_one_prefix_explains_all_of_them() {
    let model = ["w", "x.w"].map(|name| (name.to_owned(), vec![1])).into();
    let fit = |file: &[&str]| {
        let bytes = named(file);
        let mut archive = Archive::from_bytes(&bytes, Path::new("x.pt")).unwrap();
        let naming = archive.fit_names(&model);
        (naming.map(|naming| naming.map(|naming| (naming.prefix, naming.wrappers))), names(&archive).join(" "))
    };
    let prefix = |prefix: &str| Ok(Some((prefix.to_owned(), vec![])));
    assert_eq!(fit(&["w", "x.w"]), (Ok(None), "w x.w".to_owned()));
    // Each name ends like another of the model's.
    assert_eq!(fit(&["x.w", "x.x.w"]), (prefix("x."), "w x.w".to_owned()));
    assert_eq!(fit(&["a.b.w", "a.b.x.w", "a.c"]), (prefix("a.b."), "w x.w".to_owned()));
    let wrapped = fit(&["w", "x.module.w"]);
    assert_eq!(wrapped, (Ok(Some((String::new(), vec!["module"]))), "w x.w".to_owned()));
    let ambiguous = |prefixes: &[&str]| Err(NamingError::Ambiguous(prefixes.iter().map(ToString::to_string).collect()));
    assert_eq!(fit(&["a.w", "a.x.w", "b.w", "b.x.w"]).0, ambiguous(&["a.", "b."]));
    assert_eq!(fit(&["w", "x.w", "x.x.w"]).0, ambiguous(&["", "x."]));
    // If nothing matches all names, their common prefix is removed if more names fit without it.
    assert_eq!(fit(&["a.w", "a.y"]), (prefix("a."), "w y".to_owned()));
    assert_eq!(fit(&["a.w", "b.y"]), (Ok(None), "a.w b.y".to_owned()));
    assert_eq!(fit(&["aw", "ax.w"]).0, Ok(None));
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    let data: Vec<u8> = [1.0f32, f32::NAN].iter().flat_map(|x| x.to_le_bytes()).collect();
    let program = pickle(&dict_of(&tensor("FloatStorage", "0", 2, 0, &[2], &[1])));
    refusal(&archive(&[("a/data.pkl", &program), ("a/data/0", &data)])).expect(NotFinite, &["`w`", "NaN", "element 1"]);
}

/// `pickle.dumps` of CPython 3.11, protocols 2 to 5, of
/// `{"a": [1, 2.5, -70000, 2**70], "b": (True, None, b"\x00\xff", "é"), 3: [[]], "s": {1}, "shared": [l, l]}` with `l = [1, 2]`.
const PLAIN: [&str; 4] = [
    "80027d71002858010000006171015d7102284b014740040000000000004a90eefeff8a0900000000000000004065580100000062710328884e635f636f646563730a656e636f64650a7104580300000000c3bf710558060000006c6174696e3171068671075271085802000000c3a9710974710a4b035d710b5d710c61580100000073710d635f5f6275696c74696e5f5f0a7365740a710e5d710f4b0161857110527111580600000073686172656471125d7113285d7114284b014b0265681465752e",
    "80037d71002858010000006171015d7102284b014740040000000000004a90eefeff8a0900000000000000004065580100000062710328884e430200ff71045802000000c3a971057471064b035d71075d7108615801000000737109636275696c74696e730a7365740a710a5d710b4b016185710c52710d5806000000736861726564710e5d710f285d7110284b014b0265681065752e",
    "80049563000000000000007d94288c0161945d94284b014740040000000000004a90eefeff8a09000000000000000040658c01629428884e430200ff948c02c3a99474944b035d945d94618c0173948f94284b01908c06736861726564945d94285d94284b014b0265680d65752e",
    "80059563000000000000007d94288c0161945d94284b014740040000000000004a90eefeff8a09000000000000000040658c01629428884e430200ff948c02c3a99474944b035d945d94618c0173948f94284b01908c06736861726564945d94285d94284b014b0265680d65752e",
];

#[test]
fn plain_pickles_of_every_protocol_are_read() {
    for hex in PLAIN {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        let value = values(&bytes).unwrap();
        let PickleValue::List(items) = value.get("a").unwrap() else { panic!("{value:?}") };
        assert_eq!(items[..3], [PickleValue::Int(1), PickleValue::Float(2.5), PickleValue::Int(-70000)]);
        assert_eq!(items[3], PickleValue::Long(Box::new(1 << 70)));
        let PickleValue::Tuple(items) = value.get("b").unwrap() else { panic!("{value:?}") };
        let (bytes, text) = (PickleValue::Bytes([0, 255][..].into()), PickleValue::Text("é".into()));
        assert_eq!(items[..], [PickleValue::Bool(true), PickleValue::None, bytes, text]);
        assert_eq!(value.get("s").unwrap(), &PickleValue::Set(vec![PickleValue::Int(1)]));
        let shared = PickleValue::Ints(vec![1, 2]);
        assert_eq!(value.get("shared").unwrap(), &PickleValue::List(vec![shared.clone(), shared]));
        let nested = (PickleValue::Int(3), PickleValue::List(vec![PickleValue::List(vec![])]));
        assert!(value.as_dict().unwrap().contains(&nested));
    }
}
