//! Links the binary and the tests to the libtorch that they were built against, and compiles the
//! ONNX schema.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    }
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("assets/onnx");
    let schema = folder.join("onnx.proto");
    println!("cargo:rerun-if-changed={}", schema.display());
    let descriptors = protox::compile([&schema], [&folder])?;
    // Raw tensor data as shared bytes: writing hands weights to the encoder without a copy.
    prost_build::Config::new().bytes([".onnx.TensorProto.raw_data"]).compile_fds(descriptors)?;
    Ok(())
}
