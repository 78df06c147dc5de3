//! tans-index.

use crate::clock::{Clock, resident_bytes};
use crate::{DIM, EF_CONSTRUCTION, FIRST_EF, Failure, Job, K, M};
use cpu_time::ProcessTime;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::time::Instant;
use tans_index::{
    Attributes, BatchOptions, BuildOptions, Delta, Embedding, Entry, Filter, SearchOptions, Segment,
};

/// Builds with the comparison's options. The attributes are what the filters of `filters` ask.
pub fn build(job: &Job) -> Result<(), Failure> {
    let base = job.rows("base.f32")?;
    let mut entries = Vec::with_capacity(base.len() / DIM);
    for (key, row) in base.chunks(DIM).enumerate() {
        let (params, macs) = (Some(scattered(key as u64)), Some(along(row)));
        let attributes = Attributes { params, macs, ..Attributes::default() };
        let vector = Embedding::new(row.to_vec(), DIM)?;
        entries.push(Entry { key: key as u64, vector, attributes });
    }
    drop(base);
    let options =
        BuildOptions { m: M, ef_construction: EF_CONSTRUCTION, threads: job.threads, seed: 1 };
    let clock = Clock::start();
    let mut out = BufWriter::new(File::create(job.index)?);
    let mut go_on = |_, _| ControlFlow::Continue(());
    let report = tans_index::build_segment(&entries, [0; 32], &options, &mut out, &mut go_on)?;
    out.flush()?;
    clock.report(&format!(r#""action":"build","repaired":{}"#, report.repaired));
    Ok(())
}

/// A number below 1,000,000 that has nothing to do with the vector.
fn scattered(key: u64) -> u64 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1_000_000
}

/// A number that rises with the first component of the vector.
fn along(vector: &[f32]) -> u64 {
    (f64::from(vector[0] + 1.0) * 1e6) as u64
}

/// Opens and sweeps over `ef`.
pub fn search(job: &Job) -> Result<(), Failure> {
    let (queries, before) = (job.rows("queries.f32")?, resident_bytes());
    let clock = Clock::start();
    let index = Index::open(job)?;
    index.ask(&queries[..DIM], FIRST_EF)?;
    clock.report(r#""action":"open""#);
    job.sweep(&queries, before, &|rows, ef, threads| {
        let search = SearchOptions { k: K, ef, exact: false };
        let options = BatchOptions { search, threads };
        let (segment, everything) = (Some(&index.segment), Filter::default());
        let rows: Result<Vec<Embedding>, _> =
            rows.chunks(DIM).map(|row| Embedding::new(row.to_vec(), DIM)).collect();
        let found = tans_index::search_batch(segment, &index.delta, &rows?, &everything, &options)?;
        let mut ids = Vec::with_capacity(found.len() * K);
        for hits in found {
            ids.extend(hits.iter().map(|hit| hit.key as u32));
            ids.resize(ids.len() + K - hits.len(), u32::MAX);
        }
        Ok(ids)
    })
}

/// Time of each single query: median and 99th percentile.
pub fn latency(job: &Job) -> Result<(), Failure> {
    let queries = job.rows("queries.f32")?;
    let index = Index::open(job)?;
    for &ef in &job.efs {
        index.filtered(&queries, &Filter::default(), ef, false)?;
        let mut times: Vec<f64> = Vec::with_capacity(queries.len() / DIM);
        for query in queries.chunks(DIM) {
            let start = Instant::now();
            index.ask(query, ef)?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| times[(times.len() as f64 * share) as usize];
        println!(r#"{{"ef":{ef},"p50_us":{},"p99_us":{}}}"#, at(0.5), at(0.99));
    }
    Ok(())
}

/// Processor time and recall of filtered searches, for shares of the vectors that a filter keeps:
/// by a number that has nothing to do with the vectors, and by one that follows their first
/// component, asked from the side that the filter keeps and from the other one.
pub fn filters(job: &Job) -> Result<(), Failure> {
    let (base, queries) = (job.rows("base.f32")?, job.rows("queries.f32")?);
    let mut levels: Vec<u64> = base.chunks(DIM).map(along).collect();
    levels.sort_unstable();
    drop(base);
    let mut queries: Vec<&[f32]> = queries.chunks(DIM).collect();
    let scattered = queries[..FILTERED].concat();
    queries.sort_unstable_by_key(|query| along(query));
    let (near, far) = (&queries[..FILTERED], &queries[queries.len() - FILTERED..]);
    let index = Index::open(job)?;
    let ef = *job.efs.first().ok_or("expected an ef")?;
    for (kind, queries) in
        [("chance", scattered), ("near side", near.concat()), ("far side", far.concat())]
    {
        for share in [1.0, 0.5, 0.1, 0.01, 0.001, 0.0001, 1.0 / levels.len() as f64] {
            let kept = ((levels.len() as f64 * share) as usize).clamp(1, levels.len());
            let filter = match kind {
                "chance" => Filter { params_max: Some((1e6 * share) as u64), ..Filter::default() },
                _ => Filter { macs_max: Some(levels[kept - 1]), ..Filter::default() },
            };
            let truth = index.filtered(&queries, &filter, ef, true)?;
            index.filtered(&queries, &filter, ef, false)?;
            let start = ProcessTime::now();
            let found = index.filtered(&queries, &filter, ef, false)?;
            let each = start.elapsed().as_secs_f64() * 1e6 / FILTERED as f64;
            let hits = found.iter().zip(&truth);
            let hits: usize =
                hits.map(|(f, t)| f.iter().filter(|key| t.contains(key)).count()).sum();
            let recall = hits as f64 / truth.iter().map(Vec::len).sum::<usize>().max(1) as f64;
            println!(r#"{{"kind":"{kind}","share":{share},"us":{each},"recall":{recall}}}"#);
        }
    }
    Ok(())
}

/// Queries per filter.
const FILTERED: usize = 200;

/// Bytes a second that an exact search reads, beside what plain sums over the same bytes read.
pub fn scan(job: &Job) -> Result<(), Failure> {
    let (base, queries) = (job.rows("base.f32")?, job.rows("queries.f32")?);
    let index = Index::open(job)?;
    let bytes = size_of_val(base.as_slice()) as f64;
    let everything = Filter::default();
    for _ in 0..5 {
        let start = Instant::now();
        let read = read_all(&base);
        let plain = bytes / start.elapsed().as_secs_f64() / 1e9;
        let start = Instant::now();
        for query in queries.chunks(DIM).take(5) {
            index.filtered(query, &everything, K, true)?;
        }
        let scan = 5.0 * bytes / start.elapsed().as_secs_f64() / 1e9;
        println!(r#"{{"plain_gb_s":{plain},"scan_gb_s":{scan},"sum":{read}}}"#);
    }
    Ok(())
}

/// Reads every number once, in sixteen independent sums that the compiler makes wide: what one
/// core gets out of the memory.
fn read_all(numbers: &[f32]) -> u64 {
    let mut sums = [0u32; 64];
    for block in numbers.chunks_exact(64) {
        for (sum, number) in sums.iter_mut().zip(block) {
            *sum ^= number.to_bits();
        }
    }
    sums.iter().map(|&sum| u64::from(sum)).sum()
}

struct Index {
    segment: Segment,
    delta: Delta,
}

impl Index {
    fn open(job: &Job) -> Result<Self, Failure> {
        Ok(Self { segment: Segment::open(job.index)?, delta: Delta::new(DIM) })
    }

    fn ask(&self, query: &[f32], ef: usize) -> Result<Vec<u64>, Failure> {
        Ok(self.filtered(query, &Filter::default(), ef, false)?.swap_remove(0))
    }

    fn filtered(
        &self,
        queries: &[f32],
        filter: &Filter,
        ef: usize,
        exact: bool,
    ) -> Result<Vec<Vec<u64>>, Failure> {
        let options = SearchOptions { k: K, ef, exact };
        let one = |row: &[f32]| -> Result<Vec<u64>, Failure> {
            let query = Embedding::new(row.to_vec(), DIM)?;
            let found =
                tans_index::search(Some(&self.segment), &self.delta, &query, filter, &options)?;
            Ok(found.iter().map(|hit| hit.key).collect())
        };
        queries.chunks(DIM).map(one).collect()
    }
}
