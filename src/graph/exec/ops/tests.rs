//! Every operator gives what ONNX Runtime gives (scripts/make_exec_references.py).

use super::{Call, Fault, Mode, find, guarded, operators};
use crate::graph::exec::budget::Budget;
use crate::graph::exec::tensor;
use crate::graph::formats::Limits;
use crate::graph::{Attribute, Node, Weight};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const CASES: &str = include_str!("../../../../tests/data/exec/operators.json");

fn weight(value: &Value) -> Weight {
    let shape: Vec<usize> = serde_json::from_value(value["shape"].clone()).expect("shape");
    let values = value["values"].as_array().expect("values").iter();
    match value["kind"].as_str() {
        Some("f32") => {
            let values: Vec<f32> = values.map(|v| v.as_f64().expect("f32") as f32).collect();
            Weight::from_f32(&shape, &values)
        }
        Some("u8" | "i8") => {
            let values = values.map(|v| v.as_i64().expect("an integer") as u8).collect::<Vec<_>>();
            let signed = value["kind"] == "i8";
            let dtype = if signed { safetensors::Dtype::I8 } else { safetensors::Dtype::U8 };
            Weight { dtype, shape, bytes: Arc::new(values) }
        }
        Some("i64") => {
            let values: Vec<i64> = values.map(|v| v.as_i64().expect("i64")).collect();
            Weight::from_i64(&shape, &values)
        }
        _ => {
            let bytes: Vec<u8> = values.map(|v| u8::from(v.as_bool() == Some(true))).collect();
            Weight { dtype: safetensors::Dtype::BOOL, shape, bytes: Arc::new(bytes) }
        }
    }
}

fn attribute(value: &Value) -> Attribute {
    match value {
        Value::String(text) => Attribute::String(text.clone().into_bytes()),
        Value::Array(list) => {
            Attribute::Ints(list.iter().map(|v| v.as_i64().expect("int")).collect())
        }
        Value::Object(_) => Attribute::Tensor(weight(value)),
        number => match number.as_i64() {
            Some(int) => Attribute::Int(int),
            None => Attribute::Float(number.as_f64().expect("number") as f32),
        },
    }
}

fn node(op: &str, outputs: usize, attributes: BTreeMap<String, Attribute>) -> Node {
    Node {
        name: String::new(),
        op: op.to_string(),
        domain: String::new(),
        inputs: Vec::new(),
        outputs: (0..outputs).map(|index| format!("y{index}")).collect(),
        attributes,
    }
}

/// Largest difference, relative to values above 1; infinite where shapes differ.
fn difference(found: &Tensor, expected: &Value) -> f64 {
    let shape: Vec<i64> = serde_json::from_value(expected["shape"].clone()).expect("shape");
    if found.size() != shape {
        return f64::INFINITY;
    }
    let found = tensor::to_f32(found).expect("values");
    let expected = tensor::from_weight(&weight(expected), Device::Cpu).expect("expected");
    let expected = tensor::to_f32(&expected).expect("values");
    let pairs = found.iter().zip(&expected);
    let apart = |(a, b): (&f32, &f32)| match (a.is_nan(), b.is_nan()) {
        (true, true) => 0.0,
        (false, false) if a == b => 0.0,
        (false, false) => f64::from((a - b).abs() / b.abs().max(1.0)),
        _ => f64::INFINITY,
    };
    pairs.map(apart).fold(0.0, f64::max)
}

#[test]
fn operators_agree_with_onnx_runtime() {
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("cases");
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let op = case["op"].as_str().expect("op");
        let attributes = case["attributes"].as_object().expect("attributes");
        let attributes = attributes.iter().map(|(name, v)| (name.clone(), attribute(v))).collect();
        let expected = case["outputs"].as_array().expect("outputs");
        let node = node(op, expected.len(), attributes);
        let inputs = case["inputs"].as_array().expect("inputs").iter();
        let inputs: Vec<Option<Tensor>> = inputs
            .map(|v| {
                (!v.is_null()).then(|| tensor::from_weight(&weight(v), Device::Cpu).expect("x"))
            })
            .collect();
        let call = Call {
            node: &node,
            opset: case["opset"].as_i64().expect("opset"),
            inputs: inputs.iter().map(Option::as_ref).collect(),
            mode: &Mode::Inference,
            batch: 1,
            constant: false,
            bodies: &[],
            unsigned: None,
            budget: &Budget::new(&Limits::default()),
        };
        let domain = case["domain"].as_str().unwrap_or_default();
        let run = find(domain, op).unwrap_or_else(|| panic!("{op} is missing"));
        match run(&call) {
            Err(fault) => wrong.push(format!("case {index} {op}: {fault:?}")),
            Ok(found) if found.len() < expected.len() => {
                wrong.push(format!("case {index} {op}: {} outputs", found.len()));
            }
            Ok(found) => {
                for (found, expected) in found.iter().zip(expected) {
                    let difference = difference(found, expected);
                    if difference.is_nan() || difference > 2e-5 {
                        let size = found.size();
                        wrong.push(format!("case {index} {op}: off by {difference}, {size:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let covered: BTreeSet<&str> = cases.iter().filter_map(|case| case["op"].as_str()).collect();
    let page = include_str!("../../../../docs/OPERATORS.md");
    // The corpus of the ONNX project covers the others.
    let passes = |op: &str| {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {op} | yes | ")));
        row.is_some_and(|row| !row.starts_with("0 "))
    };
    // The reader turns constants into weights; the LSTM is in a published network.
    let free = ["Constant", "DynamicQuantizeLSTM"];
    let names = operators().map(|(_, name)| name).filter(|name| !free.contains(name));
    let missing: Vec<&str> = names.filter(|op| !covered.contains(op) && !passes(op)).collect();
    assert!(missing.is_empty(), "operators without a test: {missing:?}");
}

#[test]
fn the_tables_are_sorted_so_that_search_finds_every_row() {
    for (domain, op) in operators() {
        assert!(find(domain, op).is_some(), "{domain} {op}");
    }
    assert!(find("com.microsoft", "Relu").is_none());
    assert!(find("", "NoSuchOperator").is_none());
}

#[test]
fn hostile_attributes_give_errors() {
    let ints = |list: &[i64]| Attribute::Ints(list.to_vec());
    let shape = Weight::from_i64(&[2], &[i64::MAX, i64::MAX]);
    let shape = tensor::from_weight(&shape, Device::Cpu).expect("shape");
    let x = Tensor::ones([1, 2, 4, 4], (tch::Kind::Float, Device::Cpu));
    let kernel = Tensor::ones([2, 2, 3, 3], (tch::Kind::Float, Device::Cpu));
    type Hostile<'a> = (&'a str, &'a [(&'a str, Attribute)], Vec<&'a Tensor>);
    let cases: [Hostile<'_>; 10] = [
        ("Conv", &[("strides", ints(&[0, 1]))], vec![&x, &kernel]),
        ("Conv", &[("pads", ints(&[1]))], vec![&x, &kernel]),
        ("Conv", &[("dilations", ints(&[i64::MAX, 1]))], vec![&x, &kernel]),
        ("MaxPool", &[], vec![&x]),
        ("AveragePool", &[("kernel_shape", ints(&[9, 9]))], vec![&x]),
        ("ConstantOfShape", &[], vec![&shape]),
        ("Expand", &[], vec![&x, &shape]),
        ("Gather", &[], vec![&x, &shape]),
        ("Transpose", &[("perm", ints(&[0, 0, 1, 2]))], vec![&x]),
        ("Softmax", &[("axis", Attribute::Int(i64::MIN))], vec![&x]),
    ];
    for (op, attributes, inputs) in cases {
        let attributes = attributes.iter().map(|(name, v)| ((*name).to_string(), v.clone()));
        let node = node(op, 1, attributes.collect());
        let inputs = inputs.into_iter().map(Some).collect();
        let budget = Budget::new(&Limits::default());
        let call = Call {
            node: &node,
            opset: 17,
            inputs,
            mode: &Mode::Inference,
            batch: 1,
            constant: false,
            bodies: &[],
            unsigned: None,
            budget: &budget,
        };
        let run = find("", op).expect("a known operator");
        assert!(run(&call).is_err(), "{op} {:?}", node.attributes);
    }
}

#[test]
fn integer_sums_are_exact_however_many_there_are() {
    let full = |shape: &[i64]| Tensor::full(shape, 255, (Kind::Uint8, Device::Cpu));
    let cases = [
        ("MatMulInteger", 1, full(&[1, 8195]), full(&[8195, 2]), 8195),
        ("ConvInteger", 1, full(&[1, 300, 3, 3]), full(&[2, 300, 3, 3]), 2700),
        ("ConvInteger", 2, full(&[1, 600, 3, 3]), full(&[2, 300, 3, 3]), 2700),
        ("ConvInteger", 1, full(&[1, 2, 17, 17]), full(&[2, 2, 17, 17]), 578),
    ];
    for (op, group, a, b, products) in cases {
        let budget = Budget::new(&Limits::default());
        let call = Call {
            node: &node(op, 1, BTreeMap::from([("group".to_string(), Attribute::Int(group))])),
            opset: 17,
            inputs: vec![Some(&a), Some(&b)],
            mode: &Mode::Inference,
            batch: 1,
            constant: false,
            bodies: &[],
            unsigned: None,
            budget: &budget,
        };
        let found = find("", op).expect("a known operator")(&call).expect("sums");
        let sums = tensor::to_i64(&found[0]).expect("numbers");
        assert_eq!(sums, [255 * 255 * products; 2], "{op} in {group} groups");
    }
}

#[test]
fn memory_that_is_not_there_is_the_devices_fault() {
    let absurd = Tensor::f_zeros([1 << 46], (Kind::Float, Device::Cpu));
    let fault = absurd.map_err(Fault::from).expect_err("256 TiB");
    assert!(matches!(fault, Fault::Device(_)), "{fault:?}");
    let unfit = Tensor::f_zeros([2], (Kind::Float, Device::Cpu))
        .and_then(|two| two.f_reshape([3]))
        .map_err(Fault::from)
        .expect_err("two numbers are not three");
    assert!(matches!(unfit, Fault::Failed(_)), "{unfit:?}");
}

#[test]
fn a_scalar_function_that_fails_is_an_error() {
    let x = Tensor::ones([2], (Kind::Float, Device::Cpu));
    let fault = guarded(|| Ok(x.f_bitwise_and(1)?)).expect_err("floats have no bits to and");
    let Fault::Failed(message) = fault else { panic!("{fault:?}") };
    assert_eq!(message, "\"bitwise_and_cpu\" not implemented for 'Float'");
}
