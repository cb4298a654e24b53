#![no_main]

use comlog_record::Compression;
use comlog_fuzz::check_codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| check_codec(Compression::Gzip, data));
