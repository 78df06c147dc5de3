//! Real files in temporary folders, hostile files, and properties of split and sample.

mod files;
mod folders;
mod hostile;
mod splits;

use super::{Dataset, Error, ImageDataset, RowDataset};

fn images(dataset: Result<Dataset, Error>) -> ImageDataset {
    match dataset.unwrap() {
        Dataset::Images(images) => images,
        Dataset::Rows(_) => panic!("expected images"),
    }
}

fn rows(dataset: Result<Dataset, Error>) -> RowDataset {
    match dataset.unwrap() {
        Dataset::Rows(rows) => rows,
        Dataset::Images(_) => panic!("expected rows"),
    }
}

/// An npz of (name, npy bytes), deflated or stored.
fn npz(entries: &[(&str, Vec<u8>)], deflate: bool) -> Vec<u8> {
    use std::io::Write;
    let method =
        if deflate { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// An npy file, written by hand from the description of the format.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

fn npy_u1(shape: &str, data: &[u8]) -> Vec<u8> {
    npy(&format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}\n"), data)
}
