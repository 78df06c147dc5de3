//! hannoy: HNSW in LMDB.

use crate::clock::{Clock, resident_bytes};
use crate::{DIM, EF_CONSTRUCTION, FIRST_EF, Failure, Job, K, M};
use hannoy::distances::Cosine;
use hannoy::{Database, Reader, Writer};
use heed::{CommitOrAbort, Env, EnvOpenOptions};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rayon::prelude::{IntoParallelIterator, ParallelIterator};

const MAP_BYTES: usize = 8 << 30;

fn env(job: &Job) -> Result<Env, Failure> {
    std::fs::create_dir_all(job.index)?;
    // SAFETY: nobody else opens or edits the folder during the comparison.
    Ok(unsafe { EnvOpenOptions::new().map_size(MAP_BYTES).open(job.index) }?)
}

fn database(env: &Env) -> Result<Database<'_, Cosine>, Failure> {
    let write = env.write_txn()?;
    let created = env.create_databases_and_commit(write, |opener, write| -> heed::Result<_> {
        opener.create_database(write, None).map(CommitOrAbort::<_, ()>::Commit)
    });
    Ok(created?.unwrap_commit())
}

/// Builds with the comparison's options.
pub fn build(job: &Job) -> Result<(), Failure> {
    let base = job.rows("base.f32")?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build()?;
    let env = env(job)?;
    let database = database(&env)?;
    let mut write = env.write_txn()?;
    let writer = Writer::<Cosine>::new(database, 0, DIM);
    let clock = Clock::start();
    for (id, row) in base.chunks(DIM).enumerate() {
        writer.add_item(&mut write, id as u32, row)?;
    }
    let mut random = StdRng::seed_from_u64(1);
    let mut builder = writer.builder(&mut random);
    builder.ef_construction(EF_CONSTRUCTION);
    pool.install(|| builder.build::<M, { 2 * M }>(&mut write))?;
    write.commit()?;
    clock.report(r#""action":"build""#);
    Ok(())
}

/// Opens and sweeps over `ef`.
pub fn search(job: &Job) -> Result<(), Failure> {
    let (queries, before) = (job.rows("queries.f32")?, resident_bytes());
    let clock = Clock::start();
    let env = env(job)?;
    let database = database(&env)?;
    let read = env.read_txn()?;
    let reader = Reader::open(&read, 0, database)?;
    reader.nns(K).ef_search(FIRST_EF).by_vector(&read, &queries[..DIM])?;
    clock.report(r#""action":"open""#);
    let part = |rows: &[f32], ef: usize| -> Result<Vec<u32>, String> {
        // A transaction belongs to one thread.
        let read = env.read_txn().map_err(|error| error.to_string())?;
        let reader = Reader::open(&read, 0, database).map_err(|error| error.to_string())?;
        let mut found = Vec::with_capacity(rows.len() / DIM * K);
        for query in rows.chunks(DIM) {
            let hits = reader.nns(K).ef_search(ef).by_vector(&read, query);
            let mut hits = hits.map_err(|error| error.to_string())?.into_nns();
            hits.resize(K, (u32::MAX, 0.0));
            found.extend(hits.iter().map(|&(id, _)| id));
        }
        Ok(found)
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build()?;
    job.sweep(&queries, before, &|rows, ef, threads| {
        let each = (rows.len() / DIM).div_ceil(threads) * DIM;
        let parts: Vec<&[f32]> = rows.chunks(each).collect();
        let found: Result<Vec<_>, String> =
            pool.install(|| parts.into_par_iter().map(|rows| part(rows, ef)).collect());
        Ok(found?.concat())
    })
}
