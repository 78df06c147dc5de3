//! Hand-written ONNX files: networks that cannot take every image, or not every limit.

/// A field of bytes: key, length, content.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 0x7f {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(content);
    field
}

/// A field of one small number.
fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn node(op: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs = inputs.iter().map(|input| bytes(1, input.as_bytes()));
    let node = [inputs.collect::<Vec<_>>().concat(), bytes(2, output.as_bytes())].concat();
    bytes(1, &[node, bytes(3, output.as_bytes()), bytes(4, op.as_bytes())].concat())
}

fn weight(name: &str, dims: &[u8], values: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let dims = dims.iter().map(|&dim| number(1, dim)).collect::<Vec<_>>().concat();
    bytes(5, &[dims, number(2, 1), bytes(8, name.as_bytes()), bytes(9, &data)].concat())
}

fn value(field: u8, name: &str, dims: &[u8]) -> Vec<u8> {
    let dims = dims.iter().map(|&dim| bytes(1, &number(1, dim))).collect::<Vec<_>>().concat();
    let tensor = bytes(1, &[number(1, 1), bytes(2, &dims)].concat());
    bytes(field, &[bytes(1, name.as_bytes()), bytes(2, &tensor)].concat())
}

/// A network on the mean of each channel (0..1) minus 0.05, of which it takes the square root: NaN for images that are
/// nearly black. No probe image is, some images of the benchmark tasks are.
pub fn afraid_of_the_dark() -> Vec<u8> {
    let graph = [
        node("GlobalAveragePool", &["x"], "mean"),
        node("Sub", &["mean", "least"], "above"),
        node("Sqrt", &["above"], "root"),
        node("Flatten", &["root"], "features"),
        node("Gemm", &["features", "weight", "bias"], "logits"),
        bytes(2, b"dark"),
        weight("least", &[1], &[0.05]),
        weight("weight", &[3, 2], &[1.0, -1.0, 0.5, 0.25, -0.5, 2.0]),
        weight("bias", &[2], &[0.0, 0.1]),
        value(11, "x", &[1, 3, 8, 8]),
        value(12, "logits", &[1, 2]),
    ]
    .concat();
    [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 17))].concat()
}

/// A network whose logits come from a layer with two inputs that depend on the image: it has no head to replace.
pub fn headless() -> Vec<u8> {
    let graph = [
        node("GlobalAveragePool", &["x"], "mean"),
        node("Flatten", &["mean"], "features"),
        node("MatMul", &["features", "weight"], "left"),
        node("MatMul", &["features", "other"], "right"),
        node("Mul", &["left", "right"], "logits"),
        bytes(2, b"headless"),
        weight("weight", &[3, 2], &[1.0, -1.0, 0.5, 0.25, -0.5, 2.0]),
        weight("other", &[3, 2], &[0.5, 1.0, -0.5, 0.75, 0.5, 1.0]),
        value(11, "x", &[1, 3, 8, 8]),
        value(12, "logits", &[1, 2]),
    ]
    .concat();
    [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 17))].concat()
}

/// A network that adds the mean of 96 MB of zeros, which it makes itself, to the mean of each channel.
pub fn maker_of_constants() -> Vec<u8> {
    let sides: Vec<u8> =
        [1_i64, 3, 2048, 4096].iter().flat_map(|side| side.to_le_bytes()).collect();
    let graph = [
        node("ConstantOfShape", &["sides"], "zeros"),
        node("GlobalAveragePool", &["zeros"], "none"),
        node("GlobalAveragePool", &["x"], "mean"),
        node("Add", &["mean", "none"], "sum"),
        node("Flatten", &["sum"], "features"),
        node("Gemm", &["features", "weight", "bias"], "logits"),
        bytes(2, b"maker"),
        bytes(5, &[number(1, 4), number(2, 7), bytes(8, b"sides"), bytes(9, &sides)].concat()),
        weight("weight", &[3, 2], &[1.0, -1.0, 0.5, 0.25, -0.5, 2.0]),
        weight("bias", &[2], &[0.0, 0.1]),
        value(11, "x", &[1, 3, 8, 8]),
        value(12, "logits", &[1, 2]),
    ]
    .concat();
    [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 17))].concat()
}
