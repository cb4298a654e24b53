//! Zig-zag variable-length integers, as in Protocol Buffers' sint32 and sint64.

use crate::record::Malformed;

const TRUNCATED: Malformed = Malformed("record ends inside a number");
const TOO_LONG: Malformed = Malformed("number longer than 64 bits");

/// Writes `value` to the front of `out` and returns the bytes behind it.
///
/// # Panics
/// If `out` is shorter than [`len`] says.
#[inline]
pub(crate) fn write(out: &mut [u8], value: i64) -> &mut [u8] {
    let rest = zigzag(value);
    // Most numbers of a record are deltas and lengths below 64.
    if rest < 0x80 {
        out[0] = rest as u8;
        return &mut out[1..];
    }
    write_long(out, rest)
}

fn write_long(out: &mut [u8], mut rest: u64) -> &mut [u8] {
    let mut at = 0;
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    &mut out[at + 1..]
}

/// How many bytes [`write`] takes for `value`.
#[inline]
pub(crate) fn len(value: i64) -> usize {
    let zigzag = zigzag(value);
    if zigzag < 0x80 {
        return 1;
    }
    let bits = 64 - zigzag.leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes one number from the front of `input`.
#[inline]
pub(crate) fn take(input: &mut &[u8]) -> Result<i64, Malformed> {
    if let Some((&byte, rest)) = input.split_first()
        && byte < 0x80
    {
        *input = rest;
        return Ok(unzigzag(u64::from(byte)));
    }
    take_long(input)
}

fn take_long(input: &mut &[u8]) -> Result<i64, Malformed> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().enumerate().take(10) {
        if index == 9 && byte > 1 {
            return Err(TOO_LONG);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Ok(unzigzag(value));
        }
    }
    if input.len() >= 10 {
        return Err(TOO_LONG);
    }
    Err(TRUNCATED)
}

/// Takes one number that must fit 32 bits.
#[inline]
pub(crate) fn take_i32(input: &mut &[u8]) -> Result<i32, Malformed> {
    i32::try_from(take(input)?).map_err(|_| Malformed("number longer than 32 bits"))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
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
                let mut out = [0; 10];
                let unwritten = write(&mut out, value).len();
                assert_eq!(out.len() - unwritten, len(value));
                let mut input = &out[..len(value)];
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
