//! Index segments.

use super::bytes::{Found, Id, Reader, ensure};
use std::collections::BTreeSet;

pub const NONE: u32 = u32::MAX;
const SECTIONS: usize = 21;
/// Bytes of one entry of each section.
const ENTRY: [usize; SECTIONS] = [4, 4, 4, 4, 1, 4, 8, 1, 8, 8, 4, 4, 4, 4, 4, 1, 4, 4, 4, 4, 4];

#[derive(Debug)]
pub struct Segment {
    pub dim: usize,
    pub stride: usize,
    pub count: usize,
    pub fingerprint: Id,
    pub m: usize,
    pub links: Vec<u32>,
    pub level_counts: Vec<u32>,
    pub upper_links: Vec<u32>,
    pub vectors: Vec<f32>,
    pub codes: Vec<i8>,
    pub ranges: Vec<f32>,
    pub keys: Vec<u64>,
    pub flags: Vec<u8>,
    pub params: Vec<u64>,
    pub macs: Vec<u64>,
    pub latency: Vec<f32>,
    pub license: Vec<u32>,
    pub tags: Vec<Vec<u32>>,
    pub strings: Vec<String>,
    /// params, macs, latency
    pub orders: [Vec<u32>; 3],
    pub postings: Vec<Vec<u32>>,
    /// (start, end) of each section, for tests that damage them
    pub places: Vec<(usize, usize)>,
}

fn le_u32(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn le_u64(bytes: &[u8]) -> Vec<u64> {
    let eight = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes"));
    bytes.chunks_exact(8).map(eight).collect()
}

fn le_f32(bytes: &[u8]) -> Vec<f32> {
    le_u32(bytes).into_iter().map(f32::from_bits).collect()
}

/// What stands between offsets, one slice a row; from 0, never falling, to the end.
fn cut<T: Clone>(what: &str, offsets: &[u32], items: &[T]) -> Found<Vec<Vec<T>>> {
    let whole = offsets.first() == Some(&0)
        && offsets.is_sorted()
        && offsets.last().map(|last| *last as usize) == Some(items.len());
    ensure(whole, || format!("{what}: offsets do not cover {} entries", items.len()))?;
    let rows = offsets.windows(2).map(|ends| items[ends[0] as usize..ends[1] as usize].to_vec());
    Ok(rows.collect())
}

impl Segment {
    pub fn decode(bytes: &[u8]) -> Found<Self> {
        let what = "segment";
        let mut from = Reader::new(what, bytes);
        from.literal(b"TANSSEG\0")?;
        from.literal(&2u32.to_le_bytes())?;
        from.literal(&21u32.to_le_bytes())?;
        let dim = from.le_u32()? as usize;
        let stride = from.le_u32()? as usize;
        let count = from.le_u64()? as usize;
        let fingerprint = from.array()?;
        let m = from.le_u32()? as usize;
        let (ef, threads, levels) = (from.le_u32()?, from.le_u32()?, from.le_u32()? as usize);
        let _seed = from.le_u64()?;
        let length = from.le_u64()?;
        from.zeros(32)?;
        let table = from.take(SECTIONS * 24)?;
        from.zeros(68)?;
        let sum = from.le_u32()?;
        ensure(sum == crc32c::crc32c(&bytes[..700]), || "checksum of the header".into())?;
        let sound = dim <= 65_536
            && (dim > 0 || count == 0)
            && stride == dim.next_multiple_of(16)
            && (2..=256).contains(&m)
            && ef > 0
            && threads > 0
            && levels <= 15
            && (count > 0 || levels == 0)
            && length == bytes.len() as u64;
        ensure(sound, || {
            format!(
                "header: dim {dim}, stride {stride}, count {count}, m {m}, ef {ef}, threads {threads}, levels {levels}, length {length}"
            )
        })?;
        let places = layout(table, bytes)?;
        let sections: Vec<&[u8]> = places.iter().map(|&(start, end)| &bytes[start..end]).collect();
        let header = Header { dim, stride, count, fingerprint, m, levels };
        header.decode(&sections, places.clone())
    }
}

/// Start and end of each section: no holes but zeros, every checksum right.
fn layout(table: &[u8], bytes: &[u8]) -> Found<Vec<(usize, usize)>> {
    let mut rows = Reader::new("section table", table);
    let (mut places, mut end) = (Vec::new(), 704_usize);
    for number in 1..=SECTIONS {
        let (offset, length) = (rows.le_u64()? as usize, rows.le_u64()? as usize);
        let sum = rows.le_u32()?;
        rows.literal(&(number as u32).to_le_bytes())?;
        ensure(offset == end.next_multiple_of(64), || {
            format!("section {number} starts at {offset}, the one before ends at {end}")
        })?;
        let section = bytes.get(offset..offset + length);
        let section = section.ok_or_else(|| format!("section {number} leaves the file"))?;
        ensure(bytes[end..offset].iter().all(|byte| *byte == 0), || {
            format!("the gap before section {number} is not zero")
        })?;
        ensure(crc32c::crc32c(section) == sum, || format!("checksum of section {number}"))?;
        ensure(length % ENTRY[number - 1] == 0, || format!("length of section {number}"))?;
        end = offset + length;
        places.push((offset, end));
    }
    ensure(end == bytes.len(), || format!("{} bytes after the last section", bytes.len() - end))?;
    Ok(places)
}

struct Header {
    dim: usize,
    stride: usize,
    count: usize,
    fingerprint: Id,
    m: usize,
    levels: usize,
}

impl Header {
    fn decode(self, sections: &[&[u8]], places: Vec<(usize, usize)>) -> Found<Segment> {
        let Self { dim, stride, count, fingerprint, m, levels } = self;
        let words = |number: usize| le_u32(sections[number - 1]);
        let bytes = cut("strings", &words(15), sections[15])?;
        let strings = bytes
            .into_iter()
            .map(|text| String::from_utf8(text).map_err(|_| "strings: no UTF-8".to_owned()))
            .collect::<Found<Vec<String>>>()?;
        let segment = Segment {
            dim,
            stride,
            count,
            fingerprint,
            m,
            links: words(1),
            level_counts: words(2),
            upper_links: words(3),
            vectors: le_f32(sections[3]),
            codes: sections[4].iter().map(|byte| *byte as i8).collect(),
            ranges: le_f32(sections[5]),
            keys: le_u64(sections[6]),
            flags: sections[7].to_vec(),
            params: le_u64(sections[8]),
            macs: le_u64(sections[9]),
            latency: le_f32(sections[10]),
            license: words(12),
            tags: cut("tags", &words(13), &words(14))?,
            postings: cut("postings", &words(20), &words(21))?,
            strings,
            orders: [words(17), words(18), words(19)],
            places,
        };
        segment.keep_lengths(levels)?;
        Ok(segment)
    }
}

impl Segment {
    fn keep_lengths(&self, levels: usize) -> Found<()> {
        let upper: usize = self.level_counts.iter().map(|count| *count as usize).sum();
        let (count, stride) = (self.count, self.stride);
        let lengths = [
            ("links", self.links.len(), count * 2 * self.m),
            ("level counts", self.level_counts.len(), levels),
            ("upper links", self.upper_links.len(), upper * self.m),
            ("vectors", self.vectors.len(), count * stride),
            ("codes", self.codes.len(), count * stride),
            ("ranges", self.ranges.len(), 2 * stride),
            ("keys", self.keys.len(), count),
            ("flags", self.flags.len(), count),
            ("params", self.params.len(), count),
            ("macs", self.macs.len(), count),
            ("latency", self.latency.len(), count),
            ("license", self.license.len(), count),
            ("tags", self.tags.len(), count),
            ("postings", self.postings.len(), self.strings.len()),
        ];
        for (what, found, expected) in lengths {
            ensure(found == expected, || format!("{what}: {found} entries, expected {expected}"))?;
        }
        Ok(())
    }

    pub fn vector(&self, position: usize) -> &[f32] {
        &self.vectors[position * self.stride..(position + 1) * self.stride]
    }

    /// What the tables of sections say beyond lengths.
    pub fn keep_rules(&self) {
        self.keep_graph_rules();
        self.keep_vector_rules();
        self.keep_attribute_rules();
    }

    fn keep_graph_rules(&self) {
        for (point, row) in self.links.chunks(2 * self.m).enumerate() {
            self.keep_row(0, point, row, self.count);
        }
        assert!(self.level_counts.iter().all(|count| *count >= 1), "{:?}", self.level_counts);
        let falling = self.level_counts.is_sorted_by(|a, b| a >= b);
        let first = self.level_counts.first().is_none_or(|first| *first as usize <= self.count);
        assert!(falling && first, "{:?} of {}", self.level_counts, self.count);
        let mut rows = self.upper_links.chunks(self.m);
        for (level, count) in (1..).zip(&self.level_counts) {
            for point in 0..*count as usize {
                let row = rows.next().expect("as many rows as points");
                self.keep_row(level, point, row, *count as usize);
            }
        }
    }

    /// Neighbours first: others, each once, that reach the level; then unused places.
    fn keep_row(&self, level: usize, point: usize, row: &[u32], count: usize) {
        let used = row.iter().position(|other| *other == NONE).unwrap_or(row.len());
        let (used, unused) = row.split_at(used);
        assert!(unused.iter().all(|other| *other == NONE), "level {level}, point {point}: {row:?}");
        let others: BTreeSet<usize> = used.iter().map(|other| *other as usize).collect();
        let sound = others.len() == used.len() && !others.contains(&point);
        let within = others.last().is_none_or(|last| *last < count);
        assert!(sound && within, "level {level}, point {point}: {row:?}");
    }

    fn keep_vector_rules(&self) {
        let (middles, steps) = self.ranges.split_at(self.stride);
        for at in 0..self.stride {
            let column = || (0..self.count).map(|point| self.vector(point)[at]);
            let (low, high) = column()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| {
                    (low.min(x), high.max(x))
                });
            assert!((middles[at] - (high + low) / 2.0).abs() < 1e-6, "middle of {at}");
            assert!((steps[at] - (high - low) / 254.0).abs() < 1e-6, "step of {at}");
        }
        for point in 0..self.count {
            let vector = self.vector(point);
            let length: f32 = vector.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-5, "{point} is no unit vector");
            assert!(vector[self.dim..].iter().all(|x| *x == 0.0), "{point} is not filled up");
            let codes = &self.codes[point * self.stride..][..self.stride];
            for (at, code) in codes.iter().enumerate() {
                let about = middles[at] + f32::from(*code) * steps[at];
                let error = (about - vector[at]).abs();
                assert!(
                    *code != -128 && error <= 0.5001 * steps[at] + 1e-6,
                    "{point}.{at}: {error}"
                );
            }
        }
    }

    fn keep_attribute_rules(&self) {
        let mut keys = self.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), self.count, "each key once");
        assert!(self.strings.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()), "strings");
        for point in 0..self.count {
            let flags = self.flags[point];
            assert!(flags < 16, "{point}: flags {flags}");
            assert!(flags & 1 != 0 || self.params[point] == 0, "params of {point}");
            assert!(flags & 2 != 0 || self.macs[point] == 0, "macs of {point}");
            assert!(flags & 4 != 0 || self.latency[point] == 0.0, "latency of {point}");
            assert!(flags & 8 != 0 || self.license[point] == 0, "license of {point}");
            assert!(self.tags[point].is_sorted_by(|a, b| a < b), "tags of {point}");
        }
        assert_eq!(self.orders[0], self.order(1, |point| self.params[point]), "params order");
        assert_eq!(self.orders[1], self.order(2, |point| self.macs[point]), "macs order");
        // Latencies are above 0, so their bits are in their order.
        let latency = self.order(4, |point| u64::from(self.latency[point].to_bits()));
        assert_eq!(self.orders[2], latency, "latency order");
        for (string, points) in (0..).zip(&self.postings) {
            let has = |point: &u32| {
                let point = *point as usize;
                let licensed = self.flags[point] & 8 != 0 && self.license[point] == string;
                licensed || self.tags[point].contains(&string)
            };
            let expected: Vec<u32> = (0..self.count as u32).filter(has).collect();
            assert_eq!(*points, expected, "postings of {:?}", self.strings[string as usize]);
        }
    }

    /// Points with a flag by rising number, then position.
    fn order(&self, flag: u8, number: impl Fn(usize) -> u64) -> Vec<u32> {
        let known = |point: &u32| self.flags[*point as usize] & flag != 0;
        let mut points: Vec<u32> = (0..self.count as u32).filter(known).collect();
        points.sort_by_key(|point| (number(*point as usize), *point));
        points
    }
}
