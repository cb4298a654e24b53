//! Zig-zag variable-length integers, as in Protocol Buffers' sint32 and sint64.

use crate::DecodeError;

const TRUNCATED: DecodeError = DecodeError::Invalid("record ends inside a number");

/// Appends `value` in 1 to 10 bytes.
pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// How many bytes [`put`] takes for `value`.
pub(crate) fn len(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    let bits = 64 - (zigzag | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes one number from the front of `input`.
pub(crate) fn take(input: &mut &[u8]) -> Result<i64, DecodeError> {
    // Most numbers of a record are deltas and lengths below 64.
    if let Some((&byte, rest)) = input.split_first()
        && byte < 0x80
    {
        *input = rest;
        return Ok(unzigzag(u64::from(byte)));
    }
    take_long(input)
}

fn take_long(input: &mut &[u8]) -> Result<i64, DecodeError> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().enumerate().take(10) {
        if index == 9 && byte > 1 {
            return Err(DecodeError::Invalid("number longer than 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Ok(unzigzag(value));
        }
    }
    if input.len() >= 10 {
        return Err(DecodeError::Invalid("number longer than 64 bits"));
    }
    Err(TRUNCATED)
}

/// Takes one number that must fit 32 bits.
pub(crate) fn take_i32(input: &mut &[u8]) -> Result<i32, DecodeError> {
    i32::try_from(take(input)?).map_err(|_| DecodeError::Invalid("number longer than 32 bits"))
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for shift in 0..64 {
            for value in [
                1i64 << shift,
                (1i64 << shift).wrapping_sub(1),
                -(1i64 << (shift % 63)),
            ] {
                let mut out = Vec::new();
                put(&mut out, value);
                assert_eq!(out.len(), len(value));
                let mut input = out.as_slice();
                assert_eq!(take(&mut input), Ok(value));
                assert!(input.is_empty());
            }
        }
    }

    #[test]
    fn endless_and_cut_numbers_are_errors() {
        assert!(take(&mut [0xff; 11].as_slice()).is_err());
        assert!(take(&mut [0x80].as_slice()).is_err());
        assert!(take(&mut [].as_slice()).is_err());
    }
}
