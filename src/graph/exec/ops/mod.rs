//! The operators: one table from name to function.

mod activation;
mod arithmetic;
mod conv;
mod linear;
mod norm;
mod pool;
mod reduce;
mod resize;
mod shape;

use super::tensor;
use crate::graph::{Attribute, Node};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use tch::{Kind, Tensor};

/// What an operator can answer instead of tensors.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The operator exists, but not with this attribute or type: the network is not runnable.
    Unsupported(String),
    /// The values do not fit together.
    Failed(String),
    /// The device failed, whatever the values.
    Device(String),
}

/// What libtorch says when the device, not the network, is at fault.
const DEVICE_FAULTS: [&str; 5] =
    ["out of memory", "can't allocate memory", "CUDA error", "cuDNN error", "CUBLAS_STATUS"];

impl From<tch::TchError> for Fault {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends its call stack to each message.
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default().to_string();
        match DEVICE_FAULTS.iter().any(|fault| message.contains(fault)) {
            true => Self::Device(message),
            false => Self::Failed(message),
        }
    }
}

/// Tensors of a node, one for each of its outputs.
pub(crate) type Outputs = Result<Vec<Tensor>, Fault>;

/// Executes one operator.
pub(crate) type Run = fn(&Call<'_>) -> Outputs;

/// Every operator of the ONNX standard domain that can be executed.
const TABLE: &[(&str, Run)] = &[
    ("Abs", arithmetic::abs),
    ("Add", arithmetic::add),
    ("And", arithmetic::and),
    ("ArgMax", reduce::arg_max),
    ("ArgMin", reduce::arg_min),
    ("AveragePool", pool::average),
    ("BatchNormalization", norm::batch),
    ("Cast", shape::cast),
    ("CastLike", shape::cast_like),
    ("Ceil", arithmetic::ceil),
    ("Clip", activation::clip),
    ("Concat", shape::concat),
    ("Constant", shape::constant),
    ("ConstantOfShape", shape::constant_of_shape),
    ("Conv", conv::conv),
    ("ConvTranspose", conv::conv_transpose),
    ("Cos", arithmetic::cos),
    ("DepthToSpace", shape::depth_to_space),
    ("Div", arithmetic::div),
    ("Dropout", norm::dropout),
    ("Elu", activation::elu),
    ("Equal", arithmetic::equal),
    ("Erf", activation::erf),
    ("Exp", arithmetic::exp),
    ("Expand", shape::expand),
    ("Flatten", shape::flatten),
    ("Floor", arithmetic::floor),
    ("Gather", shape::gather),
    ("Gelu", activation::gelu),
    ("Gemm", linear::gemm),
    ("GlobalAveragePool", pool::global_average),
    ("GlobalMaxPool", pool::global_max),
    ("Greater", arithmetic::greater),
    ("GreaterOrEqual", arithmetic::greater_or_equal),
    ("GroupNormalization", norm::group),
    ("HardSigmoid", activation::hard_sigmoid),
    ("HardSwish", activation::hard_swish),
    ("Identity", shape::identity),
    ("InstanceNormalization", norm::instance),
    ("LRN", norm::local_response),
    ("LayerNormalization", norm::layer),
    ("LeakyRelu", activation::leaky_relu),
    ("Less", arithmetic::less),
    ("LessOrEqual", arithmetic::less_or_equal),
    ("Log", arithmetic::log),
    ("LogSoftmax", activation::log_softmax),
    ("MatMul", linear::mat_mul),
    ("Max", arithmetic::max),
    ("MaxPool", pool::max),
    ("Mean", arithmetic::mean),
    ("Min", arithmetic::min),
    ("Mish", activation::mish),
    ("Mul", arithmetic::mul),
    ("Neg", arithmetic::neg),
    ("Not", arithmetic::not),
    ("Or", arithmetic::or),
    ("PRelu", activation::prelu),
    ("Pad", shape::pad),
    ("Pow", arithmetic::pow),
    ("Range", shape::range),
    ("Reciprocal", arithmetic::reciprocal),
    ("ReduceL2", reduce::l2),
    ("ReduceMax", reduce::max),
    ("ReduceMean", reduce::mean),
    ("ReduceMin", reduce::min),
    ("ReduceProd", reduce::prod),
    ("ReduceSum", reduce::sum),
    ("Relu", activation::relu),
    ("Reshape", shape::reshape),
    ("Resize", resize::resize),
    ("Round", arithmetic::round),
    ("Selu", activation::selu),
    ("Shape", shape::shape),
    ("Sigmoid", activation::sigmoid),
    ("Sign", arithmetic::sign),
    ("Sin", arithmetic::sin),
    ("Slice", shape::slice),
    ("Softmax", activation::softmax),
    ("Softplus", activation::softplus),
    ("Split", shape::split),
    ("Sqrt", arithmetic::sqrt),
    ("Squeeze", shape::squeeze),
    ("Sub", arithmetic::sub),
    ("Sum", arithmetic::sum),
    ("Tanh", activation::tanh),
    ("Tile", shape::tile),
    ("Transpose", shape::transpose),
    ("Unsqueeze", shape::unsqueeze),
    ("Upsample", resize::upsample),
    ("Where", arithmetic::select),
    ("Xor", arithmetic::xor),
];

/// The function of an operator of the standard domain.
pub(crate) fn find(domain: &str, op: &str) -> Option<Run> {
    let standard = matches!(domain, "" | "ai.onnx");
    let row = TABLE.binary_search_by_key(&op, |&(name, _)| name).ok()?;
    standard.then(|| TABLE[row].1)
}

/// How a network is run.
pub(crate) enum Mode {
    /// Batch statistics are fixed and nothing is dropped.
    Inference,
    /// Batch-norm learns its statistics; dropout draws from this generator.
    Training(Box<RefCell<ChaCha8Rng>>),
}

/// One operator call.
pub(crate) struct Call<'a> {
    /// The node with its attributes.
    pub node: &'a Node,
    /// Version of the standard operator set.
    pub opset: i64,
    /// Present inputs by position.
    pub inputs: Vec<Option<&'a Tensor>>,
    /// How the network is run.
    pub mode: &'a Mode,
    /// Samples in this run.
    pub batch: i64,
}

impl<'a> Call<'a> {
    /// A required input.
    pub fn input(&self, index: usize) -> Result<&'a Tensor, Fault> {
        self.optional(index).ok_or_else(|| {
            Fault::Failed(format!("expected input {index}, found {}", self.inputs.len()))
        })
    }
    /// An input that may be missing.
    pub fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index).copied().flatten()
    }
    /// Numbers of an integer input, if it is there.
    pub fn numbers(&self, index: usize) -> Result<Option<Vec<i64>>, Fault> {
        self.optional(index).map(tensor::to_i64).transpose()
    }
    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.node.attributes.get(name) {
            Some(Attribute::Int(value)) => *value,
            _ => default,
        }
    }
    /// A float attribute.
    pub fn float(&self, name: &str, default: f32) -> f64 {
        match self.node.attributes.get(name) {
            Some(Attribute::Float(value)) => f64::from(*value),
            _ => f64::from(default),
        }
    }
    /// A list of integers, if it is there.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.node.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }
    /// A text attribute.
    pub fn text(&self, name: &str, default: &'a str) -> &'a str {
        match self.node.attributes.get(name) {
            Some(Attribute::String(bytes)) => std::str::from_utf8(bytes).unwrap_or(default),
            _ => default,
        }
    }
    /// Axes from input `index`, or from the attribute of older operator sets.
    pub fn axes(&self, index: usize) -> Result<Option<Vec<i64>>, Fault> {
        match self.numbers(index)? {
            Some(axes) => Ok(Some(axes)),
            None => Ok(self.ints("axes").map(<[i64]>::to_vec)),
        }
    }
}

/// An axis as an index into `rank` dimensions.
fn axis(axis: i64, rank: usize) -> Result<usize, Fault> {
    let rank = rank as i64;
    let index = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if (0..rank).contains(&index) {
        return Ok(index as usize);
    }
    Err(Fault::Failed(format!("expected an axis in {}..{rank}, found {axis}", -rank)))
}

/// `list` if it has `rank` entries, `default` repeated if it is missing.
fn spatial(list: Option<&[i64]>, rank: usize, default: i64) -> Result<Vec<i64>, Fault> {
    match list {
        None => Ok(vec![default; rank]),
        Some(values) if values.len() == rank => Ok(values.to_vec()),
        Some(values) => Err(Fault::Failed(format!(
            "expected {rank} numbers, found {}: {values:?}",
            values.len()
        ))),
    }
}

/// Both tensors on the device of the one that is not on the CPU.
fn together(a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor), Fault> {
    let device = if a.device() == tch::Device::Cpu { b.device() } else { a.device() };
    Ok((a.f_to_device(device)?, b.f_to_device(device)?))
}

/// Whether a tensor holds floating-point numbers.
fn is_float(tensor: &Tensor) -> Result<bool, Fault> {
    Ok(matches!(tensor.f_kind()?, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16))
}

#[cfg(test)]
mod tests;
