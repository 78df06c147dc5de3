//! Records of the database, field by field.

use super::bytes::{Found, Id, Reader, ensure};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub id: Id,
    pub row: u64,
    pub name: String,
    pub parent: Option<Id>,
    pub seen: Vec<Id>,
    pub license: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub uri: Option<String>,
    pub graph: Option<Id>,
    /// (name, tensor)
    pub weights: Vec<(String, Id)>,
    pub input: Vec<u8>,
    pub params: u64,
    pub macs: u64,
    pub peak_activation_bytes: u64,
    /// (milliseconds, device, threads)
    pub latency: Option<(f32, String, u32)>,
    pub not_runnable: Option<String>,
    /// (space, configuration, numbers)
    pub architecture: Option<(String, String, Vec<f32>)>,
    pub topology: Vec<f32>,
    pub class_names: Vec<String>,
    pub created: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub id: Id,
    pub name: String,
    pub family: Option<String>,
    pub class_names: Vec<String>,
    pub sample: Option<Sample>,
    pub benchmark: bool,
    pub created: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub backbone: Id,
    pub rows: Id,
    pub labels: Vec<u32>,
    pub class_means: Id,
    pub scalars: Vec<Option<f32>>,
    pub image_hashes: Option<Id>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    pub number: u32,
    pub fingerprint: Id,
    pub blob: Id,
    pub recipe: String,
    pub notes: String,
    pub created: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    pub number: u64,
    pub encoder: u32,
    pub segment: Option<String>,
    pub sequence: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub place: Place,
    pub dtype: u8,
    pub shape: Vec<u64>,
    pub references: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    Pack { pack: u32, offset: u64 },
    Inline(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    ModelAdded(u64),
    ModelEdited(u64),
    ModelRemoved(u64),
    TaskAdded(Id),
    TaskRemoved(Id),
    PairRecorded(Id, u64),
    GenerationInstalled(u64),
}

impl Operation {
    /// Position among the variants.
    pub fn number(&self) -> u8 {
        match self {
            Self::ModelAdded(_) => 0,
            Self::ModelEdited(_) => 1,
            Self::ModelRemoved(_) => 2,
            Self::TaskAdded(_) => 3,
            Self::TaskRemoved(_) => 4,
            Self::PairRecorded(..) => 5,
            Self::GenerationInstalled(_) => 6,
        }
    }
}

/// Reads a value: version byte, record, checksum.
pub fn value<'a, T>(
    what: &'a str,
    bytes: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Found<T>,
) -> Found<T> {
    ensure(bytes.len() <= 1_000_000, || format!("{what}: a value of {} bytes", bytes.len()))?;
    let mut reader = Reader::new(what, checked(what, bytes)?);
    let record = read(&mut reader)?;
    reader.end()?;
    Ok(record)
}

/// The record between the version byte and the checksum.
pub fn checked<'a>(what: &str, bytes: &'a [u8]) -> Found<&'a [u8]> {
    let (body, sum) = bytes
        .split_last_chunk::<4>()
        .ok_or_else(|| format!("{what}: {} bytes are no value", bytes.len()))?;
    ensure(crc32c::crc32c(body) == u32::from_le_bytes(*sum), || {
        format!("{what}: the checksum does not match")
    })?;
    let record = body.strip_prefix(&[1]);
    record.ok_or_else(|| format!("{what}: expected version 1, found {:?}", body.first()))
}

pub fn model(from: &mut Reader<'_>) -> Found<Model> {
    Ok(Model {
        id: from.array()?,
        row: from.number()?,
        name: from.text()?,
        parent: from.option(Reader::array)?,
        seen: from.list(Reader::array)?,
        license: from.option(Reader::text)?,
        tags: tags(from)?,
        uri: from.option(Reader::text)?,
        graph: from.option(Reader::array)?,
        weights: from.list(|from| Ok((from.text()?, from.array()?)))?,
        input: from.blob()?.to_vec(),
        params: from.number()?,
        macs: from.number()?,
        peak_activation_bytes: from.number()?,
        latency: from.option(|from| Ok((from.float()?, from.text()?, from.number32()?)))?,
        not_runnable: from.option(Reader::text)?,
        architecture: from
            .option(|from| Ok((from.text()?, from.text()?, from.list(Reader::float)?)))?,
        topology: from.list(Reader::float)?,
        class_names: from.list(Reader::text)?,
        created: from.number()?,
    })
}

/// A map lists its keys in ascending order, each once.
fn tags(from: &mut Reader<'_>) -> Found<BTreeMap<String, String>> {
    let list = from.list(|from| Ok((from.text()?, from.text()?)))?;
    ensure(list.is_sorted_by(|a, b| a.0 < b.0), || format!("tags are out of order: {list:?}"))?;
    Ok(list.into_iter().collect())
}

pub fn task(from: &mut Reader<'_>) -> Found<Task> {
    Ok(Task {
        id: from.array()?,
        name: from.text()?,
        family: from.option(Reader::text)?,
        class_names: from.list(Reader::text)?,
        sample: from.option(sample)?,
        benchmark: from.flag()?,
        created: from.number()?,
    })
}

fn sample(from: &mut Reader<'_>) -> Found<Sample> {
    Ok(Sample {
        backbone: from.array()?,
        rows: from.array()?,
        labels: from.list(Reader::number32)?,
        class_means: from.array()?,
        scalars: (0..10).map(|_| from.option(Reader::float)).collect::<Found<_>>()?,
        image_hashes: from.option(Reader::array)?,
    })
}

pub fn encoder(from: &mut Reader<'_>) -> Found<Encoder> {
    Ok(Encoder {
        number: from.number32()?,
        fingerprint: from.array()?,
        blob: from.array()?,
        recipe: from.text()?,
        notes: from.text()?,
        created: from.number()?,
    })
}

pub fn generation(from: &mut Reader<'_>) -> Found<Generation> {
    Ok(Generation {
        number: from.number()?,
        encoder: from.number32()?,
        segment: from.option(Reader::text)?,
        sequence: from.number()?,
    })
}

/// (kind, state)
pub fn job(from: &mut Reader<'_>) -> Found<(String, Vec<u8>)> {
    Ok((from.text()?, from.blob()?.to_vec()))
}

pub fn tensor(from: &mut Reader<'_>) -> Found<Tensor> {
    let place = match from.number()? {
        0 => Place::Pack { pack: from.number32()?, offset: from.number()? },
        1 => Place::Inline(from.blob()?.to_vec()),
        other => return Err(format!("no tensor lies at a place of kind {other}")),
    };
    let dtype = from.byte()?;
    Ok(Tensor { place, dtype, shape: from.list(Reader::number)?, references: from.number()? })
}

pub fn operation(from: &mut Reader<'_>) -> Found<Operation> {
    Ok(match from.number()? {
        0 => Operation::ModelAdded(from.number()?),
        1 => Operation::ModelEdited(from.number()?),
        2 => Operation::ModelRemoved(from.number()?),
        3 => Operation::TaskAdded(from.array()?),
        4 => Operation::TaskRemoved(from.array()?),
        5 => Operation::PairRecorded(from.array()?, from.number()?),
        6 => Operation::GenerationInstalled(from.number()?),
        other => return Err(format!("no operation has the number {other}")),
    })
}

/// Names of the dtype codes and bits of one element.
const DTYPES: [(&str, u64); 22] = [
    ("BOOL", 8),
    ("U8", 8),
    ("I8", 8),
    ("U16", 16),
    ("I16", 16),
    ("U32", 32),
    ("I32", 32),
    ("U64", 64),
    ("I64", 64),
    ("F16", 16),
    ("BF16", 16),
    ("F32", 32),
    ("F64", 64),
    ("C64", 64),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("F4", 4),
];

impl Tensor {
    pub fn dtype_name(&self) -> &'static str {
        DTYPES[usize::from(self.dtype)].0
    }

    /// Bytes of its elements.
    pub fn length(&self) -> Found<usize> {
        let (_, bits) = DTYPES
            .get(usize::from(self.dtype))
            .ok_or_else(|| format!("no dtype has the code {}", self.dtype))?;
        let length = self.shape.iter().try_fold(*bits, |length, side| length.checked_mul(*side));
        length.map(|bits| (bits / 8) as usize).ok_or_else(|| format!("a shape of {:?}", self.shape))
    }
}
