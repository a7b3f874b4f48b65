//! One small PTX for each variant of each instruction.
//!
//! A case is a line of PTX, the kinds of its operands, and a function that says what must come out, written with plain
//! integers, 128-bit integers and exact rationals, sharing nothing with the crate. The lines of a table are put into
//! one module, which `ptxas` must accept; then every case runs on a thousand operands: all pairs of the edges of its
//! types first, then random ones.

#[path = "../support/mod.rs"]
mod support;

mod case;
mod control;
mod convert;
mod exact;
mod float;
mod half;
mod integer;
mod integer_logic;
mod memory;
mod run;
mod tensor;
mod warp;

use run::table;

#[test]
fn integer_arithmetic() {
    table(80, integer::arithmetic());
}

#[test]
fn integer_carries() {
    table(80, integer::carries());
}

#[test]
fn integer_dot_products() {
    table(80, integer::dot_products());
}

#[test]
fn integer_packed() {
    table(90, integer::packed());
}

#[test]
fn logic() {
    table(80, integer_logic::logic());
}

#[test]
fn shifts() {
    table(80, integer_logic::shifts());
}

#[test]
fn fields() {
    table(80, integer_logic::fields());
}

#[test]
fn comparisons() {
    table(80, integer_logic::comparisons());
}

#[test]
fn selections() {
    table(80, integer_logic::selections());
}

#[test]
fn float_arithmetic() {
    table(80, float::arithmetic());
}

#[test]
fn float_signs() {
    table(80, float::signs());
}

#[test]
fn float_signs_of_sm_86() {
    table(86, float::signs_of_sm_86());
}

#[test]
fn float_comparisons() {
    table(80, float::comparisons());
}

#[test]
fn float_approximations() {
    table(80, float::approximations());
}

#[test]
fn conversions_of_integers() {
    table(80, convert::integers());
}

#[test]
fn conversions_to_integers() {
    table(80, convert::floats_to_integers());
}

#[test]
fn conversions_of_integers_to_floats() {
    table(80, convert::integers_to_floats());
}

#[test]
fn conversions_of_floats() {
    table(80, convert::floats());
}

#[test]
fn conversions_to_narrow_floats() {
    table(80, convert::narrow_floats());
}

#[test]
fn conversions_of_bfloat() {
    table(90, convert::bfloat_of_sm_90());
}

#[test]
fn half_arithmetic() {
    table(80, half::arithmetic());
}

#[test]
fn half_approximations() {
    table(80, half::approximations());
}

#[test]
fn half_comparisons() {
    table(80, half::comparisons());
}

#[test]
fn bfloat_of_sm_90() {
    table(90, half::bfloat_of_sm_90());
}

#[test]
fn spaces() {
    table(80, memory::spaces());
}

#[test]
fn constants() {
    table(80, memory::constants());
}

#[test]
fn qualifiers_of_loads_and_stores() {
    table(80, memory::qualifiers());
}

#[test]
fn atomics() {
    table(80, memory::atomics());
}

#[test]
fn asynchronous_copies() {
    table(80, memory::asynchronous_copies());
}

#[test]
fn shuffles() {
    table(80, warp::shuffles());
}

#[test]
fn votes() {
    table(80, warp::votes());
}

#[test]
fn barriers() {
    table(80, warp::barriers());
}

#[test]
fn matrices() {
    table(80, tensor::matrices());
}

#[test]
fn matrix_stores() {
    table(90, tensor::matrix_stores());
}

#[test]
fn products() {
    table(80, tensor::products());
}

#[test]
fn branches() {
    table(80, control::branches());
}

#[test]
fn special_registers() {
    table(80, control::special_registers());
}
