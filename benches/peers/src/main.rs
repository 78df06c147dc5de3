//! tans-index or hannoy in a process of its own: builds or searches, and prints one JSON line each.
//!
//! ```text
//! tans-peers SYSTEM build|search FOLDER INDEX THREADS [EF ...]
//! ```
//!
//! The protocol is that of `worker.py`, which runs the Python libraries.

mod clock;
mod hannoy_peer;
mod tans_peer;

use clock::{Clock, resident_bytes};
use std::path::Path;

/// Dimensions of all vectors of the comparison.
const DIM: usize = 128;
/// Answers wanted.
const K: usize = 10;
/// Neighbours per point, candidates of the builds.
const M: usize = 16;
const EF_CONSTRUCTION: usize = 200;
/// Candidates of the first search after opening.
const FIRST_EF: usize = 64;

type Failure = Box<dyn std::error::Error>;

/// One search: which queries, how many candidates, how many threads; the ids found, K a query.
type Search<'a> = dyn Fn(&[f32], usize, usize) -> Result<Vec<u32>, Failure> + 'a;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [system, action, folder, index, threads, efs @ ..] = arguments.as_slice() else {
        return Err("expected SYSTEM build|search FOLDER INDEX THREADS [EF ...]".into());
    };
    let job = Job {
        system,
        folder: Path::new(folder),
        index: Path::new(index),
        threads: threads.parse()?,
        efs: efs.iter().map(|ef| ef.parse()).collect::<Result<_, _>>()?,
    };
    match (system.as_str(), action.as_str()) {
        ("tans", "build") => tans_peer::build(&job),
        ("tans", "search") => tans_peer::search(&job),
        ("tans", "latency") => tans_peer::latency(&job),
        ("tans", "filters") => tans_peer::filters(&job),
        ("tans", "scan") => tans_peer::scan(&job),
        ("hannoy", "build") => hannoy_peer::build(&job),
        ("hannoy", "search") => hannoy_peer::search(&job),
        _ => Err(format!("expected a system and an action of it, found {system} {action}").into()),
    }
}

/// What the command line asks for.
struct Job<'a> {
    system: &'a str,
    folder: &'a Path,
    index: &'a Path,
    threads: usize,
    efs: Vec<usize>,
}

impl Job<'_> {
    fn rows(&self, name: &str) -> Result<Vec<f32>, Failure> {
        let bytes = std::fs::read(self.folder.join(name))?;
        let (numbers, _) = bytes.as_chunks();
        Ok(numbers.iter().map(|&number| f32::from_le_bytes(number)).collect())
    }

    /// Times one search of all queries for each `ef`; the first row of the output is `opened`.
    fn sweep(&self, queries: &[f32], before: u64, search: &Search) -> Result<(), Failure> {
        let some = &queries[..queries.len().min(1000 * DIM)];
        for (at, &ef) in self.efs.iter().enumerate() {
            search(some, ef, self.threads)?;
            let clock = Clock::start();
            let found = search(queries, ef, self.threads)?;
            let resident = resident_bytes().saturating_sub(before).to_string();
            let resident = if at == 0 { &resident } else { "null" };
            clock.report(&format!(r#""action":"search","ef":{ef},"resident":{resident}"#));
            let bytes: Vec<u8> = found.iter().flat_map(|id| id.to_le_bytes()).collect();
            std::fs::write(self.folder.join(format!("found-{}-{ef}.u32", self.system)), bytes)?;
        }
        Ok(())
    }
}
