//! One small PTX for each variant of each instruction.
//!
//! A case is a line of PTX, the kinds of its operands, and a function that says what must come out, written with plain
//! integers, 128-bit integers and exact rationals, sharing nothing with the crate. The lines of a table are put into
//! one module, which `ptxas` must accept; then every case runs on a thousand operands: all pairs of the edges of its
//! types first, then random ones.

#[path = "../support/mod.rs"]
mod support;

mod arrivals;
mod atomics;
mod bytes;
mod case;
mod control;
mod convert;
mod coverage;
mod exact;
mod float;
mod half;
mod integer;
mod integer_logic;
mod memory;
mod newer;
mod products;
mod run;
mod tensor;
mod text;
mod video;
mod warp;
mod wmma;

/// A test for each table: its name, the architecture that has its instructions, and the cases.
macro_rules! tables {
    ($($name:ident: $architecture:literal, $module:ident::$table:ident;)*) => {
        $(
            #[test]
            fn $name() {
                run::table($architecture, $module::$table());
            }
        )*

        /// The cases of all tables.
        fn all_cases() -> Vec<case::Case> {
            let mut all = Vec::new();
            $(all.extend($module::$table());)*
            all
        }
    };
}

tables! {
    integer_arithmetic: 80, integer::arithmetic;
    integer_carries: 80, integer::carries;
    integer_dot_products: 80, integer::dot_products;
    integer_packed: 90, integer::packed;
    logic: 80, integer_logic::logic;
    shifts: 80, integer_logic::shifts;
    fields: 80, integer_logic::fields;
    comparisons: 80, integer_logic::comparisons;
    selections: 80, integer_logic::selections;
    float_arithmetic: 80, float::arithmetic;
    float_signs: 80, float::signs;
    float_signs_of_sm_86: 86, float::signs_of_sm_86;
    float_comparisons: 80, float::comparisons;
    float_approximations: 80, float::approximations;
    conversions_of_integers: 80, convert::integers;
    conversions_to_integers: 80, convert::floats_to_integers;
    conversions_of_integers_to_floats: 80, convert::integers_to_floats;
    conversions_of_floats: 80, convert::floats;
    conversions_to_narrow_floats: 80, convert::narrow_floats;
    conversions_of_bfloat: 90, convert::bfloat_of_sm_90;
    half_arithmetic: 80, half::arithmetic;
    half_approximations: 80, half::approximations;
    half_comparisons: 80, half::comparisons;
    bfloat_of_sm_90: 90, half::bfloat_of_sm_90;
    spaces: 80, memory::spaces;
    constants: 80, memory::constants;
    qualifiers_of_loads_and_stores: 80, memory::qualifiers;
    atomics: 80, atomics::atomics;
    asynchronous_copies: 80, memory::asynchronous_copies;
    shuffles: 80, warp::shuffles;
    votes: 80, warp::votes;
    barriers: 80, warp::barriers;
    matrices: 80, tensor::matrices;
    matrix_stores: 90, tensor::matrix_stores;
    products: 80, tensor::products;
    branches: 80, control::branches;
    special_registers: 80, control::special_registers;
    wmma_products: 80, wmma::products;
    integer_products: 80, products::integers;
    byte_products: 89, products::bytes_that_are_floats;
    double_products: 80, products::doubles;
    video: 80, video::simd;
    arrivals: 80, arrivals::barriers;
    arrivals_of_sm_90: 90, arrivals::barriers_of_sm_90;
    elections: 90, newer::elections;
    launches_that_wait: 90, newer::launches;
    atomics_of_sm_90: 90, newer::atomics;
    qualifiers_of_sm_90: 90, memory::qualifiers_of_sm_90;
    vectors_of_sm_100: 100, memory::vectors_of_sm_100;
    conversions_of_bytes: 89, bytes::conversions;
    advice_to_caches: 80, memory::advice;
    ends: 80, control::ends;
}
