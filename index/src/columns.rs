//! Attribute columns of a segment: how they are laid out, proven and asked.

use crate::{Attributes, Error, Filter, Result};
use std::collections::BTreeMap;

const HAS_PARAMS: u8 = 1;
const HAS_MACS: u8 = 2;
const HAS_LATENCY: u8 = 4;
const HAS_LICENSE: u8 = 8;

/// Columns in memory, before they are written.
#[derive(Default)]
pub(crate) struct ColumnData {
    pub(crate) flags: Vec<u8>,
    pub(crate) params: Vec<u64>,
    pub(crate) macs: Vec<u64>,
    pub(crate) latency: Vec<f32>,
    pub(crate) license: Vec<u32>,
    pub(crate) tag_offsets: Vec<u32>,
    pub(crate) tags: Vec<u32>,
    pub(crate) string_offsets: Vec<u32>,
    pub(crate) strings: Vec<u8>,
    pub(crate) params_order: Vec<u32>,
    pub(crate) macs_order: Vec<u32>,
    pub(crate) latency_order: Vec<u32>,
    pub(crate) posting_offsets: Vec<u32>,
    pub(crate) postings: Vec<u32>,
}

impl ColumnData {
    /// Lays out the attributes of all points, in the order of their positions.
    pub(crate) fn new<'a>(rows: impl Iterator<Item = &'a Attributes> + Clone) -> Result<Self> {
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        for row in rows.clone() {
            let words = row.license.iter().chain(&row.tags);
            numbers.extend(words.map(|word| (word.as_str(), 0)));
        }
        let mut data = Self { tag_offsets: vec![0], string_offsets: vec![0], ..Self::default() };
        for (number, (word, slot)) in numbers.iter_mut().enumerate() {
            *slot = fits("distinct strings", number)?;
            data.strings.extend(word.as_bytes());
            data.string_offsets.push(fits("bytes of strings", data.strings.len())?);
        }
        for row in rows {
            data.push(row, &numbers)?;
        }
        data.params_order = order(&data.flags, HAS_PARAMS, |at| data.params[at]);
        data.macs_order = order(&data.flags, HAS_MACS, |at| data.macs[at]);
        // No number keeps to a limit that NaN is compared with.
        data.latency_order = order(&data.flags, HAS_LATENCY, |at| rising(data.latency[at]));
        data.latency_order.retain(|&at| !data.latency[at as usize].is_nan());
        data.list_postings()?;
        Ok(data)
    }

    /// The points of each string, from licenses and tags.
    fn list_postings(&mut self) -> Result<()> {
        let mut points = vec![Vec::new(); self.string_offsets.len() - 1];
        for (at, flags) in self.flags.iter().enumerate() {
            let tags = self.tag_offsets[at] as usize..self.tag_offsets[at + 1] as usize;
            let license = (flags & HAS_LICENSE != 0).then_some(&self.license[at]);
            for &word in self.tags[tags].iter().chain(license) {
                let of_word: &mut Vec<u32> = &mut points[word as usize];
                if of_word.last() != Some(&(at as u32)) {
                    of_word.push(at as u32);
                }
            }
        }
        self.posting_offsets.push(0);
        for of_word in points {
            self.postings.extend(of_word);
            self.posting_offsets.push(fits("tags and licenses", self.postings.len())?);
        }
        Ok(())
    }

    fn push(&mut self, row: &Attributes, numbers: &BTreeMap<&str, u32>) -> Result<()> {
        let Attributes { params, macs, latency_ms, license, tags } = row;
        let number = |word: &String| numbers.get(word.as_str()).copied().unwrap_or_default();
        let flag = |known: bool, flag: u8| if known { flag } else { 0 };
        self.flags.push(
            flag(params.is_some(), HAS_PARAMS)
                | flag(macs.is_some(), HAS_MACS)
                | flag(latency_ms.is_some(), HAS_LATENCY)
                | flag(license.is_some(), HAS_LICENSE),
        );
        self.params.push(params.unwrap_or_default());
        self.macs.push(macs.unwrap_or_default());
        self.latency.push(latency_ms.unwrap_or_default());
        self.license.push(license.as_ref().map(number).unwrap_or_default());
        let mut tags: Vec<u32> = tags.iter().map(number).collect();
        tags.sort_unstable();
        tags.dedup();
        self.tags.extend(tags);
        self.tag_offsets.push(fits("tags", self.tags.len())?);
        Ok(())
    }
}

/// Points that have `flag`, by rising value, then by position.
fn order<T: Ord>(flags: &[u8], flag: u8, value: impl Fn(usize) -> T) -> Vec<u32> {
    let known = |at: &u32| flags[*at as usize] & flag != 0;
    let mut order: Vec<u32> = (0..flags.len() as u32).filter(known).collect();
    order.sort_by_cached_key(|&at| value(at as usize));
    order
}

/// A number that rises with the float.
fn rising(value: f32) -> i32 {
    let bits = value.to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

fn fits(name: &'static str, number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::Option {
        name,
        expected: "fewer than 2^32 in one segment".into(),
        found: number.to_string(),
    })
}

/// Columns of an open segment.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) flags: &'a [u8],
    pub(crate) params: &'a [u64],
    pub(crate) macs: &'a [u64],
    pub(crate) latency: &'a [f32],
    pub(crate) license: &'a [u32],
    pub(crate) tag_offsets: &'a [u32],
    pub(crate) tags: &'a [u32],
    pub(crate) string_offsets: &'a [u32],
    pub(crate) strings: &'a [u8],
    pub(crate) params_order: &'a [u32],
    pub(crate) macs_order: &'a [u32],
    pub(crate) latency_order: &'a [u32],
    pub(crate) posting_offsets: &'a [u32],
    pub(crate) postings: &'a [u32],
}

/// A filter whose strings were looked up in one segment's table.
pub(crate) struct Compiled {
    params_max: Option<u64>,
    macs_max: Option<u64>,
    latency_ms_max: Option<f32>,
    /// Numbers of the licenses of the segment that are permitted; `None` without a condition.
    licenses: Option<Vec<u32>>,
    /// Numbers of the tags; `None` if the segment lacks one of them, so that nothing matches.
    tags: Option<Vec<u32>>,
}

impl<'a> Columns<'a> {
    /// Proves that all offsets and numbers stay inside their tables, and names the first that
    /// does not. The lengths of the columns were proven before.
    pub(crate) fn check(&self) -> std::result::Result<(), &'static str> {
        let string_count = self.string_offsets.len().saturating_sub(1);
        if !covers(self.string_offsets, self.strings.len()) {
            return Err("offsets of strings do not cover the strings");
        }
        if (0..string_count).any(|number| self.string(number as u32).is_none()) {
            return Err("a string is not UTF-8");
        }
        if !covers(self.tag_offsets, self.tags.len()) {
            return Err("offsets of tags do not cover the tags");
        }
        let known = |number: &u32| (*number as usize) < string_count;
        if !self.tags.iter().all(known) {
            return Err("a tag names no string");
        }
        let licenses = self.flags.iter().zip(self.license);
        if !licenses.into_iter().all(|(flags, id)| flags & HAS_LICENSE == 0 || known(id)) {
            return Err("a license names no string");
        }
        let orders = [self.params_order, self.macs_order, self.latency_order, self.postings];
        let count = self.flags.len();
        // A fold without an early way out becomes wide comparisons.
        let inside = |order: &[u32]| order.iter().fold(0, |most, &at| at.max(most)) as usize;
        if orders.iter().any(|order| !order.is_empty() && inside(order) >= count) {
            return Err("an order names a point that does not exist");
        }
        if self.posting_offsets.len() != string_count + 1
            || !covers(self.posting_offsets, self.postings.len())
        {
            return Err("offsets of postings do not cover the postings");
        }
        let all = HAS_PARAMS | HAS_MACS | HAS_LATENCY | HAS_LICENSE;
        if self.flags.iter().any(|flags| flags & !all != 0) {
            return Err("an unknown flag is set");
        }
        Ok(())
    }

    /// Numbers of the strings that are a point's license, ascending.
    pub(crate) fn distinct_licenses(&self) -> Vec<u32> {
        let of_points = self.flags.iter().zip(self.license);
        let mut distinct: Vec<u32> = Vec::new();
        for (_, &license) in of_points.filter(|(flags, _)| *flags & HAS_LICENSE != 0) {
            if let Err(place) = distinct.binary_search(&license) {
                distinct.insert(place, license);
            }
        }
        distinct
    }

    /// Looks the filter's strings up once; `known` gives the distinct licenses.
    pub(crate) fn compile<'s>(
        &self,
        filter: &Filter,
        known: impl FnOnce() -> &'s [u32],
    ) -> Compiled {
        let Filter { params_max, macs_max: _, latency_ms_max, licenses, tags, runnable: _ } =
            filter;
        let permitted =
            |number: &u32| self.string(*number).is_some_and(|license| filter.permits(license));
        Compiled {
            params_max: *params_max,
            macs_max: filter.macs_limit(),
            latency_ms_max: *latency_ms_max,
            licenses: (!licenses.is_empty())
                .then(|| known().iter().copied().filter(permitted).collect()),
            tags: tags.iter().map(|tag| self.number(tag)).collect(),
        }
    }

    /// Points among which all that match are: those that meet the narrowest condition. `None`
    /// without a condition.
    pub(crate) fn narrowest(&self, filter: &Compiled) -> Option<Vec<&'a [u32]>> {
        let limited = |order: &'a [u32], within: &dyn Fn(usize) -> bool| {
            vec![&order[..order.partition_point(|&at| within(at as usize))]]
        };
        let Compiled { params_max, macs_max, latency_ms_max, licenses, tags } = filter;
        let mut lists = Vec::new();
        if let Some(most) = params_max {
            lists.push(limited(self.params_order, &|at| self.params[at] <= *most));
        }
        if let Some(most) = macs_max {
            lists.push(limited(self.macs_order, &|at| self.macs[at] <= *most));
        }
        if let Some(most) = latency_ms_max {
            lists.push(limited(self.latency_order, &|at| self.latency[at] <= *most));
        }
        lists.extend(licenses.iter().map(|ids| ids.iter().map(|&id| self.points_of(id)).collect()));
        match tags {
            Some(tags) => lists.extend(tags.iter().map(|&tag| vec![self.points_of(tag)])),
            None => lists.push(Vec::new()),
        }
        lists.into_iter().min_by_key(|lists| lists.iter().map(|list| list.len()).sum::<usize>())
    }

    /// Points that have this string as license or tag.
    fn points_of(&self, string: u32) -> &'a [u32] {
        let at = string as usize;
        let range = self.posting_offsets[at] as usize..self.posting_offsets[at + 1] as usize;
        &self.postings[range]
    }

    /// Whether the point at `position` matches.
    #[inline]
    pub(crate) fn matches(&self, filter: &Compiled, position: usize) -> bool {
        let flags = self.flags[position];
        let known = |flag: u8| flags & flag != 0;
        // Every column lies elsewhere in memory: none is read that is not asked about.
        filter.params_max.is_none_or(|most| known(HAS_PARAMS) && self.params[position] <= most)
            && filter.macs_max.is_none_or(|most| known(HAS_MACS) && self.macs[position] <= most)
            && filter
                .latency_ms_max
                .is_none_or(|most| known(HAS_LATENCY) && self.latency[position] <= most)
            && filter.licenses.as_ref().is_none_or(|permitted| {
                known(HAS_LICENSE) && permitted.contains(&self.license[position])
            })
            && filter.tags.as_ref().is_some_and(|wanted| {
                wanted.is_empty() || wanted.iter().all(|tag| self.tags_of(position).contains(tag))
            })
    }

    /// The attributes of the point at `position`.
    pub(crate) fn attributes(&self, position: usize) -> Attributes {
        let known = |flag: u8| self.flags[position] & flag != 0;
        let string = |number: u32| self.string(number).unwrap_or_default().to_string();
        let mut tags: Vec<String> = self.tags_of(position).iter().map(|&tag| string(tag)).collect();
        tags.sort_unstable();
        Attributes {
            params: known(HAS_PARAMS).then(|| self.params[position]),
            macs: known(HAS_MACS).then(|| self.macs[position]),
            latency_ms: known(HAS_LATENCY).then(|| self.latency[position]),
            license: known(HAS_LICENSE).then(|| string(self.license[position])),
            tags,
        }
    }

    fn tags_of(&self, position: usize) -> &'a [u32] {
        let range = self.tag_offsets[position] as usize..self.tag_offsets[position + 1] as usize;
        &self.tags[range]
    }

    /// The number of a string. Strings ascend, so that this is a binary search; a damaged table
    /// may give a wrong number, which only `verify` can tell.
    fn number(&self, wanted: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.string_offsets.len().saturating_sub(1) as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.string(middle)?.cmp(wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    fn string(&self, number: u32) -> Option<&'a str> {
        let number = number as usize;
        let start = *self.string_offsets.get(number)? as usize;
        let end = *self.string_offsets.get(number + 1)? as usize;
        std::str::from_utf8(self.strings.get(start..end)?).ok()
    }
}

/// Whether `offsets` start at 0, never fall, and end at `len`.
fn covers(offsets: &[u32], len: usize) -> bool {
    offsets.first() == Some(&0)
        && offsets.last().is_some_and(|&last| last as usize == len)
        && offsets.is_sorted()
}
