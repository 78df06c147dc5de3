//! A checkpoint as PyTorch wrote it before 1.6.

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(b'X');
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn int(bytes: &mut Vec<u8>, number: usize) {
    bytes.push(b'J');
    bytes.extend((number as i32).to_le_bytes());
}

fn ints(bytes: &mut Vec<u8>, numbers: &[usize]) {
    bytes.push(b'(');
    numbers.iter().for_each(|&number| int(bytes, number));
    bytes.push(b't');
}

/// A file of these f32 tensors (name, shape, little-endian values), each on a storage of its own.
pub fn checkpoint(tensors: &[(String, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    file.extend_from_slice(b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}(");
    for (key, (name, shape, values)) in tensors.iter().enumerate() {
        text(&mut file, name);
        file.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut file, "storage");
        file.extend_from_slice(b"ctorch\nFloatStorage\n");
        text(&mut file, &key.to_string());
        text(&mut file, "cpu");
        int(&mut file, values.len() / 4);
        file.extend_from_slice(b"tQ");
        int(&mut file, 0);
        ints(&mut file, shape);
        let strides: Vec<usize> =
            (0..shape.len()).map(|at| shape[at + 1..].iter().product()).collect();
        ints(&mut file, &strides);
        file.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    file.extend_from_slice(b"u.\x80\x02](");
    (0..tensors.len()).for_each(|key| text(&mut file, &key.to_string()));
    file.extend_from_slice(b"e.");
    for (_, _, values) in tensors {
        file.extend((values.len() as u64 / 4).to_le_bytes());
        file.extend_from_slice(values);
    }
    file
}
