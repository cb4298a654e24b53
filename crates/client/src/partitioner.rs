//! Which partition a record goes to, as Kafka's default partitioner decides.

/// The partition of a record with a key: `(murmur2(key) & 0x7fffffff) % partitions`, so a key
/// lands where a Kafka client would put it.
///
/// # Panics
/// If `partitions` is 0.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2, 32 bits, with the seed that Kafka uses.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(M) ^ mixed.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of `UtilsTest.testMurmur2` in Apache Kafka.
    #[test]
    fn hashes_are_those_of_kafka() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
        ];
        for (data, hash) in vectors {
            assert_eq!(
                murmur2(data) as i32,
                hash,
                "{}",
                String::from_utf8_lossy(data)
            );
        }
    }

    #[test]
    fn a_key_always_lands_inside() {
        for partitions in 1..20 {
            for key in 0u16..500 {
                assert!(partition_for_key(&key.to_le_bytes(), partitions) < partitions);
            }
        }
        assert_eq!(
            partition_for_key(b"21", 1000),
            (-973_932_308i32 as u32 & 0x7fff_ffff) % 1000
        );
    }
}
