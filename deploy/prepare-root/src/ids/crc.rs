//! The three checksums of this module: one reflected CRC-32, three sets of parameters.

/// The polynomial of Ethernet, GPT and LVM.
const IEEE: u32 = 0xedb8_8320;
/// Castagnoli's polynomial, used by ext4.
const CASTAGNOLI: u32 = 0x82f6_3b78;

fn update(polynomial: u32, mut crc: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (polynomial & (crc & 1).wrapping_neg());
        }
    }
    crc
}

/// As in a GPT.
pub fn gpt(bytes: &[u8]) -> u32 {
    !update(IEEE, !0, bytes)
}

/// As in LVM's labels and metadata: another start value, no final inversion.
pub fn lvm(bytes: &[u8]) -> u32 {
    update(IEEE, 0xf597_a6cf, bytes)
}

/// As in ext4's superblock: no final inversion.
pub fn ext4(bytes: &[u8]) -> u32 {
    update(CASTAGNOLI, !0, bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_values_of_the_catalogue() {
        assert_eq!(super::gpt(b"123456789"), 0xcbf4_3926);
        assert_eq!(!super::ext4(b"123456789"), 0xe306_9283);
    }
}
