use super::{npy, npy_u1, npz};
use crate::data::open_npz_bytes;

/// The refusal of an archive with these images and sound labels.
fn refusal(x: Vec<u8>) -> String {
    let labels = npy_u1("4", &[0, 1, 0, 1]);
    open_npz_bytes("mem", &npz(&[("x", x), ("y", labels)], true)).unwrap_err().to_string()
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")
}

#[test]
fn lying_headers_are_refused_by_name() {
    let cases = [
        (header("'|u1'", "(4611686018427387904, 4611686018427387904, 1)"), "at most"),
        (header("'|u1'", "(4, 100000, 100000)"), "at most"),
        (header("'|u1'", "(-4, 1, 1)"), "whole numbers"),
        (header("'|u1'", "(4, 1.5, 1)"), "whole numbers"),
        (header("'|u1'", "(99999999999999999999999999, 1, 1)"), "whole numbers"),
        (header("'|u1'", "(4, 2, 2)"), "found fewer"),
        (header("'|u1'", "(4, 1)"), "shape [4, 1]"),
        (header("'|u1'", "(1, 1, 1)"), "found more"),
        (header("'|O'", "(4, 1, 1)"), "object array"),
        (header("'<c8'", "(4, 1, 1)"), "dtype"),
        (header("'<f16'", "(4, 1, 1)"), "dtype"),
        (header("[('a', '<f4')]", "(4, 1, 1)"), "one type"),
        (header("'|u1'", "(4, 1, 1"), "whole numbers"),
        ("{'é".into(), "one type"),
        (String::new(), "one type"),
    ];
    for (header, expected) in cases {
        let message = refusal(npy(&header, &[1, 2, 3, 4]));
        assert!(message.contains(expected), "{header}: {message}");
        assert!(message.contains("\"x\""), "{message}");
    }
    assert!(refusal(b"PK".to_vec()).contains("truncated"));
    assert!(refusal(b"\x93NUMPY\x09\x00xxxxxxx".to_vec()).contains("version 9"));
    assert!(refusal(b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec()).contains("64 kB"));
}

#[test]
fn objects_fortran_order_and_unclear_ranges_are_refused() {
    let object = include_bytes!("../../../tests/data/datasets/numpy_object.npz");
    let message = open_npz_bytes("o", object).unwrap_err().to_string();
    assert!(message.contains("\"y\"") && message.contains("pickle"), "{message}");
    let fortran = include_bytes!("../../../tests/data/datasets/numpy_fortran.npz");
    assert!(open_npz_bytes("f", fortran).unwrap_err().to_string().contains("Fortran"));
    for values in [[0.0, 16.0, 3.0, 1.0], [-1.0, 1.0, 0.0, 0.5], [0.0, 300.0, 0.0, 1.0]] {
        let bytes: Vec<u8> = values.iter().flat_map(|v: &f64| v.to_le_bytes()).collect();
        let message = refusal(npy(&header("'<f8'", "(4, 1, 1)"), &bytes));
        assert!(message.contains("0..255"), "{message}");
    }
    let nan = [f64::NAN; 4].map(f64::to_le_bytes).concat();
    assert!(refusal(npy(&header("'<f8'", "(4, 1, 1)"), &nan)).contains("NaN"));
}

#[test]
fn labels_must_fit_the_images() {
    let x = npy_u1("4, 1, 1", &[1, 2, 3, 4]);
    let message = |y: Vec<u8>| {
        open_npz_bytes("mem", &npz(&[("x", x.clone()), ("y", y)], true)).unwrap_err().to_string()
    };
    assert!(message(npy_u1("3", &[0, 1, 0])).contains("each of the 4 samples"));
    assert!(message(npy_u1("4", &[0, 0, 0, 0])).contains("one class"));
    assert!(message(npy_u1("4", &[0, 0, 0, 1])).contains("1 sample;"));
    let halves: Vec<u8> = [0.5f32; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert!(message(npy(&header("'<f4'", "(4,)"), &halves)).contains("found 0.5"));
    let empty = npz(&[("x", npy_u1("0, 1, 1", &[])), ("y", npy_u1("0", &[]))], true);
    assert!(open_npz_bytes("mem", &empty).unwrap_err().to_string().contains("no sample"));
    let lonely = npz(&[("x", x.clone()), ("z", x.clone())], true);
    assert!(open_npz_bytes("mem", &lonely).unwrap_err().to_string().contains("\"z\""));
}

#[test]
fn a_deflate_bomb_costs_no_more_than_its_header_says() {
    let mut bomb = npy_u1("4, 1, 1", &[1, 2, 3, 4]);
    bomb.resize(64 << 20, 0);
    assert!(refusal(bomb).contains("found more"));
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    let bytes = include_bytes!("../../../tests/data/datasets/numpy_u8.npz");
    for length in 0..bytes.len() {
        assert!(open_npz_bytes("cut", &bytes[..length]).is_err(), "{length}");
    }
    for position in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[position] ^= 0x81;
        if let Ok(super::Dataset::Images(dataset)) = open_npz_bytes("flip", &flipped) {
            dataset.load(&[0]);
        }
    }
}
