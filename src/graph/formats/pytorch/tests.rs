use super::read;
use crate::graph::formats::{Limits, StateDict};
use crate::graph::{Dtype, Error};
use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Writes the opcodes that `torch.save` writes, and wrong ones on demand.
#[derive(Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn text(self, text: &str) -> Self {
        let length = u32::try_from(text.len()).expect("short");
        self.raw(b"X").raw(&length.to_le_bytes()).raw(text.as_bytes())
    }
    fn int(self, number: i32) -> Self {
        self.raw(b"J").raw(&number.to_le_bytes())
    }
    fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }
    fn ints(self, numbers: &[i32]) -> Self {
        let marked = self.raw(b"(");
        numbers.iter().fold(marked, |pickle, &number| pickle.int(number)).raw(b"t")
    }
    /// A tensor of `kind` on storage `key` of `count` values.
    fn tensor(self, kind: &str, (key, count): (&str, i32), view: &View) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"((")
            .text("storage")
            .global("torch", kind)
            .text(key)
            .text("cpu")
            .int(count)
            .raw(b"tQ")
            .int(view.offset)
            .ints(view.shape)
            .ints(view.stride)
            .raw(b"\x89")
            .global("collections", "OrderedDict")
            .raw(b")RtR")
    }
    fn end(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

struct View {
    offset: i32,
    shape: &'static [i32],
    stride: &'static [i32],
}

const fn view(offset: i32, shape: &'static [i32], stride: &'static [i32]) -> View {
    View { offset, shape, stride }
}

fn archive(pickle: &[u8], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    archive_with(stored, &[("net/data.pkl", pickle.to_vec())], storages)
}

fn archive_with(
    options: SimpleFileOptions,
    entries: &[(&str, Vec<u8>)],
    storages: &[(&str, Vec<u8>)],
) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let storages = storages.iter().map(|(key, bytes)| (format!("net/data/{key}"), bytes));
    let entries = entries.iter().map(|(name, bytes)| ((*name).to_owned(), bytes));
    for (name, bytes) in entries.chain(storages) {
        writer.start_file(name, options).expect("an entry");
        writer.write_all(bytes).expect("an entry");
    }
    writer.finish().expect("an archive").into_inner()
}

fn legacy(pickle: &[u8], storages: &[(&str, Vec<u8>)], width: usize) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(b"\x80\x02M\xe9\x03.");
    bytes.extend(Pickle::new().raw(b"}").end());
    bytes.extend_from_slice(pickle);
    let keys = storages.iter().fold(Pickle::new().raw(b"]("), |keys, (key, _)| keys.text(key));
    bytes.extend(keys.raw(b"e").end());
    for (_, values) in storages {
        bytes.extend((values.len() as u64 / width as u64).to_le_bytes());
        bytes.extend_from_slice(values);
    }
    bytes
}

fn floats(count: usize) -> Vec<u8> {
    (0..count).flat_map(|value| (value as f32).to_le_bytes()).collect()
}

/// Two tensors: one plain, one a transposed window behind an offset.
fn two_tensors() -> Vec<u8> {
    Pickle::new()
        .raw(b"}(")
        .text("a.weight")
        .tensor("FloatStorage", ("0", 6), &view(0, &[2, 3], &[3, 1]))
        .text("a.bias")
        .tensor("FloatStorage", ("1", 8), &view(1, &[3, 2], &[1, 3]))
        .raw(b"u")
        .end()
}

/// Checkpoints of all kinds that can be read: for the fuzzers, too.
pub(in crate::graph::formats) fn samples() -> Vec<Vec<u8>> {
    let storages = [("0", floats(6)), ("1", floats(8))];
    let mut samples =
        vec![archive(&two_tensors(), &storages), legacy(&two_tensors(), &storages, 4)];
    for name in ["state.pt", "legacy.pt", "checkpoint.pt", "protocol4.pt"] {
        samples.push(fixture(name));
    }
    samples
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pytorch");
    std::fs::read(folder.join(name)).expect("a fixture")
}

fn values(state: &StateDict) -> Vec<(&str, &[usize], Vec<f32>)> {
    let value =
        |(name, weight): &'_ (String, crate::graph::Weight)| weight.floats().map(|_| name.len());
    assert!(state.entries.iter().all(|entry| value(entry).is_some()));
    let entries = state.entries.iter();
    entries
        .map(|(name, weight)| (&name[..], &weight.shape[..], weight.floats().unwrap_or_default()))
        .collect()
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes, &Limits::default()).expect_err("a refusal").to_string()
}

/// A pickle in both containers, with one storage of eight floats.
fn both(pickle: &[u8]) -> [Vec<u8>; 2] {
    let storages = [("0", floats(8))];
    [archive(pickle, &storages), legacy(pickle, &storages, 4)]
}

#[test]
fn both_containers_give_the_same_tensors() {
    let storages = [("0", floats(6)), ("1", floats(8))];
    for bytes in [archive(&two_tensors(), &storages), legacy(&two_tensors(), &storages, 4)] {
        let state = read(&bytes, &Limits::default()).expect("a state dict");
        assert!(state.is_ordered);
        let expected: [(&str, &[usize], Vec<f32>); 2] = [
            ("a.weight", &[2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
            ("a.bias", &[3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
        ];
        assert_eq!(values(&state), expected);
    }
}

/// Files of PyTorch 2.11 (scripts/make_pytorch_references.py).
#[test]
fn files_of_pytorch_are_read() {
    for name in ["state.pt", "legacy.pt", "checkpoint.pt", "protocol4.pt"] {
        let state = read(&fixture(name), &Limits::default()).expect("a state dict");
        let found: Vec<(&str, Dtype, &[usize])> =
            state.entries.iter().map(|(name, w)| (&name[..], w.dtype, &w.shape[..])).collect();
        let expected: [(&str, Dtype, &[usize]); 8] = [
            ("plain", Dtype::F32, &[2, 3]),
            ("transposed", Dtype::F32, &[3, 2]),
            ("window", Dtype::F32, &[2, 2]),
            ("tied", Dtype::F32, &[2, 3]),
            ("half", Dtype::F16, &[2]),
            ("brain", Dtype::BF16, &[2]),
            ("double", Dtype::F64, &[2]),
            ("count", Dtype::I64, &[]),
        ];
        assert_eq!(found, expected, "{name}");
        let floats = |at: usize| state.entries[at].1.floats().expect("floats");
        assert_eq!(floats(0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{name}");
        assert_eq!(floats(1), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0], "{name}");
        assert_eq!(floats(2), [5.0, 6.0, 9.0, 10.0], "{name}");
        assert_eq!(
            (floats(3), floats(4), floats(5)),
            (floats(0), vec![0.5, -2.0], vec![0.5, -2.0])
        );
        assert_eq!(state.entries[6].1.data(), [0.5_f64, -2.0].map(f64::to_le_bytes).concat());
        assert_eq!(state.entries[7].1.data(), 7_i64.to_le_bytes());
    }
}

#[test]
fn code_is_refused_with_advice() {
    for (name, expected) in [
        ("script.pt", "TorchScript"),
        ("module.pt", "\"torch.nn.modules.linear.Linear\""),
        ("hostile.pt", "\"posix.system\""),
    ] {
        let message = refusal(&fixture(name));
        assert!(message.contains(expected), "{name}: {message}");
        assert!(message.contains("torch.onnx.export"), "{name}: {message}");
    }
    let call = Pickle::new().global("os", "system").text("true").raw(b"\x85R").end();
    let stacked = Pickle::new().text("builtins").text("eval").raw(b"\x93").end();
    for (pickle, expected) in [(call, "\"os.system\""), (stacked, "\"builtins.eval\"")] {
        for bytes in both(&pickle) {
            let message = refusal(&bytes);
            assert!(message.contains(expected) && message.contains("nothing"), "{message}");
        }
    }
}

#[test]
fn hostile_pickles_are_refused() {
    let tensor = |view: View| {
        Pickle::new().raw(b"}").text("w").tensor("FloatStorage", ("0", 8), &view).raw(b"s").end()
    };
    let counted = |count: i32| {
        let view = view(0, &[2], &[1]);
        Pickle::new()
            .raw(b"}")
            .text("w")
            .tensor("FloatStorage", ("0", count), &view)
            .raw(b"s")
            .end()
    };
    let cases = [
        // A length of 4 GB in a file of a few bytes.
        (Pickle::new().raw(b"X\xff\xff\xff\xff").end(), "expected 4294967295 bytes"),
        (Pickle::new().raw(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff").end(), "bytes, found"),
        (Pickle::new().raw(b"h\x07").end(), "memo 7 is empty"),
        (Pickle::new().raw(b"(0").end(), "expected a value on the stack"),
        (Pickle::new().raw(b"t").end(), "expected a mark"),
        (Pickle::new().raw(b"}(N").raw(b"u").end(), "a key without one"),
        (Pickle::new().raw(b"Nb").end(), "expected a value on the stack"),
        (Pickle::new().raw(b"i").end(), "found 0x69"),
        (Pickle(vec![0x80, 9]).end(), "protocol 2 to 5, found 9"),
        (Pickle::new().raw(b"c").raw(&[b'x'; 300]).end(), "in 256 bytes"),
        (Pickle::new().raw(b"]").end(), "expected a state dict, found Sequence"),
        (Pickle::new().raw(b"}").text("epoch").int(3).raw(b"s").end(), "the keys [\"epoch\"]"),
        (tensor(view(-1, &[2], &[1])), "at least 0, found Int(-1)"),
        (tensor(view(0, &[-2], &[1])), "at least 0, found Int(-2)"),
        (tensor(view(7, &[2], &[1])), "within its storage of 8 values"),
        (tensor(view(0, &[2, 2], &[7, 1])), "within its storage of 8 values"),
        (tensor(view(0, &[i32::MAX, 1], &[0, 1])), "within its storage of 8 values"),
        (tensor(view(0, &[2], &[1, 1])), "one stride a dimension"),
        (tensor(view(0, &[1; 9], &[1; 9])), "at most 8 dimensions"),
        (counted(i32::MAX), "expected a storage of 2147483647 values"),
        (counted(-1), "expected a size, found -1"),
    ];
    for (pickle, expected) in cases {
        for bytes in both(&pickle) {
            let message = refusal(&bytes);
            assert!(message.contains(expected), "expected {expected:?}, found {message}");
        }
    }
}

/// What is named again and again costs no more than its names, or is refused.
#[test]
fn bombs_do_not_go_off() {
    // Each list holds the one before it ten times: 10^40 values if one unfolded it.
    let mut nested = Pickle::new().raw(b"]q\0");
    for level in 0..40_u8 {
        nested = nested.raw(b"](");
        for _ in 0..10 {
            nested = nested.raw(&[b'h', level]);
        }
        nested = nested.raw(&[b'e', b'q', level + 1]);
    }
    // A million lists, each in the next.
    let deep = Pickle::new().raw(&vec![b']'; 1_000_000]).raw(&vec![b'a'; 999_999]).end();
    for bytes in both(&nested.end()).into_iter().chain(both(&deep)) {
        assert!(refusal(&bytes).contains("expected a state dict"));
    }
    // One storage under many names takes more than the file.
    let mut many = Pickle::new()
        .raw(b"}(")
        .text("w")
        .tensor("FloatStorage", ("0", 4096), &view(0, &[4096], &[1]))
        .raw(b"q\0");
    for name in 0..100 {
        many = many.text(&format!("w{name}")).raw(b"h\0");
    }
    let storages = [("0", floats(4096))];
    let error = read(&archive(&many.raw(b"u").end(), &storages), &Limits::default());
    assert!(matches!(error, Err(Error::Limit { .. })), "{error:?}");
    // More opcodes than a network of so many nodes needs.
    let limits = Limits { nodes_max: 100, ..Limits::default() };
    let error = read(&archive(&Pickle::new().raw(&[b'N'; 500]).end(), &[]), &limits);
    assert!(matches!(error, Err(Error::Limit { limit: 400, .. })), "{error:?}");
    // Weights beyond the user's limit.
    let limits = Limits { weight_bytes_max: 47, ..Limits::default() };
    let error = read(&samples()[0], &limits);
    assert!(matches!(error, Err(Error::Limit { found: 48, limit: 47, .. })), "{error:?}");
}

#[test]
fn damaged_containers_are_refused() {
    let storages = [("0", floats(6)), ("1", floats(8))];
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let short = [("0", floats(5)), ("1", floats(8))];
    let missing = [("0", floats(6))];
    let mut cut = legacy(&two_tensors(), &storages, 4);
    cut.truncate(cut.len() - 4);
    let cases = [
        (archive_with(deflated, &[("net/data.pkl", two_tensors())], &storages), "found compressed"),
        (archive(&two_tensors(), &short), "tensor \"a.weight\": expected a storage of 6 values"),
        (archive(&two_tensors(), &missing), "expected an entry data/\"1\", found none"),
        (archive_with(deflated, &[("x.npy", vec![0])], &[]), "an entry data.pkl, found \"x.npy\""),
        (legacy(&two_tensors(), &missing, 4), "expected a storage \"1\", found none"),
        (legacy(&two_tensors(), &short, 4), "expected a storage of 6 values"),
        (cut, "expected 8 values of F32, found 28 bytes"),
        (b"\x80\x02K\x01.".to_vec(), "the magic number of torch.save"),
        (b"PK\x03\x04".to_vec(), "not a readable PyTorch checkpoint"),
    ];
    for (bytes, expected) in cases {
        let message = refusal(&bytes);
        assert!(message.contains(expected), "expected {expected:?}, found {message}");
    }
}
