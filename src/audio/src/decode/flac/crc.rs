//! FLAC's two checksums: CRC-8 (polynomial 0x07) of frame headers, CRC-16 (0x8005) of frames, neither reflected.

pub(super) fn crc8(bytes: &[u8]) -> u8 {
    static TABLE: [u8; 256] = crc8_table();
    bytes.iter().fold(0, |crc, byte| TABLE[usize::from(crc ^ byte)])
}

const fn crc8_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ (if crc & 0x80 != 0 { 0x07 } else { 0 });
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// Eight bytes a step, one table for each distance to the end of the step.
pub(super) fn crc16(bytes: &[u8]) -> u16 {
    static TABLES: [[u16; 256]; 8] = crc16_tables();
    let (steps, rest) = bytes.as_chunks::<8>();
    let mut crc = 0u16;
    for [b0, b1, b2, b3, b4, b5, b6, b7] in steps {
        let [c0, c1] = crc.to_be_bytes();
        crc = TABLES[7][usize::from(b0 ^ c0)]
            ^ TABLES[6][usize::from(b1 ^ c1)]
            ^ TABLES[5][usize::from(*b2)]
            ^ TABLES[4][usize::from(*b3)]
            ^ TABLES[3][usize::from(*b4)]
            ^ TABLES[2][usize::from(*b5)]
            ^ TABLES[1][usize::from(*b6)]
            ^ TABLES[0][usize::from(*b7)];
    }
    rest.iter().fold(crc, |crc, byte| (crc << 8) ^ TABLES[0][usize::from((crc >> 8) as u8 ^ byte)])
}

const fn crc16_tables() -> [[u16; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ (if crc & 0x8000 != 0 { 0x8005 } else { 0 });
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut distance = 1;
    while distance < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[distance - 1][byte];
            tables[distance][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        distance += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        // CRC-8/SMBUS and CRC-16/UMTS of the nine digits.
        assert_eq!(crc8(b"123456789"), 0xf4);
        assert_eq!(crc16(b"123456789"), 0xfee8);
    }
}
