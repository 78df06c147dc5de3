//! The command line's `--json`: one documented object a line, and nothing else.

#![cfg(all(feature = "cli", feature = "torch"))]

#[path = "common/command.rs"]
mod command;
#[path = "common/images.rs"]
mod images;
#[path = "common/zoo.rs"]
mod zoo;

use command::{done, objects};
use serde_json::Value;
use std::collections::BTreeSet;
use zoo::zoo_of_one;

/// Commands in an order in which each has what it needs, and how many lines it prints.
const PRINTED: [(&str, usize); 34] = [
    ("init other", 1),
    ("ingest zoo small:cnn-w18@32 --benchmark none", 1),
    ("query zoo colours", 2),
    ("query zoo colours --rerank 2", 2),
    ("query zoo colours --budget 10s", 2),
    ("list zoo", 2),
    ("show zoo base", 1),
    ("task add zoo seen colours", 1),
    ("task list zoo", 9),
    ("measure zoo --all colours", 2),
    ("measure zoo base colours --by finetune --epochs 1", 1),
    ("finetune zoo base colours --epochs 1 --benchmark none --name tuned", 2),
    ("remove zoo tuned", 1),
    ("explain zoo colours base", 1),
    ("record zoo base seen 0.5", 1),
    ("encode zoo colours -o rows.npz", 1),
    ("query zoo rows.npz", 2),
    ("export zoo base -o base.safetensors", 1),
    ("stats zoo", 1),
    ("train zoo --force", 1),
    ("edit zoo base --tag a=b", 1),
    ("remove zoo base", 1),
    ("task remove zoo seen", 1),
    ("reindex zoo", 1),
    ("check zoo", 1),
    ("check zoo --fast", 1),
    ("gc zoo", 1),
    ("backup zoo copies", 1),
    ("restore copies again", 1),
    ("query again task:benchmark/font_style", 1),
    ("show again cnn-w18", 1),
    ("grow again colours --space small@32 --budget 2 --epochs 1 --benchmark none", 3),
    ("ingest again mobilenetv3_tiny:supernet@32 --name whole --benchmark none", 1),
    ("cut again whole --max-params 1M --candidates 2 --calibrate colours --benchmark none", 1),
];

/// The fields that docs/JSON.md gives to a command.
fn documented(command: &str) -> BTreeSet<String> {
    let page = include_str!("../docs/JSON.md");
    let quoted = |text: &str| -> Vec<String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let named = |section: &&str| {
        let heading = section.lines().next().unwrap_or_default();
        quoted(heading).iter().any(|name| name == command)
    };
    let section = page.split("\n## ").find(named);
    let section = section.unwrap_or_else(|| panic!("docs/JSON.md has no section {command}"));
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    let mut fields: BTreeSet<String> = rows.flat_map(|row| quoted(&format!("`{row}"))).collect();
    if let Some(line) = section.lines().find(|line| line.starts_with("The fields of")) {
        fields.extend(documented(&quoted(line)[0]));
    }
    fields
}

#[test]
fn json_prints_documented_objects_and_nothing_else() {
    let folder = zoo_of_one();
    let at = folder.path();
    for (line, count) in PRINTED {
        let command = match line.strip_prefix("task ") {
            Some(rest) => &line[..5 + rest.find(' ').unwrap_or(0)],
            None => line.split(' ').next().unwrap_or_default(),
        };
        let printed = objects(&done(at, &format!("{line} --json")).out);
        assert_eq!(printed.len(), count, "tans {line}: {printed:?}");
        for (at, object) in printed.iter().enumerate() {
            let section = match (command, at + 1 < count) {
                // Epochs come before the result of a fine-tuning.
                ("finetune", true) => continue,
                ("grow", true) => "grow training",
                _ => command,
            };
            let fields = object.as_object().into_iter().flat_map(|object| object.keys().cloned());
            assert_eq!(fields.collect::<BTreeSet<_>>(), documented(section), "tans {line}");
        }
    }
}

#[test]
fn hits_come_in_order_with_sound_numbers() {
    let folder = zoo_of_one();
    let hits = objects(&done(folder.path(), "query zoo colours --json").out);
    assert_eq!(hits.len(), 1);
    for (index, hit) in hits.iter().enumerate() {
        assert_eq!(hit["rank"], index + 1);
        let number = |value: &Value| value.as_f64().expect("a number");
        let (low, high) = (number(&hit["interval"][0]), number(&hit["interval"][1]));
        let predicted = number(&hit["predicted_accuracy"]);
        assert!(0.0 <= low && low <= predicted && predicted <= high && high <= 1.0, "{hit}");
        assert!((-1.0..=1.0).contains(&number(&hit["cosine"])), "{hit}");
    }
}
