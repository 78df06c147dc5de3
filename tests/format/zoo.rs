//! A closed zoo as it lies on disk: marker, column families, packs, and the rules that bind them.

use super::bytes::{Found, Id, Reader, ensure, floats, hash, hex, lines};
use super::records::{
    Encoder, Generation, Model, Operation, Place, Task, Tensor, encoder, generation, job, model,
    operation, task, tensor, value,
};
use rocksdb::{DB, IteratorMode, Options};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const FAMILIES: [&str; 11] = [
    "model",
    "name",
    "task",
    "pair",
    "signature",
    "embedding",
    "encoder",
    "tensor",
    "oplog",
    "job",
    "sys",
];

/// Key and value.
type Pair = (Vec<u8>, Vec<u8>);

/// Bytes of one zoo before anything is made of them.
#[derive(Clone)]
pub struct Raw {
    pub marker: Vec<u8>,
    /// Of each family, in the order of the database.
    pub families: BTreeMap<&'static str, Vec<Pair>>,
    pub packs: BTreeMap<u32, Vec<u8>>,
}

#[derive(Default, PartialEq)]
pub struct Zoo {
    pub format: u32,
    pub backbone: Id,
    pub next_row: u64,
    pub sequence: u64,
    pub generation: Option<Generation>,
    pub models: BTreeMap<u64, Model>,
    pub tasks: BTreeMap<Id, Task>,
    /// (task, model, kind, sequence) with the bits of the accuracy
    pub pairs: BTreeMap<(Id, u64, u8, u64), u32>,
    pub signatures: BTreeMap<u64, Vec<u8>>,
    pub embeddings: BTreeMap<(u32, u64), Vec<f32>>,
    pub encoders: BTreeMap<u32, Encoder>,
    pub tensors: BTreeMap<Id, Tensor>,
    pub oplog: BTreeMap<u64, Operation>,
    pub jobs: BTreeMap<String, (String, Vec<u8>)>,
    /// By name, by id.
    model_names: BTreeMap<String, u64>,
    model_ids: BTreeMap<Id, u64>,
    task_names: BTreeMap<String, Id>,
    pairs_of_models: BTreeMap<(Id, u64, u8, u64), u32>,
    pub packs: BTreeMap<u32, Vec<u8>>,
}

pub fn read_file(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn entries(path: &Path) -> Vec<String> {
    let folder = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut names: Vec<String> = folder
        .map(|entry| entry.expect("a readable folder").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

impl Raw {
    /// Reads `db/`, `packs/` and the file that says what the folder is.
    pub fn read(folder: &Path, marker: &str) -> Self {
        let db = folder.join("db");
        let mut found = DB::list_cf(&Options::default(), &db).expect("a database has families");
        found.sort();
        let mut expected: Vec<&str> = FAMILIES.into_iter().chain(["default"]).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "column families of {}", db.display());
        let db = DB::open_cf_for_read_only(&Options::default(), &db, &found, false)
            .expect("a closed database opens with no options of its own");
        let family = |name: &str| -> Vec<Pair> {
            let handle = db.cf_handle(name).expect("a listed family");
            let pairs = db.iterator_cf(&handle, IteratorMode::Start);
            pairs
                .map(|pair| pair.expect("a sound table"))
                .map(|(k, v)| (k.into(), v.into()))
                .collect()
        };
        assert!(family("default").is_empty(), "the family `default` is empty");
        let packs = entries(&folder.join("packs")).into_iter().map(|name| {
            let number: u32 = name[..6].parse().unwrap_or_else(|_| panic!("no pack: {name}"));
            assert_eq!(name, format!("{number:06}.pack"));
            (number, read_file(&folder.join("packs").join(name)))
        });
        Self {
            marker: read_file(&folder.join(marker)),
            families: FAMILIES.into_iter().map(|name| (name, family(name))).collect(),
            packs: packs.collect(),
        }
    }
}

/// Format version of a zoo's marker.
pub fn marker(bytes: &[u8]) -> Found<u32> {
    let lines = lines("FORMAT", bytes)?;
    let [first, second] = lines[..] else { return Err(format!("FORMAT: {lines:?}")) };
    ensure(first == "tans zoo", || format!("FORMAT: {first:?}"))?;
    let version = second.strip_prefix("format ").and_then(|number| number.parse().ok());
    version.ok_or_else(|| format!("FORMAT: {second:?}"))
}

impl Zoo {
    /// Everything, with each checksum and each hash proven.
    pub fn decode(raw: &Raw) -> Found<Self> {
        let mut zoo = Self { packs: raw.packs.clone(), ..Self::default() };
        for (family, pairs) in &raw.families {
            ensure(pairs.is_sorted_by(|a, b| a.0 < b.0), || {
                format!("{family}: keys out of order")
            })?;
            for (key, value) in pairs {
                let what = format!("{family} {}", hex(key));
                let mut from = Reader::new(&what, key);
                zoo.read_pair(family, &mut from, &what, value)?;
                from.end()?;
            }
        }
        for (number, bytes) in &zoo.packs {
            pack_header(*number, bytes)?;
        }
        for id in zoo.tensors.keys() {
            zoo.prove(id)?;
        }
        Ok(zoo)
    }

    fn read_pair(
        &mut self,
        family: &str,
        key: &mut Reader<'_>,
        what: &str,
        bytes: &[u8],
    ) -> Found<()> {
        match family {
            "model" => drop(self.models.insert(key.be_u64()?, value(what, bytes, model)?)),
            "name" => self.read_name(key, what, bytes)?,
            "task" => drop(self.tasks.insert(key.array()?, value(what, bytes, task)?)),
            "pair" => self.read_result(key, what, bytes)?,
            "signature" => {
                let numbers = value(what, bytes, |from| from.blob().map(<[u8]>::to_vec))?;
                self.signatures.insert(key.be_u64()?, numbers);
            }
            "embedding" => {
                let vector = value(what, bytes, |from| from.blob().map(floats))?;
                self.embeddings.insert((key.be_u32()?, key.be_u64()?), vector);
            }
            "encoder" => drop(self.encoders.insert(key.be_u32()?, value(what, bytes, encoder)?)),
            "tensor" => drop(self.tensors.insert(key.array()?, value(what, bytes, tensor)?)),
            "oplog" => drop(self.oplog.insert(key.be_u64()?, value(what, bytes, operation)?)),
            "job" => {
                let key = String::from_utf8(key.rest().to_vec()).map_err(|_| what.to_owned())?;
                self.jobs.insert(key, value(what, bytes, job)?);
            }
            "sys" => self.read_sys(key.rest(), what, bytes)?,
            other => return Err(format!("{other} is no family")),
        }
        Ok(())
    }

    fn read_name(&mut self, key: &mut Reader<'_>, what: &str, bytes: &[u8]) -> Found<()> {
        let kind = key.byte()?;
        if kind == b'i' {
            let row = value(what, bytes, Reader::number)?;
            self.model_ids.insert(key.array()?, row);
            return Ok(());
        }
        let name =
            String::from_utf8(key.rest().to_vec()).map_err(|_| format!("{what}: no UTF-8"))?;
        match kind {
            b'm' => {
                ensure((1..=1024).contains(&name.len()), || format!("a name of {}", name.len()))?;
                self.model_names.insert(name, value(what, bytes, Reader::number)?);
            }
            b't' => drop(self.task_names.insert(name, value(what, bytes, Reader::array)?)),
            other => return Err(format!("{what}: no name begins with {other}")),
        }
        Ok(())
    }

    fn read_result(&mut self, key: &mut Reader<'_>, what: &str, bytes: &[u8]) -> Found<()> {
        let accuracy = value(what, bytes, Reader::float)?;
        let (all, task, row) = match key.byte()? {
            b't' => (&mut self.pairs, key.array()?, key.be_u64()?),
            b'm' => {
                let row = key.be_u64()?;
                (&mut self.pairs_of_models, key.array()?, row)
            }
            other => return Err(format!("{what}: no pair begins with {other}")),
        };
        let kind = key.byte()?;
        ensure(kind < 3, || format!("{what}: no kind is {kind}"))?;
        ensure((0.0..=1.0).contains(&accuracy), || format!("{what}: accuracy {accuracy}"))?;
        all.insert((task, row, kind, key.be_u64()?), accuracy.to_bits());
        Ok(())
    }

    fn read_sys(&mut self, key: &[u8], what: &str, bytes: &[u8]) -> Found<()> {
        match key {
            b"format" => self.format = value(what, bytes, Reader::number32)?,
            b"backbone" => self.backbone = value(what, bytes, Reader::array)?,
            b"next_row" => self.next_row = value(what, bytes, Reader::number)?,
            b"sequence" => self.sequence = value(what, bytes, Reader::number)?,
            b"generation" => self.generation = Some(value(what, bytes, generation)?),
            _ => return Err(format!("{what}: no key of sys")),
        }
        Ok(())
    }

    /// Bytes of a tensor, wherever they lie.
    pub fn bytes(&self, id: &Id) -> Found<&[u8]> {
        let what = || format!("tensor {}", hex(id));
        let tensor = self.tensors.get(id).ok_or_else(|| format!("{}: no record", what()))?;
        let length = tensor.length()?;
        match &tensor.place {
            Place::Inline(bytes) => {
                ensure(bytes.len() == length && length < 4096, || {
                    format!("{}: {} bytes in its record, {length} expected", what(), bytes.len())
                })?;
                Ok(bytes)
            }
            Place::Pack { pack, offset } => {
                ensure(offset % 64 == 0 && *offset >= 64 && length >= 4096, || {
                    format!("{}: {length} bytes at {offset}", what())
                })?;
                let start = *offset as usize;
                let pack = self.packs.get(pack).ok_or_else(|| format!("{}: no pack", what()))?;
                pack.get(start..start + length)
                    .ok_or_else(|| format!("{}: beyond its pack", what()))
            }
        }
    }

    fn prove(&self, id: &Id) -> Found<()> {
        let bytes = self.bytes(id)?;
        let tensor = &self.tensors[id];
        let mut head = b"tans tensor 1".to_vec();
        head.push(tensor.dtype);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        head.extend(tensor.shape.iter().flat_map(|side| side.to_le_bytes()));
        ensure(hash(&[&head, bytes]) == *id, || format!("tensor {}: another hash", hex(id)))
    }

    /// Result that counts for each (task, model, kind).
    pub fn latest(&self) -> BTreeMap<(Id, u64, u8), f32> {
        let counted = |(&(task, row, kind, _), bits): (&(Id, u64, u8, u64), &u32)| {
            ((task, row, kind), f32::from_bits(*bits))
        };
        self.pairs.iter().map(counted).collect()
    }

    /// The section "Rules", and that names, pairs and the op log say the same as the records.
    pub fn keep_rules(&self) {
        for (row, model) in &self.models {
            assert_eq!(*row, model.row, "{}", model.name);
            assert!(*row < self.next_row, "{row}");
        }
        for (id, task) in &self.tasks {
            assert_eq!(*id, task.id, "{}", task.name);
        }
        let models = self.models.values();
        assert_eq!(self.model_names, models.clone().map(|m| (m.name.clone(), m.row)).collect());
        assert_eq!(self.model_ids, models.map(|m| (m.id, m.row)).collect());
        let names = self.tasks.values().map(|task| (task.name.clone(), task.id)).collect();
        assert_eq!(self.task_names, names);
        assert_eq!(self.pairs, self.pairs_of_models, "both orders of pairs");
        for &(task, row, _, sequence) in self.pairs.keys() {
            assert!(self.tasks.contains_key(&task) && self.models.contains_key(&row));
            let line = self.oplog.get(&sequence);
            assert_eq!(line, Some(&Operation::PairRecorded(task, row)), "line {sequence}");
        }
        let embedded = self.embeddings.keys().map(|(_, row)| row);
        assert!(self.signatures.keys().chain(embedded).all(|row| self.models.contains_key(row)));
        for (number, encoder) in &self.encoders {
            assert_eq!(*number, encoder.number);
        }
        if let Some(generation) = &self.generation {
            assert!(self.encoders.contains_key(&generation.encoder), "{generation:?}");
            assert!(generation.sequence <= self.sequence, "{generation:?}");
        }
        self.replay();
        self.count_references();
        self.explain_packs();
    }

    /// The op log has no holes and ends with what is there.
    fn replay(&self) {
        assert!(self.oplog.keys().copied().eq(1..=self.sequence), "holes in the op log");
        let (mut models, mut tasks, mut installed) = (BTreeSet::new(), BTreeSet::new(), None);
        for (sequence, line) in &self.oplog {
            match line {
                Operation::ModelAdded(row) => {
                    assert!(models.insert(*row) && *row < self.next_row, "line {sequence}");
                }
                Operation::ModelEdited(row) | Operation::PairRecorded(_, row) => {
                    assert!(models.contains(row), "line {sequence}: {line:?}");
                }
                Operation::ModelRemoved(row) => assert!(models.remove(row), "line {sequence}"),
                Operation::TaskAdded(id) => assert!(tasks.insert(*id), "line {sequence}"),
                Operation::TaskRemoved(id) => assert!(tasks.remove(id), "line {sequence}"),
                Operation::GenerationInstalled(number) => installed = Some(*number),
            }
        }
        assert!(models.iter().eq(self.models.keys()), "models of the op log");
        assert!(tasks.iter().eq(self.tasks.keys()), "tasks of the op log");
        assert_eq!(installed, self.generation.as_ref().map(|generation| generation.number));
    }

    fn count_references(&self) {
        let mut counts: BTreeMap<Id, u64> = self.tensors.keys().map(|id| (*id, 0)).collect();
        let weights = |model: &Model| model.weights.iter().map(|(_, id)| *id).collect::<Vec<_>>();
        let of_models = self.models.values().flat_map(|m| weights(m).into_iter().chain(m.graph));
        let samples = self.tasks.values().filter_map(|task| task.sample.as_ref());
        let of_tasks =
            samples.flat_map(|s| [s.rows, s.class_means].into_iter().chain(s.image_hashes));
        for id in of_models.chain(of_tasks).chain(self.encoders.values().map(|e| e.blob)) {
            *counts.get_mut(&id).unwrap_or_else(|| panic!("no tensor {}", hex(&id))) += 1;
        }
        for (id, tensor) in &self.tensors {
            assert_eq!(tensor.references, counts[id], "references of {}", hex(id));
        }
    }

    /// Tensors do not overlap.
    fn explain_packs(&self) {
        for (number, gap) in self.gaps() {
            assert!(gap.is_some(), "tensors of pack {number} overlap");
        }
    }

    /// (pack, bytes between a tensor and the next or the end), `None` where they overlap.
    pub fn gaps(&self) -> Vec<(u32, Option<&[u8]>)> {
        let mut gaps = Vec::new();
        for (number, bytes) in &self.packs {
            let mut ranges: Vec<(usize, usize)> = Vec::new();
            for tensor in self.tensors.values() {
                match tensor.place {
                    Place::Pack { pack, offset } if pack == *number => {
                        let start = offset as usize;
                        ranges.push((start, start + tensor.length().expect("a known dtype")));
                    }
                    Place::Pack { .. } | Place::Inline(_) => {}
                }
            }
            ranges.sort_unstable();
            ranges.push((bytes.len(), bytes.len()));
            let mut end = 64;
            for (start, next_end) in ranges {
                gaps.push((*number, bytes.get(end..start)));
                end = next_end;
            }
        }
        gaps
    }
}

/// The header says which pack it is.
fn pack_header(number: u32, bytes: &[u8]) -> Found<()> {
    let what = format!("pack {number}");
    let mut from = Reader::new(&what, bytes);
    from.literal(b"TANSPACK")?;
    from.literal(&1u32.to_le_bytes())?;
    from.literal(&number.to_le_bytes())?;
    let random: [u8; 16] = from.array()?;
    ensure(random != [0; 16], || format!("{what}: its random number is 0"))?;
    let sum = from.le_u32()?;
    ensure(sum == crc32c::crc32c(&bytes[..32]), || format!("{what}: checksum of the header"))?;
    from.zeros(28)
}
