//! docs/FORMAT.md is right: decoders written from it alone, with nothing of ours, find in a closed zoo what the public
//! API says of it. They are no part of the library, so a layout that changes without its document is seen here.

#![cfg(feature = "torch")]

#[path = "format/backup.rs"]
mod backup;
#[path = "format/bytes.rs"]
mod bytes;
#[path = "format/files.rs"]
mod files;
#[path = "format/graph.rs"]
mod graph;
#[path = "common/images.rs"]
mod images;
#[path = "common/library.rs"]
#[expect(dead_code, reason = "one zoo is enough here")]
mod library;
#[path = "format/life.rs"]
mod life;
#[path = "format/records.rs"]
mod records;
#[path = "format/segment.rs"]
mod segment;
#[path = "format/zoo.rs"]
mod zoo;

use bytes::{Id, Reader, hash, hex};
use life::{Said, Written};
use records::{Model, Place};
use segment::Segment;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use zoo::{Raw, Zoo, entries, read_file};

const KINDS: [&str; 3] = ["probe", "finetune", "reported"];

#[test]
fn a_zoo_is_what_the_document_says() {
    let written = life::live();
    directory(&written.zoo);
    texts_of_those_who_have_it_open(&written);
    let raw = Raw::read(&written.zoo, "FORMAT");
    let zoo = Zoo::decode(&raw).expect("a sound zoo");
    assert_eq!(zoo::marker(&raw.marker).expect("a marker"), zoo.format);
    zoo.keep_rules();
    something_of_everything(&zoo);
    packs_have_no_unexplained_byte(&zoo);
    models_are_as_said(&zoo, &written.said);
    weights_are_as_said(&zoo, &written.said);
    tasks_are_as_said(&zoo, &written.said);
    figures_are_as_said(&zoo, &written.said);
    identities(&zoo, &written);
    vectors_are_those_of_the_segment(&zoo, &written);
    files::cached_rows_are_those_of_the_task(&zoo, &written);
    files::rows_file_holds_the_rows_of_the_task(&zoo, &written);
    backups_hold_the_zoo(&zoo, &written);
    files::bundle_holds_the_zoo(&zoo, &written);
    flipped_bytes_are_found(&raw, &zoo, &written);
}

#[test]
fn a_new_zoo_is_what_the_document_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path().join("zoo");
    drop(library::init(&at, Vec::new()));
    directory(&at);
    let zoo = Zoo::decode(&Raw::read(&at, "FORMAT")).expect("a sound zoo");
    zoo.keep_rules();
    packs_have_no_unexplained_byte(&zoo);
    assert!(zoo.models.is_empty() && zoo.tasks.values().all(|task| task.benchmark));
    assert_eq!(zoo.generation.as_ref().map(|generation| generation.number), Some(0));
}

#[test]
fn zoos_of_earlier_versions_are_what_the_document_says() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("storage/tests/data");
    for version in entries(&data) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = folder.path().join("zoo");
        life::copy(&data.join(&version).join("zoo"), &at);
        directory(&at);
        let raw = Raw::read(&at, "FORMAT");
        let zoo = Zoo::decode(&raw).expect("a sound zoo");
        assert_eq!(format!("v{}", zoo.format), version);
        assert_eq!(zoo::marker(&raw.marker).expect("a marker"), zoo.format);
        zoo.keep_rules();
        let names: Vec<&str> = zoo.models.values().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["m0", "m1", "m2", "m4"], "what storage/tests/golden.rs has made");
        let accuracies: Vec<f32> = zoo.latest().into_values().collect();
        assert_eq!(accuracies, [0.75]);
    }
}

/// Nothing lies in a closed zoo that the document does not name.
fn directory(zoo: &Path) {
    for name in entries(zoo) {
        let known = ["FORMAT", "LOCK", "db", "packs", "readers", "segments"];
        assert!(known.contains(&name.as_str()), "{name} in {}", zoo.display());
    }
    assert!(read_file(&zoo.join("LOCK")).is_empty(), "nobody writes");
    for name in entries(&zoo.join("segments")) {
        assert!(name.len() > 10 && name[..10].bytes().all(|byte| byte.is_ascii_digit()), "{name}");
    }
}

fn texts_of_those_who_have_it_open(written: &Written) {
    let [name, position, lock] = &written.while_open;
    let process = std::process::id().to_string();
    let (found, number) = name.split_once('-').expect("PID-N");
    assert!(found == process && number.parse::<u64>().is_ok(), "reader {name}");
    let digits = position.strip_suffix('\n').expect("a line end");
    assert!(digits.len() == 20 && digits.parse::<u64>().is_ok_and(|at| at > 0), "{position:?}");
    assert!(lock.contains(&process), "lock of process {process}: {lock:?}");
}

/// What a test of a document must not miss.
fn something_of_everything(zoo: &Zoo) {
    let kinds: BTreeSet<u8> = zoo.pairs.keys().map(|(_, _, kind, _)| *kind).collect();
    assert!(kinds.into_iter().eq(0..3), "each kind of pair");
    let lines: BTreeSet<u8> = zoo.oplog.values().map(records::Operation::number).collect();
    assert!(lines.into_iter().eq(0..7), "each kind of line in the op log");
    let mut tensors = zoo.tensors.values();
    let is_inline = |place: &Place| matches!(place, Place::Inline(_));
    assert!(tensors.clone().any(|tensor| is_inline(&tensor.place)), "a tensor in its record");
    assert!(tensors.clone().any(|tensor| !is_inline(&tensor.place)), "a tensor in a pack");
    assert!(tensors.any(|tensor| tensor.references == 0), "a tensor of a removed model");
    let mut models = zoo.models.values();
    assert!(models.any(|m| m.parent.is_some() && !m.seen.is_empty()), "a fine-tuned model");
}

fn packs_have_no_unexplained_byte(zoo: &Zoo) {
    for (pack, gap) in zoo.gaps() {
        let gap = gap.expect("no overlap");
        let zeros = gap.iter().all(|byte| *byte == 0);
        assert!(gap.len() < 64 && zeros, "pack {pack}: {} bytes between tensors", gap.len());
    }
}

fn task_name(zoo: &Zoo, id: &Id) -> String {
    zoo.tasks[id].name.clone()
}

fn models_are_as_said(zoo: &Zoo, said: &Said) {
    let by_name: BTreeMap<&str, &Model> =
        zoo.models.values().map(|model| (model.name.as_str(), model)).collect();
    assert!(by_name.keys().eq(said.shows.keys()), "names of models");
    let names: BTreeMap<Id, &str> =
        zoo.models.values().map(|model| (model.id, model.name.as_str())).collect();
    let latest = zoo.latest();
    for (name, show) in &said.shows {
        let model = by_name[name.as_str()];
        let is_reference = model.graph.is_none();
        let known = |count: u64| if is_reference && count == 0 { None } else { Some(count) };
        let stored = |number: u64| (!is_reference).then_some(number);
        let weights =
            model.weights.iter().map(|(_, id)| zoo.bytes(id).expect("bytes").len() as u64);
        let status = if is_reference { "reference" } else { "stored" };
        let mut seen: Vec<String> = model.seen.iter().map(|id| task_name(zoo, id)).collect();
        seen.sort();
        let mut results: Vec<(String, &str, u32)> = latest
            .iter()
            .filter(|((_, row, _), _)| *row == model.row)
            .map(|((task, _, kind), accuracy)| {
                (task_name(zoo, task), KINDS[usize::from(*kind)], accuracy.to_bits())
            })
            .collect();
        results.sort();
        let expected = json!({
            "model": model.name, "id": hex(&model.id),
            "params": known(model.params), "macs": known(model.macs),
            "license": model.license, "tags": model.tags, "source_tasks": seen,
            "status": model.not_runnable.clone().unwrap_or_else(|| status.to_owned()),
            "parent": model.parent.map(|id| names[&id]), "uri": model.uri,
            "architecture":
                model.architecture.as_ref().map(|(space, config, _)| format!("{space}:{config}")),
            "input": input(model), "peak_activation_bytes": stored(model.peak_activation_bytes),
            "weight_bytes": stored(weights.sum()), "class_names": model.class_names,
            "results": results, "created": model.created,
        });
        assert_eq!(*show, expected, "{name}");
    }
}

/// The input contract, as `show` prints it.
fn input(model: &Model) -> serde_json::Value {
    if model.graph.is_none() {
        assert!(model.input.is_empty(), "a reference has no input contract");
        return serde_json::Value::Null;
    }
    let read = |from: &mut Reader<'_>| {
        let (height, width) = (from.number32()?, from.number32()?);
        let layout = ["Nchw", "Nhwc"][from.number()? as usize];
        let order = ["Rgb", "Bgr", "Grey"][from.number()? as usize];
        let scale = from.float()?;
        let (mean, std) = (from.list(Reader::float)?, from.list(Reader::float)?);
        Ok(json!({
            "height": height, "width": width, "layout": layout, "order": order, "scale": scale,
            "mean": mean, "std": std,
        }))
    };
    records::value("input contract", &model.input, read).expect("an input contract")
}

fn weights_are_as_said(zoo: &Zoo, said: &Said) {
    assert!(!said.weights.is_empty());
    for (name, weights) in &said.weights {
        let model = zoo.models.values().find(|model| model.name == *name).expect("a model");
        assert_eq!(model.weights.len(), weights.len(), "{name}");
        for ((weight, id), expected) in model.weights.iter().zip(weights) {
            let tensor = &zoo.tensors[id];
            assert_eq!(*weight, expected.name, "{name}");
            assert_eq!(tensor.dtype_name(), expected.dtype, "{name}, {weight}");
            assert_eq!(tensor.shape, expected.shape, "{name}, {weight}");
            assert!(zoo.bytes(id).expect("bytes") == expected.bytes, "{name}, {weight}");
        }
    }
}

fn tasks_are_as_said(zoo: &Zoo, said: &Said) {
    let latest = zoo.latest();
    let found: BTreeMap<String, serde_json::Value> = zoo
        .tasks
        .values()
        .map(|task| {
            let sample = task.sample.as_ref();
            if let Some(sample) = sample {
                keep_sample(zoo, task.class_names.len(), sample);
            }
            let pairs = latest.keys().filter(|(id, _, _)| *id == task.id).count();
            let value = json!({
                "task": task.name, "id": hex(&task.id),
                "family": task.family.as_ref().unwrap_or(&task.name),
                "classes": task.class_names.len(),
                "rows": sample.map_or(0, |sample| sample.labels.len()), "pairs": pairs,
                "benchmark": task.benchmark, "reference": sample.is_none(),
            });
            (task.name.clone(), value)
        })
        .collect();
    assert_eq!(found, said.tasks);
}

fn keep_sample(zoo: &Zoo, classes: usize, sample: &records::Sample) {
    assert_eq!(sample.backbone, zoo.backbone);
    let [rows, means] = [sample.rows, sample.class_means].map(|id| &zoo.tensors[&id]);
    let dim = rows.shape[1];
    assert_eq!((rows.dtype_name(), means.dtype_name()), ("F16", "F16"));
    assert_eq!(rows.shape, [sample.labels.len() as u64, dim]);
    assert_eq!(means.shape, [classes as u64, dim]);
    assert!(rows.shape[0] <= 200 && sample.labels.iter().all(|label| (*label as usize) < classes));
    let hashes = sample.image_hashes.map(|id| &zoo.tensors[&id]);
    assert!(hashes.is_none_or(|hashes| hashes.dtype_name() == "U8" && hashes.shape[1] == 32));
}

fn figures_are_as_said(zoo: &Zoo, said: &Said) {
    let generation = zoo.generation.as_ref().expect("a generation");
    let used = || zoo.tensors.iter().filter(|(_, tensor)| tensor.references > 0);
    let length = |id: &Id| zoo.bytes(id).expect("bytes").len() as u64;
    let found = json!({
        "models": zoo.models.len(), "tasks": zoo.tasks.len(), "pairs": zoo.latest().len(),
        "tensors": used().count(),
        "distinct_bytes": used().map(|(id, _)| length(id)).sum::<u64>(),
        "logical_bytes": used().map(|(id, t)| t.references * length(id)).sum::<u64>(),
        "generation": generation.number, "recipe": zoo.encoders[&generation.encoder].recipe,
    });
    for (name, value) in found.as_object().expect("an object") {
        assert_eq!(said.stats[name], *value, "{name} of {found}");
    }
}

fn identities(zoo: &Zoo, written: &Written) {
    for model in zoo.models.values() {
        let id = match (&model.graph, &model.uri) {
            (Some(graph), _) => {
                is_bytes(zoo, graph);
                let graph = zoo.bytes(graph).expect("a graph");
                graph::is_canonical(graph, model.weights.len()).expect("a canonical graph");
                let ids: Vec<u8> = model.weights.iter().flat_map(|(_, id)| *id).collect();
                hash(&[
                    b"tans model 1",
                    &(graph.len() as u64).to_le_bytes(),
                    graph,
                    &(model.weights.len() as u64).to_le_bytes(),
                    &ids,
                    &model.input,
                ])
            }
            (None, Some(uri)) => hash(&[b"tans model ref 1", uri.as_bytes()]),
            (None, None) => panic!("{} has neither graph nor URI", model.name),
        };
        assert_eq!(hex(&id), hex(&model.id), "{}", model.name);
        let signature = zoo.signatures.get(&model.row);
        assert_eq!(signature.is_some(), model.graph.is_some(), "signature of {}", model.name);
        if let Some(signature) = signature {
            assert_eq!(signature.len(), 2 * 513, "signature of {}", model.name);
            assert_eq!(signature[..2], [1, 0], "signature of {}", model.name);
        }
    }
    for task in zoo.tasks.values().filter(|task| task.sample.is_none()) {
        let id = hash(&[b"tans task ref 1", task.name.as_bytes()]);
        assert_eq!(hex(&id), hex(&task.id), "{}", task.name);
    }
    for encoder in zoo.encoders.values() {
        is_bytes(zoo, &encoder.blob);
        let blob = zoo.bytes(&encoder.blob).expect("the encoders");
        records::checked("encoders", blob).expect("the encoders are a value");
        assert_eq!(hex(&hash(&[blob])), hex(&encoder.fingerprint), "encoders {}", encoder.number);
    }
    dataset_is_that_of_its_images(zoo, written);
}

/// The task that the test made: its images are known.
fn dataset_is_that_of_its_images(zoo: &Zoo, written: &Written) {
    let task = zoo.tasks.values().find(|task| task.name == "colours").expect("a task");
    let mut images = written.images.clone();
    images.sort();
    let mut parts = b"tans task 1".to_vec();
    for (image, label) in &images {
        parts.extend(image);
        parts.extend(label.to_le_bytes());
    }
    assert_eq!(hex(&hash(&[&parts])), hex(&task.id), "the dataset's id");
    let sample = task.sample.as_ref().expect("a sample");
    let hashes = zoo.bytes(&sample.image_hashes.expect("hashes")).expect("hashes");
    let order: Vec<Id> = hashes.chunks(32).map(|one| one.try_into().expect("32 bytes")).collect();
    let labels: BTreeMap<Id, u32> = written.images.iter().copied().collect();
    assert!(
        order.iter().collect::<BTreeSet<_>>().into_iter().eq(labels.keys()),
        "hashes of images"
    );
    let training: Vec<u32> = order.iter().map(|id| labels[id]).take(sample.labels.len()).collect();
    assert_eq!(training, sample.labels, "images of the rows come first");
}

fn is_bytes(zoo: &Zoo, id: &Id) {
    let (tensor, length) = (&zoo.tensors[id], zoo.bytes(id).expect("bytes").len() as u64);
    assert_eq!((tensor.dtype_name(), &tensor.shape), ("U8", &vec![length]));
}

fn vectors_are_those_of_the_segment(zoo: &Zoo, written: &Written) {
    let generation = zoo.generation.as_ref().expect("a generation");
    let name = generation.segment.as_ref().expect("a segment");
    assert_eq!(name[..10].parse(), Ok(generation.number), "{name}");
    let file = read_file(&written.zoo.join("segments").join(name));
    let segment = Segment::decode(&file).expect("a sound segment");
    segment.keep_rules();
    assert!(!segment.level_counts.is_empty(), "the test wants a point above level 0");
    assert_eq!(hex(&segment.fingerprint), hex(&zoo.encoders[&generation.encoder].fingerprint));
    let stats = &written.said.stats;
    assert_eq!(
        (&stats["dim"], &stats["segment_vectors"]),
        (&json!(segment.dim), &json!(segment.count))
    );
    let rows: BTreeSet<u64> = segment.keys.iter().copied().collect();
    for (point, row) in segment.keys.iter().enumerate() {
        let Some(model) = zoo.models.get(row) else { continue };
        let vector = &segment.vector(point)[..segment.dim];
        let stored = &zoo.embeddings[&(generation.encoder, *row)];
        let error = vector.iter().zip(stored).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(vector.len() == stored.len() && error < 1e-6, "{}: {error}", model.name);
        attributes_are_those_of_the_record(&segment, point, model);
    }
    let fresh: Vec<&str> = zoo
        .models
        .values()
        .filter(|model| !rows.contains(&model.row))
        .map(|model| model.name.as_str())
        .collect();
    assert_eq!(fresh, ["late"], "what came after the merge");
    assert_eq!(stats["fresh_vectors"], json!(fresh.len()));
    let embedded = zoo.embeddings.keys().filter(|(encoder, _)| *encoder == generation.encoder);
    assert_eq!(embedded.count(), zoo.models.len(), "a vector for each model");
}

fn attributes_are_those_of_the_record(segment: &Segment, point: usize, model: &Model) {
    let flags = segment.flags[point];
    let known = |flag: u8| flags & flag != 0;
    let license = known(8).then(|| segment.strings[segment.license[point] as usize].clone());
    assert_eq!(license, model.license, "license of {}", model.name);
    let tags: BTreeSet<&str> =
        segment.tags[point].iter().map(|tag| segment.strings[*tag as usize].as_str()).collect();
    let expected: Vec<String> =
        model.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(tags, expected.iter().map(String::as_str).collect(), "tags of {}", model.name);
    assert_eq!(segment.params[point], model.params, "params of {}", model.name);
    assert_eq!(segment.macs[point], model.macs, "macs of {}", model.name);
    let latency = known(4).then_some(segment.latency[point]);
    assert_eq!(latency, model.latency.as_ref().map(|latency| latency.0), "{}", model.name);
    assert_eq!((known(1), known(2)), (model.params > 0, model.macs > 0), "{}", model.name);
}

fn backups_hold_the_zoo(zoo: &Zoo, written: &Written) {
    let folder = &written.backups;
    assert_eq!(entries(folder), ["000001", "000002", "BACKUP"]);
    assert_eq!(read_file(&folder.join("BACKUP")), b"tans backup\nformat 1\n");
    let [first, second] = ["000001", "000002"].map(|name| folder.join(name));
    assert!(backup::shares(&first, &second) > 0, "nothing was shared");
    let manifest = backup::read(&second);
    assert_eq!((manifest.format, manifest.sequence), (zoo.format, zoo.sequence));
    assert_eq!(Path::new(&manifest.zoo), written.zoo);
    let raw = Raw::read(&second, "MANIFEST");
    let mut copy = Zoo::decode(&raw).expect("a sound backup");
    copy.keep_rules();
    // What the zoo has begun since then, a header alone.
    let (newest, header) = zoo.packs.last_key_value().expect("a pack");
    assert_eq!(header.len(), 64, "pack {newest}");
    copy.packs.insert(*newest, header.clone());
    assert!(copy == *zoo, "the newest backup holds something else than its zoo");
}

/// Each byte of a value, a header or a section counts.
fn flipped_bytes_are_found(raw: &Raw, zoo: &Zoo, written: &Written) {
    flipped_values_are_found(raw);
    flipped_packs_are_found(raw, zoo);
    let name = zoo.generation.as_ref().and_then(|g| g.segment.clone()).expect("a segment");
    let mut file = read_file(&written.zoo.join("segments").join(name));
    let places = Segment::decode(&file).expect("a sound segment").places;
    let ends = places.iter().filter(|(start, end)| end > start);
    let inside = ends.flat_map(|(start, end)| [*start, (start + end) / 2, end - 1]);
    for at in (0..704).chain(inside.collect::<Vec<_>>()) {
        // The fingerprint and the seed are held by the header's checksum as well.
        file[at] ^= 4;
        assert!(Segment::decode(&file).is_err(), "byte {at} of the segment");
        file[at] ^= 4;
    }
    let mut manifest = read_file(&written.backups.join("000002/MANIFEST"));
    for at in 0..manifest.len() {
        manifest[at] ^= 4;
        assert!(backup::Manifest::decode(&manifest).is_err(), "byte {at} of the manifest");
        manifest[at] ^= 4;
    }
}

/// The first value of each family.
fn flipped_values_are_found(raw: &Raw) {
    for (family, pairs) in &raw.families {
        let Some((_, value)) = pairs.first() else { continue };
        for at in 0..value.len() {
            let mut value = value.clone();
            value[at] ^= 16;
            let found = records::value(family, &value, |from| Ok(from.rest().len()));
            assert!(found.is_err(), "byte {at} of a value of {family}");
        }
    }
    for at in 0..raw.marker.len() {
        let mut marker = raw.marker.clone();
        marker[at] ^= 4;
        let found = zoo::marker(&marker);
        assert_ne!(found, zoo::marker(&raw.marker), "byte {at} of the marker");
    }
}

/// The header of each pack, and the ends and the middle of one tensor in it.
fn flipped_packs_are_found(raw: &Raw, zoo: &Zoo) {
    for number in raw.packs.keys() {
        let of_pack = |place: &Place| match place {
            Place::Pack { pack, offset } if pack == number => Some(*offset as usize),
            Place::Pack { .. } | Place::Inline(_) => None,
        };
        let tensor = zoo.tensors.values().find_map(|t| Some((of_pack(&t.place)?, t)));
        // The one that the backup began.
        let Some((start, tensor)) = tensor else { continue };
        let length = tensor.length().expect("a known dtype");
        for at in [0, 8, 12, 16, 31, 32, 36, 63, start, start + length / 2, start + length - 1] {
            let mut damaged = raw.clone();
            damaged.packs.get_mut(number).expect("the pack")[at] ^= 4;
            assert!(Zoo::decode(&damaged).is_err(), "byte {at} of pack {number}");
        }
    }
}
