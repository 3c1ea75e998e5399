//! Slots: by what clients of Redis Cluster choose the node that they ask.
//!
//! They are not where keys are: here any node answers for any key, so slots are shared out evenly and only spread requests.

/// How many there are.
pub const SLOTS: u16 = 16_384;

/// The slot of a key ("Key distribution model" of the Redis Cluster specification): CRC-16 of the key, or of what is between its
/// first `{` and the next `}`, if there is anything.
pub fn of_key(key: &[u8]) -> u16 {
    crc16(tag(key).unwrap_or(key)) % SLOTS
}

fn tag(key: &[u8]) -> Option<&[u8]> {
    let inside = &key[key.iter().position(|&byte| byte == b'{')? + 1..];
    let end = inside.iter().position(|&byte| byte == b'}')?;
    Some(&inside[..end]).filter(|tag| !tag.is_empty())
}

/// CRC-16/XMODEM: the polynomial 0x1021, from zero.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// All slots in so many shares, as even as can be: the first and the last of each. At most [`SLOTS`] shares have any.
pub fn shares(count: usize) -> impl Iterator<Item = (u16, u16)> {
    let count = count.min(usize::from(SLOTS));
    let start = move |share: usize| (usize::from(SLOTS) * share / count) as u16;
    (0..count).map(move |share| (start(share), start(share + 1) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_slots_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("", 0), ("foo", 12182), ("hello", 866), ("somekey", 11058)] {
            assert_eq!(of_key(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn what_is_in_braces_decides() {
        for (key, same) in [
            ("{user1000}.following", "user1000"),
            ("foo{bar}{zap}", "bar"),
            ("foo{{bar}}zap", "{bar"),
            ("a{b}c{d}", "b"),
        ] {
            assert_eq!(of_key(key.as_bytes()), crc16(same.as_bytes()) % SLOTS, "{key}");
        }
        for whole in ["foo{}{bar}", "foo{bar", "foo}bar{"] {
            assert_eq!(of_key(whole.as_bytes()), crc16(whole.as_bytes()) % SLOTS, "{whole}");
        }
    }

    #[test]
    fn shares_are_even_and_leave_no_slot_out() {
        assert_eq!(shares(0).count(), 0);
        assert_eq!(shares(3).collect::<Vec<_>>(), [(0, 5460), (5461, 10921), (10922, 16383)]);
        for count in [1, 2, 7, 1000, 16_384, 100_000] {
            let shares: Vec<(u16, u16)> = shares(count).collect();
            assert_eq!(shares.len(), count.min(16_384));
            assert!(shares.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{count}");
            assert_eq!((shares[0].0, shares[shares.len() - 1].1), (0, SLOTS - 1));
            let sizes = shares.iter().map(|(first, last)| last - first);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
    }
}
