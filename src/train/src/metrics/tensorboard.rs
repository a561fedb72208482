//! TensorBoard event files, encoded by hand: TFRecord framing around `tensorflow.Event` protocol buffers.
//!
//! A record is its length (u64, little endian), the masked CRC-32C of those eight bytes, the event, and the event's masked
//! CRC-32C. The wall time of an event is its step in seconds since 1970, so that two runs write the same bytes; TensorBoard's
//! step axis is right, its relative axis counts steps.

/// The first record of every file.
pub fn version_record() -> Vec<u8> {
    let mut event = Vec::new();
    double_field(&mut event, 1, 0.0);
    bytes_field(&mut event, 3, b"brain.Event:2");
    record(&event)
}

/// A record of scalars at one step.
pub fn scalars_record(step: u64, scalars: &[(String, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in scalars {
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, tag.as_bytes());
        float_field(&mut entry, 2, *value);
        bytes_field(&mut summary, 1, &entry);
    }
    let mut event = Vec::new();
    double_field(&mut event, 1, step as f64);
    varint_field(&mut event, 2, step);
    bytes_field(&mut event, 5, &summary);
    record(&event)
}

fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(event.len() + 16);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
    bytes.extend_from_slice(event);
    bytes.extend_from_slice(&masked_crc32c(event).to_le_bytes());
    bytes
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), rotated and offset as TFRecord wants it.
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & 0u32.wrapping_sub(crc & 1)))
    });
    (!crc).rotate_right(15).wrapping_add(0xA282_EAD8)
}

fn key(bytes: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(bytes, field << 3 | wire_type);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn varint_field(bytes: &mut Vec<u8>, field: u64, value: u64) {
    key(bytes, field, 0);
    varint(bytes, value);
}

fn double_field(bytes: &mut Vec<u8>, field: u64, value: f64) {
    key(bytes, field, 1);
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn bytes_field(bytes: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(bytes, field, 2);
    varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

fn float_field(bytes: &mut Vec<u8>, field: u64, value: f32) {
    key(bytes, field, 5);
    bytes.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C of "123456789" is 0xE3069283 (the check value in the catalogue of CRCs), before the mask.
    #[test]
    fn crc32c_has_the_published_check_value() {
        assert_eq!(masked_crc32c(b"123456789"), 0xE306_9283u32.rotate_right(15).wrapping_add(0xA282_EAD8));
    }

    #[test]
    fn varints_are_base_128() {
        let mut bytes = Vec::new();
        varint(&mut bytes, 300);
        assert_eq!(bytes, [0xAC, 0x02]);
    }
}
