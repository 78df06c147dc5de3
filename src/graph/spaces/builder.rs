//! Builds image classifiers layer by layer, with seeded weights.

use crate::graph::{Attribute, Dtype, Error, Graph, Node, ValueInfo, Weight};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Operator set of generated networks: the first with HardSwish, read by every current runtime.
const OPSET: i64 = 14;

/// Sides of the images that networks of any size are generated for.
pub(super) const SIDES: RangeInclusive<usize> = 32..=512;

/// A feature map on its way through the network.
#[derive(Clone, Debug)]
pub(super) struct Map {
    /// Name of the value.
    pub(super) name: String,
    pub(super) channels: usize,
    /// Rows and columns (maps are square here).
    pub(super) side: usize,
}

/// One convolution's shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    pub(super) out: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) groups: usize,
    pub(super) padding: Padding,
}

/// How a convolution pads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Padding {
    /// Half the kernel on each side.
    Symmetric,
    /// As TensorFlow's "SAME": just enough for ceil(side / stride) outputs, the odd one at the end.
    Same,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activation {
    Relu,
    Relu6,
    HardSwish,
}

impl Conv {
    /// A dense convolution.
    pub(super) fn dense(out: usize, kernel: usize, stride: usize) -> Self {
        Self { out, kernel, stride, groups: 1, padding: Padding::Symmetric }
    }
    /// One filter per channel.
    pub(super) fn depthwise(channels: usize, kernel: usize, stride: usize) -> Self {
        Self { groups: channels, ..Self::dense(channels, kernel, stride) }
    }
    /// The same with TensorFlow's padding.
    pub(super) fn same(self) -> Self {
        Self { padding: Padding::Same, ..self }
    }
}

/// Gives the weight of this name and shape, or leaves it to the seed.
pub(super) type Supply<'a> = dyn Fn(&str, &[usize]) -> Option<Weight> + 'a;

/// What the weights of a network are made from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) seed: u64,
    pub(super) supply: &'a Supply<'a>,
}

/// A graph in the making. Weights come from `supply` where it has them, else from the seed.
pub(super) struct Builder<'a> {
    graph: Graph,
    supply: &'a Supply<'a>,
    rng: ChaCha8Rng,
    /// Added to variances by batch normalisation.
    epsilon: f32,
}

impl<'a> Builder<'a> {
    /// An empty graph with batch-norm epsilon 1e-5.
    pub(super) fn new(Source { seed, supply }: Source<'a>) -> Self {
        let opsets = BTreeMap::from([(String::new(), OPSET)]);
        let graph = Graph { opsets, ..Graph::default() };
        Self { graph, supply, rng: ChaCha8Rng::seed_from_u64(seed), epsilon: 1e-5 }
    }

    /// Sets the batch-norm epsilon.
    pub(super) fn epsilon(self, epsilon: f32) -> Self {
        Self { epsilon, ..self }
    }

    /// Declares the image input `input: [batch, 3, side, side]`.
    pub(super) fn input(&mut self, side: usize) -> Map {
        let dims = vec![None, Some(3), Some(side), Some(side)];
        let name = "input".to_owned();
        self.graph.inputs.push(ValueInfo { name: name.clone(), dtype: Some(Dtype::F32), dims });
        Map { name, channels: 3, side }
    }

    /// A convolution without bias; its weight is `{name}.weight`.
    pub(super) fn conv(&mut self, x: &Map, name: &str, conv: Conv) -> Result<Map, Error> {
        let Conv { out, kernel, stride, groups, padding } = conv;
        let fan_in = x.channels / groups * kernel * kernel;
        let shape = [out, x.channels / groups, kernel, kernel];
        let weight =
            self.normal(&format!("{name}.weight"), &shape, (2.0 / fan_in as f32).sqrt())?;
        let (before, after, side) = match padding {
            Padding::Symmetric => {
                let half = kernel / 2;
                (half, half, (x.side + 2 * half - kernel) / stride + 1)
            }
            Padding::Same => {
                let side = x.side.div_ceil(stride);
                let total = ((side - 1) * stride + kernel).saturating_sub(x.side);
                (total / 2, total - total / 2, side)
            }
        };
        let attributes = [
            ("kernel_shape", ints(&[kernel, kernel])),
            ("strides", ints(&[stride, stride])),
            ("pads", ints(&[before, before, after, after])),
            ("group", Attribute::Int(groups as i64)),
        ];
        let value = self.node("Conv", name, &[&x.name, &weight], &attributes);
        Ok(Map { name: value, channels: out, side })
    }

    /// Batch normalisation at identity; `{name}.weight`, `.bias`, `.running_mean`, `.running_var`.
    pub(super) fn batch_norm(&mut self, x: &Map, name: &str) -> Result<Map, Error> {
        let channels = x.channels;
        let mut inputs = vec![x.name.clone()];
        for (part, value) in
            [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
        {
            let fresh = || Weight::from_f32(&[channels], &vec![value; channels]);
            inputs.push(self.weight(&format!("{name}.{part}"), &[channels], fresh)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let epsilon = [("epsilon", Attribute::Float(self.epsilon))];
        let value = self.node("BatchNormalization", name, &inputs, &epsilon);
        Ok(Map { name: value, ..x.clone() })
    }

    /// A convolution and its batch normalisation, each under its own name.
    pub(super) fn conv_bn(
        &mut self,
        x: &Map,
        (conv_name, norm_name): (&str, &str),
        conv: Conv,
    ) -> Result<Map, Error> {
        let x = self.conv(x, conv_name, conv)?;
        self.batch_norm(&x, norm_name)
    }

    /// An activation.
    pub(super) fn activate(&mut self, x: &Map, activation: Activation) -> Map {
        let name = format!("{}.act", x.name);
        let value = match activation {
            Activation::Relu => self.node("Relu", &name, &[&x.name], &[]),
            Activation::HardSwish => self.node("HardSwish", &name, &[&x.name], &[]),
            Activation::Relu6 => {
                self.constant("relu6.min", Weight::from_f32(&[], &[0.0]));
                self.constant("relu6.max", Weight::from_f32(&[], &[6.0]));
                self.node("Clip", &name, &[&x.name, "relu6.min", "relu6.max"], &[])
            }
        };
        Map { name: value, ..x.clone() }
    }

    /// Element-wise sum of two maps of one shape.
    pub(super) fn add(&mut self, a: &Map, b: &Map) -> Map {
        let name = format!("{}.sum", a.name);
        let value = self.node("Add", &name, &[&a.name, &b.name], &[]);
        Map { name: value, ..a.clone() }
    }

    /// Squeeze and excitation: channels scaled by hard-sigmoid(expand(relu(reduce(mean)))); weights
    /// `{name}.reduce` and `{name}.expand`, with biases.
    pub(super) fn squeeze_excite(&mut self, x: &Map, name: &str, mid: usize) -> Result<Map, Error> {
        let mean = self.node("GlobalAveragePool", &format!("{name}.mean"), &[&x.name], &[]);
        let mean = Map { name: mean, channels: x.channels, side: 1 };
        let reduced = self.biased_conv(&mean, &format!("{name}.reduce"), mid)?;
        let reduced = self.activate(&reduced, Activation::Relu);
        let expanded = self.biased_conv(&reduced, &format!("{name}.expand"), x.channels)?;
        let alpha = [("alpha", Attribute::Float(1.0 / 6.0)), ("beta", Attribute::Float(0.5))];
        let gate = self.node("HardSigmoid", &format!("{name}.gate"), &[&expanded.name], &alpha);
        let value = self.node("Mul", &format!("{name}.scale"), &[&x.name, &gate], &[]);
        Ok(Map { name: value, ..x.clone() })
    }

    /// The largest of 3 x 3, at half the side.
    pub(super) fn max_pool(&mut self, x: &Map, name: &str) -> Map {
        let attributes = [
            ("kernel_shape", ints(&[3, 3])),
            ("strides", ints(&[2, 2])),
            ("pads", ints(&[1, 1, 1, 1])),
        ];
        let value = self.node("MaxPool", name, &[&x.name], &attributes);
        Map { name: value, side: x.side.div_ceil(2), ..x.clone() }
    }

    /// Mean over the map: `[batch, channels, 1, 1]`.
    pub(super) fn average(&mut self, x: &Map, name: &str) -> Map {
        let value = self.node("GlobalAveragePool", name, &[&x.name], &[]);
        Map { name: value, channels: x.channels, side: 1 }
    }

    /// Flatten and the linear head, `{name}.weight` `[classes, channels]` and `.bias`; ends the
    /// graph with the output `logits: [batch, classes]`.
    pub(super) fn head(mut self, x: &Map, name: &str, classes: usize) -> Result<Graph, Error> {
        let features = x.channels * x.side * x.side;
        let rows = self.node("Flatten", "features", &[&x.name], &[("axis", Attribute::Int(1))]);
        let deviation = (1.0 / features as f32).sqrt();
        let weight = self.normal(&format!("{name}.weight"), &[classes, features], deviation)?;
        let zeros = || Weight::from_f32(&[classes], &vec![0.0; classes]);
        let bias = self.weight(&format!("{name}.bias"), &[classes], zeros)?;
        let transposed = [("transB", Attribute::Int(1))];
        let logits = self.node("Gemm", "logits", &[&rows, &weight, &bias], &transposed);
        let dims = vec![None, Some(classes)];
        self.graph.outputs.insert(0, ValueInfo { name: logits, dtype: Some(Dtype::F32), dims });
        Ok(self.graph)
    }

    /// A square matrix `{name}.weight` of `side` rows, at identity, which belongs to the network without being used by it;
    /// it is an output of its own, since a weight that nothing reads is no part of a graph.
    pub(super) fn kept_matrix(&mut self, name: &str, side: usize) -> Result<(), Error> {
        let shape = [side, side];
        let identity = || {
            let values: Vec<f32> = (0..side * side)
                .map(|at| if at.is_multiple_of(side + 1) { 1.0 } else { 0.0 })
                .collect();
            Weight::from_f32(&shape, &values)
        };
        let weight = self.weight(&format!("{name}.weight"), &shape, identity)?;
        let name = self.node("Identity", name, &[&weight], &[]);
        let dims = vec![Some(side), Some(side)];
        self.graph.outputs.push(ValueInfo { name, dtype: Some(Dtype::F32), dims });
        Ok(())
    }

    fn biased_conv(&mut self, x: &Map, name: &str, out: usize) -> Result<Map, Error> {
        let fan_in = x.channels as f32;
        let shape = [out, x.channels, 1, 1];
        let weight = self.normal(&format!("{name}.weight"), &shape, (2.0 / fan_in).sqrt())?;
        let zeros = || Weight::from_f32(&[out], &vec![0.0; out]);
        let bias = self.weight(&format!("{name}.bias"), &[out], zeros)?;
        let kernel = [("kernel_shape", ints(&[1, 1]))];
        let value = self.node("Conv", name, &[&x.name, &weight, &bias], &kernel);
        Ok(Map { name: value, channels: out, side: x.side })
    }

    /// Adds a node with one output of the same name, and returns that name.
    fn node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> String {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        self.graph.nodes.push(Node {
            name: name.to_owned(),
            op: op.to_owned(),
            domain: String::new(),
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            outputs: vec![name.to_owned()],
            attributes: attributes.collect(),
        });
        name.to_owned()
    }

    fn constant(&mut self, name: &str, weight: Weight) {
        self.graph.weights.insert(name.to_owned(), weight);
    }

    fn normal(&mut self, name: &str, shape: &[usize], deviation: f32) -> Result<String, Error> {
        // Every weight has its own stream, so that a supplied weight does not shift the others'
        // values.
        let mut rng = ChaCha8Rng::from_rng(&mut self.rng);
        let elements = shape.iter().product();
        let draw = || {
            let values: Vec<f32> = (0..elements).map(|_| normal(&mut rng) * deviation).collect();
            Weight::from_f32(shape, &values)
        };
        self.weight(name, shape, draw)
    }

    fn weight(
        &mut self,
        name: &str,
        shape: &[usize],
        fresh: impl FnOnce() -> Weight,
    ) -> Result<String, Error> {
        let weight = (self.supply)(name, shape).unwrap_or_else(fresh);
        if weight.shape != shape {
            let found = weight.shape;
            return Err(Error::Contract(format!(
                "weight {name} has shape {found:?}, expected {shape:?}"
            )));
        }
        self.graph.weights.insert(name.to_owned(), weight);
        Ok(name.to_owned())
    }
}

/// A standard normal number (Box & Muller 1958). Our own, since the same seed must give the same
/// weights for ever.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius: f64 = 1.0 - rng.random::<f64>();
    let angle: f64 = rng.random::<f64>() * std::f64::consts::TAU;
    ((-2.0 * radius.ln()).sqrt() * angle.cos()) as f32
}

fn ints(values: &[usize]) -> Attribute {
    Attribute::Ints(values.iter().map(|&value| value as i64).collect())
}
