//! Protocol buffers, encoded by hand: the field types that the metrics files need.

/// A message under construction.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    /// Adds an unsigned number; 0, the default, is left out.
    pub(crate) fn varint(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            self.key(field, 0);
            self.digits(value);
        }
        self
    }

    pub(crate) fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, 2);
        self.digits(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds text; empty text, the default, is left out.
    pub(crate) fn text(self, field: u64, value: &str) -> Self {
        if value.is_empty() { self } else { self.bytes(field, value.as_bytes()) }
    }

    pub(crate) fn message(self, field: u64, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// Adds packed doubles under one key.
    pub(crate) fn doubles(self, field: u64, values: &[f64]) -> Self {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(field, &packed)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the encoding guide: field 1 = 150, field 2 = "testing".
    #[test]
    fn fields_have_the_published_form() {
        assert_eq!(Message::default().varint(1, 150).0, [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "testing").0, [0x12, 7, b't', b'e', b's', b't', b'i', b'n', b'g']);
        assert!(Message::default().varint(1, 0).text(2, "").0.is_empty());
        assert_eq!(Message::default().varint(16, 1).0, [0x80, 0x01, 0x01]);
    }
}
