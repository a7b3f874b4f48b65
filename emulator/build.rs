//! Gives the stand-in the name that programs ask the loader for.

fn main() {
    // The first name that cudarc tries. A library that is already loaded under this SONAME is what the loader then
    // returns, so a process that has opened the stand-in by its path gets it, and no other process is affected.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    println!("cargo::rerun-if-changed=build.rs");
}
