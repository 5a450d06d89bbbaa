#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| virtagent_fuzz::policy::text(data));
