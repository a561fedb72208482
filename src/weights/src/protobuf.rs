//! Protocol buffers, encoded and decoded by hand: the field types that ONNX files and the files of metrics need. Messages are in memory here;
//! the reader of ONNX files, which may be larger, reads them from their file instead (`onnx::wire`).

/// A message under construction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// Adds an unsigned number; 0, the default, is left out.
    pub fn varint(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            self.key(field, 0);
            self.digits(value);
        }
        self
    }

    /// Adds a number in double precision.
    pub fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a number in single precision.
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds bytes.
    pub fn bytes(self, field: u64, value: &[u8]) -> Self {
        let mut message = self.announce(field, value.len() as u64);
        message.0.extend_from_slice(value);
        message
    }

    /// Adds text; empty text, the default, is left out.
    pub fn text(self, field: u64, value: &str) -> Self {
        if value.is_empty() { self } else { self.bytes(field, value.as_bytes()) }
    }

    /// Adds a message.
    pub fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// Adds packed doubles under one key.
    pub fn doubles(self, field: u64, values: &[f64]) -> Self {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(field, &packed)
    }

    /// Adds a signed number, 0 too.
    pub fn integer(mut self, field: u64, value: i64) -> Self {
        self.key(field, 0);
        self.digits(value as u64);
        self
    }

    /// Adds the beginning of a field of `length` bytes, which are written after this message.
    pub fn announce(mut self, field: u64, length: u64) -> Self {
        self.key(field, 2);
        self.digits(length);
        self
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.digits(field << 3 | wire_type);
    }

    /// Appends a number in base 128, the lowest digit first.
    fn digits(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A field of a message that is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// An integer.
    Varint(u64),
    /// Eight bytes, such as a double.
    Fixed64([u8; 8]),
    /// Bytes, a text, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Four bytes, such as a float.
    Fixed32([u8; 4]),
}

impl Field<'_> {
    /// Returns the text of the field; bytes that are not UTF-8 are replaced.
    pub fn text(self) -> String {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    /// Returns the number of the field.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Varint(value) => Some(value as i64 as f64),
            Self::Fixed64(bytes) => Some(f64::from_le_bytes(bytes)),
            Self::Fixed32(bytes) => Some(f32::from_le_bytes(bytes).into()),
            Self::Bytes(_) => None,
        }
    }
}

/// Reads the fields of a message with their numbers. An item is `None` where the message is damaged; it is the last one then.
pub fn fields(bytes: &[u8]) -> impl Iterator<Item = Option<(u64, Field<'_>)>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let mut now = rest.filter(|rest| !rest.is_empty())?;
        let field = field(&mut now);
        rest = field.is_some().then_some(now);
        Some(field)
    })
}

/// Reads one field and moves `bytes` behind it.
fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let key = varint(bytes)?;
    let field = match key & 7 {
        0 => Field::Varint(varint(bytes)?),
        1 => Field::Fixed64(take(bytes, 8)?.try_into().ok()?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Field::Bytes(take(bytes, length)?)
        }
        5 => Field::Fixed32(take(bytes, 4)?.try_into().ok()?),
        _ => return None,
    };
    Some((key >> 3, field))
}

/// Reads a number in base 128.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let digit = *take(bytes, 1)?.first()?;
        value |= u64::from(digit & 0x7f) << (7 * at);
        if digit & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes the first `length` bytes.
fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let inner = Message::default().text(1, "tag").float(2, 0.5);
        let message = Message::default().double(1, 2.5).varint(2, u64::MAX).message(5, &inner);
        let read: Vec<_> = fields(&message.0).collect();
        assert_eq!(read[0], Some((1, Field::Fixed64(2.5f64.to_le_bytes()))));
        assert_eq!(read[1], Some((2, Field::Varint(u64::MAX))));
        assert_eq!(read[2], Some((5, Field::Bytes(&inner.0))));
        let read: Vec<_> = fields(&inner.0).flatten().map(|(number, field)| (number, field.number())).collect();
        assert_eq!(read, [(1, None), (2, Some(0.5))]);
    }

    #[test]
    fn damaged_messages_end_in_none() {
        for bytes in [
            &[0x0a, 5, 1][..],
            &[0x80; 11],
            &[0x08],
            &[0x0b, 1],
            &[0x09, 0, 0],
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        ] {
            assert_eq!(fields(bytes).last(), Some(None), "{bytes:02x?}");
        }
        assert_eq!(fields(&[]).count(), 0);
    }

    /// The examples of the encoding guide: field 1 = 150, field 2 = "testing".
    #[test]
    fn fields_have_the_published_form() {
        assert_eq!(Message::default().varint(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").0, [0x12, 7, b't', b'e', b's', b't', b'i', b'n', b'g']);
        assert!(Message::default().varint(1, 0).text(2, "").0.is_empty());
        assert_eq!(Message::default().varint(16, 1).0, [0x80, 0x01, 0x01]);
        assert_eq!(Message::default().integer(3, 0).0, [0x18, 0]);
        assert_eq!(Message::default().integer(1, -1).0, [&[0x08][..], &[0xff; 9], &[0x01]].concat());
        assert_eq!(Message::default().announce(9, 300).0, [0x4a, 0xac, 0x02]);
    }
}
