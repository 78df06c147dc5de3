use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, ValueInfoProto,
};
use super::{Canonical, canonical, from_canonical, read, write};
use crate::graph::formats::Limits;
use crate::graph::spaces::generate;
use crate::graph::{Attribute, Dtype, Error, Graph, Node, ValueInfo, Weight};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use prost::Message;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashMap};

fn model(graph: GraphProto) -> Vec<u8> {
    let opset = OperatorSetIdProto { domain: None, version: Some(13) };
    ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![opset],
        ..ModelProto::default()
    }
    .encode_to_vec()
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto {
        input: names(inputs),
        output: names(outputs),
        op_type: Some(op.into()),
        ..NodeProto::default()
    }
}

fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), r#type: None }
}

fn floats(name: &str, values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(1),
        dims: vec![values.len() as i64],
        float_data: values.to_vec(),
        ..TensorProto::default()
    }
}

/// x -> Add(x, w) -> Relu -> y
fn small() -> GraphProto {
    GraphProto {
        node: vec![node("Add", &["x", "w"], &["a"]), node("Relu", &["a"], &["y"])],
        initializer: vec![floats("w", &[1.0, 2.0])],
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    }
}

fn parse(graph: GraphProto) -> Result<Graph, Error> {
    Ok(read(&model(graph), &Limits::default())?.graph)
}

type Plain = (Dtype, Vec<usize>, Vec<u8>);

fn identity(graph: &Graph) -> (Vec<u8>, Vec<Plain>) {
    let Canonical { graph, weights } = canonical(graph).expect("a sound graph");
    let weight = |(_, w): (String, Weight)| (w.dtype, w.shape.clone(), w.data().to_vec());
    (graph, weights.into_iter().map(weight).collect())
}

fn message(result: Result<Graph, Error>) -> String {
    result.expect_err("a refusal").to_string()
}

/// A random graph of `n` nodes with one to three inputs each, some weights, two inputs and two
/// outputs.
fn random_graph(rng: &mut ChaCha8Rng, n: usize) -> Graph {
    let input = |name: &str| ValueInfo {
        name: name.into(),
        dtype: Some(Dtype::F32),
        dims: vec![None, Some(4)],
    };
    let mut graph = Graph { inputs: vec![input("x"), input("t1")], ..Graph::default() };
    graph.opsets.insert(String::new(), 13);
    let mut values = vec!["x".to_owned(), "t1".to_owned()];
    for index in 0..n {
        let mut inputs: Vec<String> = (0..rng.random_range(1..=3))
            .map(|_| values[rng.random_range(0..values.len())].clone())
            .collect();
        if rng.random_bool(0.4) {
            let name = format!("weight{index}");
            graph
                .weights
                .insert(name.clone(), Weight::from_f32(&[2], &[rng.random(), rng.random()]));
            inputs.push(name);
        }
        let outputs: Vec<String> =
            (0..rng.random_range(1..=2)).map(|port| format!("n{index}p{port}")).collect();
        values.extend(outputs.iter().cloned());
        let op = ["Add", "Mul", "Concat"][rng.random_range(0..3)].to_owned();
        let attributes =
            BTreeMap::from([("axis".to_owned(), Attribute::Int(rng.random_range(0..3)))]);
        graph.nodes.push(Node {
            name: format!("node{index}"),
            op,
            domain: String::new(),
            inputs,
            outputs,
            attributes,
        });
    }
    for name in [&values[values.len() - 1], &values[values.len() / 2]] {
        graph.outputs.push(input(name));
    }
    graph
}

/// The same function under other inner names, another node order and other weight names.
fn disguised(graph: &Graph, rng: &mut ChaCha8Rng) -> Graph {
    let kept: Vec<&String> = graph.inputs.iter().chain(&graph.outputs).map(|v| &v.name).collect();
    let mut names: HashMap<String, String> = HashMap::new();
    let mut rename = |old: &String, rng: &mut ChaCha8Rng| {
        if kept.contains(&old) || old.is_empty() {
            return old.clone();
        }
        let fresh = format!("v{}_{old}", rng.random_range(0..1000));
        names.entry(old.clone()).or_insert(fresh).clone()
    };
    let mut other = Graph { nodes: Vec::new(), weights: BTreeMap::new(), ..graph.clone() };
    for (name, weight) in &graph.weights {
        other.weights.insert(rename(name, rng), weight.clone());
    }
    for node in &graph.nodes {
        other.nodes.push(Node {
            name: format!("other{}", rng.random::<u32>()),
            inputs: node.inputs.iter().map(|name| rename(name, rng)).collect(),
            outputs: node.outputs.iter().map(|name| rename(name, rng)).collect(),
            ..node.clone()
        });
    }
    other.nodes.shuffle(rng);
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn identity_survives_names_order_and_files(seed in any::<u64>(), n in 1_usize..25) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let graph = random_graph(&mut rng, n);
        let expected = identity(&graph);
        let other = disguised(&graph, &mut rng);
        prop_assert_eq!(&identity(&other), &expected);
        let file = write(&other, &[("key".into(), "value".into())]).expect("writable");
        let back = read(&file, &Limits::default()).expect("readable");
        prop_assert_eq!(&identity(&back.graph), &expected);
        prop_assert_eq!(back.metadata, [("key".to_owned(), "value".to_owned())]);
        let Canonical { graph: bytes, weights } = canonical(&other).expect("sound");
        let weights = weights.into_iter().map(|(_, weight)| weight).collect();
        let rebuilt = from_canonical(&bytes, weights).expect("canonical");
        prop_assert_eq!(&identity(&rebuilt), &expected);
    }

    #[test]
    fn identity_notices_every_change_of_function(seed in any::<u64>(), n in 1_usize..12) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let graph = random_graph(&mut rng, n);
        let expected = identity(&graph);
        for &index in &crate::graph::order::flow_order(&graph) {
            let mut changed = graph.clone();
            changed.nodes[index].op = "Sub".into();
            prop_assert!(identity(&changed) != expected);
            let mut changed = graph.clone();
            changed.nodes[index].attributes.insert("axis".into(), Attribute::Int(9));
            prop_assert!(identity(&changed) != expected);
            let mut changed = graph.clone();
            changed.nodes[index].inputs.push("x".into());
            prop_assert!(identity(&changed) != expected);
        }
        let mut changed = graph.clone();
        changed.opsets.insert(String::new(), 14);
        prop_assert!(identity(&changed) != expected);
        let mut changed = graph.clone();
        changed.outputs.swap(0, 1);
        prop_assert!(identity(&changed) != expected || graph.outputs[0] == graph.outputs[1]);
        for (name, _) in &canonical(&graph).expect("sound").weights {
            let mut changed = graph.clone();
            changed.weights.insert(name.clone(), Weight::from_f32(&[2], &[7.0, 7.0]));
            prop_assert!(identity(&changed) != expected);
        }
    }

    #[test]
    fn damaged_bytes_never_panic(seed in any::<u64>(), flips in 1_usize..6) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let graph = random_graph(&mut rng, 6);
        let mut file = write(&graph, &[]).expect("writable");
        let Canonical { graph: mut bytes, weights } = canonical(&graph).expect("sound");
        for _ in 0..flips {
            let at = rng.random_range(0..file.len());
            file[at] ^= 1 << rng.random_range(0..8);
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        if let Ok(read) = read(&file, &Limits::default()) {
            let _ = canonical(&read.graph).map(|c| c.graph.len());
            let _ = read.graph.check_finite();
        }
        let weights = weights.into_iter().map(|(_, weight)| weight).collect();
        let _ = from_canonical(&bytes, weights);
    }
}

#[test]
fn every_truncation_is_refused_or_sound() {
    let file = write(&parse(small()).expect("sound"), &[]).expect("writable");
    let mut whole = 0;
    for length in 0..file.len() {
        match read(&file[..length], &Limits::default()) {
            Err(Error::Malformed { .. }) => {}
            other => {
                whole += 1;
                assert!(other.is_ok(), "{other:?} at {length}");
            }
        }
    }
    // Only a cut exactly behind a whole field can look like a smaller whole file, and none here has
    // all it needs.
    assert_eq!(whole, 0);
}

#[test]
fn other_formats_are_named() {
    let text = |bytes: &[u8]| message(read(bytes, &Limits::default()).map(|file| file.graph));
    assert!(
        text(b"This is my model, honestly.\n").contains("a text file that begins with \"This is")
    );
    assert!(text(b"").contains("an empty file"));
    assert!(text(b"PK\x03\x04rest of an archive").contains("zip"));
    assert!(text(&[0x80, 2, 0x8a, 10, 1, 2]).contains("pickle"));
}

#[test]
fn unsound_graphs_are_refused() {
    let with = |change: fn(&mut GraphProto)| {
        let mut graph = small();
        change(&mut graph);
        message(parse(graph))
    };
    assert!(with(|g| g.node[0].input[0] = "y".into()).contains("cycle"));
    assert!(with(|g| g.node[0].input[0] = "nowhere".into()).contains("reads \"nowhere\""));
    assert!(with(|g| g.output[0].name = Some("z".into())).contains("output \"z\""));
    assert!(with(|g| g.node.push(node("Relu", &["x"], &["y"]))).contains("\"y\" is defined twice"));
    assert!(with(|g| g.initializer.push(floats("w", &[1.0]))).contains("\"w\" is defined twice"));
    assert!(with(|g| g.initializer.push(floats("a", &[1.0]))).contains("\"a\" is defined twice"));
    assert!(with(|g| g.initializer[0].dims = vec![3]).contains("needs 12 bytes, found 8"));
    assert!(with(|g| g.initializer[0].dims = vec![1 << 40, 1 << 40]).contains("overflows"));
    assert!(with(|g| g.initializer[0].dims = vec![0, 1 << 62, 1 << 62]).contains("overflows"));
    assert!(with(|g| g.initializer[0].dims = vec![-1]).contains("dimension of -1"));
    assert!(with(|g| g.initializer[0].data_location = Some(1)).contains("embed it first"));
    assert!(with(|g| g.initializer[0].data_type = Some(8)).contains("element type 8"));
}

#[test]
fn limits_come_before_conversion() {
    let limits = Limits { weight_bytes_max: 7, ..Limits::default() };
    let refused = read(&model(small()), &limits).expect_err("8 bytes of weights");
    assert!(matches!(refused, Error::Limit { found: 8, limit: 7, .. }), "{refused}");
    let limits = Limits { nodes_max: 1, ..Limits::default() };
    assert!(matches!(read(&model(small()), &limits), Err(Error::Limit { found: 2, limit: 1, .. })));
    // A claim of 2^50 bytes must be refused by its length alone.
    let mut graph = small();
    graph.initializer[0].dims = vec![1 << 48];
    assert!(matches!(parse(graph), Err(Error::Limit { .. })));
}

#[test]
fn constants_and_initialisers_are_one_network() {
    let expected = parse(small()).expect("sound");
    let mut graph = small();
    let tensor = TensorProto { name: None, ..graph.initializer.remove(0) };
    let attribute = AttributeProto {
        name: Some("value".into()),
        r#type: Some(4),
        t: Some(tensor),
        ..AttributeProto::default()
    };
    let constant = NodeProto { attribute: vec![attribute], ..node("Constant", &[], &["k"]) };
    graph.node[0].input[1] = "k".into();
    graph.node.push(constant);
    // An initialiser that is also listed as an input is a weight all the same.
    let mut listed = small();
    listed.input.push(value("w"));
    for other in [graph, listed] {
        let other = parse(other).expect("sound");
        assert_eq!(other.inputs.len(), 1);
        assert_eq!(identity(&other), identity(&expected));
    }
}

#[test]
fn every_kind_of_constant_is_a_weight() {
    let constant = |name: &str, attribute: AttributeProto| NodeProto {
        attribute: vec![AttributeProto { name: Some(name.into()), ..attribute }],
        ..node("Constant", &[], &[name])
    };
    let base = AttributeProto::default;
    let mut graph = small();
    graph.node.extend([
        constant("value_float", AttributeProto { r#type: Some(1), f: Some(1.5), ..base() }),
        // A file of the first format version has no type.
        constant("value_floats", AttributeProto { floats: vec![1.0, 2.0], ..base() }),
        constant("value_int", AttributeProto { r#type: Some(2), i: Some(-3), ..base() }),
        constant("value_ints", AttributeProto { r#type: Some(7), ints: vec![4, 5], ..base() }),
    ]);
    let weights = parse(graph).expect("sound").weights;
    assert_eq!(weights["value_float"].data(), 1.5_f32.to_le_bytes());
    assert_eq!(weights["value_floats"].shape, [2]);
    assert_eq!((weights["value_int"].dtype, weights["value_int"].shape.len()), (Dtype::I64, 0));
    assert_eq!(weights["value_ints"].data(), [4_i64.to_le_bytes(), 5_i64.to_le_bytes()].concat());
}

#[test]
fn typed_fields_and_raw_data_agree() {
    let base = |code, count| TensorProto {
        data_type: Some(code),
        dims: vec![count],
        ..TensorProto::default()
    };
    let cases: [(TensorProto, Vec<u8>); 10] = [
        (TensorProto { int32_data: vec![0x3c00, 0xfc00], ..base(10, 2) }, vec![0, 0x3c, 0, 0xfc]),
        (TensorProto { int32_data: vec![0x3f80], ..base(16, 1) }, vec![0x80, 0x3f]),
        (TensorProto { int32_data: vec![-1, 5], ..base(3, 2) }, vec![255, 5]),
        (TensorProto { int32_data: vec![200], ..base(2, 1) }, vec![200]),
        (TensorProto { int32_data: vec![1, 0], ..base(9, 2) }, vec![1, 0]),
        (TensorProto { int32_data: vec![-2], ..base(5, 1) }, vec![254, 255]),
        (TensorProto { int32_data: vec![-2], ..base(6, 1) }, vec![254, 255, 255, 255]),
        (TensorProto { int64_data: vec![-2], ..base(7, 1) }, (-2_i64).to_le_bytes().to_vec()),
        (TensorProto { double_data: vec![0.5], ..base(11, 1) }, 0.5_f64.to_le_bytes().to_vec()),
        (TensorProto { uint64_data: vec![7], ..base(12, 1) }, vec![7, 0, 0, 0]),
    ];
    for (tensor, expected) in cases {
        let raw = TensorProto {
            raw_data: Some(expected.clone().into()),
            dims: tensor.dims.clone(),
            data_type: tensor.data_type,
            ..TensorProto::default()
        };
        let typed = super::tensor::to_weight(tensor).expect("typed");
        let raw = super::tensor::to_weight(raw).expect("raw");
        assert_eq!(typed.data(), expected, "{typed:?}");
        assert_eq!(raw.data(), expected);
    }
    let outside = TensorProto { int32_data: vec![300], ..base(2, 1) };
    assert!(super::tensor::to_weight(outside).is_err());
}

/// `If(c) { then: Add(x, inner) } else { else: Mul(x, outer) }`, with nodes out of order.
fn branching() -> GraphProto {
    let branch = |op: &str, weight: &str, output: &str| GraphProto {
        node: vec![node(op, &["a", weight], &[output])],
        output: vec![value(output)],
        ..GraphProto::default()
    };
    let attribute = |name: &str, graph| AttributeProto {
        name: Some(name.into()),
        r#type: Some(5),
        g: Some(graph),
        ..AttributeProto::default()
    };
    let mut then = branch("Add", "inner", "then");
    then.initializer.push(floats("inner", &[3.0]));
    let branches = vec![
        attribute("then_branch", then),
        attribute("else_branch", branch("Mul", "outer", "else")),
    ];
    GraphProto {
        node: vec![
            NodeProto { attribute: branches, ..node("If", &["c"], &["y"]) },
            node("Relu", &["x"], &["a"]),
        ],
        initializer: vec![floats("outer", &[4.0])],
        input: vec![value("x"), value("c")],
        output: vec![value("y")],
        ..GraphProto::default()
    }
}

#[test]
fn subgraphs_keep_their_scopes() {
    let graph = parse(branching()).expect("sound");
    assert_eq!(graph.nodes[0].op, "Relu", "a captured value is computed first");
    let Canonical { graph: bytes, weights } = canonical(&graph).expect("sound");
    let names: Vec<&str> = weights.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["outer", "inner"], "else_branch is read before then_branch");
    let weights = weights.into_iter().map(|(_, weight)| weight).collect();
    let rebuilt = from_canonical(&bytes, weights).expect("canonical");
    assert_eq!(identity(&rebuilt), identity(&graph));
    let file = write(&graph, &[]).expect("writable");
    let back = read(&file, &Limits::default()).expect("readable").graph;
    assert_eq!(identity(&back), identity(&graph));
    let mut broken = branching();
    broken.initializer.clear();
    assert!(message(parse(broken)).contains("reads \"outer\""));
}

#[test]
fn canonical_weights_must_fit() {
    let graph = parse(small()).expect("sound");
    let bytes = canonical(&graph).expect("sound").graph;
    let weight = || Weight::from_f32(&[2], &[1.0, 2.0]);
    assert!(from_canonical(&bytes, vec![weight()]).is_ok());
    for wrong in [
        vec![],
        vec![weight(), weight()],
        vec![Weight::from_f32(&[1], &[1.0])],
        vec![Weight::from_i64(&[2], &[1, 2])],
    ] {
        assert!(matches!(from_canonical(&bytes, wrong), Err(Error::Malformed { .. })));
    }
}

#[test]
fn docs_and_dead_nodes_do_not_count() {
    let expected = identity(&parse(small()).expect("sound"));
    let mut graph = small();
    graph.node.push(node("Sigmoid", &["x"], &["unused"]));
    graph.initializer.push(floats("unused_too", &[1.0]));
    graph.node[1].input.push(String::new());
    graph.node[0].name = Some("layer1/add".into());
    graph.metadata_props.push(StringStringEntryProto { key: Some("k".into()), value: None });
    assert_eq!(identity(&parse(graph).expect("sound")), expected);
}

#[test]
fn nan_and_infinity_are_found_in_every_float_type() {
    let half = half::f16::NAN.to_le_bytes().to_vec();
    let brain = [half::bf16::ONE.to_le_bytes(), half::bf16::INFINITY.to_le_bytes()].concat();
    let double = [f64::NEG_INFINITY.to_le_bytes(), 1.0_f64.to_le_bytes()].concat();
    let single = [f32::NAN.to_le_bytes(), 1.0_f32.to_le_bytes()].concat();
    let cases = [
        (Dtype::F16, 1, half),
        (Dtype::BF16, 2, brain),
        (Dtype::F64, 2, double),
        (Dtype::F32, 2, single),
    ];
    for (dtype, count, bytes) in cases {
        let mut graph = parse(small()).expect("sound");
        graph.check_finite().expect("finite");
        let weight = Weight { dtype, shape: vec![count], bytes: std::sync::Arc::new(bytes) };
        graph.weights.insert("w".into(), weight);
        let error = graph.check_finite().expect_err("not finite");
        assert!(
            matches!(error, Error::NotFinite { count: 1, ref name } if name == "w"),
            "{dtype:?}"
        );
    }
    let mut graph = parse(small()).expect("sound");
    graph.weights.insert("max".into(), Weight::from_f32(&[], &[f32::INFINITY]));
    graph.check_finite().expect("an open bound is legitimate");
}

#[test]
fn generated_networks_survive_a_file() {
    for spec in ["small:mobile-w16@32", "mobilenetv3:d2-k3-e4@64"] {
        let graph = generate(spec, 10, 1).expect("allowed").graph;
        let file = write(&graph, &[]).expect("writable");
        let back = read(&file, &Limits::default()).expect("readable").graph;
        assert_eq!(identity(&back), identity(&graph));
        assert_eq!(back.inputs, graph.inputs);
        assert_eq!(back.outputs, graph.outputs);
    }
}
