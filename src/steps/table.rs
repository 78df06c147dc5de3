//! CSV files with named columns.

use crate::{Error, Result};
use csv::StringRecord;
use std::path::Path;

/// A file whose first line names its columns.
pub struct Table {
    path: String,
    header: StringRecord,
    rows: Vec<(u64, StringRecord)>,
}

impl Table {
    /// Reads a file; blank lines do not count.
    ///
    /// # Errors
    /// For a file that cannot be read, one whose fields no commas separate, or a line with more or fewer fields than the
    /// first.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::file("cannot read", path, error))?;
        let path = path.display().to_string();
        let text = text.trim_start_matches('\u{feff}');
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut records = reader
            .records()
            .map(|record| record.map_err(|error| Error::input(format!("{path}: {error}"))));
        let header = records.next().transpose()?.unwrap_or_default();
        if header.len() == 1 && header[0].contains([';', '\t']) {
            let found = &header[0];
            return Err(Error::input(format!(
                "{path}:1: expected commas between the fields (and a point in decimal fractions), found {found:?}"
            )));
        }
        let mut rows = Vec::new();
        for record in records {
            let record = record?;
            if record.len() == 1 && record[0].is_empty() {
                continue;
            }
            let line = line(text, &record);
            if record.len() != header.len() {
                return Err(Error::input(format!(
                    "{path}:{line}: expected {} fields, found {}",
                    header.len(),
                    record.len()
                )));
            }
            rows.push((line, record));
        }
        Ok(Self { path, header, rows })
    }

    /// Position of the column of one of these names; `None` where there is none.
    ///
    /// # Errors
    /// If there are several.
    pub fn column(&self, names: &[&str]) -> Result<Option<usize>> {
        let mut places = (0..self.header.len()).filter(|&at| names.contains(&&self.header[at]));
        match (places.next(), places.next()) {
            (place, None) => Ok(place),
            (_, Some(_)) => Err(Error::input(format!(
                "{}: expected one column {}, found several in {:?}",
                self.path,
                names.join(" or "),
                self.shown()
            ))),
        }
    }

    /// Positions of columns that must be there, each under its first or another name.
    ///
    /// # Errors
    /// If one is missing or there twice.
    pub fn columns<const COUNT: usize>(&self, wanted: [&[&str]; COUNT]) -> Result<[usize; COUNT]> {
        let mut found = [0; COUNT];
        for (place, names) in found.iter_mut().zip(wanted) {
            *place = self.column(names)?.ok_or_else(|| {
                let wanted: Vec<&str> = wanted.iter().map(|names| names[0]).collect();
                Error::input(format!(
                    "{}: expected a first line with the columns {}, found {:?}",
                    self.path,
                    wanted.join(", "),
                    self.shown()
                ))
            })?;
        }
        Ok(found)
    }

    /// Names of the columns that are none of these.
    pub fn others(&self, known: &[&str]) -> Vec<String> {
        let those = self.header.iter().filter(|name| !known.contains(name));
        those.map(str::to_owned).collect()
    }

    /// What `read` makes of each line; its errors get the place in the file.
    ///
    /// # Errors
    /// Those of `read`; if there is no line but the first.
    pub fn map<T>(&self, read: impl Fn(&StringRecord) -> Result<T>) -> Result<Vec<T>> {
        if self.rows.is_empty() {
            let path = &self.path;
            return Err(Error::input(format!("{path}: expected lines, found the header alone")));
        }
        let place = |line: &u64, error| Error::input(format!("{}:{line}: {error}", self.path));
        let rows = self.rows.iter();
        rows.map(|(line, record)| read(record).map_err(|error| place(line, error))).collect()
    }

    /// The place in the file of one of the lines that `map` reads.
    pub fn place(&self, index: usize) -> String {
        let line = self.rows.get(index).map_or(0, |(line, _)| *line);
        format!("{}:{line}", self.path)
    }

    fn shown(&self) -> String {
        self.header.iter().collect::<Vec<_>>().join(",")
    }
}

/// A finite number; `what` is its name in the error.
pub fn number(text: &str, what: &str) -> Result<f32> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite());
    number.ok_or_else(|| Error::input(format!("{what}: expected a number, found {text:?}")))
}

/// The line on which a record begins; its position counts from the end of the record before, blank lines included.
fn line(text: &str, record: &StringRecord) -> u64 {
    let Some(position) = record.position() else { return 0 };
    let from = usize::try_from(position.byte()).ok().and_then(|byte| text.as_bytes().get(byte..));
    let blank = from.unwrap_or_default().iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + blank.filter(|&&byte| byte == b'\n').count() as u64
}
