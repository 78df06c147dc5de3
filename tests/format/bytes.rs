//! Numbers, strings and lists as docs/FORMAT.md lays them out.

/// What was read, or a sentence that says what is wrong and where.
pub type Found<T> = Result<T, String>;
pub type Id = [u8; 32];

/// Fails with a sentence unless `holds`.
pub fn ensure(holds: bool, fault: impl FnOnce() -> String) -> Found<()> {
    if holds { Ok(()) } else { Err(fault()) }
}

/// Takes bytes from the front.
pub struct Reader<'a> {
    what: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(what: &'a str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    fn fault(&self, text: &str) -> String {
        format!("{}, byte {}: {text}", self.what, self.at)
    }

    pub fn take(&mut self, count: usize) -> Found<&'a [u8]> {
        let left = &self.bytes[self.at..];
        let taken = left.get(..count).ok_or_else(|| {
            self.fault(&format!("expected {count} more bytes, found {}", left.len()))
        })?;
        self.at += count;
        Ok(taken)
    }

    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    pub fn end(self) -> Found<()> {
        let left = self.bytes.len() - self.at;
        ensure(left == 0, || self.fault(&format!("{left} bytes are left over")))
    }

    pub fn array<const N: usize>(&mut self) -> Found<[u8; N]> {
        self.take(N).map(|bytes| bytes.try_into().expect("as many as were taken"))
    }

    pub fn literal(&mut self, expected: &[u8]) -> Found<()> {
        let found = self.take(expected.len())?;
        ensure(found == expected, || {
            self.fault(&format!("expected {expected:?} before here, found {found:?}"))
        })
    }

    pub fn zeros(&mut self, count: usize) -> Found<()> {
        let all_zero = self.take(count)?.iter().all(|byte| *byte == 0);
        ensure(all_zero, || self.fault(&format!("expected {count} zeros before here")))
    }

    pub fn byte(&mut self) -> Found<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn le_u32(&mut self) -> Found<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn le_u64(&mut self) -> Found<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn be_u32(&mut self) -> Found<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn be_u64(&mut self) -> Found<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn float(&mut self) -> Found<f32> {
        self.array().map(f32::from_le_bytes)
    }

    /// An integer of variable length, which must be the shortest one.
    pub fn number(&mut self) -> Found<u64> {
        let (value, least) = match self.byte()? {
            byte @ 0..=250 => (byte.into(), 0),
            251 => (self.array().map(u16::from_le_bytes)?.into(), 251),
            252 => (self.le_u32()?.into(), 1 << 16),
            253 => (self.le_u64()?, 1 << 32),
            byte => return Err(self.fault(&format!("no integer begins with {byte}"))),
        };
        ensure(value >= least, || self.fault(&format!("{value} is written too long")))?;
        Ok(value)
    }

    pub fn number32(&mut self) -> Found<u32> {
        let number = self.number()?;
        number.try_into().map_err(|_| self.fault(&format!("{number} is no u32")))
    }

    pub fn flag(&mut self) -> Found<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            byte => Err(self.fault(&format!("expected 0 or 1, found {byte}"))),
        }
    }

    pub fn blob(&mut self) -> Found<&'a [u8]> {
        let length = self.number()?;
        self.take(length as usize)
    }

    pub fn text(&mut self) -> Found<String> {
        let bytes = self.blob()?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.fault("no UTF-8 before here"))
    }

    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Found<T>) -> Found<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Found<T>) -> Found<Vec<T>> {
        let count = self.number()?;
        (0..count).map(|_| read(self)).collect()
    }
}

/// Reads a whole text of lines, each with its end.
pub fn lines<'a>(what: &str, bytes: &'a [u8]) -> Found<Vec<&'a str>> {
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{what}: no UTF-8"))?;
    let text =
        text.strip_suffix('\n').ok_or_else(|| format!("{what}: the last line has no end"))?;
    Ok(text.split('\n').collect())
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect()
}

/// blake3 of parts in order.
pub fn hash(parts: &[&[u8]]) -> Id {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
