//! Keeps the linker from collecting sections: lld refuses to drop what the sanitizer's coverage tables still point to.

fn main() {
    println!("cargo::rustc-link-arg-bins=-Wl,--no-gc-sections");
    println!("cargo::rerun-if-changed=build.rs");
}
