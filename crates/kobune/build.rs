//! How the program is linked.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A program that can stand at any address corrects close to a megabyte of its own data at each start, and no two
    // processes share what was corrected: most of what the monitor of a pod would have for itself.
    if var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default().split(',').any(|feature| feature == "crt-static") {
        println!("cargo::rustc-link-arg-bins=-static");
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    // Functions that are the same, mostly instances of generic ones, become one. Rust's own linker, the default for
    // this target, can do it.
    if var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
