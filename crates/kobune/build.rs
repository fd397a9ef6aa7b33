//! How the program is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Functions that are the same, mostly instances of generic ones, become one. Rust's own linker, the default for
    // this target, can do it.
    let target = std::env::var("TARGET").unwrap_or_default();
    if target == "x86_64-unknown-linux-gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
