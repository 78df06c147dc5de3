use super::{images, npy, npy_u1, npz, rows};
use crate::data::{RowDataset, open, open_npy_images, open_npz_bytes, write_rows};
use crate::rows::Rows;
use std::fs;
use std::io::Write;

#[test]
fn numpy_files_are_read_as_numpy_meant_them() {
    let bytes = include_bytes!("../../../tests/data/datasets/numpy_u8.npz");
    let dataset = images(open_npz_bytes("numpy_u8.npz", bytes));
    assert_eq!(dataset.class_names, ["n3", "n7", "neun ü"]);
    assert_eq!(dataset.labels, [1, 0, 1, 0, 2, 2, 1]);
    // Groups 0, 5, 9 in order; the two images without a group are alone.
    assert_eq!(dataset.groups.as_deref(), Some(&[0, 0, 1, 3, 2, 4, 2][..]));
    let loaded = dataset.load(&[6, 0]);
    assert_eq!(loaded.groups, Some(vec![2, 0]));
    assert_eq!((loaded.images[0].height(), loaded.images[0].width()), (3, 4));
    let expected: Vec<u8> = (6 * 36..7 * 36).map(|value: usize| (value % 251) as u8).collect();
    assert_eq!(loaded.images[0].pixels(), expected);

    let big = include_bytes!("../../../tests/data/datasets/numpy_be.npz");
    let big = images(open_npz_bytes("numpy_be.npz", big));
    assert_eq!(big.class_names, ["3", "7", "9"]);
    assert_eq!(big.load(&[6]).images[0].pixels(), expected);

    let floats = include_bytes!("../../../tests/data/datasets/numpy_f32.npz");
    let floats = images(open_npz_bytes("numpy_f32.npz", floats)).load(&[0]);
    let scaled: Vec<u8> = (0..12).map(|i| (i as f32 * 3.0 * 255.0 / 250.0).round() as u8).collect();
    assert_eq!((floats.images[0].channels(), floats.images[0].pixels()), (1, &scaled[..]));
}

#[test]
fn stored_and_deflated_archives_and_four_channels() {
    let pixels: Vec<u8> = [0, 0, 0, 0].repeat(4);
    for deflate in [false, true] {
        let entries =
            [("x", npy_u1("4, 1, 1, 4", &pixels)), ("y", npy_u1("4,", &[1, 1, 200, 200]))];
        let dataset = images(open_npz_bytes("mem", &npz(&entries, deflate)));
        assert_eq!(dataset.class_names, ["1", "200"]);
        assert_eq!(dataset.groups, None);
        assert_eq!(dataset.load(&[0]).images[0].pixels(), [255; 3]);
        assert_eq!(dataset.load(&[4]).skipped.len(), 1);
    }
}

#[test]
fn npy_pairs_open_by_file_and_by_folder() {
    let dir = tempfile::tempdir().unwrap();
    let images_path = dir.path().join("images.npy");
    fs::write(&images_path, npy_u1("4, 2, 1", &[1, 2, 3, 4, 5, 6, 7, 8])).unwrap();
    assert!(open(&images_path).unwrap_err().to_string().contains("labels.npy"));
    fs::write(dir.path().join("labels.npy"), npy_u1("4", &[0, 1, 0, 1])).unwrap();
    for path in [images_path.as_path(), dir.path()] {
        let dataset = images(open(path));
        assert_eq!(dataset.labels, [0, 1, 0, 1]);
        assert_eq!(dataset.load(&[3]).images[0].pixels(), [7, 8]);
    }
}

fn idx(magic: [u8; 4], sides: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(sides.iter().flat_map(|side| side.to_be_bytes()));
    bytes.extend(data);
    bytes
}

#[test]
fn idx_pairs_open_plain_and_gzipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let pictures = idx([0, 0, 8, 3], &[4, 1, 2], &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&pictures).unwrap();
    fs::write(path("train-images-idx3-ubyte.gz"), gzip.finish().unwrap()).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().contains("no labels"));
    let labels = idx([0, 0, 8, 1], &[4], &[5, 0, 5, 0]);
    fs::write(path("train-labels-idx1-ubyte"), &labels).unwrap();
    fs::write(path("t10k-images-idx3-ubyte"), "never read").unwrap();
    for path in [dir.path().to_path_buf(), path("train-images-idx3-ubyte.gz")] {
        let dataset = images(open(&path));
        assert_eq!(dataset.class_names, ["0", "5"]);
        assert_eq!(dataset.labels, [1, 0, 1, 0]);
        assert_eq!(dataset.load(&[1]).images[0].pixels(), [3, 4]);
    }
    fs::write(path("train-labels-idx1-ubyte"), &labels[..labels.len() - 1]).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().contains("found fewer"));
    fs::write(path("train-labels-idx1-ubyte"), idx([0, 0, 8, 1], &[3], &[5, 0, 5])).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().contains("4 labels"));
}

#[test]
fn arrays_in_memory_are_read_as_in_an_npz() {
    let unit: Vec<u8> = [0.0_f32, 1.0, 0.2, 0.6].iter().flat_map(|v| v.to_le_bytes()).collect();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 2), }\n";
    let read = open_npy_images("images", &npy(header, &unit)).unwrap();
    assert_eq!(
        read.iter().map(crate::sample::Image::pixels).collect::<Vec<_>>(),
        [[0, 255], [51, 153]]
    );
    let planes = npy_u1("1, 3, 2, 2", &[0; 12]);
    let refusal = open_npy_images("images", &planes).unwrap_err().to_string();
    assert!(refusal.contains("x.transpose(0, 2, 3, 1)"), "{refusal}");
}

#[test]
fn an_array_without_labels_names_the_file_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("images.npy"), npy_u1("4, 1, 1", &[1, 2, 3, 4])).unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("images.npy")] {
        let refusal = open(&path).unwrap_err().to_string();
        assert!(refusal.contains("labels.npy, found no such file"), "{refusal}");
    }
}

fn some_rows() -> RowDataset {
    let mut scalars = [Some(0.5); 10];
    scalars[6] = None;
    RowDataset {
        class_names: vec!["cat".into(), "Kühe".into()],
        labels: vec![0, 1, 0, 1],
        rows: Rows::new(3, (0..12).map(|value| value as f32 / 7.0).collect()).unwrap(),
        scalars,
        backbone: [9; 32],
        task: Some([7; 32]),
    }
}

#[test]
fn rows_come_back_as_they_were_written() {
    let mut bytes = Vec::new();
    write_rows(&some_rows(), &mut bytes).unwrap();
    let mut again = Vec::new();
    write_rows(&some_rows(), &mut again).unwrap();
    assert_eq!(bytes, again);
    assert_eq!(rows(open_npz_bytes("rows.npz", &bytes)), some_rows());
    let nameless = RowDataset { task: None, ..some_rows() };
    let mut bytes = Vec::new();
    write_rows(&nameless, &mut bytes).unwrap();
    assert_eq!(rows(open_npz_bytes("rows.npz", &bytes)), nameless);
}

#[test]
fn rows_that_are_not_finite_are_refused_both_ways() {
    let mut bad = some_rows();
    bad.rows = Rows::new(3, vec![f32::NAN; 12]).unwrap();
    assert!(write_rows(&bad, &mut Vec::new()).is_err());
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1), }\n";
    let values: Vec<u8> = [1.0, 2.0, f32::NAN, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut entries = vec![("rows", npy(header, &values)), ("y", npy_u1("4", &[0, 1, 0, 1]))];
    let refusal = open_npz_bytes("rows.npz", &npz(&entries, true)).unwrap_err().to_string();
    assert!(refusal.contains("no backbone"), "{refusal}");
    entries.push(("backbone", npy_u1("32", &[1; 32])));
    let refusal = open_npz_bytes("rows.npz", &npz(&entries, true)).unwrap_err().to_string();
    assert!(refusal.contains("row 2"), "{refusal}");
}
