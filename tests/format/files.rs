//! Files beside the zoo: starter bundles, cached rows, files of rows.

use super::bytes::{Found, Reader, ensure, floats, hash, hex};
use super::life::Written;
use super::records::{Model, Sample, Task};
use super::zoo::{Zoo, entries, read_file};
use half::f16;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

/// dtype, shape, bytes
type Tensor<'a> = (String, Vec<u64>, &'a [u8]);

/// Members of a tar file by name; their time stamps are 0.
fn members(bytes: &[u8]) -> Found<BTreeMap<String, &[u8]>> {
    let mut members = BTreeMap::new();
    let mut from = Reader::new("bundle", bytes);
    loop {
        let head = from.take(512)?;
        if head.iter().all(|byte| *byte == 0) {
            ensure(from.rest().iter().all(|byte| *byte == 0), || "bundle: no end".into())?;
            return Ok(members);
        }
        let field = |at: usize, length: usize| {
            let text = String::from_utf8_lossy(&head[at..at + length]).into_owned();
            text.split('\0').next().unwrap_or_default().trim().to_owned()
        };
        let octal = |at: usize, length: usize| {
            let text = field(at, length);
            usize::from_str_radix(&text, 8).map_err(|_| format!("bundle: {text:?} is no number"))
        };
        let (name, length) = (field(0, 100), octal(124, 12)?);
        ensure(octal(136, 12)? == 0, || format!("bundle: {name} has a time stamp"))?;
        members.insert(name, from.take(length)?);
        from.zeros(length.next_multiple_of(512) - length)?;
    }
}

/// Tensors of a safetensors file.
fn safetensors(bytes: &[u8]) -> Found<BTreeMap<String, Tensor<'_>>> {
    let mut from = Reader::new("safetensors", bytes);
    let length = from.le_u64()? as usize;
    let mut head: BTreeMap<String, Value> =
        serde_json::from_slice(from.take(length)?).map_err(|error| error.to_string())?;
    head.remove("__metadata__");
    let data = from.rest();
    let tensor = |(name, entry): (String, Value)| {
        let field = |key: &str| -> Vec<u64> {
            let list = entry[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_u64).collect()
        };
        let [start, end] = field("data_offsets")[..] else {
            return Err(format!("{name}: {entry}"));
        };
        let place = data.get(start as usize..end as usize);
        let place = place.ok_or_else(|| format!("{name} leaves the file"))?;
        let dtype = entry["dtype"].as_str().unwrap_or_default().to_owned();
        Ok((name, (dtype, field("shape"), place)))
    };
    head.into_iter().map(tensor).collect()
}

/// A number as it is printed, which is shorter than the same number as f64.
fn printed(number: f32) -> Value {
    json!(number.to_string().parse::<f64>().expect("a number"))
}

fn all_printed(numbers: &[f32]) -> Vec<Value> {
    numbers.iter().map(|number| printed(*number)).collect()
}

pub fn bundle_holds_the_zoo(zoo: &Zoo, written: &Written) {
    let file = read_file(&written.bundle);
    let members = members(&file).expect("a tar file");
    let manifest: Value = serde_json::from_slice(members["manifest.json"]).expect("a manifest");
    let [tasks, signatures] = ["tasks", "signatures"].map(|name| {
        safetensors(members[format!("{name}.safetensors").as_str()]).expect("safetensors")
    });
    // Tasks in the order of their ids, models in the order of their rows.
    let list: Vec<&Task> = zoo.tasks.values().collect();
    let entries: Vec<Value> = list.iter().map(|task| task_entry(zoo, task)).collect();
    let models: Vec<&Model> = zoo.models.values().collect();
    let model_entries: Vec<Value> = models.iter().map(|model| model_entry(zoo, model)).collect();
    let place = |row: &u64| models.iter().position(|model| model.row == *row);
    let pairs: Vec<Value> = zoo
        .latest()
        .iter()
        .map(|((task, row, kind), accuracy)| {
            let task = list.iter().position(|one| one.id == *task);
            let kind = ["Probe", "Finetune", "Reported"][usize::from(*kind)];
            json!([task, place(row), kind, printed(*accuracy)])
        })
        .collect();
    for (at, entry) in model_entries.iter().enumerate() {
        assert_eq!(manifest["models"][at], *entry, "model {at} of the bundle");
    }
    let expected = json!({
        "version": 1, "signature_version": 1, "backbone": zoo.backbone,
        "tasks": entries, "models": model_entries, "pairs": pairs,
    });
    assert!(manifest == expected, "the manifest of the bundle says something else than the zoo");
    let mut names = vec!["manifest.json".to_owned()];
    names.extend(["signatures.safetensors".to_owned(), "tasks.safetensors".to_owned()]);
    for (at, model) in models.iter().enumerate() {
        let signature = signatures.get(&at.to_string());
        let bits = zoo.signatures.get(&model.row).map(|stored| &stored[2..]);
        assert_eq!(signature.map(|(_, _, bytes)| *bytes), bits, "signature of {}", model.name);
        if model.graph.is_some() {
            let files = [format!("models/{at}.graph"), format!("models/{at}.safetensors")];
            network_is_that_of_the_zoo(zoo, model, files.each_ref().map(|name| members[name]));
            names.extend(files);
        }
    }
    names.sort();
    assert!(names.iter().eq(members.keys()), "members of the bundle: {:?}", members.keys());
    for (at, task) in list.iter().enumerate() {
        if let Some(sample) = &task.sample {
            let of_task = |name: &str| tasks.get(&format!("{at}.{name}"));
            sample_is_that_of_the_zoo(zoo, sample, of_task);
        }
    }
}

fn task_entry(zoo: &Zoo, task: &Task) -> Value {
    let sample = task.sample.as_ref();
    if let Some(sample) = sample {
        assert!(sample.labels.len() <= 64, "the bundle of this zoo has all rows of each task");
        assert!(zoo.tensors.contains_key(&sample.rows));
    }
    let scalars = sample.map_or(vec![None; 10], |sample| sample.scalars.clone());
    let scalars: Vec<Option<Value>> = scalars.into_iter().map(|one| one.map(printed)).collect();
    json!({
        "id": task.id, "name": task.name, "family": task.family, "class_names": task.class_names,
        "benchmark": task.benchmark, "labels": sample.map(|sample| &sample.labels),
        "scalars": scalars,
    })
}

fn model_entry(zoo: &Zoo, model: &Model) -> Value {
    let row_of = |id: &[u8; 32]| zoo.models.values().position(|other| other.id == *id);
    let task_of = |id: &[u8; 32]| zoo.tasks.keys().position(|other| other == id);
    let latency = model.latency.as_ref().map(|(median, device, threads)| {
        json!({ "median_ms": printed(*median), "device": device, "threads": threads })
    });
    let architecture = model.architecture.as_ref().map(|(space, config, numbers)| {
        json!({ "space": space, "config": config, "numbers": all_printed(numbers) })
    });
    json!({
        "name": model.name, "uri": model.uri, "license": model.license, "tags": model.tags,
        "parent": model.parent.as_ref().map(row_of),
        "seen": model.seen.iter().map(task_of).collect::<Vec<_>>(), "built_in": false,
        "weight_names": model.weights.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "input": model.input, "not_runnable": model.not_runnable, "architecture": architecture,
        "cost": {
            "params": model.params, "macs": model.macs, "latency": latency,
            "peak_activation_bytes": model.peak_activation_bytes,
        },
        "topology": all_printed(&model.topology), "class_names": model.class_names,
    })
}

fn network_is_that_of_the_zoo(zoo: &Zoo, model: &Model, [graph, weights]: [&[u8]; 2]) {
    let name = &model.name;
    let stored = zoo.bytes(&model.graph.expect("a network")).expect("a graph");
    assert!(graph == stored, "graph of {name}");
    let weights = safetensors(weights).expect("weights");
    assert_eq!(weights.len(), model.weights.len(), "weights of {name}");
    for (position, (_, id)) in model.weights.iter().enumerate() {
        let tensor = &zoo.tensors[id];
        let stored = zoo.bytes(id).expect("a weight");
        let narrowed: Vec<u8> =
            floats(stored).into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect();
        let (found, dtype, bytes) = match weights.get(&format!("{position}.f32")) {
            Some(found) => (found, "F16", &narrowed[..]),
            None => (&weights[&position.to_string()], tensor.dtype_name(), stored),
        };
        assert_eq!((found.0.as_str(), &found.1), (dtype, &tensor.shape), "{name}, {position}");
        assert!(found.2 == bytes, "weight {position} of {name}");
    }
}

fn sample_is_that_of_the_zoo<'a>(
    zoo: &Zoo,
    sample: &Sample,
    of_task: impl Fn(&str) -> Option<&'a Tensor<'a>>,
) {
    let parts = [("rows", Some(sample.rows)), ("means", Some(sample.class_means))];
    for (name, id) in parts.into_iter().chain([("hashes", sample.image_hashes)]) {
        let found = of_task(name);
        assert_eq!(found.is_some(), id.is_some(), "{name}");
        if let (Some((dtype, shape, bytes)), Some(id)) = (found, id) {
            let tensor = &zoo.tensors[&id];
            assert_eq!((dtype.as_str(), shape), (tensor.dtype_name(), &tensor.shape), "{name}");
            assert!(*bytes == zoo.bytes(&id).expect("bytes"), "{name}");
        }
    }
}

fn sample_of_colours(zoo: &Zoo) -> &Sample {
    let task = zoo.tasks.values().find(|task| task.name == "colours").expect("a task");
    task.sample.as_ref().expect("a sample")
}

fn narrowed(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect()
}

/// The training part of `colours` is one block of the backbone's rows, and the test part needs none.
pub fn cached_rows_are_those_of_the_task(zoo: &Zoo, written: &Written) {
    let sample = sample_of_colours(zoo);
    let hashes = zoo.bytes(&sample.image_hashes.expect("hashes")).expect("hashes");
    let block = &hashes[..32 * sample.labels.len()];
    let name = hex(&hash(&[&[1], &zoo.backbone, block]));
    let folder = written.cache.join("rows");
    assert!(entries(&folder).contains(&name), "{:?}, expected {name}", entries(&folder));
    let file = read_file(&folder.join(&name));
    let (body, sum) = file.split_last_chunk::<4>().expect("a checksum");
    assert_eq!(crc32c::crc32c(body), u32::from_le_bytes(*sum), "{name}");
    let rows = zoo.bytes(&sample.rows).expect("rows");
    assert!(narrowed(&floats(body)) == rows, "cached rows are those of the task");
}

/// Shape and bytes of an array, whose type must be `descr`.
fn array(file: &[u8], name: &str, descr: &str) -> (String, Vec<u8>) {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(file)).expect("an npz");
    let mut bytes = Vec::new();
    let mut member = archive.by_name(&format!("{name}.npy")).expect("an array of the document");
    member.read_to_end(&mut bytes).expect("a sound member");
    let mut from = Reader::new(name, &bytes);
    from.literal(b"\x93NUMPY\x01\x00").expect("npy 1.0");
    let length = u16::from_le_bytes(from.array().expect("a length"));
    let head = from.take(length.into()).expect("a header").to_vec();
    let head = String::from_utf8(head).expect("a header of text");
    let expected = format!("'descr': '{descr}', 'fortran_order': False, 'shape': (");
    let (_, shape) = head.split_once(&expected).unwrap_or_else(|| panic!("{name}: {head}"));
    (shape.split(')').next().unwrap_or_default().to_owned(), from.rest().to_vec())
}

pub fn rows_file_holds_the_rows_of_the_task(zoo: &Zoo, written: &Written) {
    let sample = sample_of_colours(zoo);
    let file = read_file(&written.rows);
    let rows = sample.labels.len();
    let dim = zoo.tensors[&sample.rows].shape[1];
    let (shape, values) = array(&file, "rows", "<f4");
    assert_eq!(shape, format!("{rows}, {dim}"));
    assert!(narrowed(&floats(&values)) == zoo.bytes(&sample.rows).expect("rows"), "rows");
    let labels: Vec<u8> =
        sample.labels.iter().flat_map(|label| i64::from(*label).to_le_bytes()).collect();
    assert_eq!(array(&file, "y", "<i8"), (format!("{rows},"), labels));
    let (shape, scalars) = array(&file, "scalars", "<f4");
    assert_eq!(shape, "10,");
    let known: Vec<Option<f32>> =
        floats(&scalars).into_iter().map(|x| (!x.is_nan()).then_some(x)).collect();
    assert_eq!(known, sample.scalars);
    let backbone = ("32,".to_owned(), zoo.backbone.to_vec());
    assert_eq!(array(&file, "backbone", "|u1"), backbone);
    let names: Vec<u8> = ["blue\0", "green", "red\0\0"]
        .concat()
        .chars()
        .flat_map(|letter| u32::from(letter).to_le_bytes())
        .collect();
    assert_eq!(array(&file, "class_names", "<U5"), ("3,".to_owned(), names));
}
