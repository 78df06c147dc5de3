//! Starter bundles that lie: each is refused in words, and no zoo comes of it.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;
#[path = "common/images.rs"]
mod images;
#[path = "common/zoo.rs"]
mod zoo;

use command::{done, objects, tans};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::Path;
use tempfile::TempDir;
use zoo::zoo_of_one;

type Members = Vec<(String, Vec<u8>)>;

/// A bundle of a network with a result on a dataset, taken apart.
fn bundle() -> (TempDir, Members) {
    let folder = zoo_of_one();
    let at = folder.path();
    done(at, "measure zoo base colours");
    done(at, "export zoo --starter -o whole.tar");
    let mut archive =
        tar::Archive::new(fs::File::open(at.join("whole.tar")).expect("the bundle is there"));
    let members = archive.entries().expect("a tar archive").map(|entry| {
        let mut entry = entry.expect("a member");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("its bytes");
        (name, bytes)
    });
    let members = members.collect();
    (folder, members)
}

fn write(path: &Path, members: &Members) {
    let mut archive = tar::Builder::new(fs::File::create(path).expect("files can be written"));
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &bytes[..]).expect("a member");
    }
    archive.finish().expect("files can be written");
}

/// What `init` says of a bundle that must be refused.
fn refusal(at: &Path, members: &Members, lie: &str) -> String {
    write(&at.join("lie.tar"), members);
    let answer = tans(at, "init fresh --starter lie.tar");
    assert_eq!(answer.code, Some(2), "{lie}: {}", answer.err);
    assert!(!at.join("fresh").exists(), "{}", answer.err);
    answer.err
}

fn member<'a>(members: &'a mut Members, name: &str) -> &'a mut Vec<u8> {
    let found = members.iter_mut().find(|(known, _)| known == name);
    &mut found.expect("every bundle has it").1
}

#[test]
fn what_a_manifest_says_is_proven() {
    type Lie = (&'static str, fn(&mut Value), &'static str);
    let lies: [Lie; 16] = [
        ("blank name", |it| it["models"][0]["name"] = json!(" "), "nothing but blanks"),
        ("odd name", |it| it["tasks"][0]["name"] = json!("a\u{7}"), "control characters"),
        ("blank family", |it| it["tasks"][0]["family"] = json!(""), "family name"),
        ("own parent", |it| it["models"][0]["parent"] = json!(0), "a parent before it"),
        ("seen nothing", |it| it["models"][0]["seen"] = json!([999]), "tasks below"),
        ("costs", |it| it["models"][0]["cost"]["params"] = json!(1), "parameters, found 1"),
        ("topology", |it| it["models"][0]["topology"] = json!([1.0]), "topology numbers"),
        ("contract", |it| it["models"][0]["input"] = json!([1, 2]), "base"),
        ("landmark", |it| it["tasks"][0]["scalars"][0] = json!(1e38), "landmarks within"),
        ("accuracy", |it| it["pairs"][0][3] = json!(1.7), "accuracy in 0..1, found 1.7"),
        ("pair", |it| it["pairs"][0][1] = json!(7), "a model below 1, found 7"),
        ("label", |it| it["tasks"][0]["labels"][0] = json!(5000), "labels below"),
        (
            "twin task",
            |it| it["tasks"][1]["id"] = it["tasks"][0]["id"].clone(),
            "each task id once",
        ),
        (
            "twin name",
            |it| it["tasks"][1]["name"] = it["tasks"][0]["name"].clone(),
            "each task once",
        ),
        ("version", |it| it["version"] = json!(99), "bundle version"),
        (
            "weights",
            |it| it["models"][0]["weight_names"][1] = it["models"][0]["weight_names"][0].clone(),
            "each weight once",
        ),
    ];
    let (folder, whole) = bundle();
    for (name, lie, expected) in lies {
        let mut members = whole.clone();
        let manifest = member(&mut members, "manifest.json");
        let mut said: Value = serde_json::from_slice(manifest).expect("JSON");
        lie(&mut said);
        *manifest = serde_json::to_vec(&said).expect("JSON");
        let told = refusal(folder.path(), &members, name);
        assert!(told.contains(expected) && told.contains("lie.tar"), "{name}: {told}");
    }
    write(&folder.path().join("whole.tar"), &whole);
    done(folder.path(), "init fresh --starter whole.tar");
    let check = objects(&done(folder.path(), "check fresh --json").out);
    assert!(check.iter().any(|line| line["sound"] == true), "{check:?}");
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let (folder, whole) = bundle();
    for name in ["models/0.safetensors", "tasks.safetensors", "signatures.safetensors"] {
        let mut members = whole.clone();
        let bytes = member(&mut members, name);
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("JSON");
        let place = |tensor: &Value| {
            let ends = tensor["data_offsets"].as_array()?;
            let [from, to] = [ends[0].as_u64()? as usize, ends[1].as_u64()? as usize];
            (tensor["dtype"] == "F16" && to - from > 2).then_some(from)
        };
        // All of them, because the tasks that every zoo has are not read.
        for place in tensors.as_object().expect("tensors").values().filter_map(place) {
            let infinity = [0x00, 0x7c];
            bytes[8 + header + place..][..2].copy_from_slice(&infinity);
        }
        let told = refusal(folder.path(), &members, name);
        assert!(told.contains("finite") || told.contains("infinit"), "{name}: {told}");
    }
}

/// A directory that was there before, perhaps by another name, is left as it was.
#[test]
fn a_failed_init_leaves_a_linked_directory_in_place() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path();
    fs::create_dir(at.join("real")).expect("a directory can be made");
    std::os::unix::fs::symlink("real", at.join("link")).expect("a link can be made");
    fs::write(at.join("bad.tar"), "no bundle").expect("files can be written");
    let answer = tans(at, "init link --starter bad.tar");
    assert_eq!(answer.code, Some(2), "{}", answer.err);
    assert!(at.join("link").is_symlink());
    assert_eq!(fs::read_dir(at.join("real")).expect("it is there").count(), 0);
    done(at, "init link");
    done(at, "check real");
}
