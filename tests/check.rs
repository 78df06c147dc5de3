//! How much `check` reads, and how much it says of one damage.

#![cfg(feature = "cli")]

#[path = "common/command.rs"]
mod command;

use command::{done, objects, tans};
use std::fs;
use std::path::PathBuf;
use tans::{Database, InitOptions, OpenOptions, unobserved};
use tempfile::TempDir;

/// So many that they have a segment.
const MODELS: usize = 2_100;

fn the_file(folder: PathBuf) -> PathBuf {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let files: Vec<PathBuf> = files.collect();
    let [file] = &files[..] else { panic!("expected one file, found {files:?}") };
    file.clone()
}

fn zoo_with_a_segment() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path();
    let (zoo, _) = Database::init(&at.join("zoo"), &InitOptions::default(), OpenOptions::default())
        .expect("a new zoo");
    let lines = (0..MODELS)
        .map(|model| format!("m{model},benchmark/font_style,{}\n", model as f32 / MODELS as f32));
    let csv: String = std::iter::once("model,dataset,accuracy\n".to_owned()).chain(lines).collect();
    fs::write(at.join("results.csv"), csv).expect("files can be written");
    zoo.record_file(&at.join("results.csv"), &mut unobserved).expect("sound results");
    zoo.merge(&mut unobserved).expect("the segment can be written");
    folder
}

#[test]
fn a_segment_is_summed_once_by_the_full_check_and_not_by_the_fast_one() {
    let folder = zoo_with_a_segment();
    let at = folder.path();
    let segment = the_file(at.join("zoo/segments"));
    let mut bytes = fs::read(&segment).expect("the segment");
    // The fourth row of the section table begins with the offset of the vectors, whose bits nothing but a sum knows.
    let row = 128 + 3 * 24;
    let vectors = u64::from_le_bytes(bytes[row..row + 8].try_into().expect("8 bytes")) as usize;
    bytes[vectors] ^= 1;
    fs::write(&segment, bytes).expect("files can be written");
    // A second look at the damaged segment would warn that it is left aside.
    let fast = done(at, "check zoo --fast --json");
    assert_eq!(fast.err, "");
    assert_eq!(objects(&fast.out)[0]["vectors"], MODELS);
    let full = tans(at, "check zoo --json");
    assert_eq!((full.code, full.err.as_str()), (Some(1), ""));
    let report = &objects(&full.out)[0];
    assert_eq!(report["vectors"], MODELS);
    let findings = report["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), 1, "{report}");
    assert!(findings[0]["file"].to_string().contains("segments/"), "{report}");
}

#[test]
fn a_cut_pack_is_one_finding_that_names_the_models() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path();
    done(at, "init zoo");
    done(at, "ingest zoo small:cnn-w16@32 small:cnn-w18@32 --benchmark none");
    let pack = the_file(at.join("zoo/packs"));
    let file = fs::OpenOptions::new().write(true).open(&pack).expect("a pack can be opened");
    file.set_len(100).expect("a pack can be cut");
    let shown = done(at, "show zoo cnn-w16 --json");
    assert!(objects(&shown.out)[0]["weight_bytes"].as_u64() > Some(4_000), "{shown:?}");
    for line in ["check zoo --fast --json", "check zoo --json"] {
        let answer = tans(at, line);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        let report = &objects(&answer.out)[0];
        let findings = report["findings"].as_array().expect("a list");
        let of_packs = |finding: &&serde_json::Value| finding["file"] == "packs/000001.pack";
        let of_packs: Vec<_> = findings.iter().filter(of_packs).collect();
        let [finding] = of_packs[..] else { panic!("{report}") };
        assert_eq!(finding["models"], serde_json::json!(["cnn-w16", "cnn-w18"]), "{report}");
        assert!(finding["what"].to_string().contains("tensors reach beyond the end"), "{report}");
    }
}

#[test]
fn damaged_encoders_are_a_finding_and_can_be_learned_anew() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path();
    done(at, "init zoo");
    let pack = the_file(at.join("zoo/packs"));
    let mut bytes = fs::read(&pack).expect("a readable pack");
    // The encoders of a new zoo are the last thing that is written.
    let last = bytes.iter().rposition(|&byte| byte != 0).expect("a pack holds tensors");
    bytes[last] ^= 1;
    fs::write(&pack, bytes).expect("files can be written");
    let answer = tans(at, "list zoo");
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert!(answer.err.contains("learned again"), "{}", answer.err);
    let answer = tans(at, "check zoo --json");
    assert_eq!(answer.code, Some(1), "{}{}", answer.out, answer.err);
    let report = &objects(&answer.out)[0];
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(1), "{report}");
    assert!(report["findings"][0]["remedy"].to_string().contains("tans reindex"), "{report}");
    done(at, "reindex zoo");
    done(at, "check zoo");
    done(at, "ingest zoo small:cnn-w16@32 --benchmark none");
    assert_eq!(objects(&done(at, "query zoo task:benchmark/font_style --json").out).len(), 1);
}

/// Without the rows of its tasks the encoders of a zoo cannot be made again: others would answer something else.
#[test]
fn a_zoo_that_lost_what_it_had_learned_from_does_not_answer() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path();
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/queries/char_digits");
    done(at, "init zoo");
    done(at, "ingest zoo small:cnn-w16@32 --benchmark none --name base");
    done(at, &format!("measure zoo base {digits}"));
    done(at, "train zoo");
    let pack = the_file(at.join("zoo/packs"));
    fs::rename(&pack, at.join("away")).expect("files can be moved");
    for line in [format!("query zoo {digits}"), format!("explain zoo {digits} base")] {
        let answer = tans(at, &line);
        assert_eq!(answer.code, Some(3), "{answer:?}");
        assert!(answer.err.contains("tans restore"), "{answer:?}");
    }
    assert!(done(at, "list zoo").out.contains("base"));
    fs::rename(at.join("away"), &pack).expect("files can be moved");
    done(at, &format!("query zoo {digits}"));
}
