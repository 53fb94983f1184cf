//! The two CRCs of disk formats: CRC-32 (GPT, LVM2) and CRC-32C (ext4).

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

static CRC32: [u32; 256] = table(0xEDB8_8320);
static CRC32C: [u32; 256] = table(0x82F6_3B78);

fn run(table: &[u32; 256], start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| crc >> 8 ^ table[usize::from(crc as u8 ^ byte)])
}

/// CRC-32 as in GPT and zip.
pub fn crc32(bytes: &[u8]) -> u32 {
    !run(&CRC32, u32::MAX, bytes)
}

/// CRC-32 from a given start value and without the final inversion, as LVM2 has it.
pub fn crc32_raw(start: u32, bytes: &[u8]) -> u32 {
    run(&CRC32, start, bytes)
}

/// CRC-32C from a given start value and without the final inversion, as ext4 has it.
pub fn crc32c_raw(start: u32, bytes: &[u8]) -> u32 {
    run(&CRC32C, start, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(!crc32c_raw(u32::MAX, b"123456789"), 0xE306_9283);
    }
}
